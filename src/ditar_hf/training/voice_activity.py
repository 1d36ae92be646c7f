"""Long recordings cut where nobody speaks, by the `voice_activity` that stands beside each file of Libri-light."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .audio import UnusableAudioError


def read_voice_activity(path: str) -> list[tuple[float, float]]:
    """
    When somebody speaks in a file of Libri-light.

    Args:
        path (`str`): The audio file; the JSON file of the same stem beside it is read.

    Returns:
        `list[tuple[float, float]]`: Beginnings and ends in seconds, in their order.

    Raises:
        UnusableAudioError: If there is no such file, or it does not say so.
    """
    try:
        stated = json.loads(Path(path).with_suffix(".json").read_text(encoding="utf-8"))["voice_activity"]
        intervals = sorted((float(begin), float(end)) for begin, end in stated)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnusableAudioError(f"its voice activity cannot be read: {error!r}") from error
    for begin, end in intervals:
        if not 0 <= begin < end < float("inf"):
            raise UnusableAudioError(f"its voice activity goes from {begin:g} to {end:g} seconds")
    return intervals


def join_intervals(
    intervals: Sequence[tuple[float, float]], max_seconds: float, max_gap_seconds: float
) -> list[tuple[float, float]]:
    """
    Segments of speech: neighbours are joined across short gaps as long as a segment is not too long.

    Args:
        intervals (`list[tuple[float, float]]`): Beginnings and ends in seconds, in their order.
        max_seconds (`float`): Longest segment; an interval that is longer by itself stays alone as it is.
        max_gap_seconds (`float`): Longest gap within a segment.

    Returns:
        `list[tuple[float, float]]`: Beginnings and ends in seconds.
    """
    segments: list[tuple[float, float]] = []
    for begin, end in intervals:
        if segments:
            first, last = segments[-1]
            # what overlaps is joined in any case: no word may be in two segments
            if begin < last or (begin - last <= max_gap_seconds and end - first <= max_seconds):
                segments[-1] = (first, max(last, end))
                continue
        segments.append((begin, end))
    return segments


def cut_row(
    row: dict[str, Any], max_seconds: float, max_gap_seconds: float
) -> Iterator[tuple[dict[str, Any], str | None]]:
    """
    Segments of a row of Libri-light.

    Args:
        row (`dict`): In the columns of `EXAMPLE_FEATURES`.
        max_seconds, max_gap_seconds (`float`): As for `join_intervals`.

    Yields:
        A row for each segment, with an id of its own, and `None`; or, where it cannot be used, the reason.
    """
    try:
        segments = join_intervals(read_voice_activity(row["audio"]["path"]), max_seconds, max_gap_seconds)
    except UnusableAudioError as error:
        yield row, str(error)
        return
    if not segments:
        yield row, "nobody speaks in it"
    for number, (begin, end) in enumerate(segments):
        segment = {"id": f"{row['id']}/{number:04d}", "start_seconds": begin, "duration_seconds": end - begin}
        reason = f"there is no pause in {end - begin:g} seconds" if end - begin > max_seconds else None
        yield {**row, **segment}, reason
