"""
From text to phones with espeak-ng, and its languages. What espeak-ng 1.52 makes of text:

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
"""

import ctypes
import logging as python_logging
import os
import re
import unicodedata
from collections import deque
from types import SimpleNamespace

from transformers.utils import logging

from .normalization_ditar import PUNCTUATION_MARKS, normalize_text, split_at_marks

logger = logging.get_logger(__name__)

WORD_BOUNDARY = " "

LANGUAGE_ALIASES = {"en": "en-us", "fr": "fr-fr", "zh": "cmn", "zh-cn": "cmn"}

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


def text_to_phones(text: str, language: str, after_token: bool = False) -> list[str]:
    """
    The phones, spaces and punctuation marks of a text, in order; empty if there is nothing to speak.

    Args:
        text (`str`): Any text.
        language (`str`): Its espeak-ng code, as `resolve_language` gives it.
        after_token (`bool`, *optional*, defaults to `False`): Whether a mark may stand first, for a token precedes it.
    """
    text = normalize_text(text, language)
    _warn_about_script(text, language)
    pieces = split_at_marks(text)
    speech = _phonemize_segments([piece.strip() for piece in pieces[::2]], language)
    phones: list[str] = []
    for words, mark in zip(speech, [*pieces[1::2], ""], strict=True):
        for word in words:
            if phones:
                phones.append(WORD_BOUNDARY)
            phones.extend(word)
        # A mark follows speech: at the start, or after something that espeak has no sound for, there is none.
        if mark and (phones[-1] not in PUNCTUATION_MARKS if phones else after_token):
            phones.append(mark)
    return phones


def join_phones(phones: list[str]) -> str:
    """The phoneme string of phones, in composed form."""
    return unicodedata.normalize("NFC", "".join(phones))


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
        spoken = backend.phonemize(lines, separator=_phonemizer().Separator(phone="|", word=" "), strip=True)
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


def _phonemizer() -> SimpleNamespace:
    """What is used of phonemizer, imported with the first text: it is GPL-3, and phoneme strings do without it."""
    try:
        from phonemizer.backend import EspeakBackend
        from phonemizer.backend.espeak.wrapper import EspeakWrapper
        from phonemizer.separator import Separator
    except ImportError as error:
        raise ImportError(
            "Text is turned into phonemes by `phonemizer`, which is not installed: `pip install phonemizer"
            " espeakng-loader`. Without it, pass phoneme strings and `phonemize=False`."
        ) from error
    return SimpleNamespace(EspeakBackend=EspeakBackend, EspeakWrapper=EspeakWrapper, Separator=Separator)


def _choose_library(espeak_wrapper):
    """Points phonemizer to the espeak-ng of `espeakng_loader`, unless somebody has chosen a library."""
    if espeak_wrapper._ESPEAK_LIBRARY or os.environ.get("PHONEMIZER_ESPEAK_LIBRARY"):
        return
    try:
        import espeakng_loader
    except ImportError:  # a system-wide espeak-ng may serve instead
        return
    espeak_wrapper.set_data_path(espeakng_loader.get_data_path())
    espeak_wrapper.set_library(espeakng_loader.get_library_path())


def _new_backend(language: str):
    phonemizer = _phonemizer()
    _choose_library(phonemizer.EspeakWrapper)
    # phonemizer warns for every line with a language switch.
    quiet = python_logging.getLogger(f"{__name__}.espeak")
    quiet.setLevel(python_logging.ERROR)
    try:
        return phonemizer.EspeakBackend(
            language,
            # Marks are cut off before; nothing is left for the backend to find.
            punctuation_marks=re.compile("(?!)"),
            with_stress=True,
            # Mandarin tones are looked up by stretches of Mandarin, so there the flags are removed afterwards.
            language_switch="keep-flags" if language == "cmn" else "remove-flags",
            logger=quiet,
        )
    except RuntimeError as error:
        if not phonemizer.EspeakBackend.is_available():
            raise ImportError(
                "`phonemizer` found no espeak-ng library. Install one with `pip install espeakng-loader`."
            ) from error
        supported = sorted(phonemizer.EspeakBackend.supported_languages())
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
