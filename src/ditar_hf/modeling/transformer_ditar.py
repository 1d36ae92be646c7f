"""The lean bidirectional transformer of patch encoder and LocDiT: short sequences of one length, so no mask and no
cache.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_ditar import DiTARTransformerConfig


class DiTARRMSNorm(nn.Module):
    """Root mean square norm (Zhang & Sennrich, 2019) that stays on the fused path under autocast."""

    def __init__(self, hidden_size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.eps = eps

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """`(…, hidden_size)` in and out."""
        return F.rms_norm(hidden_states, self.weight.shape, self.weight.to(hidden_states.dtype), self.eps)


class DiTARRotaryEmbedding(nn.Module):
    """Cosines and signed sines of rotary angles (Su et al., 2024) for a fixed number of positions, in fp32."""

    def __init__(self, config: DiTARTransformerConfig, num_positions: int):
        super().__init__()
        self.head_dim, self.rope_theta, self.num_positions = config.head_dim, config.rope_theta, num_positions
        self.register_buffer("table", self.angles(), persistent=False)

    def angles(self) -> torch.Tensor:
        """`(2, num_positions, head_dim)`; also refills the buffer after construction on the meta device."""
        frequency = self.rope_theta ** (-torch.arange(0, self.head_dim, 2, dtype=torch.float32) / self.head_dim)
        angle = torch.arange(self.num_positions, dtype=torch.float32)[:, None] * frequency
        # the sine of the first half is negated, so that `rotate` only has to swap halves
        return torch.stack((torch.cat((angle.cos(),) * 2, -1), torch.cat((-angle.sin(), angle.sin()), -1)))

    def reset_parameters(self):
        """Refills the buffer."""
        init.copy_(self.table, self.angles())

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """The table in the dtype of `(B, T, C)` hidden states: `(2, T, head_dim)`."""
        return self.table[:, : hidden_states.shape[1]].to(hidden_states.dtype)


def rotate(states: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Turns pairs of channels of `(…, T, head_dim)`, one from each half, by their positions' angles."""
    swapped = states.roll(states.shape[-1] // 2, -1)
    return torch.addcmul(states * table[0], swapped, table[1])


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention written out, for `attn_implementation="eager"`; `(B, heads, T, head_dim)` to `(B, T, heads,
    head_dim)`.
    """
    weights = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = weights.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class DiTARAttention(nn.Module):
    """Bidirectional attention with one matrix for queries, keys and values."""

    def __init__(self, config: DiTARTransformerConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.head_dim
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.qkv_proj = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, hidden_states: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """`(B, T, hidden_size)` in and out; `table` is that of the rotary embedding."""
        states = self.qkv_proj(hidden_states).unflatten(-1, (3, -1, self.head_dim)).permute(2, 0, 3, 1, 4)
        query, key = rotate(states[:2], table)  # (B, heads, T, head_dim) each
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        output, _ = attention(
            self,
            query,
            key,
            states[2],
            attention_mask=None,
            scaling=self.scaling,
            dropout=0.0,
            is_causal=False,
        )
        return self.o_proj(output.flatten(2))  # (B, T, C)


class DiTARTransformerBlock(GradientCheckpointingLayer):
    """Pre-norm attention and two-matrix FFN, each with a residual connection."""

    def __init__(self, config: DiTARTransformerConfig):
        super().__init__()
        self.attention_norm = DiTARRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention = DiTARAttention(config)
        self.mlp_norm = DiTARRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, hidden_states: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """`(B, T, hidden_size)` in and out; `table` is that of the rotary embedding."""
        hidden_states = hidden_states + self.attention(self.attention_norm(hidden_states), table)
        return hidden_states + self.down_proj(F.gelu(self.up_proj(self.mlp_norm(hidden_states))))


class DiTARTransformer(nn.Module):
    """
    Stack of blocks with a final norm.

    Args:
        config ([`DiTARTransformerConfig`]): Sizes.
        num_positions (`int`): Longest sequence.
    """

    def __init__(self, config: DiTARTransformerConfig, num_positions: int):
        super().__init__()
        self.rotary_embedding = DiTARRotaryEmbedding(config, num_positions)
        self.layers = nn.ModuleList(DiTARTransformerBlock(config) for _ in range(config.num_hidden_layers))
        self.norm = DiTARRMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """`(B, T, hidden_size)` in and out; each position attends to all."""
        table = self.rotary_embedding(hidden_states)
        for layer in self.layers:
            hidden_states = layer(hidden_states, table)
        return self.norm(hidden_states)
