"""A training aid that is not in the paper: which token does each patch speak?"""

import torch
from torch import nn
from torch.nn import functional as F

from .configuration_ditar import DiTARConfig
from .loss_ditar import IGNORE_INDEX


class DiTARAlignmentHead(nn.Module):
    """
    Two classifiers on the states that patches are drawn from: a pointer to the token that the patch speaks, and its
    symbol.

    Small models on little data learn to follow the text many times faster with it. It is used in training only, and
    only for examples whose timing is known.

    Args:
        config ([`DiTARConfig`]): Uses `lm_config` and the special tokens.
    """

    def __init__(self, config: DiTARConfig):
        super().__init__()
        hidden_size = config.lm_config.hidden_size
        self.special_token_ids = (config.pad_token_id, config.audio_bos_token_id, config.audio_patch_token_id)
        self.pointer_size = max(16, hidden_size // 4)
        self.query_proj = nn.Linear(hidden_size, self.pointer_size, bias=False)
        self.key_proj = nn.Linear(hidden_size, self.pointer_size, bias=False)
        self.symbol_proj = nn.Linear(hidden_size, config.lm_config.vocab_size)

    @torch.no_grad()
    def add_symbols(self, number: int):
        """
        Makes place for new tokens of the vocabulary; the head says of old ones what it said before.

        Args:
            number (`int`): How many.
        """
        old = self.symbol_proj
        sizes = (old.in_features, old.out_features + number)
        # without the usual start, which would draw from torch's own generator
        self.symbol_proj = nn.utils.skip_init(nn.Linear, *sizes, device=old.weight.device, dtype=old.weight.dtype)
        self.symbol_proj.weight.zero_()[: old.out_features] = old.weight
        self.symbol_proj.bias.zero_()[: old.out_features] = old.bias

    def forward(
        self, hidden_states: torch.Tensor, input_ids: torch.Tensor, alignment_targets: torch.Tensor
    ) -> torch.Tensor:
        """
        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, sequence_length, hidden_size)`): States of the LM.
            input_ids (`torch.Tensor` of shape `(batch_size, sequence_length)`): Tokens.
            alignment_targets (`torch.Tensor` of shape `(batch_size, sequence_length)`):
                Position of the spoken token, −100 where unknown.

        Returns:
            `torch.Tensor` of shape `()`: sum of both cross-entropies, means over labelled states; 0 without any.
        """
        row, position = (alignment_targets != IGNORE_INDEX).nonzero(as_tuple=True)
        if not len(row):  # 0, and still part of the graph, as processes that train together expect
            return sum(parameter.float().sum() for parameter in self.parameters()) * 0.0
        label = alignment_targets[row, position]  # (M,)
        states = hidden_states[row, position]  # (M, H)
        keys = self.key_proj(hidden_states)[row]  # (M, S, C)
        scores = torch.einsum("mc,msc->ms", self.query_proj(states), keys).float() * self.pointer_size**-0.5
        is_text = torch.ones_like(input_ids, dtype=torch.bool)
        for token in self.special_token_ids:
            is_text &= input_ids != token
        scores = scores.masked_fill(~is_text[row], torch.finfo(torch.float32).min)
        symbols = self.symbol_proj(states).float()
        return F.cross_entropy(scores, label) + F.cross_entropy(symbols, input_ids[row, label])
