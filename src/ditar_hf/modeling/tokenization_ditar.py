"""Tokenizer of DiTAR: text to espeak-ng phonemes to ids."""

import ctypes
import json
import logging as python_logging
import os
import re
import tempfile
import unicodedata
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any

from transformers.tokenization_python import PreTrainedTokenizer
from transformers.utils import logging

try:
    import espeakng_loader
except ImportError:  # a system-wide espeak-ng may serve instead
    espeakng_loader = None

try:
    from phonemizer.backend import EspeakBackend
    from phonemizer.backend.espeak.wrapper import EspeakWrapper
    from phonemizer.separator import Separator
except ImportError:  # phoneme strings can still be tokenized
    EspeakBackend = None


logger = logging.get_logger(__name__)

VOCAB_FILES_NAMES = {"vocab_file": "vocab.json"}

LANGUAGE_ALIASES = {"en": "en-us", "fr": "fr-fr", "zh": "cmn", "zh-cn": "cmn"}

# The punctuation every language shares, strongest first: a run of marks becomes its strongest one.
PUNCTUATION_MARKS = "?!….;:,"

WORD_BOUNDARY = " "

_APOSTROPHES = dict.fromkeys(map(ord, "’‘‛ʼʹ′´`＇"), "'")
_CHARACTER_MAP = _APOSTROPHES | {
    ord(char): replacement
    for replacement, chars in {
        ".": "。।۔",
        ",": "、،",
        "?": "؟",
        ";": "؛",
        "…": "⋯‥",
        "-": "−",
        "—": "―⸺⸻─━",
        " ": "~〜\u115f\u1160",  # the last two are letters that nobody sees
    }.items()
    for char in chars
}
# What espeak-ng reads aloud, or takes a hint from, although it is neither a letter nor a digit nor a currency sign.
_SPOKEN_SYMBOLS = frozenset("%‰&@#/§°+=×÷±'—" + PUNCTUATION_MARKS)

_MARKS_CLASS = re.escape(PUNCTUATION_MARKS)
_DASH = re.compile(rf"—|-{{2,}}|(?<![^\s{_MARKS_CLASS}])-(?![^\s{_MARKS_CLASS}])")
_MARK_RUN = re.compile(rf" ?[{_MARKS_CLASS}](?: ?[{_MARKS_CLASS}])*")
# Dots, commas and colons that belong to a number, an initialism ("U.S.", "e.g.") or a name ("example.com").
_INNER_MARKS = re.compile(
    r"(?<=\d)[.,:](?=\d)"
    rf"|(?<![A-Za-z])[A-Za-z](?:\.[A-Za-z]){{1,7}}(?![A-Za-z])(?:\.(?= ?[^ {_MARKS_CLASS}]))?"
    r"|(?<=[A-Za-z0-9])\.(?=[a-z0-9])"
)
# Stand-ins while the text is cut at its marks; `normalize_text` removes private-use characters, so they are free.
_HIDE_MARKS = {mark: chr(0xE000 + index) for index, mark in enumerate(map(ord, ".,:"))}
_SHOW_MARKS = {ord(hidden): mark for mark, hidden in _HIDE_MARKS.items()}

_ENGLISH_TITLES = {
    "mr": "mister", "mrs": "missus", "ms": "miz", "dr": "doctor", "prof": "professor", "gen": "general",
    "col": "colonel", "capt": "captain", "lt": "lieutenant", "sgt": "sergeant", "rev": "reverend",
}  # fmt: skip
_ENGLISH_TITLE = re.compile(rf"\b({'|'.join(_ENGLISH_TITLES)})\.(?= [^\W\d_])", re.IGNORECASE)
# These can end a sentence, so their dot goes only where the sentence goes on.
_ENGLISH_ENDINGS = {"etc": "etcetera", "jr": "junior", "sr": "senior", "st": "street"}
_ENGLISH_ENDING = re.compile(rf"\b({'|'.join(_ENGLISH_ENDINGS)})\.(?!\w)((?= ?[,;:]| (?-i:[a-z])))?", re.IGNORECASE)
_ENGLISH_CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "€": ("euro", "euros", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "¥": ("yen", "yen", None, None),
}
_ENGLISH_AMOUNT = re.compile(
    r"([$€£¥]) ?(\d+(?:,\d{3})*)(\.\d+)?(?: (hundred|thousand|million|billion|trillion)\b)?(?!\w)"
)

# ASCII notation that espeak-ng leaves inside its IPA. It is spelt in IPA here: left as it is, the retroflex "s." of
# Mandarin could not be told from an English "s" before a full stop.
_PHONE_SPELLINGS = {
    "s.": "ʂ", "z.": "ʐ", "i.": "ɨ", "t.": "ʈ", "d.": "ɖ", "n.": "ɳ", "l.": "ɭ", "r.": "ɽ", "?": "ʔ", ":": "ː",
    "`": "ʼ", ";": "ʲ", "[": "\u032a", '"': "\u0308", "#": "\u0325",
}  # fmt: skip
_PHONE_SPELLING = re.compile("|".join(re.escape(spelling) for spelling in _PHONE_SPELLINGS))

# Of a tone, espeak's IPA keeps the first digit, so that the first (55) and the fourth (51) look alike. The whole
# number stands in its own notation. Chao letters, one for each digit:
_TONE_LETTERS = str.maketrans("12345", "˩˨˧˦˥")
_MANDARIN_TONE = re.compile(r"[1-6ɜ](?=[| ]|$)")
_LANGUAGE_FLAG = re.compile(r"\([^)]*\)")

# espeak-ng overruns its buffers, up to a crash of the process, on words and clauses far beyond any language. It gets
# words of at most 40 characters (its buffer has 160 bytes) and clauses of at most 200.
_LONG_WORD = re.compile(r"\S{40}(?=\S)")
_CLAUSE = re.compile(r"\S(?:.{0,198}\S)?(?!\S)")

# Idle espeak backends by language. A backend leaves the pool while a thread uses it, so no two threads ever share one;
# it comes back afterwards, so their number is the largest number of threads that ever phonemized at once. (A backend
# is a private copy of the library that is never unloaded: one per thread would cost 5 MB for every thread that ends.)
# Appending to and popping from a deque is atomic, so there is no lock that a fork could leave behind, held.
_BACKENDS: dict[str, deque] = {}


def resolve_language(language: str) -> str:
    """
    The espeak-ng code of a language.

    Args:
        language (`str`): An espeak-ng code or one of the aliases in `LANGUAGE_ALIASES`, in any case.

    Returns:
        `str`: The code in lower case, aliases resolved: `"en"` gives `"en-us"`, `"zh"` gives `"cmn"`.

    Raises:
        ValueError: If `language` is not a non-empty string.
    """
    if not isinstance(language, str) or not language.strip():
        raise ValueError(f"`language` must be a language code such as 'en-us', got {language!r}.")
    code = language.strip().replace("_", "-").lower()
    return LANGUAGE_ALIASES.get(code, code)


def normalize_text(text: str, language: str = "en-us") -> str:
    r"""
    Brings written text into the form that is handed to espeak-ng.

    - Compatibility forms are unified (NFKC): full-width letters and digits, ligatures, half-width kana, `㎏`.
    - Punctuation becomes one of `, . ? ! ; : …`: `，` and `、` are `,`, `。` is `.`, three dots are `…`; a dash
      between words is a comma; a run of marks becomes its strongest mark, in the order `? ! … . ; : ,`.
    - Quotes, brackets, inverted marks, middle dots and markup (`* _ ~ ^ | < > \`) become a space, as does every other
      mark that is not spoken. An apostrophe stays between letters only.
    - Control and formatting characters, private-use and unassigned code points and variation selectors are removed;
      line breaks, tabs, emoji and other pictographs become a space. `% ‰ & @ # / § ° + = × ÷ ±` and currency signs
      stay, for espeak-ng reads them.
    - English: amounts of money are written out (`$5.20` is `5 dollars 20 cents`), `10-20` is `10 to 20`, `No. 1` and
      `#1` are `number 1`, and common abbreviations lose their dot (`Dr. No` is `doctor No`). Japanese: kana are
      separated from Latin letters before them. Everything else about numbers is left to espeak-ng.

    Args:
        text (`str`): Any text.
        language (`str`, *optional*, defaults to `"en-us"`): The espeak-ng code of the language it is written in.

    Returns:
        `str`: The normalised text, without leading, trailing or repeated spaces; possibly empty.

    Raises:
        ValueError: If `text` is not a string or holds a lone surrogate, which is half a character.
    """
    _check_text(text)
    # Apostrophes go first: NFKC turns some of them into a space and a combining accent.
    text = unicodedata.normalize("NFKC", text.translate(_APOSTROPHES)).translate(_CHARACTER_MAP)
    text = "".join(map(_keep_spoken, text))
    # Without what was removed, a letter and a combining mark can be neighbours.
    text = unicodedata.normalize("NFKC", text)
    text = re.sub(r"(?<![^\W\d_])'|'(?![^\W\d_])", " ", text)
    text = _DASH.sub(",", re.sub(r"\s+", " ", text))
    # Before dots are joined, for the dot of ".5" is no full stop.
    text = re.sub(r"(?<!\S)\.(?=\d)", "0.", text)
    text = re.sub(r"\.(?: ?\.)+", "…", text)
    if language.startswith("en"):
        text = _write_out_english(text)
    elif language == "ja":
        text = re.sub(r"(?<=[A-Za-z])(?=[\u3041-\u30ff])", " ", text)
    text = _MARK_RUN.sub(_strongest_mark, _hide_inner_marks(text))
    return re.sub(r" +", " ", text).strip().translate(_SHOW_MARKS)


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
    needs the packages `phonemizer` and `espeakng-loader` (GPL-3), which are used only where they are installed.

    What espeak-ng 1.52 makes of text:

    - `en-us`: integers, decimals, thousands, years (as "nineteen hundred ninety nine"), ordinals, times, percentages,
      minus signs, initialisms and names such as "example.com" are read well. Fractions ("one slash two") and units
      ("5 km/h") are not.
    - `cmn`: simplified and traditional characters, integers and decimals. espeak's IPA writes the first and the fourth
      tone alike; here they are told apart by its other notation, and tones are Chao letters (`"ˈɑu˨˩˦"`). Sandhi
      covers 一 and 不 but no pair of third tones, readings that depend on context are often wrong (銀行), years are
      cardinals, minus signs are lost, and "%" and Latin words are read in English.
    - `de`: numbers, decimal commas, minus signs, currency and percentages are read well. Ordinals ("1.") are read as
      cardinals, abbreviations ("Dr.", "z.B.", "Nr.") letter by letter.
    - `fr-fr`: numbers, decimal commas, currency, percentages, ordinals and many units are read well. Minus signs are
      lost, abbreviations ("M.") are letters, liaison is partial, and words taken for English are read in English.
    - `ja`: kana and integers only. Every kanji is read as the English words "Chinese letter" (a warning says so):
      convert kanji to kana first. The particle は is read "ha", a decimal loses its point, "%" and Latin words are
      read in English, and there is no pitch accent.
    - `ko`: Hangul and integers, all of them Sino-Korean ("3개" too). Only part of the sound changes between syllables
      is applied, ㅈ and ㅉ are alike, a decimal loses its point, hanja are read as "Chinese letter", "%" and Latin
      words in English.

    Other languages of espeak-ng work as well; how well was not tried. Where espeak reads a word in another language
    than the text's, its language marks ("(en)") are removed and its phones kept.

    Args:
        vocab_file (`str`):
            Path of `vocab.json`, which maps tokens to ids.
        languages (`list[str]`, *optional*, defaults to `["en-us"]`):
            The espeak-ng codes of the languages that the vocabulary was built for.
        language (`str`, *optional*):
            The language of text when a call names none. Defaults to the first of `languages`.
        do_phonemize (`bool`, *optional*, defaults to `True`):
            Whether a call gets text. With `False` it gets phoneme strings. The argument `phonemize` of a call wins.
        pad_token (`str`, *optional*, defaults to `"<pad>"`):
            The padding token.
        unk_token (`str`, *optional*, defaults to `"<unk>"`):
            The token of symbols outside the vocabulary.
        audio_bos_token (`str`, *optional*, defaults to `"<audio_bos>"`):
            The token between the text and the audio patches.
        audio_patch_token (`str`, *optional*, defaults to `"<audio_patch>"`):
            The placeholder of one audio patch.
        **kwargs:
            Passed to [`PreTrainedTokenizer`].
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
        with open(vocab_file, encoding="utf-8") as handle:
            self.encoder = json.load(handle)
        self.decoder = {index: token for token, index in self.encoder.items()}
        control_tokens = {str(token) for token in (pad_token, unk_token, audio_bos_token, audio_patch_token)}
        self._longest_token = max((len(token) for token in self.encoder if token not in control_tokens), default=1)

        self.languages = [resolve_language(code) for code in (["en-us"] if languages is None else languages)]
        if not self.languages:
            raise ValueError("`languages` must name at least one language, got an empty list.")
        self.language = self.languages[0] if language is None else self._check_language(language)
        self.do_phonemize = do_phonemize
        self.unknown_symbols: Counter[str] = Counter()

        # The sequence is put together by the processor and the collator, so nothing is added around a text.
        kwargs["special_tokens_pattern"] = "none"
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
    def build_vocabulary(
        cls, texts: Iterable[str] | Mapping[str, Iterable[str]], language: str = "en-us"
    ) -> dict[str, int]:
        """
        Builds a vocabulary from the phones that espeak-ng gives for texts.

        Args:
            texts (`Iterable[str]` or `Mapping[str, Iterable[str]]`):
                Texts of one language, or for several languages a mapping from language to texts.
            language (`str`, *optional*, defaults to `"en-us"`):
                The language of `texts` when they are not a mapping.

        Returns:
            `dict[str, int]`: Token to id. The special tokens come first, then the space and the punctuation marks,
            then all phones and every single character of them in code point order.

        Raises:
            ValueError: If espeak-ng does not know a language or the texts give no phones.
        """
        by_language = texts if isinstance(texts, Mapping) else {language: texts}
        phones: set[str] = set()
        for code, rows in by_language.items():
            if isinstance(rows, str):
                raise ValueError("`texts` must be an iterable of texts, got one string. Pass `[text]`.")
            code = resolve_language(code)
            for row in rows:
                phones.update(_phones(row, code))
        return cls._vocabulary_of(phones.difference(PUNCTUATION_MARKS, WORD_BOUNDARY))

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
            **kwargs:
                Further arguments of the constructor.

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
            phones (`Iterable[str]`):
                The phones, each one token, for example `["ˈɑː", "aʊ", "tʃ"]`.
            languages (`list[str]`, *optional*, defaults to `["en-us"]`):
                The espeak-ng codes of the languages that the phones cover.
            **kwargs:
                Further arguments of the constructor.

        Returns:
            [`DiTARTokenizer`]: The tokenizer.
        """
        if isinstance(phones, str):
            raise ValueError("`phones` must be an iterable of phones, got one string.")
        return cls._from_vocabulary(cls._vocabulary_of(phones), languages=languages, **kwargs)

    @classmethod
    def _vocabulary_of(cls, phones: Iterable[str]) -> dict[str, int]:
        phones = {unicodedata.normalize("NFC", phone) for phone in phones}
        if not phones:
            raise ValueError("`texts` hold no speech: no phones were found to build a vocabulary from.")
        symbols = phones | {char for phone in phones for char in phone}
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

    def phonemize(self, text: str | list[str], language: str | None = None) -> str | list[str]:
        """
        Turns text into phoneme strings.

        Args:
            text (`str` or `list[str]`):
                One text or several.
            language (`str`, *optional*):
                One of `languages` or an alias of it. Defaults to the tokenizer's `language`.

        Returns:
            `str` or `list[str]`: One phoneme string per text; the empty string where there is nothing to speak.

        Raises:
            ValueError: If the vocabulary was not built for `language`, or a text is not a string or holds a lone
                surrogate.
            ImportError: If `phonemizer` is not installed.
        """
        language = self.language if language is None else self._check_language(language)
        if isinstance(text, str):
            return _join_phones(_phones(text, language))
        if not isinstance(text, (list, tuple)):
            raise ValueError(f"`text` must be a string or a list of strings, got {type(text).__name__}.")
        return [_join_phones(_phones(row, language)) for row in text]

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
            text (`str`):
                A text, or a phoneme string if it is not to be phonemized.
            is_split_into_words (`bool`, *optional*, defaults to `False`):
                Without effect.
            phonemize (`bool`, *optional*):
                Whether `text` is text rather than a phoneme string. Defaults to the tokenizer's `do_phonemize`.
            language (`str`, *optional*):
                One of `languages` or an alias of it. Defaults to the tokenizer's `language`.
            **kwargs:
                Returned as they are.

        Returns:
            `tuple[str, dict[str, Any]]`: The phoneme string and the unused keyword arguments.

        Raises:
            ValueError: If the vocabulary was not built for `language`, or the text holds a lone surrogate.
        """
        _check_text(text)
        if language is not None:
            self._check_language(language)
        if not (self.do_phonemize if phonemize is None else phonemize):
            # The vocabulary is composed, so that "ç" is found however it was typed.
            return unicodedata.normalize("NFC", text), kwargs

        control_tokens = {self.pad_token, self.unk_token, self.audio_bos_token, self.audio_patch_token}
        kept_tokens = [token for token in self.added_tokens_encoder if token not in control_tokens]
        if not kept_tokens:
            return self.phonemize(text, language), kwargs
        kept = "|".join(re.escape(token) for token in sorted(kept_tokens, key=len, reverse=True))
        pieces = re.split(rf"(\s*(?:{kept})\s*)", text)
        # Odd pieces are added tokens with the spaces around them.
        language = self.language if language is None else resolve_language(language)
        for index in range(0, len(pieces), 2):
            pieces[index] = _join_phones(_phones(pieces[index], language, after_token=index > 0))
        return re.sub(r"\s+", " ", "".join(pieces)).strip(), kwargs

    def _check_language(self, language: str) -> str:
        code = resolve_language(language)
        if code not in self.languages:
            raise ValueError(
                f"`language` is {language!r}, but this vocabulary was built for {self.languages}. Pass one of these,"
                " or build a vocabulary that covers it with `DiTARTokenizer.from_texts` and train a model on it."
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


def _check_text(text: str):
    if not isinstance(text, str):
        raise ValueError(f"`text` must be a string, got {type(text).__name__}.")
    surrogate = re.search("[\ud800-\udfff]", text)
    if surrogate:
        raise ValueError(
            f"`text` holds a lone surrogate (U+{ord(surrogate.group()):04X} at position {surrogate.start()}), which is"
            " half a character. Decode the text again from its bytes, or drop it with"
            " `text.encode('utf-8', 'ignore').decode()`."
        )


def _keep_spoken(char: str) -> str:
    category = unicodedata.category(char)
    if category[0] in "LN" or category in ("Mn", "Mc", "Sc") or char in _SPOKEN_SYMBOLS:
        return "" if "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef" else char
    if category == "Pd":
        return "-"
    if category == "Me" or (category[0] == "C" and not char.isspace()):
        return ""
    return " "


def _hide_inner_marks(text: str) -> str:
    return _INNER_MARKS.sub(lambda match: match.group().translate(_HIDE_MARKS), text)


def _write_out_english(text: str) -> str:
    text = _ENGLISH_AMOUNT.sub(_write_out_amount, text)
    text = re.sub(r"(?<![\w-])(\d{1,4})-(\d{1,4})(?![\w-])", _write_out_range, text)
    text = re.sub(r"(?:\bNo\. ?|#)(?=\d)", "number ", text)
    text = _ENGLISH_TITLE.sub(lambda match: _ENGLISH_TITLES[match.group(1).lower()], text)
    text = re.sub(r"\bSt\.(?= [A-Z])", "saint", text)
    text = re.sub(r"\b[Vv]s\b\.?", "versus", text)
    return _ENGLISH_ENDING.sub(
        lambda match: _ENGLISH_ENDINGS[match.group(1).lower()] + ("." if match.group(2) is None else ""), text
    )


def _write_out_range(match: re.Match) -> str:
    first, last = match.groups()
    # "555-1234" is a telephone number, "3-2" a score.
    is_range = int(first) < int(last) and (len(first), len(last)) != (3, 4)
    return f"{first} to {last}" if is_range else match.group()


def _write_out_amount(match: re.Match) -> str:
    sign, whole, fraction, scale = match.groups()
    one, many, one_part, many_parts = _ENGLISH_CURRENCIES[sign]
    if scale:
        return f"{whole}{fraction or ''} {scale} {many}"
    if fraction is None:
        return f"{whole} {one if whole == '1' else many}"
    if len(fraction) != 3 or many_parts is None:
        return f"{whole}{fraction} {many}"
    parts = int(fraction[1:])
    units = f"{whole} {one if whole == '1' else many}"
    return f"{units} {parts} {one_part if parts == 1 else many_parts}" if parts else units


def _strongest_mark(match: re.Match) -> str:
    run = match.group()
    return next(mark for mark in PUNCTUATION_MARKS if mark in run) + " "


def _join_phones(phones: list[str]) -> str:
    return unicodedata.normalize("NFC", "".join(phones))


def _phones(text: str, language: str, after_token: bool = False) -> list[str]:
    """The phones, spaces and punctuation marks of a text, in order; empty if there is nothing to speak."""
    text = _hide_inner_marks(normalize_text(text, language))
    _warn_about_script(text, language)
    # Even pieces are speech, odd pieces are marks.
    pieces = re.split(rf"([{_MARKS_CLASS}])", text)
    speech = _phonemize_segments([piece.translate(_SHOW_MARKS).strip() for piece in pieces[::2]], language)
    phones: list[str] = []
    for index, words in enumerate(speech):
        for word in words:
            if phones:
                phones.append(WORD_BOUNDARY)
            phones.extend(word)
        # A mark follows speech: at the start, or after something that espeak has no sound for, there is none.
        follows = phones[-1] not in PUNCTUATION_MARKS if phones else after_token
        if follows and 2 * index + 1 < len(pieces):
            phones.append(pieces[2 * index + 1])
    return phones


def _warn_about_script(text: str, language: str):
    if language not in ("cmn", "yue", "hak") and re.search(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]", text):
        remedy = "Write them in kana." if language == "ja" else "Pass the language of the text."
        logger.warning_once(
            f"espeak-ng reads Chinese characters as the English words 'Chinese letter' in {language!r}. {remedy}"
        )
    if language != "ja" and re.search(r"[\u3041-\u30fa]", text):
        logger.warning_once(
            f"espeak-ng reads kana as the English words 'Japanese letter' in {language!r}. Pass `language='ja'`."
        )


def _phonemize_segments(segments: list[str], language: str) -> list[list[list[str]]]:
    """The phones of every word of every segment. Segments hold no punctuation marks and may be empty."""
    output: list[list[list[str]]] = [[] for _ in segments]
    # Segments without a clause have no line, for empty lines would vanish from the answer and shift those that follow.
    clauses = [
        (index, clause)
        for index, segment in enumerate(segments)
        for clause in _CLAUSE.findall(_LONG_WORD.sub(r"\g<0> ", segment))
    ]
    if not clauses:
        return output
    lines = [clause for _, clause in clauses]
    pool = _BACKENDS.setdefault(language, deque())
    try:
        backend = pool.pop()
    except IndexError:
        backend = _new_backend(language)
    try:
        spoken = backend.phonemize(lines, separator=Separator(phone="|", word=" "), strip=True)
        if language == "cmn":
            spoken = [
                _restore_tones(ipa, _espeak_notation(line, backend)) for ipa, line in zip(spoken, lines, strict=True)
            ]
    finally:
        pool.append(backend)
    for (index, _), line in zip(clauses, spoken, strict=True):
        words = [[_clean_phone(phone, language) for phone in word.split("|")] for word in line.split(" ")]
        words = [[phone for phone in word if phone] for word in words]
        output[index] += [word for word in words if word]
    return output


def _new_backend(language: str):
    if EspeakBackend is None:
        raise ImportError(
            "Text is turned into phonemes by `phonemizer`, which is not installed: `pip install phonemizer"
            " espeakng-loader`. Without it, pass phoneme strings and `phonemize=False`."
        )
    # Whoever has chosen a library keeps it.
    chosen = EspeakWrapper._ESPEAK_LIBRARY or os.environ.get("PHONEMIZER_ESPEAK_LIBRARY")
    if espeakng_loader is not None and not chosen:
        EspeakWrapper.set_data_path(espeakng_loader.get_data_path())
        EspeakWrapper.set_library(espeakng_loader.get_library_path())
    # phonemizer warns for every line with a language switch.
    quiet = python_logging.getLogger(f"{__name__}.espeak")
    quiet.setLevel(python_logging.ERROR)
    try:
        return EspeakBackend(
            language,
            # Marks are cut off before; nothing is left for the backend to find.
            punctuation_marks=re.compile("(?!)"),
            with_stress=True,
            # Mandarin tones are looked up by stretches of Mandarin, so there the flags are removed afterwards.
            language_switch="keep-flags" if language == "cmn" else "remove-flags",
            logger=quiet,
        )
    except RuntimeError as error:
        if not EspeakBackend.is_available():
            raise ImportError(
                "`phonemizer` found no espeak-ng library. Install one with `pip install espeakng-loader`."
            ) from error
        supported = sorted(EspeakBackend.supported_languages())
        if language in supported:
            raise
        raise ValueError(
            f"`language` is {language!r}, which espeak-ng does not know. Pass one of {supported}."
        ) from error


def _espeak_notation(line: str, backend) -> str:
    """A line in espeak's own notation, phones separated by underscores."""
    api = backend._espeak._espeak
    rest = ctypes.pointer(ctypes.c_char_p(line.encode("utf-8")))
    clauses = []
    while rest.contents.value is not None:
        # Text in UTF-8; phonemes in espeak's notation with the separator in the second byte.
        clauses.append((api.text_to_phonemes(rest, 1, ord("_") << 8) or b"").decode("utf-8"))
    return " ".join(clauses)


def _restore_tones(ipa: str, notation: str) -> str:
    """Writes the tones of a line in Chao letters, and removes the language flags."""
    # Even pieces are Mandarin; odd ones lie between "(en)" and "(cmn)" and have no tones.
    pieces = _LANGUAGE_FLAG.split(ipa)
    tones = [
        number for piece in _LANGUAGE_FLAG.split(notation)[::2] for number in re.findall(r"[1-5]+(?=[_\s|]|$)", piece)
    ]
    if sum(len(_MANDARIN_TONE.findall(piece)) for piece in pieces[::2]) != len(tones):
        logger.warning_once("espeak-ng gave two different readings of a line, so its tones are left as digits.")
        return "".join(pieces)
    following = iter(tones)
    pieces[::2] = [
        _MANDARIN_TONE.sub(lambda match: next(following).translate(_TONE_LETTERS), piece) for piece in pieces[::2]
    ]
    return "".join(pieces)


def _clean_phone(phone: str, language: str) -> str:
    if language == "ko":
        phone = phone.replace("-", "\u0348")  # a tense consonant; elsewhere the hyphen marks elision
    phone = _PHONE_SPELLING.sub(lambda match: _PHONE_SPELLINGS[match.group()], phone)
    # Whatever ASCII notation is left would collide with punctuation.
    return "".join(
        char
        for char in phone
        if char.isalnum() or (char > "\x7f" and unicodedata.category(char) in ("Lm", "Mn", "Mc", "Sk"))
    )


__all__ = ["DiTARTokenizer", "normalize_text"]
