"""Encoders of the speech tokenizer: waveform to parameters of a Gaussian for each latent frame (section 3.5.1)."""

import math

import torch
from torch import nn
from torch.nn import functional as F
from transformers.audio_utils import mel_filter_bank

from .configuration_ditar_vae import DiTARVAEConfig
from .layers_ditar_vae import ConvNeXtBlock, PaddedConv1d, apply_mask, downsample_mask


def split_frames(waveforms: torch.Tensor, frame_length: int, hop_length: int) -> torch.Tensor:
    """Overlapping frames `(B, T, frame_length)` of `(B, S)` samples, one every `hop_length`."""
    if frame_length % hop_length:
        return waveforms.unfold(1, frame_length, hop_length)
    num_parts = frame_length // hop_length
    num_frames = waveforms.shape[1] // hop_length - num_parts + 1
    # the same as unfold, whose gradient is many times slower on a CPU
    parts = waveforms[:, : (num_frames + num_parts - 1) * hop_length].unflatten(1, (-1, hop_length))
    return torch.cat([parts[:, part : part + num_frames] for part in range(num_parts)], dim=-1)


class LogMelSpectrogram(nn.Module):
    """
    Log-mel spectrogram with one frame per `hop_length` samples and zeros beyond both ends of the waveform.

    Args:
        sampling_rate, window_length, hop_length, num_mel_bins (`int`): Size of the transform.
        floor (`float`, *optional*, defaults to 1e-5): Smallest magnitude; its logarithm is what silence gives.
    """

    def __init__(
        self, sampling_rate: int, window_length: int, hop_length: int, num_mel_bins: int, floor: float = 1e-5
    ):
        super().__init__()
        self.sampling_rate, self.window_length, self.hop_length = sampling_rate, window_length, hop_length
        self.num_mel_bins, self.floor = num_mel_bins, floor
        self.num_fft = 2 ** math.ceil(math.log2(window_length))
        self.register_buffer("filters", self.mel_filters(), persistent=False)

    def mel_filters(self) -> torch.Tensor:
        """Triangular filters `(num_fft / 2 + 1, num_mel_bins)`, also used to refill the buffer after a meta-device
        load.
        """
        return torch.tensor(
            mel_filter_bank(
                self.num_fft // 2 + 1,
                self.num_mel_bins,
                0.0,
                self.sampling_rate / 2,
                self.sampling_rate,
                norm="slaney",
                mel_scale="slaney",
            ),
            dtype=torch.float32,
        )

    def magnitudes(self, waveforms: torch.Tensor) -> torch.Tensor:
        """`(B, S)` float32 samples, S a multiple of the hop, to STFT magnitudes `(B, S / hop_length, num_fft / 2 +
        1)`.
        """
        padding = self.num_fft - self.hop_length
        waveforms = F.pad(waveforms, (padding // 2, padding - padding // 2))
        window = torch.hann_window(self.window_length, device=waveforms.device)
        margin = self.num_fft - self.window_length
        window = F.pad(window, (margin // 2, margin - margin // 2))
        # not torch.stft, abs() or a sum over (re, im): their gradients cost an eighth of a training step on a CPU,
        # and that of abs() is not finite where a frame is silent
        spectrum = torch.fft.rfft(split_frames(waveforms, self.num_fft, self.hop_length) * window)  # (B, T, F)
        return (spectrum.real.square() + spectrum.imag.square() + self.floor**2).sqrt()

    def log_mel(self, magnitudes: torch.Tensor) -> torch.Tensor:
        """Magnitudes `(B, T, num_fft / 2 + 1)` to log-mel `(B, T, num_mel_bins)`."""
        return (magnitudes @ self.filters.to(magnitudes.dtype)).clamp_min(self.floor).log()

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """`(B, S)` float32 samples to `(B, S / hop_length, num_mel_bins)`; S is a multiple of the hop."""
        return self.log_mel(self.magnitudes(waveforms))


class MelEncoder(nn.Module):
    """ConvNeXt blocks on a log-mel spectrogram: the encoder for a CPU."""

    def __init__(self, config: DiTARVAEConfig):
        super().__init__()
        sizes, causal = config.encoder_hidden_sizes, config.encoder_causal
        self.spectrogram = LogMelSpectrogram(
            config.sampling_rate, config.mel_window_length, config.encoder_strides[0], config.num_mel_bins
        )
        self.strides = [1, *config.encoder_strides[1:]]
        self.downsample = nn.ModuleList(
            PaddedConv1d(
                in_size,
                out_size,
                config.kernel_size if stride == 1 else 2 * stride,
                stride,
                lookahead=0 if causal else None,
            )
            for in_size, out_size, stride in zip([config.num_mel_bins, *sizes], sizes, self.strides, strict=False)
        )
        scale = 1 / sum(config.encoder_num_layers)
        self.stages = nn.ModuleList(
            nn.ModuleList(
                ConvNeXtBlock(size, int(config.mlp_ratio * size), config.kernel_size, causal, scale)
                for _ in range(layers)
            )
            for size, layers in zip(sizes, config.encoder_num_layers, strict=True)
        )
        self.norm = nn.LayerNorm(sizes[-1], eps=1e-6)
        self.output_proj = nn.Linear(sizes[-1], 2 * config.latent_dim)

    def forward(self, waveforms: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """`(B, S)` samples with sample mask `(B, S)` to `(B, S / hop_length, 2 * latent_dim)`."""
        with torch.autocast(waveforms.device.type, enabled=False):
            hidden_states = self.spectrogram(waveforms)  # (B, T, mel)
        mask = downsample_mask(mask, self.spectrogram.hop_length)
        # centred near 0 with unit scale: log magnitudes of speech lie between -11 and 2
        hidden_states = ((hidden_states + 5) / 3).to(self.output_proj.weight.dtype)
        for downsample, stage, stride in zip(self.downsample, self.stages, self.strides, strict=True):
            hidden_states = apply_mask(hidden_states.transpose(1, 2), mask).contiguous()
            hidden_states = downsample(hidden_states).transpose(1, 2).contiguous()  # (B, T / stride, C)
            mask = downsample_mask(mask, stride)
            for block in stage:
                hidden_states = block(hidden_states, mask)
        return self.output_proj(self.norm(hidden_states))


class ResidualUnit(nn.Module):
    """Dilated convolution and pointwise convolution with a residual connection, for the waveform encoder."""

    def __init__(self, hidden_size: int, dilation: int, kernel_size: int, causal: bool):
        super().__init__()
        lookahead = 0 if causal else None
        self.dilated = PaddedConv1d(hidden_size, hidden_size, kernel_size, dilation=dilation, lookahead=lookahead)
        self.pointwise = nn.Conv1d(hidden_size, hidden_size, 1)

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """`(B, C, T)` in and out; `mask` is `(B, T)`."""
        residual = hidden_states
        hidden_states = self.dilated(apply_mask(F.elu(hidden_states), mask))
        return residual + self.pointwise(F.elu(hidden_states))


class WaveformEncoder(nn.Module):
    """Strided convolutions with dilated residual units on the waveform, as the paper describes its encoder."""

    dilations = (1, 3, 9)

    def __init__(self, config: DiTARVAEConfig):
        super().__init__()
        sizes, causal = config.encoder_hidden_sizes, config.encoder_causal
        lookahead = 0 if causal else None
        self.strides = list(config.encoder_strides)
        self.input_conv = PaddedConv1d(1, sizes[0], config.kernel_size, lookahead=lookahead)
        self.downsample = nn.ModuleList(
            PaddedConv1d(in_size, out_size, 2 * stride, stride, lookahead=lookahead)
            for in_size, out_size, stride in zip(sizes, sizes[1:], self.strides, strict=False)
        )
        self.stages = nn.ModuleList(
            nn.ModuleList(
                ResidualUnit(size, dilation, config.kernel_size, causal)
                for _ in range(layers)
                for dilation in self.dilations
            )
            for size, layers in zip(sizes, config.encoder_num_layers, strict=True)
        )
        self.output_conv = PaddedConv1d(sizes[-1], 2 * config.latent_dim, 3, lookahead=lookahead)

    def forward(self, waveforms: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """`(B, S)` samples with sample mask `(B, S)` to `(B, S / hop_length, 2 * latent_dim)`."""
        hidden_states = self.input_conv(waveforms[:, None].to(self.input_conv.weight.dtype))  # (B, C, S)
        for index, stage in enumerate(self.stages):
            for unit in stage:
                hidden_states = unit(hidden_states, mask)
            hidden_states = apply_mask(F.elu(hidden_states), mask)
            if index < len(self.downsample):
                hidden_states = self.downsample[index](hidden_states)
                mask = downsample_mask(mask, self.strides[index])
        return self.output_conv(hidden_states).transpose(1, 2)  # (B, T, 2D)
