"""What checkpoints of every training here have in common: whole or not there, and refused by another run."""

import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

RUN_FILE = "run.json"


class RunError(ValueError):
    """A run that cannot begin or go on where it was told to."""


def find_checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints `checkpoint-<step>` of a folder, in the order of their steps."""
    found = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")))


def flush_folder(folder: Path):
    """Waits until all files are on the disk, so that nothing older is removed before."""
    for file in folder.rglob("*"):
        if file.is_file():
            with open(file, "rb") as stream:
                os.fsync(stream.fileno())


def refuse_other_run(checkpoint: Path, run: Mapping[str, Any], free_fields: Collection[str] = ()):
    """
    Compares what describes a run with what a checkpoint says of its own.

    Args:
        checkpoint (`Path`): Folder with a `run.json`.
        run (`Mapping`): What describes the run that wants to go on.
        free_fields (`Collection[str]`, *optional*): Fields at the top that may differ.

    Raises:
        RunError: If the checkpoint is of another run; the message says what differs.
    """
    stored = json.loads((checkpoint / RUN_FILE).read_text(encoding="utf-8"))
    differences = [
        f"`{name}` was {before}, is {after}"
        for name, before, after in differing_fields(stored, json.loads(json.dumps(run)))
        if name.split(".")[0].split("[")[0] not in free_fields
    ]
    if differences:
        more = f"; and {len(differences) - 4} more" if len(differences) > 4 else ""
        raise RunError(
            f"{checkpoint} is of a run with another configuration: {'; '.join(differences[:4])}{more}. Restore it, or "
            "begin a new run from its weights in another `output_dir`."
        )


def differing_fields(old: Any, new: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """Name, old and new value of each place in which two descriptions of a run differ, such as `data[0].weight`."""
    if isinstance(old, dict) and isinstance(new, dict):
        places = [(f"{name}.{key}".lstrip("."), old.get(key), new.get(key)) for key in {**old, **new}]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        places = [(f"{name}[{index}]", *pair) for index, pair in enumerate(zip(old, new, strict=True))]
    else:
        return [] if old == new else [(name, old, new)]
    return [difference for place, before, after in places for difference in differing_fields(before, after, place)]


@contextmanager
def removed_if_not_written(partial: Path, name: Path) -> Iterator[None]:
    """
    Takes away what is half-written when a block fails.

    Args:
        partial (`Path`): Folder that the block writes.
        name (`Path`): What it would have become, for the message.

    Raises:
        OSError: If the block cannot write, such as on a full disk.
    """
    try:
        yield
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        # on a full disk the writers of torch and safetensors raise errors of their own kinds
        is_torch_write = isinstance(error, RuntimeError) and "PytorchStreamWriter" in str(error)
        if not isinstance(error, OSError | SafetensorError) and not is_torch_write:
            raise
        raise OSError(f"{name} cannot be written, earlier checkpoints are as they were: {error}") from error


def move_files(partial: Path, folder: Path):
    """
    Moves a saved model to its place, configurations last: where they are, all is there.

    Args:
        partial (`Path`): Folder that holds it, and is removed.
        folder (`Path`): Where it goes.
    """
    late = ("config.json", "adapter_config.json")
    for file in sorted(partial.rglob("*"), key=lambda file: file.name in late):
        if file.is_file():
            target = folder / file.relative_to(partial)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
    shutil.rmtree(partial)
