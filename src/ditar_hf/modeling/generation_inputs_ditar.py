"""What `generate` refuses of its inputs before it works with them."""

from typing import Any

import torch
from transformers import PreTrainedConfig


def check_types(tensors: dict[str, Any], generator: Any, streamer: Any):
    """
    Refuses inputs of other types than `generate` works with.

    Args:
        tensors (`dict`): By name, `None` where one is not given; prompts, named `prompt_values` and `prompt_latents`,
            hold floats.
        generator (`torch.Generator` or `list`, *optional*): The source of noise.
        streamer (*optional*): What gets the patches.

    Raises:
        ValueError: If one is of another type.
    """
    for name, value in tensors.items():
        if value is None:
            continue
        if not isinstance(value, torch.Tensor):
            raise ValueError(
                f"`{name}` is of type {type(value).__name__}, not a torch.Tensor: call the processor with "
                "`return_tensors='pt'`, or make it one."
            )
        if name in ("prompt_values", "prompt_latents") and not value.is_floating_point():
            raise ValueError(f"`{name}` has type {value.dtype}, but holds floats: the processor makes them.")
    for source in generator if isinstance(generator, list) else [] if generator is None else [generator]:
        if not isinstance(source, torch.Generator):
            raise ValueError(
                f"`generator` is or holds {source!r}: pass `torch.Generator().manual_seed(…)`, or a list with one for "
                "each row."
            )
    if streamer is not None and not (hasattr(streamer, "put") and hasattr(streamer, "end")):
        raise ValueError(
            f"`streamer` is of type {type(streamer).__name__}: pass an object whose `put` takes latents, and with an "
            "`end`."
        )


def check_tokens(
    config: PreTrainedConfig, input_ids: torch.Tensor | None, attention_mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Text and placeholders of prompts as the loop needs them.

    Args:
        config ([`DiTARConfig`]): Of the model.
        input_ids (`torch.Tensor` of shape `(batch_size, sequence_length)`): As for `generate`.
        attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*): As for `generate`.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: `input_ids`, and the mask, int64.

    Raises:
        ValueError: If shapes or ids are impossible, padding is on the right, or the control tokens are out of place.
    """
    if input_ids is None or input_ids.ndim != 2 or not input_ids.numel():
        shape = None if input_ids is None else list(input_ids.shape)
        raise ValueError(f"`input_ids` must be (batch_size, sequence_length), got {shape}: call the processor first.")
    if input_ids.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"`input_ids` has type {input_ids.dtype}, but holds ids: pass int64, as of the processor.")
    vocab_size = config.lm_config.vocab_size
    if input_ids.min() < 0 or input_ids.max() >= vocab_size:
        raise ValueError(
            f"`input_ids` holds ids from {input_ids.min()} to {input_ids.max()}, but the model knows 0 to "
            f"{vocab_size - 1}: use the processor that it was trained with."
        )
    if attention_mask is None:
        attention_mask = input_ids != config.pad_token_id
    if attention_mask.shape != input_ids.shape:
        raise ValueError(
            f"`attention_mask` {list(attention_mask.shape)} must have the shape of `input_ids`, "
            f"{list(input_ids.shape)}."
        )
    attention_mask = attention_mask.long()
    if (attention_mask.diff(dim=1) < 0).any():
        raise ValueError("`input_ids` must be padded on the left: speech goes on where the text ends.")
    is_bos = (input_ids == config.audio_bos_token_id) & (attention_mask == 1)
    is_patch = input_ids == config.audio_patch_token_id
    if is_bos.sum(1).ne(1).any() or ((is_bos.cumsum(1) - is_bos.long()).bool() != is_patch).any():
        raise ValueError(
            f"each row of `input_ids` needs one audio_bos token (id {config.audio_bos_token_id}) after its "
            f"text, and behind it only placeholders of prompt patches (id {config.audio_patch_token_id}): "
            "use the processor, not the tokenizer alone."
        )
    return input_ids, attention_mask


__all__ = ["check_tokens", "check_types"]
