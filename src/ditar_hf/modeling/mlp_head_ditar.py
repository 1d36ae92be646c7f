"""A diffusion head without attention, in place of LocDiT's transformer: the residual MLP of MAR (Li et al., 2024)."""

import torch
from torch import nn
from torch.nn import functional as F

from .configuration_ditar import DiTARTransformerConfig
from .transformer_ditar import DiTARRMSNorm


class DiTARMLPBlock(nn.Module):
    """Two-matrix FFN with a residual connection; its scale, shift and gate are read off the condition."""

    def __init__(self, config: DiTARTransformerConfig):
        super().__init__()
        self.norm = DiTARRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.modulation = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, hidden_states: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """`(B, T, hidden_size)` in and out; the condition is `(B, 1, hidden_size)`."""
        scale, shift, gate = self.modulation(F.silu(condition)).chunk(3, dim=-1)
        update = self.down_proj(F.gelu(self.up_proj(self.norm(hidden_states) * (1 + scale) + shift)))
        return hidden_states + gate * update


class DiTARMLPHead(nn.Module):
    """
    Blocks that see one frame each: the token of condition and time modulates them, the others are what they work on.

    It takes and gives the tokens of [`DiTARTransformer`], so that LocDiT can hold either.

    Args:
        config ([`DiTARTransformerConfig`]): Sizes; the heads are not used.
    """

    def __init__(self, config: DiTARTransformerConfig):
        super().__init__()
        self.layers = nn.ModuleList(DiTARMLPBlock(config) for _ in range(config.num_hidden_layers))
        self.norm = DiTARRMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Tokens `(B, T, hidden_size)`, the first is the condition, to states `(B, T - 1, hidden_size)`."""
        condition, hidden_states = hidden_states[:, :1], hidden_states[:, 1:]
        for layer in self.layers:
            hidden_states = layer(hidden_states, condition)
        return self.norm(hidden_states)
