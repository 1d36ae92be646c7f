"""The vocabulary of DiTAR's tokenizer: the phones it is made of, and the file it is read from."""

import os
import unicodedata
from collections.abc import Iterable
from typing import Any

from transformers import AddedToken

from .normalization_ditar import PUNCTUATION_MARKS
from .phonemes_ditar import WORD_BOUNDARY, resolve_language, text_to_phones
from .saved_folders_ditar import read_json_object


def phones_of(texts: Iterable[str], language: str) -> set[str]:
    """
    The phones of texts, without spaces and punctuation marks.

    Args:
        texts (`Iterable[str]`): Of one language.
        language (`str`): Its espeak-ng code or an alias of that.

    Returns:
        `set[str]`.

    Raises:
        ValueError: If `texts` is one string, or espeak-ng does not know the language.
        ImportError: If `phonemizer` is not installed.
    """
    if isinstance(texts, str):
        raise ValueError("`texts` must be an iterable of texts, got one string. Pass `[text]`.")
    code = resolve_language(language)
    return {phone for text in texts for phone in text_to_phones(text, code)}.difference(
        PUNCTUATION_MARKS, WORD_BOUNDARY
    )


def symbols_of(phones: Iterable[str]) -> set[str]:
    """
    Phones in composed form, and each character of them.

    Args:
        phones (`Iterable[str]`): As espeak-ng writes them.

    Returns:
        `set[str]`.

    Raises:
        ValueError: If there is none.
    """
    phones = {unicodedata.normalize("NFC", phone) for phone in phones}
    if not phones:
        raise ValueError("`texts` hold no speech: no phones were found to build a vocabulary from.")
    return phones | {char for phone in phones for char in phone}


def check_control_tokens(**tokens: Any) -> set[str]:
    """
    The tokens that no text can hold.

    Args:
        **tokens (`str` or `AddedToken`): By the name of the argument.

    Returns:
        `set[str]`.

    Raises:
        ValueError: If one is no token.
    """
    for name, token in tokens.items():
        if not isinstance(token, (str, AddedToken)) or not str(token):
            raise ValueError(f"`{name}` must be a token, such as '<{name.removesuffix('_token')}>', got {token!r}.")
    return {str(token) for token in tokens.values()}


def read_vocabulary(vocab_file: str | os.PathLike, control_tokens: set[str]) -> dict[str, int]:
    """
    Reads a vocabulary that is whole.

    Args:
        vocab_file (`str` or `os.PathLike`): A JSON file of tokens with their ids.
        control_tokens (`set[str]`): Which are no phones; those that it does not hold the tokenizer adds.

    Returns:
        `dict[str, int]`: Token to id.

    Raises:
        ValueError: If it is no such file, an id is impossible or there twice, or there is no phone.
    """
    vocabulary, problem = read_json_object(vocab_file), None
    if odd := [index for index in vocabulary.values() if type(index) is not int or index < 0]:
        problem = f"gives the id {odd[0]!r}, which is no whole number from 0"
    elif len(set(vocabulary.values())) < len(vocabulary):
        problem = "gives one id to several tokens"
    elif control_tokens.issuperset(vocabulary):
        problem = "holds no phone"
    if problem:
        raise ValueError(f"`vocab_file` {str(vocab_file)!r} {problem}. Fetch it again, or build one by `from_texts`.")
    return vocabulary


__all__ = ["check_control_tokens", "phones_of", "read_vocabulary", "symbols_of"]
