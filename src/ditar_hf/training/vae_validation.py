"""What a training of the speech tokenizer measures while it runs, and once at its end."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from transformers.utils import logging

from ..modeling.configuration_ditar_vae import DiTARVAEConfig
from ..modeling.modeling_ditar_vae import DiTARVAE
from .audio import UnusableAudioError, decode_audio, resample_audio, segment_of
from .data import AudioSource

CLIP_SECONDS = 6.0

logger = logging.get_logger(__name__)


@dataclass
class HeldOutClip:
    """A recording to be reconstructed: `waveforms` `(1, num_samples)`, `bandwidths` `(1,)` in Hz."""

    name: str
    waveforms: torch.Tensor
    bandwidths: torch.Tensor


def load_clips(
    sources: Sequence[AudioSource], num_clips: int, config: DiTARVAEConfig, min_sampling_rate: int
) -> list[HeldOutClip]:
    """
    Beginnings of the first recordings of some sources, as many from each.

    Args:
        sources (`list[AudioSource]`): Where they come from.
        num_clips (`int`): How many in all, at most.
        config ([`DiTARVAEConfig`]): Sampling rate and hop.
        min_sampling_rate (`int`): Recordings of a lower rate are passed over, in Hz.

    Returns:
        `list[HeldOutClip]`, each of whole latent frames and at most six seconds.

    Raises:
        ValueError: If none of a source can be used.
    """
    clips = []
    for index, source in enumerate(sources):
        share = num_clips // len(sources) + (index < num_clips % len(sources))
        found: list[HeldOutClip] = []
        for row in islice(source.read(), 100 + share):
            if len(found) == share:
                break
            try:
                samples, rate = decode_audio(row["audio"], 0.0, CLIP_SECONDS, min_sampling_rate, **segment_of(row))
                waveform = torch.from_numpy(resample_audio(samples, rate, config.sampling_rate))
            except UnusableAudioError as error:
                logger.warning(f"`eval_data`: {row['id']} of {source.path} is not used: {error}")
                continue
            waveform = waveform[: len(waveform) // config.hop_length * config.hop_length]
            if len(waveform):
                bandwidth = min(rate, config.sampling_rate) / 2
                found.append(HeldOutClip(row["id"], waveform[None], torch.tensor([float(bandwidth)])))
        if share and not found:
            raise ValueError(f"`eval_data`: no recording of {source.path} can be used.")
        clips += found
    return clips


@torch.no_grad()
def evaluate_clips(
    vae: DiTARVAE, clips: Sequence[HeldOutClip]
) -> tuple[dict[str, float], dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """
    Losses over whole clips, from the posterior's mean.

    Args:
        vae ([`DiTARVAE`]): The tokenizer, put into `eval()`.
        clips (`list[HeldOutClip]`): What to reconstruct.

    Returns:
        `dict` of the mean losses, and the pairs of recording and reconstruction, each `(num_samples,)` on the CPU.
    """
    vae.eval()
    sums, pairs = {}, {}
    for clip in clips:
        output = vae(clip.waveforms.to(vae.device), bandwidths=clip.bandwidths.to(vae.device))
        for name in ("mel_loss", "stft_loss", "kl_loss"):
            sums[f"eval_{name}"] = sums.get(f"eval_{name}", 0.0) + output[name].item() / len(clips)
        pairs[clip.name] = (clip.waveforms[0], output.waveforms[0].float().cpu())
    return sums, pairs


@torch.no_grad()
def measure_latent_statistics(vae: DiTARVAE, batches: Iterable[dict[str, Any]], num_batches: int):
    """
    Sets mean and standard deviation of the latents' channels to what they are over some batches.

    Args:
        vae ([`DiTARVAE`]): The tokenizer, put into `eval()`.
        batches (`Iterable[dict]`): With `target_waveforms` `(batch_size, num_samples)`.
        num_batches (`int`): How many of them to hear.

    Raises:
        ValueError: If a channel does not vary.
    """
    vae.eval()
    dim = vae.config.latent_dim
    vae.set_latent_statistics(torch.zeros(dim), torch.ones(dim))
    means = [
        vae.encode(batch["target_waveforms"].to(vae.device)).mode().flatten(0, 1).cpu()  # (B * T, D)
        for batch in islice(batches, num_batches)
    ]
    values = torch.cat(means).double()
    vae.set_latent_statistics(values.mean(0).float(), values.std(0).float())
