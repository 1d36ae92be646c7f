"""The cheap decoder of the speech tokenizer: ConvNeXt blocks and an inverse short-time Fourier transform (Siuzdak,
2023).
"""

import torch
from torch import nn
from torch.nn import functional as F

from .configuration_ditar_vae import DiTARVAEConfig
from .layers_ditar_vae import ConvNeXtBlock, PaddedConv1d, apply_mask, upsample_mask
from .streaming_ditar_vae import DiTARVAEDecodeState


def overlap_add(frames: torch.Tensor, hop_length: int) -> torch.Tensor:
    """Sums `(B, T, W)` frames starting every `hop_length` samples, a divisor of W: `(B, (T - 1) * hop_length + W)`."""
    batch_size, num_frames, window_length = frames.shape
    parts = frames.view(batch_size, num_frames, window_length // hop_length, hop_length)
    # part k of frame t lies at slot t + k
    return sum(F.pad(parts[:, :, k], (0, 0, k, parts.shape[2] - 1 - k)) for k in range(parts.shape[2])).flatten(1)


class InverseSTFT(nn.Module):
    """
    Inverse short-time Fourier transform with Hann windows overlapping by three quarters, centred on their hops.

    Where frames of a row end, the sum is divided by the windows that are really there, so padding changes nothing.
    """

    def __init__(self, window_length: int, hop_length: int):
        super().__init__()
        self.window_length, self.hop_length = window_length, hop_length
        # samples that a window reaches beyond its hop, on either side
        self.overlap = (window_length - hop_length) // 2

    def forward(
        self,
        spectrum: torch.Tensor,
        mask: torch.Tensor | None = None,
        state: DiTARVAEDecodeState | None = None,
    ) -> torch.Tensor:
        """Complex `(B, T, W / 2 + 1)` with frame mask `(B, T)` to samples `(B, T * hop_length)`."""
        if state is not None:
            return self._next_samples(spectrum, state)
        window = torch.hann_window(self.window_length, device=spectrum.device)
        frames = torch.fft.irfft(spectrum, n=self.window_length) * window  # (B, T, W)
        envelope = window.square().expand(1, spectrum.shape[1], -1)
        if mask is not None:
            frames = frames * mask[..., None]
            envelope = envelope * mask[..., None]
        samples = overlap_add(frames, self.hop_length) / overlap_add(envelope, self.hop_length).clamp_min(1e-6)
        return samples[:, self.overlap : self.overlap + spectrum.shape[1] * self.hop_length]

    def _next_samples(self, spectrum: torch.Tensor, state: DiTARVAEDecodeState) -> torch.Tensor:
        # the few frames that new ones overlap with are transformed again, which divides by the windows really there
        context = self.window_length // self.hop_length - 1
        frames = state.extend(self, spectrum.transpose(1, 2), context).transpose(1, 2)  # (B, up to context + T, …)
        # a Fourier transform refuses to have no input
        if not frames.shape[1]:
            return frames.real.flatten(1)  # (B, 0)
        # the window after the last one reaches into the last `overlap` samples; `begin` is where the last piece ended
        num_before, num_frames = frames.shape[1] - spectrum.shape[1], frames.shape[1]
        begin = max(0, num_before * self.hop_length - self.overlap)
        end = max(0, num_frames * self.hop_length - (0 if state.is_last else self.overlap))
        return self.forward(frames)[:, begin:end]


class ISTFTDecoder(nn.Module):
    """Latents to waveform: ConvNeXt blocks at growing frame rates, then magnitude and phase of each frame."""

    def __init__(self, config: DiTARVAEConfig):
        super().__init__()
        sizes, causal = config.decoder_hidden_sizes, config.decoder_causal
        *self.strides, hop_length = config.decoder_strides
        lookahead = config.decoder_lookahead_frames if causal else None
        self.input_conv = PaddedConv1d(
            config.latent_dim,
            sizes[0],
            max(config.kernel_size, config.decoder_lookahead_frames + 1),
            lookahead=lookahead,
        )
        self.input_norm = nn.LayerNorm(sizes[0], eps=1e-6)
        self.upsample = nn.ModuleList(
            nn.Linear(in_size, out_size * stride)
            for in_size, out_size, stride in zip(sizes, sizes[1:], self.strides, strict=False)
        )
        scale = 1 / sum(config.decoder_num_layers)
        self.stages = nn.ModuleList(
            nn.ModuleList(
                ConvNeXtBlock(size, int(config.mlp_ratio * size), config.kernel_size, causal, scale)
                for _ in range(layers)
            )
            for size, layers in zip(sizes, config.decoder_num_layers, strict=True)
        )
        self.output_norm = nn.LayerNorm(sizes[-1], eps=1e-6)
        self.output_proj = nn.Linear(sizes[-1], config.istft_window_length + 2)
        self.istft = InverseSTFT(config.istft_window_length, hop_length)

    def forward(
        self,
        latents: torch.Tensor,
        mask: torch.Tensor | None = None,
        state: DiTARVAEDecodeState | None = None,
    ) -> torch.Tensor:
        """`(B, T, latent_dim)` with frame mask `(B, T)` to samples `(B, T * hop_length)`, zeros beyond a row's end."""
        hidden_states = self.input_conv(apply_mask(latents.transpose(1, 2), mask).contiguous(), state)
        hidden_states = self.input_norm(hidden_states.transpose(1, 2).contiguous())  # (B, T, C)
        for index, stage in enumerate(self.stages):
            for block in stage:
                hidden_states = block(hidden_states, mask, state)
            if index < len(self.upsample):
                stride = self.strides[index]
                hidden_states = self.upsample[index](hidden_states)
                hidden_states = hidden_states.unflatten(-1, (stride, -1)).flatten(1, 2)  # (B, T * stride, C')
                mask = upsample_mask(mask, stride)
        output = self.output_proj(self.output_norm(hidden_states))
        with torch.autocast(output.device.type, enabled=False):
            log_magnitude, phase = output.float().chunk(2, dim=-1)
            # magnitudes above e^7 are never speech at full scale: the bound keeps early training finite
            spectrum = torch.polar(log_magnitude.clamp(max=7.0).exp(), phase)
            return self.istft(spectrum, mask, state)
