"""A new language for a trained model: more phones, and every old one as it was."""

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from ..modeling.modeling_ditar import DiTARForTextToSpeech
from ..modeling.processing_ditar import DiTARProcessor

# of the old rows' deviation: enough to tell new tokens apart, too little to be far from what the model has learnt
NEW_ROW_SPREAD = 0.1


def extend_vocabulary(
    model: DiTARForTextToSpeech, processor: DiTARProcessor, texts: Iterable[str], language: str, seed: int = 0
) -> list[int]:
    """
    Adds the phones of a language to tokenizer and text embedding, both changed in place.

    Old tokens keep ids and embeddings bit for bit, and old texts are read as before
    ([`DiTARTokenizer.add_language`]), so the model speaks as it did until it is trained. The embedding of a new token
    is the mean of the old ones and a little noise. Save model and processor before LoRA is added: an adapter belongs
    to a model that lies somewhere.

    `generate` bounds the length of speech by the number of tokens, in one way for all languages. Where the new one
    is spoken in more or fewer patches per token, widen the bounds with [`fit_length_bounds`].

    Args:
        model ([`DiTARForTextToSpeech`]): The model.
        processor ([`DiTARProcessor`]): Its processor.
        texts (`Iterable[str]`): Texts of the language, best all that the model will be trained on.
        language (`str`): Its espeak-ng code or an alias of that.
        seed (`int`, *optional*, defaults to 0): Of the noise.

    Returns:
        `list[int]`: The new tokens, for `add_lora(…, new_tokens=…)`; empty if the old ones cover the language.

    Raises:
        ValueError: If espeak-ng does not know the language, the texts give no phones, the tokenizer has no phonemes,
            model and processor do not belong together, or the model has an adapter.
        ImportError: If `phonemizer` is not installed.
    """
    tokenizer = processor.tokenizer
    if not processor.reads_phonemes:
        raise ValueError(
            f"`processor` has the tokenizer of a text language model ({type(tokenizer).__name__}), which reads any "
            "language as it is: train without extending it."
        )
    if hasattr(model, "peft_config"):
        raise ValueError("`model` has an adapter: merge it first, or extend the vocabulary before adding it.")
    lm, size = model.model.language_model, model.config.lm_config.vocab_size
    if len(tokenizer) > size or model.config.audio_bos_token_id != tokenizer.audio_bos_token_id:
        raise ValueError(
            f"`processor` with {len(tokenizer)} tokens does not belong to `model` with {size}: load both from one "
            "folder."
        )
    old = sorted(set(range(len(tokenizer))).difference(tokenizer.all_special_ids))
    new = tokenizer.add_language(texts, language)
    if not new:
        return new
    if len(tokenizer) > size:
        # the library draws the new rows from torch's own generator, but they are drawn once more below
        with torch.random.fork_rng(devices=[]):
            lm.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        model.config.lm_config.vocab_size = len(tokenizer)
        if model.alignment_head is not None:
            model.alignment_head.add_symbols(len(tokenizer) - size)
    embedding = lm.get_input_embeddings()
    draw_rows(embedding, new, embedding.weight[old], NEW_ROW_SPREAD, torch.Generator().manual_seed(seed))
    # it is no longer the model that it was loaded from
    model.name_or_path = ""
    return new


@torch.no_grad()
def draw_rows(
    embedding: nn.Embedding,
    rows: Sequence[int],
    known: torch.Tensor,
    spread: float,
    generator: torch.Generator | None = None,
):
    """
    Draws rows of an embedding anew, from a normal distribution with the mean of known embeddings.

    Args:
        embedding (`nn.Embedding`): Changed in place.
        rows (`Sequence[int]`): The rows to draw.
        known (`torch.Tensor` of shape `(num_tokens, hidden_size)`): Embeddings of other tokens.
        spread (`float`): Standard deviation of the draws, in units of that of `known` in each channel.
        generator (`torch.Generator`, *optional*): Source of the draws, on the CPU; torch's own by default.
    """
    weight, known = embedding.weight, known.float().to(embedding.weight.device)
    noise = torch.randn(len(rows), weight.shape[1], generator=generator).to(weight.device)
    weight[list(rows)] = (known.mean(0) + spread * known.std(0, correction=0) * noise).to(weight.dtype)


__all__ = ["draw_rows", "extend_vocabulary"]
