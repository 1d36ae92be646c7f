"""What the metrics of recordings share: how recordings are given, and how values of recordings become one."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
from datasets import Features, Value
from datasets import Sequence as SequenceOf

from ..summary import NotMeasuredError
from ..waveforms import read_waveform

Recording = str | Sequence[float] | np.ndarray

RECORDINGS_DESCRIPTION = "paths of audio files, or arrays of shape `(num_samples,)`"


def recording_features(*columns: str) -> list[Features]:
    """
    What evaluate lets through: each column may hold paths or arrays.

    Args:
        columns (`str`): Names of the columns, such as `"predictions"`.

    Returns:
        `list[Features]`, of which evaluate takes the first that fits.
    """
    kinds = product((Value("string"), SequenceOf(Value("float32"))), repeat=len(columns))
    return [Features(dict(zip(columns, kind, strict=True))) for kind in kinds]


def measure_each(
    measure: Callable[..., float], *columns: Sequence[Recording], sampling_rate: int | None
) -> dict[str, Any]:
    """
    A quantity of every recording or tuple of recordings, and its mean.

    Args:
        measure (`Callable`): Takes samples and rate of each recording of a tuple, one after the other; gives a number.
        columns (`list` of paths or arrays): Recordings, all columns of one length.
        sampling_rate (`int`, *optional*): Of arrays, in Hz; files say theirs.

    Returns:
        `dict` with `mean`, over what was measured; `per_utterance`, the values, `None` where there is none; and
        `not_measured`, a count for each reason.

    Raises:
        NotMeasuredError: If there is no value at all.
        ValueError: If a file cannot be read, or if there are arrays and no rate.
    """
    values, reasons = [], []
    for items in zip(*columns, strict=True):
        arguments = [argument for item in items for argument in _waveform_and_rate(item, sampling_rate)]
        try:
            values.append(float(measure(*arguments)))
        except NotMeasuredError as error:
            values.append(None)
            reasons.append(str(error))
    measured = [value for value in values if value is not None]
    if not measured:
        raise NotMeasuredError(reasons[0] if reasons else "there are no recordings")
    return {"mean": float(np.mean(measured)), "per_utterance": values, "not_measured": dict(Counter(reasons))}


def _waveform_and_rate(recording: Recording, sampling_rate: int | None) -> tuple[np.ndarray, int]:
    if isinstance(recording, str):
        return read_waveform(recording)
    if sampling_rate is None:
        raise ValueError("`sampling_rate` is missing: arrays do not say their rate. Give it in Hz, or give paths.")
    return np.asarray(recording, np.float32), sampling_rate
