"""Tokenizer of DiTAR: text to espeak-ng phonemes to ids."""

import json
import os
import re
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from transformers.tokenization_python import PreTrainedTokenizer
from transformers.utils import logging

from .normalization_ditar import PUNCTUATION_MARKS, check_text, normalize_text
from .phonemes_ditar import WORD_BOUNDARY, join_phones, resolve_language, text_to_phones
from .saved_folders_ditar import refuse_broken_json, refuse_missing_folder, refuse_other_names
from .vocabulary_ditar import check_control_tokens, phones_of, read_vocabulary, symbols_of

logger = logging.get_logger(__name__)

VOCAB_FILES_NAMES = {"vocab_file": "vocab.json"}


class DiTARTokenizer(PreTrainedTokenizer):
    """
    Tokenizer over espeak-ng phonemes.

    Text is normalised ([`normalize_text`]), cut at its punctuation, turned into phonemes by espeak-ng, and put
    together again as a *phoneme string*: IPA with spaces between words and with the punctuation kept, for example
    `"ðə kwˈɪk bɹˈaʊn fˈɑːks."`. A token is one phone of espeak-ng with its stress mark in front and its length mark
    or tone behind (`"ˈɑː"`, `"aʊ"`, `"tʃ"`), a punctuation mark, or the space. A phoneme string is tokenized by the
    longest match, so its ids depend on nothing but the string, and decoding them gives the string back. A symbol
    outside the vocabulary becomes `unk_token`, is counted in `unknown_symbols` and reported once.

    The vocabulary is built from data, see [`DiTARTokenizer.from_texts`]. Phoneme strings need no phonemizer; text
    needs the packages `phonemizer` and `espeakng-loader` (GPL-3), which are used only where they are installed. What
    espeak-ng makes of each language is noted at the top of `phonemes_ditar.py`.

    Args:
        vocab_file (`str`): Path of `vocab.json`, which maps tokens to ids.
        languages (`list[str]`, *optional*, defaults to `["en-us"]`):
            The espeak-ng codes of the languages that the vocabulary was built for.
        language (`str`, *optional*):
            The language of text when a call names none. Defaults to the first of `languages`.
        do_phonemize (`bool`, *optional*, defaults to `True`):
            Whether a call gets text. With `False` it gets phoneme strings. The argument `phonemize` of a call wins.
        pad_token (`str`, *optional*, defaults to `"<pad>"`): The padding token.
        unk_token (`str`, *optional*, defaults to `"<unk>"`): The token of symbols outside the vocabulary.
        audio_bos_token (`str`, *optional*, defaults to `"<audio_bos>"`): The token between text and audio patches.
        audio_patch_token (`str`, *optional*, defaults to `"<audio_patch>"`):
            The placeholder of one audio patch.
        **kwargs: Passed to [`PreTrainedTokenizer`].

    Raises:
        ValueError: If the vocabulary is none or holds no phone, a control token is no token, or `languages` or
            `language` names none.
    """

    vocab_files_names = VOCAB_FILES_NAMES
    model_input_names = ["input_ids", "attention_mask"]
    # The audio follows the text at once, so padding stands in front.
    padding_side = "left"
    SPECIAL_TOKENS_ATTRIBUTES = [
        *PreTrainedTokenizer.SPECIAL_TOKENS_ATTRIBUTES,
        "audio_bos_token",
        "audio_patch_token",
    ]

    def __init__(
        self,
        vocab_file: str,
        languages: list[str] | None = None,
        language: str | None = None,
        do_phonemize: bool = True,
        pad_token: str = "<pad>",
        unk_token: str = "<unk>",
        audio_bos_token: str = "<audio_bos>",
        audio_patch_token: str = "<audio_patch>",
        **kwargs,
    ):
        if vocab_file is None:
            raise ValueError("`vocab_file` is missing: the folder holds no vocab.json, so it is no whole tokenizer.")
        control_tokens = check_control_tokens(
            pad_token=pad_token,
            unk_token=unk_token,
            audio_bos_token=audio_bos_token,
            audio_patch_token=audio_patch_token,
        )
        self.encoder = read_vocabulary(vocab_file, control_tokens)
        self.decoder = {index: token for token, index in self.encoder.items()}
        self._longest_token = max((len(token) for token in self.encoder if token not in control_tokens), default=1)

        languages = ["en-us"] if languages is None else languages
        if not isinstance(languages, (list, tuple)) or not languages:
            raise ValueError(f"`languages` must be a list with at least one language, got {languages!r}.")
        self.languages = [resolve_language(code) for code in languages]
        self.language = self.languages[0] if language is None else self._check_language(language)
        self.do_phonemize = _checked_flag("do_phonemize", do_phonemize)
        self.unknown_symbols: Counter[str] = Counter()

        # The sequence is put together by the processor and the collator, so nothing is added around a text.
        kwargs["special_tokens_pattern"] = "none"
        kwargs.pop("auto_map", None)  # which the library notes again where it saves code beside the file
        super().__init__(
            languages=self.languages,
            language=self.language,
            do_phonemize=do_phonemize,
            pad_token=pad_token,
            unk_token=unk_token,
            audio_bos_token=audio_bos_token,
            audio_patch_token=audio_patch_token,
            **kwargs,
        )

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike, *args: Any, **kwargs: Any
    ) -> "DiTARTokenizer":
        """
        As `PreTrainedTokenizer.from_pretrained`, but a folder is refused by what is wrong with it.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): A folder or the name of a repository.
            *args: Passed on.
            **kwargs: Passed on.

        Returns:
            [`DiTARTokenizer`].

        Raises:
            ValueError: If there is no such folder, a file in it is missing or no JSON, or as the constructor.
            OSError: If a repository, or a file in it, is not found on the Hub or in the cache.
        """
        refuse_other_names(pretrained_model_name_or_path)
        if not os.path.isfile(pretrained_model_name_or_path):  # a vocabulary alone will do
            refuse_missing_folder(pretrained_model_name_or_path)
        names = ("tokenizer_config.json", VOCAB_FILES_NAMES["vocab_file"])
        refuse_broken_json(names, pretrained_model_name_or_path, kwargs.get("subfolder"))
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    @classmethod
    def build_vocabulary(
        cls, texts: Iterable[str] | Mapping[str, Iterable[str]], language: str = "en-us"
    ) -> dict[str, int]:
        """
        Builds a vocabulary from the phones that espeak-ng gives for texts.

        Args:
            texts (`Iterable[str]` or `Mapping[str, Iterable[str]]`):
                Texts of one language, or for several languages a mapping from language to texts.
            language (`str`, *optional*, defaults to `"en-us"`): The language of `texts` when they are not a mapping.

        Returns:
            `dict[str, int]`: Token to id. The special tokens come first, then the space and the punctuation marks,
            then all phones and every single character of them in code point order.

        Raises:
            ValueError: If espeak-ng does not know a language or the texts give no phones.
        """
        by_language = texts if isinstance(texts, Mapping) else {language: texts}
        return cls._vocabulary_of(set().union(*(phones_of(rows, code) for code, rows in by_language.items())))

    @classmethod
    def from_texts(
        cls, texts: Iterable[str] | Mapping[str, Iterable[str]], language: str | None = None, **kwargs
    ) -> "DiTARTokenizer":
        """
        A tokenizer with the vocabulary that [`DiTARTokenizer.build_vocabulary`] builds from texts.

        Args:
            texts (`Iterable[str]` or `Mapping[str, Iterable[str]]`):
                Texts of one language, or for several languages a mapping from language to texts.
            language (`str`, *optional*):
                The language of `texts`, `"en-us"` by default; of a mapping, the tokenizer's default language, which is
                the first otherwise.
            **kwargs: Further arguments of the constructor.

        Returns:
            [`DiTARTokenizer`]: The tokenizer.
        """
        if not isinstance(texts, Mapping):
            texts = {"en-us" if language is None else language: texts}
        vocabulary = cls.build_vocabulary(texts)
        return cls._from_vocabulary(vocabulary, languages=list(texts), language=language, **kwargs)

    @classmethod
    def from_phonemes(cls, phones: Iterable[str], languages: list[str] | None = None, **kwargs) -> "DiTARTokenizer":
        """
        A tokenizer whose vocabulary is made of given phones, without any phonemizer.

        Args:
            phones (`Iterable[str]`): The phones, each one token, for example `["ˈɑː", "aʊ", "tʃ"]`.
            languages (`list[str]`, *optional*, defaults to `["en-us"]`):
                The espeak-ng codes of the languages that the phones cover.
            **kwargs: Further arguments of the constructor.

        Returns:
            [`DiTARTokenizer`]: The tokenizer.
        """
        if isinstance(phones, str):
            raise ValueError("`phones` must be an iterable of phones, got one string.")
        return cls._from_vocabulary(cls._vocabulary_of(phones), languages=languages, **kwargs)

    @classmethod
    def _vocabulary_of(cls, phones: Iterable[str]) -> dict[str, int]:
        symbols = symbols_of(phones)
        first = ["<pad>", "<unk>", "<audio_bos>", "<audio_patch>", WORD_BOUNDARY, *PUNCTUATION_MARKS]
        tokens = first + sorted(symbols.difference(first))
        return {token: index for index, token in enumerate(tokens)}

    @classmethod
    def _from_vocabulary(cls, vocabulary: dict[str, int], **kwargs) -> "DiTARTokenizer":
        with tempfile.TemporaryDirectory() as folder:
            vocab_file = os.path.join(folder, VOCAB_FILES_NAMES["vocab_file"])
            with open(vocab_file, "w", encoding="utf-8") as handle:
                json.dump(vocabulary, handle, ensure_ascii=False)
            return cls(vocab_file, **kwargs)

    def add_language(self, texts: Iterable[str], language: str) -> list[int]:
        """
        Adds the phones of another language, or more phones of one that the vocabulary covers.

        Ids stay what they are, and so does what each text becomes that had no unknown symbol before. To that end a
        phone is added whole only if it has a character that the vocabulary did not: another one could also arise in
        old texts, where one phone meets the next. It is read as the phones and characters that are there.

        Args:
            texts (`Iterable[str]`): Texts of the language.
            language (`str`): Its espeak-ng code or an alias of that.

        Returns:
            `list[int]`: The new ids, which follow upon the old ones; empty if all characters were there.

        Raises:
            ValueError: If espeak-ng does not know the language or the texts give no phones.
            ImportError: If `phonemizer` is not installed.
        """
        code = resolve_language(language)
        symbols = symbols_of(phones_of(texts, code))
        control_tokens = {self.pad_token, self.unk_token, self.audio_bos_token, self.audio_patch_token}
        known = {char for token in self.encoder.keys() - control_tokens for char in token}
        new = sorted(
            symbol for symbol in symbols - self.encoder.keys() if len(symbol) == 1 or not known.issuperset(symbol)
        )
        first = max(self.get_vocab().values()) + 1  # which is more than there are, if ids are left out
        ids = list(range(first, first + len(new)))
        self.encoder.update(zip(new, ids, strict=True))
        self.decoder.update(zip(ids, new, strict=True))
        self._longest_token = max([self._longest_token, *map(len, new)])
        self._update_total_vocab_size()
        if code not in self.languages:
            self.languages.append(code)
        return ids

    def phonemize(self, text: str | list[str], language: str | None = None) -> str | list[str]:
        """
        Turns text into phoneme strings.

        Args:
            text (`str` or `list[str]`): One text or several.
            language (`str`, *optional*): One of `languages` or an alias of it, by default the tokenizer's `language`.

        Returns:
            `str` or `list[str]`: One phoneme string per text; the empty string where there is nothing to speak.

        Raises:
            ValueError: If the vocabulary was not built for `language`, or a text is not a string or holds a lone
                surrogate.
            ImportError: If `phonemizer` is not installed.
        """
        language = self.language if language is None else self._check_language(language)
        if isinstance(text, (list, tuple)):
            return [join_phones(text_to_phones(row, language)) for row in text]
        return join_phones(text_to_phones(text, language))

    def prepare_for_tokenization(
        self,
        text: str,
        is_split_into_words: bool = False,
        phonemize: bool | None = None,
        language: str | None = None,
        **kwargs,
    ) -> tuple[str, dict[str, Any]]:
        """
        Turns the text of a call into a phoneme string.

        Tokens that were added to the tokenizer stay what they are inside a text; the four control tokens do not, so
        that no text can place audio into a sequence.

        Args:
            text (`str`): A text, or a phoneme string if it is not to be phonemized.
            is_split_into_words (`bool`, *optional*, defaults to `False`): Without effect.
            phonemize (`bool`, *optional*):
                Whether `text` is text rather than a phoneme string. Defaults to the tokenizer's `do_phonemize`.
            language (`str`, *optional*): One of `languages` or an alias of it, by default the tokenizer's `language`.
            **kwargs: Returned as they are.

        Returns:
            `tuple[str, dict[str, Any]]`: The phoneme string and the unused keyword arguments.

        Raises:
            ValueError: If the vocabulary was not built for `language`, or the text holds a lone surrogate.
        """
        check_text(text)
        language = self.language if language is None else self._check_language(language)
        if not (self.do_phonemize if phonemize is None else _checked_flag("phonemize", phonemize)):
            # The vocabulary is composed, so that "ç" is found however it was typed.
            return unicodedata.normalize("NFC", text), kwargs

        control_tokens = {self.pad_token, self.unk_token, self.audio_bos_token, self.audio_patch_token}
        kept_tokens = sorted(self.added_tokens_encoder.keys() - control_tokens, key=len, reverse=True)
        kept = "|".join(map(re.escape, kept_tokens))
        # Odd pieces are added tokens with the spaces around them.
        pieces = re.split(rf"(\s*(?:{kept})\s*)", text) if kept else [text]
        for index in range(0, len(pieces), 2):
            pieces[index] = join_phones(text_to_phones(pieces[index], language, after_token=index > 0))
        return re.sub(r"\s+", " ", "".join(pieces)).strip(), kwargs

    def _check_language(self, language: str) -> str:
        code = resolve_language(language)
        if code not in self.languages:
            raise ValueError(
                f"`language` is {language!r}, but this vocabulary was built for {self.languages}. Pass one of these,"
                " or build a vocabulary that covers it with `DiTARTokenizer.from_texts` or `add_language` and train a"
                " model on it."
            )
        return code

    @property
    def vocab_size(self) -> int:
        """`int`: The number of tokens in `vocab.json`, without tokens added later."""
        return len(self.encoder)

    def get_vocab(self) -> dict[str, int]:
        """
        The whole vocabulary.

        Returns:
            `dict[str, int]`: Token to id, added tokens included.
        """
        return self.encoder | self.added_tokens_encoder

    def _tokenize(self, text: str, **kwargs) -> list[str]:
        tokens = []
        unknown: Counter[str] = Counter()
        position = 0
        while position < len(text):
            for end in range(min(position + self._longest_token, len(text)), position, -1):
                token = text[position:end]
                if token in self.encoder and token not in self._added_tokens_encoder:
                    break
            else:
                end = position + 1
                token = text[position]
                unknown[token] += 1
            tokens.append(token)
            position = end
        if unknown:
            self._report(unknown)
        return tokens

    def _report(self, unknown: Counter[str]):
        new = sorted(symbol for symbol in unknown if symbol not in self.unknown_symbols)
        self.unknown_symbols.update(unknown)
        if new:
            logger.warning_once(
                f"Symbols outside the vocabulary became {self.unk_token!r}: "
                f"{', '.join(f'{symbol!r} (U+{ord(symbol):04X})' for symbol in new)}. They are counted in "
                f"`unknown_symbols`. The vocabulary was built for {self.languages}."
            )

    def _convert_token_to_id(self, token: str) -> int:
        return self.encoder.get(token, self.encoder.get(str(self.unk_token)))

    def _convert_id_to_token(self, index: int) -> str:
        return self.decoder.get(index, str(self.unk_token))

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """
        Joins tokens to a phoneme string.

        Args:
            tokens (`list[str]`): The tokens.

        Returns:
            `str`: The phoneme string.
        """
        return "".join(tokens)

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str]:
        """
        Writes `vocab.json`.

        Args:
            save_directory (`str`): An existing folder.
            filename_prefix (`str`, *optional*): Put before the name of the file, with a hyphen.

        Returns:
            `tuple[str]`: The path of the file.

        Raises:
            ValueError: If `save_directory` is not a folder.
        """
        if not os.path.isdir(save_directory):
            raise ValueError(f"`save_directory` must be an existing folder, got {str(save_directory)!r}.")
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        path = os.path.join(save_directory, prefix + VOCAB_FILES_NAMES["vocab_file"])
        with open(path, "w", encoding="utf-8") as handle:
            json.dump(self.encoder, handle, indent=2, ensure_ascii=False)
            handle.write("\n")
        return (path,)


def _checked_flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"`{name}` must be True or False, got {value!r}.")
    return value


__all__ = ["PUNCTUATION_MARKS", "WORD_BOUNDARY", "DiTARTokenizer", "normalize_text", "resolve_language"]
