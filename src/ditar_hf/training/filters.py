"""Which rows of a source are used: by what the source states of them, and by how long they turn out to be."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# why a row is left out: few and always the same words, so that they can be counted
NO_AUDIO = "no audio"
NO_TEXT = "no text"
NO_LANGUAGE = "no language stated"
OTHER_LANGUAGE = "another language"
NO_DNSMOS = "no DNSMOS stated"
LOW_DNSMOS = "DNSMOS too low"
TOO_SHORT = "too short"
TOO_LONG = "too long"
TEXT_TOO_LONG = "text too long for its audio"
TEXT_TOO_SHORT = "text too short for its audio"


@dataclass
class FilterArguments:
    """
    What rows of a source must be like to be used.

    Args:
        languages (`list[str]`, *optional*):
            Languages that are used, in any case (`en` is Emilia's `EN`), but otherwise as the source writes them. By
            default all, and rows that state none.
        min_dnsmos (`float`, *optional*):
            Lowest estimated quality, from 1 to 5, as Emilia states it. By default all, and rows that state none.
        min_seconds (`float`, *optional*): Shortest recording that is used.
        max_seconds (`float`, *optional*): Longest recording that is used.
        require_text (`bool`, *optional*, defaults to `True`): Whether rows without a text are left out.
        max_characters_per_second (`float`, *optional*, defaults to 50.0):
            Longest text for its audio. Nobody speaks as fast as the default: such a text belongs to another recording,
            or a recogniser repeated itself. `None` for any.
        min_characters_per_second (`float`, *optional*, defaults to 2.0):
            Shortest text for its audio, of rows that have one: of a shorter one part of what is said is not written.
            English has about 15, Chinese 4. `None` for any.

    Raises:
        ValueError: If a value is out of its range.
    """

    languages: list[str] | None = None
    min_dnsmos: float | None = None
    min_seconds: float | None = None
    max_seconds: float | None = None
    require_text: bool = True
    max_characters_per_second: float | None = 50.0
    min_characters_per_second: float | None = 2.0

    def __post_init__(self):
        if self.languages is not None:
            # a string is a list of letters, and what YAML makes of `no` is `False`
            if isinstance(self.languages, str) or not all(isinstance(code, str) for code in self.languages):
                raise ValueError(f"`languages` is {self.languages!r}: give a list of codes, in quotes: ['en', 'no'].")
            if not self.languages:
                raise ValueError("`languages` is empty: name some, or leave it out to use all.")
        if self.min_dnsmos is not None and not 1 <= self.min_dnsmos <= 5:
            raise ValueError(f"`min_dnsmos` is {self.min_dnsmos}: DNSMOS lies between 1 and 5.")
        for name in ("min_seconds", "max_seconds", "max_characters_per_second", "min_characters_per_second"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"`{name}` is {getattr(self, name)}: it must be positive, or left out.")
        if None not in (self.min_seconds, self.max_seconds) and self.min_seconds > self.max_seconds:
            raise ValueError(
                f"`min_seconds` is {self.min_seconds} and `max_seconds` {self.max_seconds}: nothing fits."
            )

    def find_fault(self, row: Mapping[str, Any]) -> str | None:
        """
        Why a row is left out, by what its source states, before its audio is decoded.

        Args:
            row (`Mapping`): In the columns of `EXAMPLE_FEATURES`.

        Returns:
            `str`, one of the reasons of this module, or `None` for a row that is used, as far as is known.
        """
        audio = row["audio"] or {}
        if audio.get("path") is None and audio.get("bytes") is None:
            return NO_AUDIO
        if self.require_text and not (row["text"] or "").strip():
            return NO_TEXT
        if self.languages is not None:
            if not row["language"]:
                return NO_LANGUAGE
            if row["language"].casefold() not in map(str.casefold, self.languages):
                return OTHER_LANGUAGE
        if self.min_dnsmos is not None:
            if row["dnsmos"] is None:
                return NO_DNSMOS
            # in the precision of the column, in which 3.3 is a little less than 3.3
            if np.float32(row["dnsmos"]) < np.float32(self.min_dnsmos):
                return LOW_DNSMOS
        return None if row["duration_seconds"] is None else self.find_fault_of_length(row, row["duration_seconds"])

    def find_fault_of_length(self, row: Mapping[str, Any], duration_seconds: float) -> str | None:
        """
        Why a row is left out, by how long it is.

        Args:
            row (`Mapping`): In the columns of `EXAMPLE_FEATURES`.
            duration_seconds (`float`): Its length: of the decoded audio, where that is known.

        Returns:
            `str`, one of the reasons of this module, or `None` for a row that is used.
        """
        if self.min_seconds is not None and duration_seconds < self.min_seconds:
            return TOO_SHORT
        if self.max_seconds is not None and duration_seconds > self.max_seconds:
            return TOO_LONG
        if self.max_characters_per_second is not None:
            if len(row["text"] or "") > self.max_characters_per_second * duration_seconds:
                return TEXT_TOO_LONG
        text = (row["text"] or "").strip()
        if self.min_characters_per_second is not None and text:
            if len(text) < self.min_characters_per_second * duration_seconds:
                return TEXT_TOO_SHORT
        return None
