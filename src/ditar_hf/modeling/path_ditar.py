"""The path of DiTAR's diffusion from data to noise, and what a model's output says about both (appendix A.3)."""

import math

import torch

HALF_PI = math.pi / 2


def cosine_path(time: float | torch.Tensor) -> tuple:
    """Weights alpha = cos(πt/2) of data and sigma = sin(πt/2) of noise, each in the shape of `time` (Eq. 6)."""
    sin = torch.sin if isinstance(time, torch.Tensor) else math.sin
    # alpha is written as a sine because the cosine of a rounded π/2 is not 0, and at t = 1 no data may shine through.
    return sin(HALF_PI * (1 - time)), sin(HALF_PI * time)


def original_sample_and_noise(
    model_output: torch.Tensor, sample: torch.Tensor, alpha, sigma, prediction_type: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Data and noise that `model_output` implies for the noisy `sample` (appendix A.3), all three in one shape.

    `alpha` and `sigma` (`float` or `torch.Tensor`) are the weights in `sample`. On the cosine path the denominator of
    Eq. 12 is π/2 (with its sign put right: as printed, it gives minus the data), so both kinds of velocity need no
    division and hold at every time. "sample" divides by sigma and "epsilon" by alpha, which must not be 0 there.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: Predicted data and predicted noise.
    """
    if prediction_type == "sample":
        return model_output, (sample - alpha * model_output) / sigma
    if prediction_type == "epsilon":
        return (sample - sigma * model_output) / alpha, model_output
    velocity = model_output * (1 / HALF_PI) if prediction_type == "flow_prediction" else model_output
    return alpha * sample - sigma * velocity, sigma * sample + alpha * velocity


def target_of(original_sample: torch.Tensor, noise: torch.Tensor, alpha, sigma, prediction_type: str) -> torch.Tensor:
    """What a model predicts of this data and noise: the inverse of `original_sample_and_noise`."""
    if prediction_type == "sample":
        return original_sample
    if prediction_type == "epsilon":
        return noise
    velocity = alpha * noise - sigma * original_sample
    return HALF_PI * velocity if prediction_type == "flow_prediction" else velocity


def path_at(timesteps: torch.Tensor, original_samples: torch.Tensor, noise: torch.Tensor) -> tuple:
    """Check the arguments, and return alpha and sigma, at least in float32 and ready to broadcast to the data."""
    check_like("original_samples", original_samples, noise=noise)
    check_floating("timesteps", timesteps)
    pairs = zip(timesteps.shape, original_samples.shape, strict=False)
    if timesteps.ndim > original_samples.ndim or any(size not in (1, wanted) for size, wanted in pairs):
        raise ValueError(
            f"`timesteps` has shape {tuple(timesteps.shape)} for data of shape {tuple(original_samples.shape)}; "
            "pass one time for all, or one for each element of its leading dimensions."
        )
    # Looking at values would break a compiled graph, and make the host wait for an accelerator.
    look = timesteps.device.type == "cpu" and not torch.compiler.is_compiling()
    if look and not ((timesteps >= 0) & (timesteps <= 1)).all():
        raise ValueError(f"`timesteps` is {timesteps}; pass times from 0 (data) to 1 (noise).")
    timesteps = timesteps.to(original_samples.device, at_least_float32(original_samples.dtype))
    return cosine_path(timesteps.reshape(*timesteps.shape, *[1] * (original_samples.ndim - timesteps.ndim)))


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The type that schedules are computed in for samples of `dtype`."""
    return torch.promote_types(dtype, torch.float32)


def check_floating(name: str, tensor: torch.Tensor) -> None:
    """Refuse a `tensor` that is not of a floating type."""
    if not tensor.is_floating_point():
        raise ValueError(f"`{name}` has type {tensor.dtype}; pass a floating type, such as torch.float32.")


def check_like(name: str, tensor: torch.Tensor, **others: torch.Tensor | None) -> None:
    """Refuse a `tensor` that is not of a floating type, and `others` that are not in its shape."""
    check_floating(name, tensor)
    for other_name, other in others.items():
        if other is not None and other.shape != tensor.shape:
            raise ValueError(
                f"`{other_name}` has shape {tuple(other.shape)}; pass the sample's, {tuple(tensor.shape)}."
            )
