"""The one schema of all sources of speech, and how readers fill it."""

import math
from pathlib import Path
from typing import Any

from datasets import Features, Value

AUDIO_SUFFIXES = (".flac", ".wav", ".mp3", ".ogg", ".opus")
TEXT_FIELDS = ("text", "speaker", "language")
NUMBER_FIELDS = ("start_seconds", "duration_seconds", "dnsmos")
EXAMPLE_FEATURES = Features(
    {
        "id": Value("string"),  # unique within its source
        "audio": {"path": Value("string"), "bytes": Value("binary")},  # one of the two is enough
        "text": Value("string"),
        "speaker": Value("string"),
        "language": Value("string"),
        "start_seconds": Value("float64"),  # where the row begins within its file; `None` for a whole file
        "duration_seconds": Value("float64"),  # as the source states it; with a start, the row's part of the file
        "dnsmos": Value("float32"),  # estimated quality, from 1 to 5
    }
)


def make_example(
    identifier: str,
    *,
    path: Path | str | None = None,
    content: bytes | None = None,
    text: Any = None,
    speaker: Any = None,
    language: Any = None,
    start_seconds: Any = None,
    duration_seconds: Any = None,
    dnsmos: Any = None,
) -> dict[str, Any]:
    """
    A row in the columns of `EXAMPLE_FEATURES`.

    Args:
        identifier (`str`): The row's `id`.
        path (`Path` or `str`, *optional*): The file of the audio.
        content (`bytes`, *optional*): The audio itself, encoded.
        text, speaker, language (*optional*): As `as_text` takes them.
        start_seconds, duration_seconds, dnsmos (*optional*): As `as_number` takes them.

    Returns:
        `dict`.
    """
    return {
        "id": identifier,
        "audio": {"path": None if path is None else str(path), "bytes": content},
        "text": as_text(text),
        "speaker": as_text(speaker),
        "language": as_text(language),
        "start_seconds": as_number(start_seconds),
        "duration_seconds": as_number(duration_seconds),
        "dnsmos": as_number(dnsmos),
    }


def as_text(value: Any) -> str | None:
    """
    What a source states, as a text.

    Args:
        value: A string, or whatever stands in its place.

    Returns:
        `str`, or `None` for nothing and for an empty string.
    """
    return None if value is None else str(value) or None


def as_number(value: Any) -> float | None:
    """
    What a source states, as a number.

    Args:
        value: A number, a string of one, or whatever stands in its place.

    Returns:
        `float`, or `None` for what is no finite number: it says no more than if it were not there.
    """
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
