"""How far a reconstruction is from its original: functions of two waveforms, and the rate of a posterior."""

import math

import numpy as np
import torch

from .summary import NotMeasuredError

# what an infinite ratio is reported as: the mean over clips stays finite
LIMIT_DB = 100.0


def decibels(power_ratio: float) -> float:
    """`10 log10(power_ratio)`, between `-LIMIT_DB` and `LIMIT_DB`."""
    if power_ratio <= 0:
        return -LIMIT_DB
    return float(np.clip(10 * math.log10(power_ratio), -LIMIT_DB, LIMIT_DB))


def si_sdr(reconstruction: np.ndarray, original: np.ndarray) -> float:
    r"""
    Scale-invariant signal-to-distortion ratio (Le Roux et al., 2019, equation 4).

    With `s` the original and `ŝ` the reconstruction, both less their means, and `αs` the projection of `ŝ` on `s`:
    `10 log10(‖αs‖² / ‖ŝ − αs‖²)`, `α = ⟨ŝ, s⟩ / ‖s‖²`. It compares phases, which codecs trained on spectra need not
    keep: a low value alone does not mean that they sound bad.

    Args:
        reconstruction (`np.ndarray` of shape `(num_samples,)`): The samples.
        original (`np.ndarray` of shape `(num_samples,)`): What they should be.

    Returns:
        The ratio in dB, at most `LIMIT_DB` (which stands for no distortion) and at least `-LIMIT_DB`.

    Raises:
        ValueError: If the shapes differ.
        NotMeasuredError: If the original is silent.
    """
    estimate, target = _pair(reconstruction, original)
    estimate, target = estimate - estimate.mean(), target - target.mean()
    energy = target @ target
    if energy == 0:
        raise NotMeasuredError("the original is silent")
    projection = (estimate @ target) / energy * target
    signal, distortion = projection @ projection, ((estimate - projection) ** 2).sum()
    if distortion == 0:
        return LIMIT_DB if signal > 0 else -LIMIT_DB
    return decibels(signal / distortion)


def level_difference(reconstruction: np.ndarray, original: np.ndarray) -> float:
    """
    How much louder the reconstruction is than the original, in root mean square.

    Args:
        reconstruction (`np.ndarray` of shape `(num_samples,)`): The samples.
        original (`np.ndarray` of shape `(num_samples,)`): What they should be.

    Returns:
        The difference in dB, between `-LIMIT_DB` and `LIMIT_DB`.

    Raises:
        ValueError: If the shapes differ.
        NotMeasuredError: If the original is silent.
    """
    ours, theirs = (float(np.mean(samples**2)) for samples in _pair(reconstruction, original))
    if theirs == 0:
        raise NotMeasuredError("the original is silent")
    return decibels(ours / theirs)


def peak_difference(reconstruction: np.ndarray, original: np.ndarray) -> float:
    """
    How much higher the largest magnitude of the reconstruction is than that of the original.

    Args:
        reconstruction (`np.ndarray` of shape `(num_samples,)`): The samples.
        original (`np.ndarray` of shape `(num_samples,)`): What they should be.

    Returns:
        The difference in dB, between `-LIMIT_DB` and `LIMIT_DB`.

    Raises:
        ValueError: If the shapes differ.
        NotMeasuredError: If the original is silent.
    """
    ours, theirs = (float(np.abs(samples).max()) for samples in _pair(reconstruction, original))
    if theirs == 0:
        raise NotMeasuredError("the original is silent")
    return decibels((ours / theirs) ** 2)


def kl_bits_per_second(mean: torch.Tensor, std: torch.Tensor, frame_rate: float) -> float:
    """
    Rate of a diagonal Gaussian posterior against the prior N(0, 1), in the space in which that is the prior.

    `KL = Σ ½ (μ² + σ² − 1 − ln σ²)` over the channels (Kingma and Welling, 2014, appendix B), averaged over frames;
    times the frames of a second, over ln 2.

    Args:
        mean (`torch.Tensor` of shape `(..., num_frames, latent_dim)`):
            Means of the raw latents: those of `DiTARVAE.encode` are normalised, and `latent_mean` and `latent_std`
            have to be put back first.
        std (`torch.Tensor` of shape `(..., num_frames, latent_dim)`): Their standard deviations, positive.
        frame_rate (`float`): Frames a second.

    Returns:
        Bits a second.
    """
    mean, std = mean.double(), std.double()
    divergence = 0.5 * (mean.square() + std.square() - 1) - std.log()  # (..., T, D)
    return divergence.sum(-1).mean().item() * frame_rate / math.log(2)


def _pair(reconstruction: np.ndarray, original: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pair = np.asarray(reconstruction, np.float64), np.asarray(original, np.float64)
    if pair[0].shape != pair[1].shape or pair[0].ndim != 1 or not pair[0].size:
        raise ValueError(
            f"`reconstruction` {pair[0].shape} and `original` {pair[1].shape} must both be (num_samples,): cut the "
            "padding off first."
        )
    return pair
