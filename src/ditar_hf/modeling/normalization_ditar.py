"""Normalisation of written text for espeak-ng, and its punctuation."""

import re
import unicodedata

# The punctuation every language shares, strongest first: a run of marks becomes its strongest one.
PUNCTUATION_MARKS = "?!….;:,"

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
_HIDE_MARKS = str.maketrans(".,:", "\ue000\ue001\ue002")
_SHOW_MARKS = str.maketrans("\ue000\ue001\ue002", ".,:")

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


def check_text(text: str):
    """Raises a `ValueError` if `text` is not a string or holds a lone surrogate."""
    if not isinstance(text, str):
        raise ValueError(f"`text` must be a string, got {type(text).__name__}.")
    surrogate = re.search("[\ud800-\udfff]", text)
    if surrogate:
        raise ValueError(
            f"`text` holds a lone surrogate (U+{ord(surrogate.group()):04X} at position {surrogate.start()}), which is"
            " half a character. Decode the text again from its bytes, or drop it with"
            " `text.encode('utf-8', 'ignore').decode()`."
        )


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
    check_text(text)
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


def split_at_marks(text: str) -> list[str]:
    """Cuts a normalised text at its punctuation: speech, possibly none, at even places and marks at odd ones."""
    return [piece.translate(_SHOW_MARKS) for piece in re.split(rf"([{_MARKS_CLASS}])", _hide_inner_marks(text))]


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
    units = f"{whole} {one if whole == '1' else many}"
    if scale:
        return f"{whole}{fraction or ''} {scale} {many}"
    if fraction is None:
        return units
    if len(fraction) != 3 or many_parts is None:
        return f"{whole}{fraction} {many}"
    parts = int(fraction[1:])
    return f"{units} {parts} {one_part if parts == 1 else many_parts}" if parts else units


def _strongest_mark(match: re.Match) -> str:
    run = match.group()
    return next(mark for mark in PUNCTUATION_MARKS if mark in run) + " "
