"""Losses of DiTAR (sections 3.5.3 and 3.5.4), pure functions in fp32."""

import torch
from torch.nn import functional as F

IGNORE_INDEX = -100


def diffusion_loss(prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """
    Conditional flow-matching loss, `E ‖v_θ(x_t, t) − v(x_t, t)‖²` (Eq. 7), as a mean.

    Args:
        prediction (`torch.Tensor` of shape `(num_patches, patch_size, latent_dim)`): What LocDiT gave.
        target (`torch.Tensor` of shape `(num_patches, patch_size, latent_dim)`): What it should be.
        mask (`torch.Tensor` of shape `(num_patches, patch_size)`): 1 for real frames.

    Returns:
        `torch.Tensor` of shape `()`: mean over real frames and channels.
    """
    error = (prediction.float() - target.float()).square().mean(-1)
    return (error * mask).sum() / mask.sum().clamp_min(1)


def stop_loss(logits: torch.Tensor, labels: torch.Tensor, positive_weight: float) -> torch.Tensor:
    """
    Binary cross-entropy of "no patch follows".

    Args:
        logits (`torch.Tensor` of shape `(batch_size, sequence_length)`): One a state.
        labels (`torch.Tensor` of shape `(batch_size, sequence_length)`):
            1 on the last patch, 0 before, −100 elsewhere.
        positive_weight (`float`): Weight of the ones, which are rare: one in an utterance.

    Returns:
        `torch.Tensor` of shape `()`: mean over labelled states; 0 if there are none.
    """
    labelled = labels != IGNORE_INDEX
    weight = logits.new_tensor(positive_weight, dtype=torch.float32)
    losses = F.binary_cross_entropy_with_logits(
        logits.float(), labels.clamp_min(0).float(), pos_weight=weight, reduction="none"
    )
    return (losses * labelled).sum() / labelled.sum().clamp_min(1)


def sample_timesteps(
    shape: tuple[int, ...],
    distribution: str,
    logit_mean: float,
    logit_std: float,
    device: torch.device,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """
    Diffusion times for training, one for each patch and draw.

    Args:
        shape (`tuple[int]`): How many.
        distribution (`str`):
            `"uniform"` over [0, 1), the paper's, or `"logit_normal"`: the sigmoid of a normal variable.
        logit_mean, logit_std (`float`): Of that variable.
        device (`torch.device`): Where they go.
        generator (`torch.Generator`, *optional*): On the device that it draws on; torch's own by default.

    Returns:
        `torch.Tensor` of that shape, fp32.
    """
    source = device if generator is None else generator.device
    if distribution == "uniform":
        return torch.rand(shape, device=source, generator=generator).to(device)
    normal = torch.randn(shape, device=source, generator=generator)
    return (logit_mean + logit_std * normal).sigmoid().to(device)
