"""Layers shared by the encoders and decoders of the speech tokenizer.

Shapes: B batch, C channels, T time steps. Masks are `(B, T)`, 1 for a real step; every layer that mixes time steps
reads zeros beyond the end of a row, so that a row in a batch equals the row alone. With the `state` of a decode in
pieces, a layer takes the next piece of its input, perhaps of no steps, and gives the next piece of its output.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init

from .streaming_ditar_vae import DiTARVAEDecodeState


def keeping_dtype(fn: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """What `Module._apply` does to tensors (`.to(…)`, `.half()`), but without a change of their precision."""

    def moved(tensor: torch.Tensor) -> torch.Tensor:
        example = fn(tensor.new_empty(0))
        return fn(tensor) if example.dtype == tensor.dtype else tensor.to(example.device)

    return moved


class PaddedConv1d(nn.Conv1d):
    """
    Convolution whose output has `T / stride` steps, with its padding placed by the number of future steps that it
    sees.

    Args:
        in_channels, out_channels, kernel_size, stride, dilation, groups (`int`): As in `torch.nn.Conv1d`.
        lookahead (`int`, *optional*): Future steps that an output step sees; 0 is causal. By default half of the
        kernel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        lookahead: int | None = None,
    ):
        super().__init__(in_channels, out_channels, kernel_size, stride, dilation=dilation, groups=groups)
        padding = (kernel_size - 1) * dilation + 1 - stride
        right = padding // 2 if lookahead is None else lookahead
        self.pad = (padding - right, right)

    def forward(self, hidden_states: torch.Tensor, state: DiTARVAEDecodeState | None = None) -> torch.Tensor:
        """`(B, C, T)` to `(B, C', T / stride)`; with a `state`, for stride 1, to the steps whose future is known."""
        left, right = self.pad
        if state is None:
            if left != right:
                return super().forward(F.pad(hidden_states, self.pad))
            # padded by the convolution itself, which spares a copy
            return F.conv1d(hidden_states, self.weight, self.bias, self.stride, left, self.dilation, self.groups)
        hidden_states = state.extend(self, hidden_states, context=left + right, zeros=left)
        if state.is_last:
            hidden_states = F.pad(hidden_states, (0, right))
        # a convolution refuses to have no output
        if hidden_states.shape[-1] <= left + right:
            return hidden_states.new_zeros(hidden_states.shape[0], self.out_channels, 0)
        return super().forward(hidden_states)


class UpsamplingConv1d(nn.ConvTranspose1d):
    """Transposed convolution with `T * stride` output steps; a causal one mixes a step with the one before it."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, causal: bool):
        super().__init__(in_channels, out_channels, 2 * stride, stride)
        self.trim = 0 if causal else stride // 2

    def forward(self, hidden_states: torch.Tensor, state: DiTARVAEDecodeState | None = None) -> torch.Tensor:
        """`(B, C, T)` to `(B, C', T * stride)`."""
        if state is not None:
            return self.forward(state.extend(self, hidden_states, context=1, zeros=1))[..., self.stride[0] :]
        length = hidden_states.shape[-1] * self.stride[0]
        return super().forward(hidden_states)[..., self.trim : self.trim + length]


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution and pointwise MLP with a residual connection (Liu et al., 2022), in one dimension."""

    def __init__(self, hidden_size: int, mlp_size: int, kernel_size: int, causal: bool, layer_scale: float):
        super().__init__()
        self.depthwise = PaddedConv1d(
            hidden_size, hidden_size, kernel_size, groups=hidden_size, lookahead=0 if causal else None
        )
        self.norm = nn.LayerNorm(hidden_size, eps=1e-6)
        self.up_proj = nn.Linear(hidden_size, mlp_size)
        self.down_proj = nn.Linear(mlp_size, hidden_size)
        self.layer_scale_init = layer_scale
        self.layer_scale = nn.Parameter(torch.full((hidden_size,), layer_scale))

    def reset_parameters(self):
        """Gives the raw parameter its initial value, also after construction on the meta device."""
        init.constant_(self.layer_scale, self.layer_scale_init)

    def forward(
        self,
        hidden_states: torch.Tensor,
        mask: torch.Tensor | None = None,
        state: DiTARVAEDecodeState | None = None,
    ) -> torch.Tensor:
        """`(B, T, C)` in and out; `mask` is `(B, T)`."""
        residual = hidden_states
        if mask is not None:
            hidden_states = hidden_states * mask[..., None].to(hidden_states.dtype)
        # contiguous: a depthwise convolution over a transposed view is several times slower on a CPU
        hidden_states = self.depthwise(hidden_states.transpose(1, 2).contiguous(), state).transpose(1, 2).contiguous()
        hidden_states = self.down_proj(F.gelu(self.up_proj(self.norm(hidden_states))))
        return residual + self.layer_scale * hidden_states


def downsample_mask(mask: torch.Tensor | None, stride: int) -> torch.Tensor | None:
    """Mask `(B, T)` at the rate after a stride: `(B, T / stride)`; a step is real if its first sample is."""
    return None if mask is None else mask[:, ::stride]


def upsample_mask(mask: torch.Tensor | None, stride: int) -> torch.Tensor | None:
    """Mask `(B, T)` at the rate before a stride: `(B, T * stride)`."""
    return None if mask is None else mask.repeat_interleave(stride, dim=1)


def apply_mask(hidden_states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Zeros in `(B, C, T)` where `mask` `(B, T)` is 0."""
    return hidden_states if mask is None else hidden_states * mask[:, None].to(hidden_states.dtype)
