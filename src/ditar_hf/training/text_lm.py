"""
DiTAR from a pretrained causal language model of text: its weights read, all else is fresh.

It reads phonemes, by an embedding that is drawn anew, or text as it was pretrained on, with its own tokenizer.
"""

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ..modeling.configuration_ditar import DiTARConfig, check_language_model
from ..modeling.modeling_ditar import DiTARForTextToSpeech
from ..modeling.modeling_ditar_vae import DiTARVAE
from .vocabulary import NEW_ROW_SPREAD, draw_rows

CONTROL_TOKENS = {"audio_bos_token": "<audio_bos>", "audio_patch_token": "<audio_patch>"}
# A token is a word or a part of one, up to half a second of speech; until `fit_length_bounds` measures it
MAX_PATCHES_PER_TEXT_TOKEN = 6.0


def load_text_lm(name_or_path: str | os.PathLike, **kwargs: Any) -> PreTrainedModel:
    """
    A pretrained causal language model, without its output layer, in float32.

    Args:
        name_or_path (`str` or `os.PathLike`): Folder or Hub id.
        **kwargs: Passed to `from_pretrained`: `revision`, `token`, `cache_dir` …

    Returns:
        `PreTrainedModel`: The decoder, for [`build_from_text_lm`].

    Raises:
        ValueError: If it is none that DiTAR can build on (encoder-decoders, encoders, models of several modalities,
            quantized ones, code from the Hub), a file of a local folder is missing or damaged, or weights are missing.
        OSError: If a repository, or a file in it, is not found on the Hub or in the cache.
    """
    source = repr(str(name_or_path))
    with _naming("language model", name_or_path):
        # its own code would not be ours to judge, and the question whether to run it not ours to put
        config = AutoConfig.from_pretrained(name_or_path, trust_remote_code=False, **kwargs)
    _check_text_lm(config, source)
    with _naming("language model", name_or_path):
        lm, info = AutoModel.from_pretrained(
            name_or_path, config=config, dtype=torch.float32, output_loading_info=True, **kwargs
        )
    if missing := sorted(info["missing_keys"]):
        raise ValueError(
            f"`name_or_path`: {source} lacks {len(missing)} weights of a {type(lm).__name__}, such as {missing[0]}: "
            "load a complete checkpoint of a causal language model."
        )
    return lm


def load_text_tokenizer(name_or_path: str | os.PathLike, **kwargs: Any) -> PreTrainedTokenizerBase:
    """
    The tokenizer of a text language model with the control tokens of DiTAR, for models that read text as it is.

    Ids stay what they are. `audio_bos_token`, `audio_patch_token` and, where there is no padding token, `pad_token`
    follow upon them. The library saves and loads it like any other; [`DiTARProcessor`] takes it as it is.

    Args:
        name_or_path (`str` or `os.PathLike`): Folder or Hub id.
        **kwargs: Passed to `from_pretrained`: `revision`, `token`, `cache_dir` …

    Returns:
        `PreTrainedTokenizerBase`: The tokenizer.

    Raises:
        ValueError: If the library has no code for it, or a file of a local folder is missing or damaged.
        OSError: If a repository, or a file in it, is not found on the Hub or in the cache.
    """
    options = {**CONTROL_TOKENS, "padding_side": "left", "trust_remote_code": False}
    with _naming("tokenizer", name_or_path):
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, **options, **kwargs)
    if tokenizer.pad_token is None:
        tokenizer.add_special_tokens({"pad_token": "<pad>"})
    return tokenizer


def build_from_text_lm(
    lm: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: DiTARConfig, vae: DiTARVAE | None = None
) -> DiTARForTextToSpeech:
    """
    A model to be trained that reads with a pretrained language model, whose weights are copied.

    Patch encoder, LocDiT and stop head are fresh; `torch.manual_seed` decides on them. With a [`DiTARTokenizer`]
    phonemes take the place of the language model's vocabulary, with embeddings drawn from the distribution of its own.
    With the tokenizer of [`load_text_tokenizer`] it keeps its embeddings, and `max_patches_per_token` of the
    generation config becomes 6; better set it by [`fit_length_bounds`] on the training data.

    Args:
        lm (`PreTrainedModel`): From [`load_text_lm`], or one in memory with or without its output layer.
        tokenizer ([`DiTARTokenizer`] or `PreTrainedTokenizerBase`): What turns text into tokens.
        config ([`DiTARConfig`]): Sizes of the rest; `lm_config` and ids of control tokens are replaced.
        vae ([`DiTARVAE`], *optional*): A trained tokenizer of speech, as in `DiTARForTextToSpeech.from_vae`.

    Returns:
        [`DiTARForTextToSpeech`].

    Raises:
        ValueError: If the language model is none that DiTAR can build on, the tokenizer lacks a control token or has
            other ids than the language model, or sizes that both `config` and `vae` name differ.
    """
    lm = lm.base_model
    _check_text_lm(lm.config, f"a {type(lm).__name__}")
    config = _reading_with(config, lm.config, tokenizer)
    model = DiTARForTextToSpeech(config) if vae is None else DiTARForTextToSpeech.from_vae(vae, config)
    known, embedding = _copy_weights(lm, model.model.language_model), model.get_input_embeddings()
    if hasattr(tokenizer, "phonemize"):
        draw_rows(embedding, range(len(tokenizer)), known, 1.0)
        return model
    with torch.no_grad():
        embedding.weight[: len(known)] = known
    # rows up to a round number may follow upon those of the language model's own tokens
    control = {config.audio_bos_token_id, config.audio_patch_token_id, *range(len(known), embedding.num_embeddings)}
    draw_rows(embedding, sorted(control), known, NEW_ROW_SPREAD)
    model.generation_config.max_patches_per_token = MAX_PATCHES_PER_TEXT_TOKEN
    return model


def _reading_with(config: DiTARConfig, lm_config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> DiTARConfig:
    """A configuration with another language model, and ids and size of another vocabulary."""
    ids = {f"{name}_id": getattr(tokenizer, f"{name}_id", None) for name in ("pad_token", *CONTROL_TOKENS)}
    if missing := [name for name, index in ids.items() if index is None]:
        raise ValueError(
            f"`tokenizer` has no `{missing[0]}`: take that of `load_text_tokenizer`, or a DiTARTokenizer."
        )
    config, lm_config = copy.deepcopy(config), copy.deepcopy(lm_config)
    if hasattr(tokenizer, "phonemize"):
        lm_config.vocab_size = len(tokenizer)
        lm_config.bos_token_id = lm_config.eos_token_id = None  # of another vocabulary
    elif tokenizer.audio_bos_token_id > lm_config.vocab_size:
        raise ValueError(
            f"`tokenizer` has {tokenizer.audio_bos_token_id} tokens of its own and `lm` {lm_config.vocab_size}: take "
            "the one that the language model was pretrained with."
        )
    else:
        lm_config.vocab_size = max(lm_config.vocab_size, len(tokenizer))
    lm_config.pad_token_id = tokenizer.pad_token_id
    config.lm_config = lm_config
    for name, index in ids.items():
        setattr(config, name, index)
    config.validate_architecture()
    return config


@contextmanager
def _naming(what: str, name_or_path: str | os.PathLike) -> Iterator[None]:
    """Says in errors of the library what was read, and where."""
    source = repr(str(name_or_path))
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        if isinstance(error, OSError) and not os.path.isdir(name_or_path):
            raise OSError(
                f"`name_or_path`: there is no folder {source}, and no {what} of that name on the Hub or in the cache: "
                f"{error}"
            ) from error
        raise ValueError(
            f"`name_or_path`: the {what} in {source} cannot be read, for a file is missing or damaged, or the library "
            f"does not know its kind: {error}"
        ) from error


def _check_text_lm(config: PreTrainedConfig, source: str):
    problem = None
    if getattr(config, "is_encoder_decoder", False):
        problem = "is an encoder-decoder: take a decoder only, such as a Llama or Qwen3"
    elif getattr(config, "quantization_config", None) is not None:
        problem = "is quantized, and could not be trained: take the model that it was made from"
    if problem:
        raise ValueError(f"the language model, {source}, {problem}.")
    try:
        check_language_model(config)
    except ValueError as error:
        raise ValueError(f"the language model, {source}, will not do: {error}") from error


@torch.no_grad()
def _copy_weights(source: PreTrainedModel, target: PreTrainedModel) -> torch.Tensor:
    """Copies all weights but the embedding's, and returns the embeddings of the source."""
    known = source.get_input_embeddings().weight
    name = next(name for name, value in source.named_parameters() if value is known)
    target.load_state_dict({**source.state_dict(), name: target.get_input_embeddings().weight})
    return known


__all__ = ["build_from_text_lm", "load_text_lm", "load_text_tokenizer"]
