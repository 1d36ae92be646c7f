"""Decode of latents that come in pieces: what a causal decoder of the speech tokenizer remembers between them.

A piece runs through the same layers as a whole decode. Only those that mix time steps differ: they read a piece of
their input behind the last steps of the pieces before it, which is all that they can still see of the past. An output
step leaves a layer once all that it depends on is there, so the pieces of waveform add up to one whole decode.
"""

import torch
from torch import nn

from .configuration_ditar_vae import DiTARVAEConfig


class DiTARVAEDecodeState:
    """
    What one decode in pieces remembers: for each layer that mixes time steps, the last steps of its input.

    It belongs to one decode and to one model. The model itself remembers nothing, so many decodes can share it. Its
    size depends on the layers' kernels and not on the number of pieces, and no gradient flows from piece to piece.

    Args:
        config ([`DiTARVAEConfig`]): Of the model, with a causal decoder.
        batch_size (`int`, *optional*, defaults to 1): Rows that are decoded together and end together.

    Attributes:
        is_last (`bool`): Whether the last piece has come, which uses the state up.

    Raises:
        ValueError: If the decoder is not causal, or `batch_size` not positive.

    Example:

    ```python
    state = vae.new_decode_state()
    for latents in pieces:  # (1, num_frames, latent_dim) each
        play(vae.decode(latents, state=state))
    play(vae.decode(latents[:, :0], state=state, is_last=True))
    ```
    """

    def __init__(self, config: DiTARVAEConfig, batch_size: int = 1):
        if not config.decoder_causal:
            raise ValueError(
                "`decoder_causal` is False, so samples depend on latents far ahead: decode all latents at once, or "
                "train a model with `decoder_causal=True`."
            )
        if batch_size < 1:
            raise ValueError(f"`batch_size` ({batch_size}) must be positive.")
        self.batch_size = batch_size
        self.is_last = False
        self._contexts: dict[nn.Module, torch.Tensor] = {}

    def begin_piece(self, latents: torch.Tensor, latents_mask: torch.Tensor | None, is_last: bool):
        """
        Checks that a piece continues this decode, and notes whether it ends it.

        Args:
            latents (`torch.Tensor` of shape `(batch_size, num_frames, latent_dim)`): The piece.
            latents_mask (`torch.Tensor`, *optional*): Must be `None`.
            is_last (`bool`): Whether no other piece will follow.

        Raises:
            ValueError: If the last piece has come already, there is a mask, or the piece has another number of rows.
        """
        if self.is_last:
            raise ValueError("`state` is used up, its last piece has come: make another with `new_decode_state`.")
        if latents_mask is not None:
            raise ValueError(
                "`latents_mask` does not go with a `state`, whose rows end together: give rows of different lengths "
                "states of their own."
            )
        if latents.shape[0] != self.batch_size:
            raise ValueError(
                f"`latents` has {latents.shape[0]} rows, but `state` is for {self.batch_size}: make it with "
                f"`new_decode_state(batch_size={latents.shape[0]})`."
            )
        self.is_last = is_last

    def extend(self, layer: nn.Module, hidden_states: torch.Tensor, context: int, zeros: int = 0) -> torch.Tensor:
        """
        A piece of a layer's input, behind the steps before it that the layer still needs.

        Args:
            layer (`torch.nn.Module`): The layer, which runs once in a decode.
            hidden_states (`torch.Tensor` of shape `(batch_size, hidden_size, num_steps)`): The piece.
            context (`int`): Steps that the layer will need before the next piece.
            zeros (`int`, *optional*, defaults to 0): Steps of zeros before the first piece.

        Returns:
            `torch.Tensor` of shape `(batch_size, hidden_size, num_context_steps + num_steps)`, where
            `num_context_steps` begins with `zeros` and grows up to `context`.
        """
        before = self._contexts.pop(layer, None)
        if before is None:
            before = hidden_states.new_zeros(*hidden_states.shape[:2], zeros)
        extended = torch.cat([before, hidden_states], dim=-1)
        if not self.is_last:
            # a view would hold on to the whole piece, and a graph to all pieces
            kept = extended[..., max(0, extended.shape[-1] - context) :]
            self._contexts[layer] = kept.detach().clone()
        return extended


__all__ = ["DiTARVAEDecodeState"]
