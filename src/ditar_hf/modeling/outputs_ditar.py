"""What the models return."""

from dataclasses import dataclass

import torch
from transformers import Cache
from transformers.utils import ModelOutput


class CacheByTwoNames(ModelOutput):
    """
    An output whose `cache` is also its `past_key_values`, as transformers called it before 5.24.

    From 5.24 on, no field of an output can have the older name; before, none has the newer one.
    """

    @property
    def past_key_values(self) -> Cache | None:
        """`Cache`, *optional*: The same as `cache`."""
        return self.cache


@dataclass
class DiTARModelOutput(CacheByTwoNames):
    """
    Output of [`DiTARModel`].

    Args:
        last_hidden_state (`torch.Tensor` of shape `(batch_size, sequence_length, hidden_size)`): States of the LM.
        cache (`Cache`, *optional*): Its states of the positions so far.
    """

    last_hidden_state: torch.Tensor | None = None
    cache: Cache | None = None


@dataclass
class DiTARForTextToSpeechOutput(CacheByTwoNames):
    """
    Output of [`DiTARForTextToSpeech`].

    Args:
        loss (`torch.Tensor` of shape `()`):
            Weighted sum of the losses below, or this batch's share of it (`num_items_in_batch`); `None` without
            latents.
        diffusion_loss (`torch.Tensor` of shape `()`): Flow-matching loss on target patches (Eq. 7).
        stop_loss (`torch.Tensor` of shape `()`): Of the stop head; `None` without labels.
        alignment_loss (`torch.Tensor` of shape `()`): Of the alignment head; `None` without its labels.
        stop_logits (`torch.Tensor` of shape `(batch_size, sequence_length)`): For "no patch follows this state".
        last_hidden_state (`torch.Tensor` of shape `(batch_size, sequence_length, hidden_size)`): States of the LM.
        cache (`Cache`, *optional*): Its states of the positions so far.
    """

    loss: torch.Tensor | None = None
    diffusion_loss: torch.Tensor | None = None
    stop_loss: torch.Tensor | None = None
    alignment_loss: torch.Tensor | None = None
    stop_logits: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None
    cache: Cache | None = None


__all__ = ["DiTARForTextToSpeechOutput", "DiTARModelOutput"]
