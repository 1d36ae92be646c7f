"""Adversarial losses of the speech tokenizer, pure functions of what the discriminators return (Kong et al., 2020)."""

import torch

Features = list[list[torch.Tensor]]


def discriminator_loss(recorded: Features, made: Features) -> torch.Tensor:
    """
    Least-squares loss of the discriminators: scores shall be 1 for recordings and 0 for reconstructions.

    Args:
        recorded (`list[list[torch.Tensor]]`): What [`Discriminators`] return for recordings.
        made (`list[list[torch.Tensor]]`): What they return for reconstructions, detached from the generator.

    Returns:
        `torch.Tensor` of shape `()`, float32, the mean over the discriminators.
    """
    losses = [
        (real[-1].float() - 1).square().mean() + fake[-1].float().square().mean()
        for real, fake in zip(recorded, made, strict=True)
    ]
    return torch.stack(losses).mean()


def adversarial_loss(made: Features) -> torch.Tensor:
    """
    Least-squares loss of the generator: scores of its reconstructions shall be 1.

    Args:
        made (`list[list[torch.Tensor]]`): What [`Discriminators`] return for reconstructions.

    Returns:
        `torch.Tensor` of shape `()`, float32, the mean over the discriminators.
    """
    return torch.stack([(fake[-1].float() - 1).square().mean() for fake in made]).mean()


def feature_matching_loss(recorded: Features, made: Features) -> torch.Tensor:
    """
    L1 distance of the discriminators' features of a recording and of its reconstruction.

    Args:
        recorded (`list[list[torch.Tensor]]`): What [`Discriminators`] return for recordings, without gradients.
        made (`list[list[torch.Tensor]]`): What they return for reconstructions.

    Returns:
        `torch.Tensor` of shape `()`, float32, the mean over discriminators and layers.
    """
    losses = [
        (a.float() - b.float()).abs().mean()
        for real, fake in zip(recorded, made, strict=True)
        for a, b in zip(real[:-1], fake[:-1], strict=True)
    ]
    return torch.stack(losses).mean()
