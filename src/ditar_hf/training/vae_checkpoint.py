"""Checkpoints of a training of the speech tokenizer: whole or not there, and refused by another run."""

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from transformers import PreTrainedModel

from .vae_crops import CropState

# fields that may differ when a run is resumed: they change nothing that is learnt
FREE_FIELDS = {
    "output_dir",
    "eval_data",
    "eval_steps",
    "num_eval_clips",
    "num_statistics_batches",
    "logging_steps",
    "save_steps",
    "save_total_limit",
    "report_to",
    "cpu",
}
RUN_FILE = "run.json"


@dataclass
class Progress:
    """
    Where a run stands, beside its tensors.

    Args:
        step (`int`): Updates done.
        next_worker (`int`): Worker whose batch comes next.
        crop_states (`list[CropState]`): Of each worker.
    """

    step: int
    next_worker: int
    crop_states: list[CropState]

    @classmethod
    def start(cls, num_workers: int) -> "Progress":
        """Of a run that has not begun."""
        return cls(0, 0, [CropState(batch=worker) for worker in range(max(1, num_workers))])

    def states_from_here(self) -> list[CropState]:
        """States for new workers, the first of which makes the next batch."""
        return self.crop_states[self.next_worker :] + self.crop_states[: self.next_worker]

    def consume(self, batch: dict[str, Any], first_worker: int):
        """Notes that a batch was used; `first_worker` is the one from which this process's workers are counted."""
        worker = (batch["worker"] + first_worker) % len(self.crop_states)
        self.crop_states[worker] = batch["state"]
        self.next_worker = (worker + 1) % len(self.crop_states)


def find_checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints `checkpoint-<step>` of a folder, in the order of their steps."""
    found = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")))


def save_checkpoint(
    accelerator: Accelerator, folder: Path, progress: Progress, arguments: dict[str, Any], total_limit: int
) -> Path:
    """
    Writes `checkpoint-<step>` under a temporary name and renames it when it is whole, then removes the oldest.

    Args:
        accelerator (`Accelerator`): Knows the models, optimizers and other objects of the run.
        folder (`Path`): The run's folder.
        progress ([`Progress`]): Of this process.
        arguments (`dict`): Of the run, to be compared when it is resumed.
        total_limit (`int`): Checkpoints kept.

    Returns:
        The checkpoint's folder.

    Raises:
        OSError: If it cannot be written, such as on a full disk; earlier checkpoints stay as they are.
    """
    target, partial = folder / f"checkpoint-{progress.step}", folder / f".partial-{progress.step}"
    if accelerator.is_main_process:
        for leftover in folder.glob(".partial-*"):
            shutil.rmtree(leftover)
        partial.mkdir(parents=True)
    accelerator.wait_for_everyone()
    try:
        accelerator.save_state(str(partial))
        own = partial / f"progress_{accelerator.process_index}.json"
        own.write_text(json.dumps(asdict(progress)), encoding="utf-8")
        if accelerator.is_main_process:
            run = {"num_processes": accelerator.num_processes, "arguments": arguments}
            (partial / RUN_FILE).write_text(json.dumps(run, indent=2), encoding="utf-8")
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if target.exists():
            shutil.rmtree(target)
        os.replace(partial, target)
        for old in find_checkpoints(folder)[:-total_limit]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()
    return target


def save_model(model: PreTrainedModel, folder: Path):
    """
    Saves a model beside the checkpoints, weights first: where there is a `config.json`, all is there.

    Args:
        model (`PreTrainedModel`): The trained model.
        folder (`Path`): The run's folder.
    """
    partial = folder / ".partial-model"
    model.save_pretrained(partial)
    for file in sorted(partial.iterdir(), key=lambda file: file.name == "config.json"):
        os.replace(file, folder / file.name)
    shutil.rmtree(partial)


def load_checkpoint(accelerator: Accelerator, checkpoint: Path, arguments: dict[str, Any]) -> Progress:
    """
    Brings a run back to where a checkpoint was written.

    Args:
        accelerator (`Accelerator`): Knows the models, optimizers and other objects of the run.
        checkpoint (`Path`): Folder written by `save_checkpoint`.
        arguments (`dict`): Of the run that wants to go on.

    Returns:
        [`Progress`] of this process.

    Raises:
        ValueError: If the run was another one; the message says what differs.
    """
    run = json.loads((checkpoint / RUN_FILE).read_text(encoding="utf-8"))
    differences = [
        f"`{name}` was {value}, is {new}"
        for name, value, new in differing_fields(run["arguments"], json.loads(json.dumps(arguments)))
    ]
    if run["num_processes"] != accelerator.num_processes:
        differences.append(f"the number of processes was {run['num_processes']}, is {accelerator.num_processes}")
    if differences:
        raise ValueError(
            f"{checkpoint} is of a run with another configuration: {'; '.join(differences)}. Restore it, or begin a "
            "new run with `start_from` in another `output_dir`."
        )
    accelerator.load_state(str(checkpoint))
    values = json.loads((checkpoint / f"progress_{accelerator.process_index}.json").read_text(encoding="utf-8"))
    for state in values["crop_states"]:
        state["positions"] = {int(index): position for index, position in state["positions"].items()}
    return Progress(values["step"], values["next_worker"], [CropState(**state) for state in values["crop_states"]])


def differing_fields(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Name, old and new value of each field in which two descriptions of a run differ, but for `FREE_FIELDS`."""
    found = []
    for name in {**old, **new}:
        before, after = old.get(name), new.get(name)
        if not prefix and name in FREE_FIELDS:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            found += differing_fields(before, after, f"{prefix}{name}.")
        elif before != after:
            found.append((f"{prefix}{name}", before, after))
    return found
