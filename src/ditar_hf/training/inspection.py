"""What a source holds before anything is trained on it: hours, speakers, lengths, and what cannot be used and why."""

import math
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from datasets import Dataset
from transformers.utils import logging

from ..modeling.processing_ditar import DiTARProcessor
from .audio import decode_audio, segment_of
from .data import AudioSource, spread_rows
from .examples import UNUSABLE, ExampleArguments, ExampleMaker, UnusableRowError, measure_seconds
from .filters import FilterArguments

PROBE_SECONDS = 0.01  # of a file whose header is read: rate and format are known then, and that it begins at all
QUANTILES = {"min": 0.0, "5%": 0.05, "25%": 0.25, "median": 0.5, "75%": 0.75, "95%": 0.95, "max": 1.0}


@dataclass
class Rejects:
    """
    Rows that are left out for one reason.

    Args:
        num_rows (`int`): How many.
        example_id (`str`): The first one.
        example_reason (`str`): Why it is left out, with its own numbers and names.
    """

    num_rows: int
    example_id: str
    example_reason: str


@dataclass
class Inspection:
    """
    What was found in a source. It keeps a few floats of each row and no row.

    All but `num_rows`, `num_source_rows`, `unknown_phones` and `rejects` is of the rows that can be used.

    Args:
        lengths (`Literal`): Where they come from: `"headers"` of the files, `"decoded"`, or `"trimmed"`, which is
            decoded and without the silence at the end that training leaves off.
        num_source_rows (`int`, *optional*): Rows of the source, where that is known without reading them.
        num_rows (`int`): Rows that were read.
        seconds, characters_per_second, tokens_per_second (`array` of floats):
            Of each row; the latter two of rows with a text, and with a processor.
        num_tokens (`int`): Of all texts.
        speaker_seconds (`dict[str, float]`): Of each speaker.
        num_without_speaker (`int`): Rows that name none.
        language_rows, language_seconds (`dict`): Of each language; `""` for rows that name none.
        sampling_rates (`Counter[int]`): Rows of each rate in Hz.
        unknown_phones (`Counter[str]`): What is outside the processor's vocabulary, and how often.
        rejects (`dict[str, Rejects]`): By reason, as `group_reason` gives it.
    """

    lengths: Literal["headers", "decoded", "trimmed"]
    num_source_rows: int | None = None
    num_rows: int = 0
    seconds: array = field(default_factory=lambda: array("d"))
    characters_per_second: array = field(default_factory=lambda: array("d"))
    tokens_per_second: array = field(default_factory=lambda: array("d"))
    num_tokens: int = 0
    speaker_seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    num_without_speaker: int = 0
    language_rows: Counter[str] = field(default_factory=Counter)
    language_seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    sampling_rates: Counter[int] = field(default_factory=Counter)
    unknown_phones: Counter[str] = field(default_factory=Counter)
    rejects: dict[str, Rejects] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any], seconds: float, sampling_rate: int, num_tokens: int | None):
        """
        Counts a row that can be used.

        Args:
            row (`Mapping`): In the columns of `EXAMPLE_FEATURES`.
            seconds (`float`): Its length.
            sampling_rate (`int`): Of its file, in Hz.
            num_tokens (`int`, *optional*): Of its text, if it was tokenized.
        """
        self.num_rows += 1
        self.seconds.append(seconds)
        self.sampling_rates[sampling_rate] += 1
        self.language_rows[row["language"] or ""] += 1
        self.language_seconds[row["language"] or ""] += seconds
        if row["speaker"] is None:
            self.num_without_speaker += 1
        else:
            self.speaker_seconds[row["speaker"]] += seconds
        if row["text"]:
            self.characters_per_second.append(len(row["text"]) / seconds)
        if num_tokens is not None:
            self.num_tokens += num_tokens
            self.tokens_per_second.append(num_tokens / seconds)

    def reject(self, identifier: str, reason: str):
        """
        Counts a row that cannot be used.

        Args:
            identifier (`str`): Its id.
            reason (`str`): Why, in full.
        """
        self.num_rows += 1
        rejects = self.rejects.setdefault(group_reason(reason), Rejects(0, identifier, reason))
        rejects.num_rows += 1

    def summarize(self) -> dict[str, Any]:
        """
        The figures.

        Returns:
            `dict` of what JSON can hold. Quantiles, and the share of the largest speaker, are `None` without rows that
            they are of. What there may be many of comes in the order of size.
        """
        total = math.fsum(self.seconds)
        largest = max(self.speaker_seconds, key=self.speaker_seconds.__getitem__, default=None)
        return {
            "num_source_rows": self.num_source_rows,
            "num_rows": self.num_rows,
            "num_usable_rows": len(self.seconds),
            "hours": total / 3600,
            "lengths": self.lengths,
            "speakers": {
                "num_speakers": len(self.speaker_seconds),
                "largest": largest,
                "largest_share": None if largest is None else self.speaker_seconds[largest] / total,
                "num_rows_without": self.num_without_speaker,
            },
            "languages": [
                {"language": name or None, "num_rows": count, "hours": self.language_seconds[name] / 3600}
                for name, count in self.language_rows.most_common()
            ],
            "sampling_rates": [
                {"sampling_rate": rate, "num_rows": count} for rate, count in self.sampling_rates.most_common()
            ],
            "seconds": _quantiles(self.seconds),
            "characters_per_second": _quantiles(self.characters_per_second),
            "tokens_per_second": _quantiles(self.tokens_per_second),
            "num_tokens": self.num_tokens if self.tokens_per_second else None,
            "unknown_phones": dict(self.unknown_phones.most_common()),
            "num_rejected": self.num_rows - len(self.seconds),
            "rejected": [
                {"reason": reason, **vars(rejects)}
                for reason, rejects in sorted(self.rejects.items(), key=lambda item: -item[1].num_rows)
            ],
        }


def inspect_source(
    source: AudioSource,
    filters: FilterArguments | None = None,
    processor: DiTARProcessor | None = None,
    examples: ExampleArguments | None = None,
    *,
    decode: bool = False,
    limit: int | None = None,
) -> Inspection:
    """
    Reads a source once, and finds which of its rows training could use.

    Lengths are those of the files, whatever the source states of them. Without `decode` they are what headers say, so
    a file that is damaged further on counts as if it were whole.

    Args:
        source ([`AudioSource`]): What is read, in its own order; nothing in it is changed.
        filters ([`FilterArguments`], *optional*): Which rows are used.
        processor ([`DiTARProcessor`], *optional*):
            Of the model that will be trained: texts are tokenized as for training, and what that refuses is left out.
        examples ([`ExampleArguments`], *optional*): How rows are used; without a processor, only the lowest rate.
        decode (`bool`, *optional*, defaults to `False`): Decode all audio, rather than read headers.
        limit (`int`, *optional*): Rows to read: the first ones of a stream, spread over any other source.

    Returns:
        [`Inspection`].

    Raises:
        ValueError: If `limit` is not positive, or the source cannot be read or has no row.
        OSError: If a connection to the source breaks.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"`limit` is {limit}: it must be at least 1, or left out to read all rows.")
    meter = _Meter(filters or FilterArguments(), processor, examples or ExampleArguments(), decode)
    rows = source.read()
    inspection = Inspection(meter.lengths, len(rows) if isinstance(rows, Dataset) else None)
    unknown_before = Counter(meter.unknown_phones)
    rows = rows if limit is None else spread_rows(rows, limit)
    total = len(rows) if isinstance(rows, Dataset) else limit
    # it vanishes when done, and is for terminals only (`disable=None`)
    for row in logging.tqdm(rows, desc="inspecting", total=total, unit=" rows", leave=False, disable=None):
        try:
            inspection.add(row, *meter.measure(row))
        except UNUSABLE as error:
            inspection.reject(row["id"], str(error))
    if not inspection.num_rows:
        raise ValueError(f"`source`: there is no row in {source.path}. Check path and format.")
    inspection.unknown_phones = Counter(meter.unknown_phones) - unknown_before
    return inspection


class _Meter:
    """Measures rows that training could use, and refuses others."""

    def __init__(
        self, filters: FilterArguments, processor: DiTARProcessor | None, examples: ExampleArguments, decode: bool
    ):
        self.filters, self.min_sampling_rate, self.decode = filters, examples.min_sampling_rate, decode
        self.maker = None if processor is None else ExampleMaker(processor, examples, filters)
        is_trimmed = self.maker is not None and examples.trim_margin_seconds is not None
        self.lengths = "headers" if not decode else "trimmed" if is_trimmed else "decoded"

    @property
    def unknown_phones(self) -> Mapping[str, int]:
        # the tokenizer of a text language model does not count them
        return {} if self.maker is None else getattr(self.maker.processor.tokenizer, "unknown_symbols", {})

    def measure(self, row: Mapping[str, Any]) -> tuple[float, int, int | None]:
        """Seconds, sampling rate and, with a processor, number of tokens of a row."""
        self._refuse(self.filters.find_fault(row))
        seconds, rate = measure_file(row, self.min_sampling_rate)
        self._refuse(self.filters.find_fault_of_length(row, seconds))
        outline = None if self.maker is None else self.maker.outline(row)
        if self.decode and outline is None:
            samples, rate = decode_audio(row["audio"], min_sampling_rate=self.min_sampling_rate, **segment_of(row))
            seconds = len(samples) / rate
            self._refuse(self.filters.find_fault_of_length(row, seconds))
        elif self.decode:
            audio = self.maker.complete(outline)["audio"]
            seconds = len(audio["array"]) / audio["sampling_rate"]
        return seconds, rate, None if outline is None else len(outline.input_ids)

    @staticmethod
    def _refuse(fault: str | None):
        if fault is not None:
            raise UnusableRowError(fault)


def measure_file(row: Mapping[str, Any], min_sampling_rate: int) -> tuple[float, int]:
    """
    Length and rate of a row by its file's header, whatever the row states.

    Args:
        row (`Mapping`): In the columns of `EXAMPLE_FEATURES`; of a segment, its part of the file is measured.
        min_sampling_rate (`int`): Lowest rate that is taken, in Hz.

    Returns:
        `tuple[float, int]`: Seconds, and the sampling rate in Hz.

    Raises:
        UnusableAudioError: If the file cannot be read or holds nothing, its rate is lower, or the segment is not
            within it.
    """
    segment = segment_of(row)
    _, rate = decode_audio(row["audio"], seconds=PROBE_SECONDS, min_sampling_rate=min_sampling_rate, **segment)
    seconds = measure_seconds({**row, "duration_seconds": None})
    if None not in segment.values():
        seconds = min(seconds, segment["duration_seconds"])
    return seconds, rate


def group_reason(reason: str) -> str:
    """
    What is the same in all reasons of one kind, so that they can be counted.

    Args:
        reason (`str`): Why a row cannot be used.

    Returns:
        `str`: What stands before the first colon or parenthesis, with `…` in the place of numbers.
    """
    return re.sub(r"\d+(?:\.\d+)?", "…", re.split(r"[:(]", reason, maxsplit=1)[0].strip())


def _quantiles(values: array) -> dict[str, float] | None:
    if not values:
        return None
    found = np.quantile(np.frombuffer(values, np.float64), list(QUANTILES.values()))
    return dict(zip(QUANTILES, found.tolist(), strict=True))
