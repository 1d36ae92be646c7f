"""What is measured of synthesised speech: word error, likeness to the voice of the prompt, predicted opinion."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from .protocols import find_protocol
from .recognizers import load_recognizer
from .speaker_encoders import load_speaker_encoder
from .speech_quality import DNSMOS_MODEL, UTMOS_MODEL, dnsmos_overall, load_utmos
from .summary import NotMeasuredError, unavailable
from .test_sets import TestItem
from .waveforms import read_waveform


@dataclass(frozen=True)
class Measure:
    """
    A column of the report.

    Args:
        name (`str`): With the protocol or model: numbers of two of them never share a column.
        unit (`str`): Its unit.
        better (`str`): `"lower"` or `"higher"`.
        measure (`Callable`):
            From an item, samples `(num_samples,)` and their rate in Hz to a `dict` with `value`, its `weight` in the
            mean, and what else is worth keeping; raises [`NotMeasuredError`].
    """

    name: str
    unit: str
    better: str
    measure: Callable[[TestItem, np.ndarray, int], dict[str, Any]]


def load_measures(protocol: str, encoder: str, device: str = "cpu") -> list[Measure]:
    """
    All measures; one whose model or package cannot be had raises [`NotMeasuredError`] with the reason when it is used.

    Args:
        protocol (`str`): Of word error, a name of `WORD_ERROR_PROTOCOLS`.
        encoder (`str`): Of speakers, a name of `SPEAKER_ENCODERS`.
        device (`str`, *optional*, defaults to `"cpu"`): Where their models compute.

    Returns:
        `list[Measure]`.

    Raises:
        ValueError: If there is no such protocol or encoder.
    """
    return [
        _word_error(protocol, device),
        _similarity(encoder, device),
        Measure(f"naturalness, {UTMOS_MODEL}", "1 to 5", "higher", _opinion(_if_had(load_utmos, device))),
        Measure(f"quality, {DNSMOS_MODEL}", "1 to 5", "higher", _opinion(dnsmos_overall)),
    ]


def _if_had(load: Callable[..., Callable], *arguments: Any) -> Callable:
    try:
        return load(*arguments)
    except NotMeasuredError as error:
        return unavailable(str(error))


def _word_error(name: str, device: str) -> Measure:
    protocol = find_protocol(name)
    recognize = _if_had(load_recognizer, protocol.recognizer, device)

    def measure(item: TestItem, waveform: np.ndarray, sampling_rate: int) -> dict[str, Any]:
        transcript = recognize(waveform, sampling_rate)
        try:
            counts = protocol.count(item.text, transcript)
        except ValueError as error:  # nothing of the text can be compared
            raise NotMeasuredError(f"the text has no {protocol.unit}") from error
        return {"value": counts.rate, "weight": protocol.weights([counts])[0], "transcript": transcript}

    average = "mean of utterances" if protocol.average == "utterance" else "of the corpus"
    return Measure(
        f"error of {protocol.unit}, {protocol.name} ({protocol.recognizer}, {average})", "", "lower", measure
    )


def _similarity(name: str, device: str) -> Measure:
    embed = _if_had(load_speaker_encoder, name, device)

    @cache
    def prompt(path: Any) -> np.ndarray:
        return embed(*read_waveform(path))

    def measure(item: TestItem, waveform: np.ndarray, sampling_rate: int) -> dict[str, Any]:
        if item.prompt_audio is None:
            raise NotMeasuredError("there is no prompt to be like")
        return {"value": float(prompt(item.prompt_audio) @ embed(waveform, sampling_rate)), "weight": 1}

    return Measure(f"likeness to the prompt, {name}", "cosine", "higher", measure)


def _opinion(score: Callable[[np.ndarray, int], float]) -> Callable[[TestItem, np.ndarray, int], dict[str, Any]]:
    return lambda item, waveform, sampling_rate: {"value": score(waveform, sampling_rate), "weight": 1}
