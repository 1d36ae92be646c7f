"""Speaker similarity as a metric of evaluate."""

from typing import Any

import evaluate
import numpy as np

from ditar_hf.evaluation.metrics.recordings import RECORDINGS_DESCRIPTION, measure_each, recording_features
from ditar_hf.evaluation.speaker_encoders import load_speaker_encoder

DESCRIPTION = """
Cosine between the embeddings of two recordings by a speaker encoder that must be named, from -1 to 1. Similarities by
two encoders cannot be compared.
"""
INPUTS = f"""
Args:
    predictions: Generated recordings: {RECORDINGS_DESCRIPTION}.
    references: Recordings of the speakers they should sound like, as many, given likewise.
    encoder (`str`): `"wavlm-large-sv"`, the papers'; `"resemblyzer"`, offline; or another one that
        `ditar_hf.evaluation.speaker_encoders.load_speaker_encoder` takes.
    sampling_rate (`int`, *optional*): Of arrays, in Hz.
    device (`str`, *optional*, defaults to `"cpu"`): Where the encoder computes.

Returns:
    `dict`: `speaker_similarity`, the mean over the pairs that could be measured; `per_utterance`, `None` for others;
    `not_measured`, how many for which reason; and `encoder`.
"""


class SpeakerSimilarity(evaluate.Metric):
    """
    Speaker similarity by a named encoder; see `inputs_description`.

    Raises:
        NotMeasuredError: If the encoder cannot be had, or no pair could be measured.
        ValueError: If the encoder is no model of this kind, a file cannot be read, or arrays have no rate.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=recording_features("predictions", "references"),
        )

    def _compute(
        self, predictions: list, references: list, encoder: str, sampling_rate: int | None = None, device: str = "cpu"
    ) -> dict[str, Any]:
        embed = load_speaker_encoder(encoder, device)

        def similarity(generated: np.ndarray, rate: int, reference: np.ndarray, reference_rate: int) -> float:
            return float(embed(generated, rate) @ embed(reference, reference_rate))

        measured = measure_each(similarity, predictions, references, sampling_rate=sampling_rate)
        return {"speaker_similarity": measured.pop("mean"), **measured, "encoder": encoder}
