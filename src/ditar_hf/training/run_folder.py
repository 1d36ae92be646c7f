"""The folder of a run of [`DiTARTrainer`]: one run at a time, whole checkpoints, and what could not be used."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from .checkpoints import (
    RUN_FILE,
    RunError,
    find_checkpoints,
    flush_folder,
    refuse_other_run,
    removed_if_not_written,
)

LOCK_FILE, PARTIAL_FOLDER = ".lock", ".partial"
NUMBER = "number_written"
# a schedule that does not know its end may be given another one while it is constant
OPEN_ENDED = ("constant", "constant_with_warmup", "warmup_stable_decay")


class RunFolder:
    """
    What lies beside the weights of a run.

    Args:
        path (`Path`): The run's folder.
        description (`Mapping`): What decides what is learnt; stored in each checkpoint, and compared on resume.
        rank (`int`): Of this process.
    """

    def __init__(self, path: Path, description: Mapping[str, Any], rank: int):
        self.path, self.description, self.rank = path, description, rank
        self.partial = path / PARTIAL_FOLDER
        self._rejected: set[str] | None = None

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keeps other runs out for as long as the block lasts; freed by the system however the process ends."""
        if self.rank != 0:
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.path / LOCK_FILE, timeout=0):
                yield
        except Timeout as error:
            raise RunError(f"`output_dir`: another run is writing {self.path}. Take another folder.") from error

    def find_checkpoints(self) -> list[Path]:
        """Whole checkpoints in the order in which they were written, which is another one after going back."""
        whole = [path for path in find_checkpoints(self.path) if (path / RUN_FILE).is_file()]
        return sorted(whole, key=_number_of)  # not by time, which a copy need not keep

    def check_resume(self, resume: str | Path | bool | None):
        """
        Raises where a run cannot begin as it is told to.

        Args:
            resume (`str`, `Path` or `bool`, *optional*): As for `choose`.

        Raises:
            RunError: If there is nothing to resume, or a fresh run would overwrite checkpoints.
        """
        checkpoints = self.find_checkpoints()
        if not resume and checkpoints:
            raise RunError(f"`output_dir` ({self.path}) holds {checkpoints[-1].name}: resume, or take another folder.")
        if resume is True and not checkpoints:
            raise RunError(f"`resume`: there is no whole checkpoint in {self.path}.")

    def choose(self, resume: str | Path | bool | None) -> Path | None:
        """
        The checkpoint that a run begins with. A fresh run has a list of rejected rows of its own.

        Args:
            resume (`str`, `Path` or `bool`, *optional*): A checkpoint, `True` for the one written last, or none.

        Returns:
            Its folder, or `None` for a fresh run.

        Raises:
            RunError: As `check_resume`, or if the checkpoint is not whole or of another run.
        """
        self.check_resume(resume)
        if not resume:
            self._rejected = set()
            (self.path / f"rejected-{self.rank}.jsonl").unlink(missing_ok=True)  # of a try without a checkpoint
            return None
        checkpoints = self.find_checkpoints()
        checkpoint = checkpoints[-1] if resume is True else Path(resume)
        if not (checkpoint / RUN_FILE).is_file():
            last = f"the last whole one is {checkpoints[-1]}" if checkpoints else "there is no whole one"
            raise RunError(f"`resume`: {checkpoint} is no whole checkpoint; {last}.")
        refuse_other_run(checkpoint, self.description, (NUMBER, *self._free_fields(checkpoint)))
        return checkpoint

    def _free_fields(self, checkpoint: Path) -> tuple[str, ...]:
        """Fields that may differ: where the rate is constant still, the end may be put elsewhere."""
        stored = json.loads((checkpoint / RUN_FILE).read_text(encoding="utf-8"))
        kind, kwargs = stored.get("lr_scheduler_type"), stored.get("lr_scheduler_kwargs") or {}
        decay_begin = stored["max_steps"] - kwargs.get("num_decay_steps", 0)
        is_decaying = kind == "warmup_stable_decay" and step_of(checkpoint) > decay_begin
        return ("max_steps", "lr_scheduler_kwargs") if kind in OPEN_ENDED and not is_decaying else ()

    def load_position(self, checkpoint: Path) -> dict[str, Any]:
        """Where this process stood in the data."""
        return json.loads((checkpoint / f"position_{self.rank}.json").read_text(encoding="utf-8"))

    def save_position(self, checkpoint: Path, position: Mapping[str, Any] | None):
        """Writes down where this process stands in the data."""
        (checkpoint / f"position_{self.rank}.json").write_text(json.dumps(position), encoding="utf-8")

    @contextmanager
    def writing(self, step: int) -> Iterator[None]:
        """
        Takes away what is half-written when a checkpoint fails.

        Args:
            step (`int`): Of the checkpoint.

        Raises:
            OSError: If it cannot be written, such as on a full disk; earlier checkpoints stay as they are.
        """
        with removed_if_not_written(self.partial, self.path / f"checkpoint-{step}"):
            yield

    def publish(self, step: int, total_limit: int | None):
        """
        Gives a checkpoint its name when all of it is on the disk, then removes the oldest; for the first process.

        Args:
            step (`int`): Of the checkpoint.
            total_limit (`int`, *optional*): Checkpoints kept; all of them by default.
        """
        name = f"checkpoint-{step}"
        number = 1 + max(map(_number_of, self.find_checkpoints()), default=0)
        description = {**self.description, NUMBER: number}
        (self.partial / name / RUN_FILE).write_text(json.dumps(description, indent=2), encoding="utf-8")
        flush_folder(self.partial)
        if (self.path / name).exists():  # a run went back, and came here again
            self._remove(self.path / name)
        os.replace(self.partial / name, self.path / name)
        shutil.rmtree(self.partial)
        for old in self.find_checkpoints()[:-total_limit] if total_limit else []:
            self._remove(old)

    @staticmethod
    def _remove(checkpoint: Path):
        """Takes the name away first, so that nothing half-removed is taken for whole."""
        (checkpoint / RUN_FILE).unlink(missing_ok=True)
        shutil.rmtree(checkpoint)

    def note_rejected(self, rejected: Mapping[str, str]):
        """Writes down rows that cannot be used, and why, once each, in `rejected-<rank>.jsonl`."""
        file = self.path / f"rejected-{self.rank}.jsonl"
        if self._rejected is None:
            self._rejected = _read_ids(file)
        new = {name: reason for name, reason in rejected.items() if name not in self._rejected}
        if new:
            self._rejected.update(new)
            with open(file, "a", encoding="utf-8") as stream:
                for name, reason in new.items():
                    stream.write(f"{json.dumps({'id': name, 'reason': reason}, ensure_ascii=False)}\n")

    @property
    def num_rejected(self) -> int:
        """Rows that this process could not use."""
        return len(self._rejected or ())


def step_of(checkpoint: str | Path) -> int:
    """The step of a checkpoint, whatever its folder is called."""
    return TrainerState.load_from_json(str(Path(checkpoint, TRAINER_STATE_NAME))).global_step


def _number_of(checkpoint: Path) -> int:
    """The place of a checkpoint in the order in which those of its run were written."""
    return json.loads((checkpoint / RUN_FILE).read_text(encoding="utf-8")).get(NUMBER, 0)


def _read_ids(file: Path) -> set[str]:
    """Ids of a list of rejected rows; a last line that was cut off when a process died is taken out of the file."""
    if not file.is_file():
        return set()
    content = file.read_text(encoding="utf-8")
    whole = content[: content.rfind("\n") + 1]
    if whole != content:
        file.write_text(whole, encoding="utf-8")
    return {json.loads(line)["id"] for line in whole.splitlines()}
