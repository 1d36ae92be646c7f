"""Reconstruction of clips by a speech tokenizer, measured one by one."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from .reconstruction_metrics import kl_bits_per_second
from .summary import NotMeasuredError, summarize, unavailable
from .vae_metrics import METRICS, Clip, Comparison, UnusableClip

if TYPE_CHECKING:
    from ditar_hf import DiTARVAE


@dataclass
class ClipResult:
    """
    What was measured of one clip.

    Args:
        id (`str`): Of the clip.
        seconds (`float`): Its length.
        bandwidth (`float`, *optional*): Highest frequency in Hz that was compared, if not all were.
        values (`dict[str, float]`): By the names of `METRICS`, those that could be measured.
        weights (`dict[str, float]`): Weight of each value in the mean over clips.
        not_measured (`dict[str, str]`): Why the others could not.
        transcripts (`dict[str, str]`): Words of `original` and `reconstruction`, if a recogniser heard them.
    """

    id: str
    seconds: float
    bandwidth: float | None = None
    values: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    not_measured: dict[str, str] = field(default_factory=dict)
    transcripts: dict[str, str] = field(default_factory=dict)


@dataclass
class VAEEvaluation:
    """
    What was measured of all clips.

    Args:
        clips (`list[ClipResult]`): Those that could be read.
        unusable (`list[UnusableClip]`): Those that could not.
    """

    clips: list[ClipResult] = field(default_factory=list)
    unusable: list[UnusableClip] = field(default_factory=list)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Each metric of `METRICS` over all clips, as [`summarize`] gives it."""
        summaries = {}
        for name in METRICS:
            measured = [clip for clip in self.clips if name in clip.values]
            summaries[name] = summarize(
                [clip.values[name] for clip in measured],
                [clip.weights[name] for clip in measured],
                [clip.not_measured[name] for clip in self.clips if name in clip.not_measured],
            )
        return summaries


@torch.inference_mode()
def reconstruct(
    vae: "DiTARVAE",
    clip: Clip,
    limit_bandwidth: Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor],
    recognize: Callable[[np.ndarray, int], str] | None = None,
) -> Comparison:
    """
    Encodes a clip, decodes the mode of its posterior, and takes the time of the latter.

    Args:
        vae ([`DiTARVAE`]): In `eval()`, on the device that computes.
        clip ([`Clip`]): Zeros are added up to a whole latent frame, and taken off again before it is compared.
        limit_bandwidth (`Callable`):
            From waveforms `(batch_size, num_samples)`, bandwidths `(batch_size,)` in Hz and the sampling rate to
            waveforms without what lies above: that of the training.
        recognize (`Callable`, *optional*): Of [`Comparison`].

    Returns:
        [`Comparison`].
    """
    config = vae.config
    original = torch.from_numpy(clip.waveform).to(vae.device)[None]  # (1, S)
    num_samples = original.shape[1]
    posterior = vae.encode(F.pad(original, (0, -num_samples % config.hop_length)))
    _wait_for(vae.device)
    start = time.perf_counter()
    decoded = vae.decode(posterior.mode())
    _wait_for(vae.device)
    decode_seconds = time.perf_counter() - start

    reconstruction = decoded[:, :num_samples]
    pair = torch.cat([reconstruction, original])  # (2, S)
    if clip.bandwidth is not None:
        pair = limit_bandwidth(pair, pair.new_full((2,), clip.bandwidth), config.sampling_rate)
    mel_distance, stft_distance = vae.reconstruction_loss(pair[:1], pair[1:])
    # encode() has normalised them, and the prior is that of the raw ones
    raw_mean, raw_std = posterior.mean * vae.latent_std + vae.latent_mean, posterior.std * vae.latent_std
    return Comparison(
        clip=clip,
        reconstruction=reconstruction[0].cpu().numpy(),
        reconstruction_band=pair[0].cpu().numpy(),
        original_band=pair[1].cpu().numpy(),
        sampling_rate=config.sampling_rate,
        mel_distance=mel_distance.item(),
        stft_distance=stft_distance.item(),
        kl_bits_per_second=kl_bits_per_second(raw_mean, raw_std, config.frame_rate),
        decode_real_time_factor=decode_seconds * config.sampling_rate / decoded.shape[1],
        recognize=unavailable("no recogniser was named") if recognize is None else recognize,
    )


def measure(comparison: Comparison) -> ClipResult:
    """
    All metrics of one clip.

    Args:
        comparison ([`Comparison`]): Of [`reconstruct`].

    Returns:
        [`ClipResult`]; each of `METRICS` is either in its `values` or in its `not_measured`.
    """
    clip = comparison.clip
    result = ClipResult(clip.id, comparison.seconds, clip.bandwidth)
    if not np.isfinite(comparison.reconstruction).all():
        reason = "the reconstruction holds values that are not finite"
        result.not_measured = dict.fromkeys(METRICS, reason)
        return result
    for name, metric in METRICS.items():
        try:
            value = float(metric.measure(comparison))
            if not np.isfinite(value):
                raise NotMeasuredError("it is not finite")
            result.values[name], result.weights[name] = value, float(metric.weight(comparison))
        except NotMeasuredError as error:
            result.not_measured[name] = str(error)
    # present if a metric has asked for them
    for name in ("original", "reconstruction"):
        if (words := vars(comparison).get(f"words_in_{name}")) is not None:
            result.transcripts[name] = " ".join(words)
    return result


def evaluate_vae(
    vae: "DiTARVAE",
    clips: Iterable[Clip | UnusableClip],
    limit_bandwidth: Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor],
    recognize: Callable[[np.ndarray, int], str] | None = None,
    on_comparison: Callable[[Comparison], None] | None = None,
) -> VAEEvaluation:
    """
    Reconstructs clips and measures how well.

    Args:
        vae ([`DiTARVAE`]): In `eval()`, on the device that computes.
        clips (`Iterable`): Of [`Clip`]; each [`UnusableClip`] is counted.
        limit_bandwidth (`Callable`): As for [`reconstruct`].
        recognize (`Callable`, *optional*): As for [`Comparison`]; without it there is no word error.
        on_comparison (`Callable`, *optional*): Is given each [`Comparison`], such as to draw it.

    Returns:
        [`VAEEvaluation`].

    Raises:
        ValueError: If there is no clip, or none that can be used.
    """
    evaluation = VAEEvaluation()
    for clip in clips:
        if isinstance(clip, UnusableClip):
            evaluation.unusable.append(clip)
            continue
        if not evaluation.clips:
            # the first pass sets up memory and kernels, which is not the speed of decoding
            reconstruct(vae, clip, limit_bandwidth)
        comparison = reconstruct(vae, clip, limit_bandwidth, recognize)
        evaluation.clips.append(measure(comparison))
        if on_comparison is not None:
            on_comparison(comparison)
    if not evaluation.clips:
        first = next((f" ({clip.id}: {clip.reason})" for clip in evaluation.unusable), "")
        raise ValueError(f"`clips`: none can be used of {len(evaluation.unusable)}{first}. Name other data.")
    return evaluation


def _wait_for(device: torch.device):
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
