"""Checkpoints of a training of the speech tokenizer: whole or not there, and refused by another run."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors import SafetensorError
from transformers import PreTrainedModel

from .checkpoints import RUN_FILE, find_checkpoints, flush_folder, move_files, refuse_other_run

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
            flush_folder(partial)
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


def save_model(model: PreTrainedModel, folder: Path):
    """
    Saves a model beside the checkpoints, weights first: where there is a `config.json`, all is there.

    Args:
        model (`PreTrainedModel`): The trained model.
        folder (`Path`): The run's folder.
    """
    partial = folder / ".partial-model"
    model.save_pretrained(partial)
    move_files(partial, folder)


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
    refuse_other_run(checkpoint, run, FREE_FIELDS)
    accelerator.load_state(str(checkpoint))
    values = json.loads((checkpoint / f"progress_{accelerator.process_index}.json").read_text(encoding="utf-8"))
    return Progress(values["step"], {int(index): position for index, position in values["positions"].items()})
