"""An evaluation of speech synthesis in a folder: it goes on where it was interrupted, and is shared by processes."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from .speech_measures import Measure
from .summary import NotMeasuredError, summarize
from .test_sets import TestItem
from .waveforms import read_waveform

SETTINGS_FILE, SCORES_FILE = "settings.json", "scores.jsonl"
# rows of the table, in this order: what the figures of the model are to be seen against stands beside it
MODEL, RESYNTHESIS, TARGET = "model", "resynthesis", "recording"
LIMIT_SUFFIX = ".reached-limit"

Synthesize = Callable[[TestItem, int], tuple[np.ndarray, int, bool]]


class SpeechEvaluation:
    """
    Items, what is made of them, and what is measured.

    Args:
        folder (`str` or `Path`): Where all is written; may hold what an earlier run with these settings has left.
        items (`list[TestItem]`): What is to be said.
        settings (`dict`): All that the results depend on, as plain values.
        seed (`int`, *optional*, defaults to 0): Each item has a seed of its own, from this one and its id.

    Raises:
        ValueError: If the folder holds something else, or an evaluation with other settings.
    """

    def __init__(self, folder: str | Path, items: Sequence[TestItem], settings: dict[str, Any], seed: int = 0):
        self.folder, self.items, self.seed = Path(folder), list(items), seed
        said = [
            [item.id, item.text, item.prompt_text, _sum(item.prompt_audio), _sum(item.target_audio)]
            for item in self.items
        ]
        settings = json.loads(json.dumps({**settings, "seed": seed, "items": said}))
        file = self.folder / SETTINGS_FILE
        if file.is_file() and not any((self.folder / MODEL).glob("*.wav")):
            pass  # nothing has been spoken with these settings, which may be why
        elif file.is_file():
            self._refuse_others(json.loads(file.read_text(encoding="utf-8")), settings)
        elif self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise ValueError(f"`out`: there is something at {self.folder} that is no evaluation. Name a new folder.")
        self.settings = settings

    def _refuse_others(self, found: Any, settings: dict[str, Any]):
        if not isinstance(found, dict):
            raise ValueError(
                f"`out`: {SETTINGS_FILE} in {self.folder} is not that of an evaluation. Name a new folder."
            )
        names = sorted(name for name in found.keys() | settings.keys() if found.get(name) != settings.get(name))
        if names:
            raise ValueError(
                f"`out`: {self.folder} holds an evaluation with another `{names[0]}`. Name a new folder, or go on as "
                f"{SETTINGS_FILE} in it says."
            )

    def begin(self):
        """Makes the folder and notes the settings; of several processes only the first does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with _replacing(self.folder / SETTINGS_FILE) as partial:
            partial.write_text(json.dumps(self.settings, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    def audio(self, row: str, item: TestItem) -> Path:
        """Where the speech of an item lies, whether it is there or not."""
        return self.folder / row / f"{item.id}.wav"

    def synthesize(self, synthesize: Synthesize, process_index: int = 0, num_processes: int = 1):
        """
        Speaks the items of one process that have not been spoken yet.

        Args:
            synthesize (`Callable`):
                From an item and a seed to samples `(num_samples,)`, their rate in Hz, and whether speech ran into its
                limit. It must not depend on what it spoke before.
            process_index (`int`, *optional*, defaults to 0): Of this process.
            num_processes (`int`, *optional*, defaults to 1): Which share the items.
        """
        for item in self.items[process_index::num_processes]:
            if not self.audio(MODEL, item).is_file():
                waveform, sampling_rate, reached_limit = synthesize(item, self._seed_of(item))
                if reached_limit:
                    self.audio(MODEL, item).parent.mkdir(exist_ok=True)
                    self.audio(MODEL, item).with_suffix(LIMIT_SUFFIX).touch()
                self._write(MODEL, item, waveform, sampling_rate)

    def _seed_of(self, item: TestItem) -> int:
        return int.from_bytes(hashlib.sha256(f"{self.seed} {item.id}".encode()).digest()[:4], "big")

    def _write(self, row: str, item: TestItem, waveform: np.ndarray, sampling_rate: int):
        self.audio(row, item).parent.mkdir(exist_ok=True)
        with _replacing(self.audio(row, item)) as partial:
            soundfile.write(partial, waveform, sampling_rate)

    def add_bounds(self, resynthesize: Callable[[np.ndarray, int], tuple[np.ndarray, int]]):
        """
        Adds recordings of the texts, where there are any, and what the speech tokenizer alone makes of them.

        Args:
            resynthesize (`Callable`): From samples `(num_samples,)` and their rate in Hz to the same of its result.
        """
        for item in self.items:
            if item.target_audio is not None:
                for row, change in ((TARGET, lambda *audio: audio), (RESYNTHESIS, resynthesize)):
                    if not self.audio(row, item).is_file():
                        self._write(row, item, *change(*read_waveform(item.target_audio)))

    @property
    def rows(self) -> list[str]:
        """Rows of the table that there is speech for."""
        return [
            row for row in (MODEL, RESYNTHESIS, TARGET) if any(self.audio(row, item).is_file() for item in self.items)
        ]

    @property
    def run_aways(self) -> list[str]:
        """Ids of items whose speech ran into its limit."""
        return [item.id for item in self.items if self.audio(MODEL, item).with_suffix(LIMIT_SUFFIX).exists()]

    def score(self, measures: Sequence[Measure]) -> list[dict[str, Any]]:
        """
        Measures all speech that is there; what an interrupted run has measured is kept.

        Args:
            measures (`list[Measure]`): Columns of the table.

        Returns:
            `list[dict]` of `row`, `id`, `measure` and what was measured, or `not_measured` with the reason.
        """
        file = self.folder / SCORES_FILE
        scores = {_key(score): score for score in _read_scores(file)}
        # rewritten without what is not measured, which may be by now, and without a line that was cut off
        scores = {key: score for key, score in scores.items() if "not_measured" not in score}
        with _replacing(file) as partial:
            partial.write_text("".join(_line(score) for score in scores.values()), encoding="utf-8")
        with open(file, "a", encoding="utf-8") as log:
            for score in self._missing(measures, scores):
                scores[_key(score)] = score
                log.write(_line(score))
                log.flush()
        return list(scores.values())

    def _missing(self, measures: Sequence[Measure], scores: dict[tuple, Any]) -> Iterator[dict[str, Any]]:
        for row in self.rows:
            for item in self.items:
                todo = [measure for measure in measures if (row, item.id, measure.name) not in scores]
                if not todo or not self.audio(row, item).is_file():
                    continue
                audio = read_waveform(self.audio(row, item))
                for measure in todo:
                    try:
                        values = measure.measure(item, *audio)
                    except NotMeasuredError as error:
                        values = {"not_measured": str(error)}
                    yield {"row": row, "id": item.id, "measure": measure.name, **values}

    def summary(self, scores: Sequence[dict[str, Any]], measures: Sequence[Measure]) -> dict[str, dict[str, Any]]:
        """
        Means with intervals.

        Args:
            scores (`list[dict]`): Of `score`.
            measures (`list[Measure]`): Columns.

        Returns:
            For each row, for each measure, what [`summarize`] gives.
        """
        table = {}
        for row in self.rows:
            table[row] = {}
            for measure in measures:
                own = [score for score in scores if (score["row"], score["measure"]) == (row, measure.name)]
                measured = [score for score in own if "not_measured" not in score]
                table[row][measure.name] = summarize(
                    [score["value"] for score in measured],
                    [score["weight"] for score in measured] or None,
                    [score["not_measured"] for score in own if "not_measured" in score],
                )
        return table


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its place once it is whole; no two processes write the same one."""
    partial = path.with_name(f".partial-{path.name}")
    yield partial
    os.replace(partial, path)


def _sum(path: Path | None) -> str | None:
    """What tells a recording from another one of its name."""
    if path is None or not path.is_file():
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _key(score: dict[str, Any]) -> tuple[str, str, str]:
    return score["row"], score["id"], score["measure"]


def _line(score: dict[str, Any]) -> str:
    return json.dumps(score, ensure_ascii=False, allow_nan=False) + "\n"


def _read_scores(file: Path) -> Iterator[dict[str, Any]]:
    """Lines of the log; the last may have been cut off by a kill."""
    if file.is_file():
        # not `splitlines`: a transcript may hold other characters that end a line
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").split("\n")[:-1], start=1):
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{file}, line {number}, is damaged. Delete the file: it is measured again."
                ) from error
