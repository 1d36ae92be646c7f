"""
Discriminators of the speech tokenizer's adversarial training (DiTAR, section 3.5.1): multi-period and multi-scale,
after HiFi-GAN (Kong et al., 2020).
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

SLOPE = 0.1  # of the leaky rectifiers, as in HiFi-GAN


@dataclass
class DiscriminatorArguments:
    """
    Widths of the discriminators; the defaults are the full size of HiFi-GAN, 70.7M parameters.

    Args:
        periods (`tuple[int, ...]`, *optional*, defaults to `(2, 3, 5, 7, 11)`):
            Periods in samples, one discriminator for each.
        period_channels (`tuple[int, ...]`, *optional*, defaults to `(32, 128, 512, 1024, 1024)`):
            Channels of their layers; all but the last layer look at a third of the steps before.
        crop_seconds (`float`, *optional*, defaults to 0.34):
            Length of the part of each crop that they hear; `None` for all of it. HiFi-GAN's hear 8,192 samples.
        num_scales (`int`, *optional*, defaults to 3):
            Discriminators of the waveform itself, of its halved rate, of its quartered rate …
        scale_channels (`tuple[int, ...]`, *optional*, defaults to `(128, 128, 256, 512, 1024, 1024, 1024)`):
            Channels of their layers.
        scale_strides (`tuple[int, ...]`, *optional*, defaults to `(1, 2, 2, 4, 4, 1, 1)`): Strides of their layers.
        scale_groups (`tuple[int, ...]`, *optional*, defaults to `(1, 4, 16, 16, 16, 16, 1)`):
            Groups of their convolutions.

    Raises:
        ValueError: If the lists for the scales have different lengths, a list is empty, a size is not positive or a
            group does not divide its channels.
    """

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    period_channels: tuple[int, ...] = (32, 128, 512, 1024, 1024)
    crop_seconds: float | None = 0.34
    num_scales: int = 3
    scale_channels: tuple[int, ...] = (128, 128, 256, 512, 1024, 1024, 1024)
    scale_strides: tuple[int, ...] = (1, 2, 2, 4, 4, 1, 1)
    scale_groups: tuple[int, ...] = (1, 4, 16, 16, 16, 16, 1)

    def __post_init__(self):
        lengths = {len(self.scale_channels), len(self.scale_strides), len(self.scale_groups)}
        if len(lengths) > 1:
            raise ValueError(
                "`scale_channels`, `scale_strides` and `scale_groups` must have one entry for each layer."
            )
        if not self.period_channels or not self.scale_channels:
            raise ValueError("`period_channels` and `scale_channels` must not be empty.")
        for name in ("periods", "period_channels", "scale_channels", "scale_strides", "scale_groups"):
            if any(value < 1 for value in getattr(self, name)):
                raise ValueError(f"`{name}` is {getattr(self, name)}: all must be positive.")
        if self.crop_seconds is not None and not self.crop_seconds > 0:
            raise ValueError(f"`crop_seconds` is {self.crop_seconds}: it must be positive.")
        if self.num_scales < 0 or not (self.periods or self.num_scales):
            raise ValueError(
                "`periods` is empty and `num_scales` is not positive: there is nothing that discriminates."
            )
        for size_in, size, groups in zip(
            (1, *self.scale_channels), self.scale_channels, self.scale_groups, strict=False
        ):
            if size_in % groups or size % groups:
                raise ValueError(f"`scale_groups`: {groups} does not divide both {size_in} and {size} channels.")


class PeriodDiscriminator(nn.Module):
    """Convolutions over each phase of the waveform at a period: every second sample, every third …"""

    def __init__(self, period: int, channels: tuple[int, ...]):
        super().__init__()
        self.period = period
        strides = [3] * (len(channels) - 1) + [1]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv1d(size_in, size, 5, stride, padding=2))
            for size_in, size, stride in zip((1, *channels), channels, strides, strict=False)
        )
        self.output = weight_norm(nn.Conv1d(channels[-1], 1, 3, padding=1))

    def forward(self, waveforms: torch.Tensor) -> list[torch.Tensor]:
        """`(B, S)` samples to the layers' features, each `(B * period, C, T)`, and last the scores."""
        waveforms = F.pad(waveforms[:, None], (0, -waveforms.shape[1] % self.period), "reflect")[:, 0]
        # phases as rows of a batch: the same as a convolution of (k, 1) over (T, period), and faster on a CPU
        phases = waveforms.unflatten(-1, (-1, self.period)).transpose(1, 2).flatten(0, 1)  # (B * period, S / period)
        return _features(phases[:, None].contiguous(), self.layers, self.output)


class ScaleDiscriminator(nn.Module):
    """Strided, grouped convolutions with long kernels over the waveform at one rate."""

    def __init__(self, channels: tuple[int, ...], strides: tuple[int, ...], groups: tuple[int, ...]):
        super().__init__()
        kernels = [15] + [41] * (len(channels) - 2) + [5]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv1d(size_in, size, kernel, stride, padding=kernel // 2, groups=group))
            for size_in, size, kernel, stride, group in zip(
                (1, *channels), channels, kernels[-len(channels) :], strides, groups, strict=False
            )
        )
        self.output = weight_norm(nn.Conv1d(channels[-1], 1, 3, padding=1))

    def forward(self, waveforms: torch.Tensor) -> list[torch.Tensor]:
        """`(B, S)` samples to the layers' features, each `(B, C, T)`, and last the scores `(B, 1, T)`."""
        return _features(waveforms[:, None], self.layers, self.output)


def _features(hidden_states: torch.Tensor, layers: nn.ModuleList, output: nn.Module) -> list[torch.Tensor]:
    features = []
    for layer in layers:
        hidden_states = F.leaky_relu(layer(hidden_states), SLOPE)
        features.append(hidden_states)
    return [*features, output(hidden_states)]


class Discriminators(nn.Module):
    """
    All discriminators of a run.

    Args:
        arguments ([`DiscriminatorArguments`]): Their sizes.
    """

    def __init__(self, arguments: DiscriminatorArguments):
        super().__init__()
        self.periods = nn.ModuleList(PeriodDiscriminator(p, arguments.period_channels) for p in arguments.periods)
        self.scales = nn.ModuleList(
            ScaleDiscriminator(arguments.scale_channels, arguments.scale_strides, arguments.scale_groups)
            for _ in range(arguments.num_scales)
        )

    def forward(self, waveforms: torch.Tensor) -> list[list[torch.Tensor]]:
        """
        Args:
            waveforms (`torch.Tensor` of shape `(batch_size, num_samples)`): Recorded or made.

        Returns:
            For each discriminator the features of its layers, and as the last of them its scores.
        """
        results = [discriminator(waveforms) for discriminator in self.periods]
        for index, discriminator in enumerate(self.scales):
            if index:
                waveforms = F.avg_pool1d(waveforms[:, None], 4, 2, padding=2)[:, 0]
            results.append(discriminator(waveforms))
        return results
