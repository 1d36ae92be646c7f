"""LoRA (Hu et al., 2021): fine-tuning by small matrices beside those of the language model and LocDiT, with PEFT."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn
from transformers.pytorch_utils import Conv1D

from ..modeling.modeling_ditar import DiTARForTextToSpeech

if TYPE_CHECKING:
    from peft import PeftModel

# of the two parts that are adapted; the path of LocDiT leaves out what reads conditions, times and frames
ADAPTED_PARTS = ("model.language_model", "locdit.transformer")


def add_lora(
    model: DiTARForTextToSpeech,
    r: int = 16,
    alpha: float = 32.0,
    dropout: float = 0.0,
    new_tokens: Sequence[int] = (),
) -> "PeftModel":
    """
    Freezes a model and adds LoRA to all attention and FFN matrices of its language model and of LocDiT.

    The stop head, of a few hundred weights, is trained in full: when to stop differs from voice to voice. The result
    goes into a `Trainer` like any model. `save_pretrained` writes a folder of the adapter alone, which
    `pipeline("text-to-speech", model=folder)` loads with the model that it belongs to; so does
    `PeftModel.from_pretrained(model, folder)`, and `.merge_and_unload()` of that gives a plain model.

    Args:
        model ([`DiTARForTextToSpeech`]):
            From `from_pretrained`: an adapter names the model that it belongs to by the folder or Hub id that was
            given there. It is changed in place.
        r (`int`, *optional*, defaults to 16): Rank of the matrices.
        alpha (`float`, *optional*, defaults to 32.0): What LoRA adds is scaled by `alpha / r`.
        dropout (`float`, *optional*, defaults to 0.0): Dropout in front of LoRA, in training.
        new_tokens (`Sequence[int]`, *optional*, defaults to `()`):
            Tokens whose embeddings are trained, such as those that `extend_vocabulary` added. All others stay as they
            are.

    Returns:
        `PeftModel`: Around `model`, with gradients for the adapter only.

    Raises:
        ValueError: If a setting is out of range, a token is not in the vocabulary, the model was not loaded from
            anywhere or was changed since, or already has an adapter.
        ImportError: If `peft` is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ImportError('LoRA needs `peft`, which is not installed: pip install -e ".[lora]".') from error
    _check_settings(r, alpha, dropout)
    _check_model(model, new_tokens)
    trained_tokens = {_name_of(model, model.get_input_embeddings()): sorted(set(new_tokens))} if new_tokens else None
    config = LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=target_modules(model),
        modules_to_save=["stop_head"],
        trainable_token_indices=trained_tokens,
    )
    return get_peft_model(model, config)


def target_modules(model: DiTARForTextToSpeech) -> str:
    """
    Which matrices LoRA goes to: all linear layers of the language model, of whatever family, and of LocDiT's blocks.

    Experts of a mixture that are stored as one tensor are no linear layers, and stay as they are.

    Args:
        model ([`DiTARForTextToSpeech`]): The model.

    Returns:
        `str`: A regular expression for whole names of modules, PEFT's `target_modules`.
    """
    parts = []
    for part in ADAPTED_PARTS:
        modules = model.get_submodule(part).named_modules()
        names = {name.split(".")[-1] for name, module in modules if isinstance(module, nn.Linear | Conv1D)}
        parts.append(rf"{re.escape(part)}\..*\.({'|'.join(sorted(map(re.escape, names)))})")
    return "|".join(parts)


def _check_settings(r: int, alpha: float, dropout: float):
    if not isinstance(r, int) or isinstance(r, bool) or r < 1:
        raise ValueError(f"`r` must be a whole number of at least 1, got {r!r}.")
    if not alpha > 0:
        raise ValueError(f"`alpha` must be positive, got {alpha}.")
    if not 0 <= dropout < 1:
        raise ValueError(f"`dropout` must lie in [0, 1), got {dropout}.")


def _check_model(model: DiTARForTextToSpeech, new_tokens: Sequence[int]):
    if hasattr(model, "peft_config"):
        raise ValueError(
            "`model` already has an adapter: merge it with `merge_and_unload()`, save the result and load that, or go "
            "on training it with `PeftModel.from_pretrained(model, folder, is_trainable=True)`."
        )
    if not model.name_or_path:
        raise ValueError(
            "`model` was built or changed in memory, but an adapter names where the model that it belongs to lies: "
            "save it with `save_pretrained(folder)`, and pass `DiTARForTextToSpeech.from_pretrained(folder)`."
        )
    size = model.config.lm_config.vocab_size
    if wrong := [token for token in new_tokens if not 0 <= token < size]:
        raise ValueError(f"`new_tokens` holds {wrong[0]}, but the vocabulary of the model has {size} tokens.")


def _name_of(model: nn.Module, wanted: nn.Module) -> str:
    return next(name for name, module in model.named_modules() if module is wanted)


__all__ = ["add_lora", "target_modules"]
