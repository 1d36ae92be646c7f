"""Checkpoints of a training of the speech tokenizer: whole or not there, and refused by another run."""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors import SafetensorError
from transformers import PreTrainedModel

# fields that may differ when a run is resumed: they change nothing that is learnt, but for rounding
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
    "num_workers",
    "cpu",
}
RUN_FILE = "run.json"


class RunError(ValueError):
    """A run that cannot begin or go on where it was told to."""


@dataclass
class Progress:
    """
    Where a run stands, beside its tensors.

    Args:
        step (`int`, *optional*, defaults to 0): Updates done.
        positions (`dict[int, dict]`, *optional*): Of this process in the streamed sources.
    """

    step: int = 0
    positions: dict[int, dict[str, Any]] = field(default_factory=dict)


def find_checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints `checkpoint-<step>` of a folder, in the order of their steps."""
    found = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")))


def save_checkpoint(
    accelerator: Accelerator,
    folder: Path,
    progress: Progress,
    run: dict[str, Any],
    total_limit: int,
    save_more: Callable[[Path], None],
) -> Path:
    """
    Writes `checkpoint-<step>` under a temporary name and renames it when it is whole, then removes the oldest.

    Args:
        accelerator (`Accelerator`): Knows the models, optimizers and other objects of the run.
        folder (`Path`): The run's folder.
        progress ([`Progress`]): Of this process.
        run (`dict`): What describes the run, to be compared when it is resumed.
        total_limit (`int`): Checkpoints kept.
        save_more (`Callable`): Writes what else belongs into the folder that it is given, in the main process.

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
            (partial / RUN_FILE).write_text(json.dumps(run, indent=2), encoding="utf-8")
            save_more(partial)
            _flush(partial)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        # on a full disk the writers of torch and safetensors raise errors of their own kinds
        if not isinstance(error, OSError | RuntimeError | SafetensorError):
            raise
        raise OSError(f"{target} cannot be written, earlier checkpoints are as they were: {error}") from error
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        os.replace(partial, target)
        for old in find_checkpoints(folder)[:-total_limit]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()
    return target


def _flush(folder: Path):
    """Waits until all files are on the disk, so that nothing older is removed before."""
    for file in folder.rglob("*"):
        if file.is_file():
            with open(file, "rb") as stream:
                os.fsync(stream.fileno())


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


def load_checkpoint(accelerator: Accelerator, checkpoint: Path, run: dict[str, Any]) -> Progress:
    """
    Brings a run back to where a checkpoint was written.

    Args:
        accelerator (`Accelerator`): Knows the models, optimizers and other objects of the run.
        checkpoint (`Path`): Folder written by `save_checkpoint`.
        run (`dict`): What describes the run that wants to go on.

    Returns:
        [`Progress`] of this process.

    Raises:
        RunError: If the run was another one; the message says what differs.
    """
    stored = json.loads((checkpoint / RUN_FILE).read_text(encoding="utf-8"))
    differences = [
        f"`{name}` was {before}, is {after}"
        for name, before, after in differing_fields(stored, json.loads(json.dumps(run)))
        if name.split(".")[0].split("[")[0] not in FREE_FIELDS
    ]
    if differences:
        more = f"; and {len(differences) - 4} more" if len(differences) > 4 else ""
        raise RunError(
            f"{checkpoint} is of a run with another configuration: {'; '.join(differences[:4])}{more}. Restore it, or "
            "begin a new run with `start_from` in another `output_dir`."
        )
    accelerator.load_state(str(checkpoint))
    values = json.loads((checkpoint / f"progress_{accelerator.process_index}.json").read_text(encoding="utf-8"))
    return Progress(values["step"], {int(index): position for index, position in values["positions"].items()})


def differing_fields(old: Any, new: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """Name, old and new value of each place in which two descriptions of a run differ, such as `data[0].weight`."""
    if isinstance(old, dict) and isinstance(new, dict):
        places = [(f"{name}.{key}".lstrip("."), old.get(key), new.get(key)) for key in {**old, **new}]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        places = [(f"{name}[{index}]", *pair) for index, pair in enumerate(zip(old, new, strict=True))]
    else:
        return [] if old == new else [(name, old, new)]
    return [difference for place, before, after in places for difference in differing_fields(before, after, place)]
