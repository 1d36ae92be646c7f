"""Losses of the speech tokenizer, pure functions of waveforms and posterior."""

import torch
from torch import nn
from torch.nn import functional as F

from .encoder_ditar_vae import LogMelSpectrogram

# (window, hop, mel bands): short windows place onsets, long ones resolve harmonics
RESOLUTIONS = ((240, 60, 20), (512, 128, 40), (1024, 256, 80), (2048, 512, 120))


def masked_mean(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Mean of `(B, T, C)` over the frames where `mask` `(B, T)` is 1, and over channels."""
    if mask is None:
        return values.mean()
    return (values * mask[..., None]).sum() / (mask.sum() * values.shape[-1]).clamp_min(1)


class ReconstructionLoss(nn.Module):
    """
    Distance of two waveforms in spectrograms of several resolutions.

    Args:
        sampling_rate (`int`): Samples a second; sets the mel bands.
    """

    def __init__(self, sampling_rate: int):
        super().__init__()
        self.spectrograms = nn.ModuleList(
            LogMelSpectrogram(sampling_rate, window, hop, bands) for window, hop, bands in RESOLUTIONS
        )

    def forward(
        self, reconstruction: torch.Tensor, waveforms: torch.Tensor, mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            reconstruction (`torch.Tensor` of shape `(batch_size, num_samples)`): Float32 samples.
            waveforms (`torch.Tensor` of shape `(batch_size, num_samples)`): What it should be.
            mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*): 1 for real samples.

        Returns:
            Two scalars: mean over the resolutions of the L1 distance of log-mel spectrograms, and of the STFT
            distance, spectral convergence plus L1 distance of log magnitudes (Yamamoto et al., 2020).
        """
        mel_loss, stft_loss = reconstruction.new_zeros(()), reconstruction.new_zeros(())
        for spectrogram in self.spectrograms:
            length = -(-waveforms.shape[1] // spectrogram.hop_length) * spectrogram.hop_length
            padding = (0, length - waveforms.shape[1])
            frame_mask = None if mask is None else F.pad(mask, padding)[:, :: spectrogram.hop_length]
            ours, theirs = (spectrogram.magnitudes(F.pad(x, padding)) for x in (reconstruction, waveforms))
            if frame_mask is not None:
                ours, theirs = ours * frame_mask[..., None], theirs * frame_mask[..., None]
            mel_loss = mel_loss + masked_mean(
                (spectrogram.log_mel(ours) - spectrogram.log_mel(theirs)).abs(), frame_mask
            )
            # of each row, so that a batch is the mean of its rows however it is split
            norm = torch.linalg.matrix_norm
            distance = (norm(ours - theirs) / norm(theirs).clamp_min(1e-3)).mean()
            floor = spectrogram.floor
            log_distance = (ours.clamp_min(floor).log() - theirs.clamp_min(floor).log()).abs()
            stft_loss = stft_loss + distance + masked_mean(log_distance, frame_mask)
        return mel_loss / len(self.spectrograms), stft_loss / len(self.spectrograms)


def limit_bandwidth(waveforms: torch.Tensor, bandwidths: torch.Tensor, sampling_rate: int) -> torch.Tensor:
    """
    Takes off all that lies above a frequency, which differs from row to row.

    Args:
        waveforms (`torch.Tensor` of shape `(batch_size, num_samples)`): Float32 samples.
        bandwidths (`torch.Tensor` of shape `(batch_size,)`): Highest frequency kept, in Hz.
        sampling_rate (`int`): Samples a second.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_samples)`.
    """
    spectrum = torch.fft.rfft(waveforms)  # (B, S / 2 + 1)
    frequencies = torch.fft.rfftfreq(waveforms.shape[1], 1 / sampling_rate, device=waveforms.device)
    return torch.fft.irfft(spectrum * (frequencies <= bandwidths[:, None]), n=waveforms.shape[1])


def kl_divergence(mean: torch.Tensor, logvar: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """KL divergence of N(mean, exp(logvar)) from N(0, 1) in nats, averaged over real frames of `(B, T, C)`."""
    return masked_mean(0.5 * (mean.square() + logvar.exp() - 1 - logvar), mask)
