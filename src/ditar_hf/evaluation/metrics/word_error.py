"""Word error as a metric of evaluate."""

from typing import Any

import datasets
import evaluate

from ditar_hf.evaluation.protocols import WORD_ERROR_PROTOCOLS, find_protocol

DESCRIPTION = """
Word or character error of transcripts by a protocol that must be named: it says which recogniser has to listen, how
texts are normalised and how utterances are averaged. Numbers of two protocols cannot be compared.
"""
INPUTS = """
Args:
    predictions (`list[str]`): Transcripts, as the protocol's recogniser writes them; may be empty texts.
    references (`list[str]`): What should have been said.
    protocol (`str`): `"seed-en"`, `"seed-zh"`, `"librispeech-pc"`, `"librispeech-a"` or `"offline-en"`.

Returns:
    `dict`: `word_error`, the rate (0.02 is 2%); `substitutions`, `deletions`, `insertions`, `errors` and `units`,
    counts over all utterances; `per_utterance`, rates; and `protocol`, `recognizer`, `unit` and `average`, how it was
    measured.

Example:
    >>> metric = evaluate.load("src/ditar_hf/evaluation/metrics/word_error.py")
    >>> metric.compute(predictions=["one too"], references=["One, two!"], protocol="offline-en")["word_error"]
    0.5
"""


class WordError(evaluate.Metric):
    """
    Word or character error by a named protocol, by jiwer; see `inputs_description`.

    Raises:
        ValueError: If the protocol is unknown, or a reference has nothing to compare.
        NotMeasuredError: If a package that the protocol needs is not installed.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions: list[str], references: list[str], protocol: str | None = None) -> dict[str, Any]:
        if protocol is None:
            raise ValueError(f"`protocol` is missing. Name one of {', '.join(WORD_ERROR_PROTOCOLS)}.")
        found = find_protocol(protocol)
        counts = [found.count(text, heard) for text, heard in zip(references, predictions, strict=True)]
        totals = {
            name: sum(getattr(count, name) for count in counts)
            for name in ("substitutions", "deletions", "insertions", "errors", "units")
        }
        return {
            "word_error": found.rate(counts),
            **totals,
            "per_utterance": [count.rate for count in counts],
            "protocol": found.name,
            "recognizer": found.recognizer,
            "unit": found.unit,
            "average": found.average,
        }
