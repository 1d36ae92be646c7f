"""DNSMOS as a metric of evaluate."""

from typing import Any

import evaluate

from ditar_hf.evaluation.metrics.recordings import RECORDINGS_DESCRIPTION, measure_each, recording_features
from ditar_hf.evaluation.speech_quality import DNSMOS_MODEL, dnsmos_overall

DESCRIPTION = """
Overall quality of speech as DNSMOS P.835 predicts it (Reddy et al., 2022), a mean opinion score from 1 to 5.
"""
INPUTS = f"""
Args:
    predictions: Recordings: {RECORDINGS_DESCRIPTION}.
    sampling_rate (`int`, *optional*): Of arrays, in Hz.

Returns:
    `dict`: `dnsmos`, the mean over the recordings that could be measured; `per_utterance`, `None` for others;
    `not_measured`, how many for which reason; and `model`.
"""


class DNSMOS(evaluate.Metric):
    """
    DNSMOS of recordings; see `inputs_description`.

    Raises:
        NotMeasuredError: If the model cannot be had, or no recording could be measured.
        ValueError: If a file cannot be read, or arrays have no rate.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=recording_features("predictions"),
        )

    def _compute(self, predictions: list, sampling_rate: int | None = None) -> dict[str, Any]:
        measured = measure_each(dnsmos_overall, predictions, sampling_rate=sampling_rate)
        return {"dnsmos": measured.pop("mean"), **measured, "model": DNSMOS_MODEL}
