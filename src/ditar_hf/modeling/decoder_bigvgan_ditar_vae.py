"""The paper's decoder of the speech tokenizer, after BigVGAN (Lee et al., 2022): transposed convolutions and residual
blocks with periodic activations, each activation between an upsampling and a downsampling against aliasing."""

import functools

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init

from .configuration_ditar_vae import DiTARVAEConfig
from .layers_ditar_vae import PaddedConv1d, UpsamplingConv1d, apply_mask, upsample_mask
from .streaming_ditar_vae import DiTARVAEDecodeState

FILTER_LENGTH = 12


def lowpass_filter() -> torch.Tensor:
    """Kaiser-windowed sinc of 12 taps that halves the band: cutoff 0.25, transition 0.3 cycles a sample, sum 1."""
    attenuation = 2.285 * (FILTER_LENGTH // 2 - 1) * torch.pi * 4 * 0.3 + 7.95  # Kaiser's estimate in dB
    beta = 0.1102 * (attenuation - 8.7) if attenuation > 50 else 0.5842 * (attenuation - 21) ** 0.4
    window = torch.kaiser_window(FILTER_LENGTH, periodic=False, beta=float(beta), dtype=torch.float32)
    time = torch.arange(FILTER_LENGTH, dtype=torch.float32) - (FILTER_LENGTH - 1) / 2
    taps = 0.5 * window * torch.sinc(0.5 * time)
    return taps / taps.sum()


class AntiAliasedSnake(nn.Module):
    """
    `x + sin²(αx) / β` at twice the rate, then back, so that the harmonics it makes do not fold over.

    A causal one sees the past only, which delays its output by half of each filter (5 steps).
    """

    def __init__(self, hidden_size: int, causal: bool):
        super().__init__()
        self.log_alpha = nn.Parameter(torch.zeros(hidden_size, 1))
        self.log_beta = nn.Parameter(torch.zeros(hidden_size, 1))
        self.register_buffer("filter", lowpass_filter(), persistent=False)
        overlap = FILTER_LENGTH - 2
        self.causal_pad = overlap if causal else 0
        # given to the convolutions, which on a CPU are twice as fast as with padding and cutting apart
        self.padding = 0 if causal else overlap // 2

    def reset_parameters(self):
        """Initial values of the raw parameters and the buffer, also after construction on the meta device."""
        init.zeros_(self.log_alpha)
        init.zeros_(self.log_beta)
        init.copy_(self.filter, lowpass_filter())

    def forward(
        self,
        hidden_states: torch.Tensor,
        mask: torch.Tensor | None = None,
        state: DiTARVAEDecodeState | None = None,
    ) -> torch.Tensor:
        """`(B, C, T)` in and out, zeros where `mask` `(B, T)` is 0."""
        if state is not None:
            # both filters together reach this many steps back
            context = FILTER_LENGTH - 2
            return self.forward(state.extend(self, hidden_states, context, zeros=context))[..., context:]
        channels, length = hidden_states.shape[1:]
        hidden_states = apply_mask(hidden_states, mask)
        taps = self.filter.to(hidden_states.dtype).expand(channels, 1, -1)
        upsampled = F.conv_transpose1d(hidden_states, 2 * taps, stride=2, padding=self.padding, groups=channels)
        # the filter rings on beyond the end of a row, which the next one must not hear
        upsampled = apply_mask(upsampled[..., : 2 * length], upsample_mask(mask, 2))  # (B, C, 2T)
        waves = (self.log_alpha.exp() * upsampled).sin_().square_()
        waves = waves.mul_(1 / (self.log_beta.exp() + 1e-9)).add_(upsampled)
        if self.causal_pad:
            waves = F.pad(waves, (self.causal_pad, 0))
        output = F.conv1d(waves, taps, stride=2, padding=self.padding, groups=channels)
        return apply_mask(output, mask)  # (B, C, T)


class BigVGANBlock(nn.Module):
    """Residual units of one kernel size at dilations 1, 3 and 5, each with two anti-aliased activations."""

    dilations = (1, 3, 5)

    def __init__(self, hidden_size: int, kernel_size: int, causal: bool):
        super().__init__()
        lookahead = 0 if causal else None
        self.dilated = nn.ModuleList(
            PaddedConv1d(hidden_size, hidden_size, kernel_size, dilation=dilation, lookahead=lookahead)
            for dilation in self.dilations
        )
        self.plain = nn.ModuleList(
            PaddedConv1d(hidden_size, hidden_size, kernel_size, lookahead=lookahead) for _ in self.dilations
        )
        self.activations = nn.ModuleList(AntiAliasedSnake(hidden_size, causal) for _ in range(2 * len(self.dilations)))

    def forward(
        self,
        hidden_states: torch.Tensor,
        mask: torch.Tensor | None = None,
        state: DiTARVAEDecodeState | None = None,
    ) -> torch.Tensor:
        """`(B, C, T)` in and out, with mask `(B, T)`."""
        for index, (dilated, plain) in enumerate(zip(self.dilated, self.plain, strict=True)):
            first, second = self.activations[2 * index : 2 * index + 2]
            residual = hidden_states
            hidden_states = dilated(first(hidden_states, mask, state), state)
            hidden_states = residual + plain(second(hidden_states, mask, state), state)
        return hidden_states


class BigVGANDecoder(nn.Module):
    """Latents to waveform by transposed convolutions, each followed by residual blocks of several kernel sizes."""

    def __init__(self, config: DiTARVAEConfig):
        super().__init__()
        sizes, causal = config.decoder_hidden_sizes, config.decoder_causal
        self.strides = list(config.decoder_strides)
        self.input_conv = PaddedConv1d(
            config.latent_dim,
            sizes[0],
            max(config.kernel_size, config.decoder_lookahead_frames + 1),
            lookahead=config.decoder_lookahead_frames if causal else None,
        )
        self.upsample = nn.ModuleList(
            nn.Identity() if stride is None else UpsamplingConv1d(in_size, out_size, stride, causal)
            for in_size, out_size, stride in zip([None, *sizes], sizes, [None, *self.strides], strict=False)
        )
        self.stages = nn.ModuleList(
            nn.ModuleList(
                nn.ModuleList(BigVGANBlock(size, kernel_size, causal) for kernel_size in config.decoder_kernel_sizes)
                for _ in range(layers)
            )
            for size, layers in zip(sizes, config.decoder_num_layers, strict=True)
        )
        self.output_activation = AntiAliasedSnake(sizes[-1], causal)
        self.output_conv = PaddedConv1d(sizes[-1], 1, config.kernel_size, lookahead=0 if causal else None)

    def forward(
        self,
        latents: torch.Tensor,
        mask: torch.Tensor | None = None,
        state: DiTARVAEDecodeState | None = None,
    ) -> torch.Tensor:
        """`(B, T, latent_dim)` with frame mask `(B, T)` to samples `(B, T * hop_length)`."""
        hidden_states = self.input_conv(apply_mask(latents.transpose(1, 2), mask), state)  # (B, C, T)
        for index, stage in enumerate(self.stages):
            hidden_states = apply_mask(hidden_states, mask)
            # the first stage is at the rate of the latents
            if index:
                hidden_states = self.upsample[index](hidden_states, state)  # (B, C', T * stride)
                mask = upsample_mask(mask, self.strides[index - 1])
            for blocks in stage:
                outputs = (block(hidden_states, mask, state) for block in blocks)
                hidden_states = functools.reduce(torch.add, outputs) / len(blocks)
        hidden_states = self.output_activation(hidden_states, mask, state)
        return self.output_conv(hidden_states, state)[:, 0].clamp(-1.0, 1.0)
