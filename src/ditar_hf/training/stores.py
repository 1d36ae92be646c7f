"""What folders that a long preparation fills have in common: a description, a lock, and files that are whole."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets import Dataset, IterableDataset
from filelock import FileLock, Timeout

from .data import AudioSource, describe_rows
from .latent_shards import writing

LOCK_FILE = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """
    Keeps other processes from writing into a folder, as a context manager.

    Args:
        folder (`Path`): The folder; it is made if it is not there.

    Raises:
        ValueError: If another process is writing into it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # freed by the system when the process ends, however it ends
        with FileLock(folder / LOCK_FILE, timeout=0):
            yield
    except Timeout as error:
        raise ValueError(f"`out`: another process is writing {folder}. Wait for it, or use another folder.") from error


def refuse_foreign(folder: Path, description_file: str, what: str):
    """
    Raises where a folder holds what is not ours.

    Args:
        folder (`Path`): The folder, which may not be there.
        description_file (`str`): Name of the file by which one of ours is known.
        what (`str`): What it should hold, for the message.

    Raises:
        ValueError: If it is a file, or holds other things.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"`out`: {folder} is a file. Name a folder.")
    # all that a run that was killed at once can have left
    begun = {LOCK_FILE, f"{description_file}.tmp"}
    if folder.is_dir() and not (folder / description_file).is_file():
        if {file.name for file in folder.iterdir()} - begun:
            raise ValueError(f"`out`: {folder} holds other things than {what}. Name a new folder or an empty one.")


def read_description(file: Path, format_version: int) -> dict[str, Any] | None:
    """
    What a folder says of itself.

    Args:
        file (`Path`): Its description.
        format_version (`int`): The version that is understood.

    Returns:
        `dict`, or `None` if there is no such file.

    Raises:
        ValueError: If it cannot be read, or is of another version.
    """
    if not file.is_file():
        return None
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
        version = description["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged ({error!r}). Begin again in another folder.") from error
    if version != format_version:
        raise ValueError(f"{file} is of format {version}, not {format_version}. Begin again in another folder.")
    return description


def write_lines(file: Path, values: list[Any], indent: int | None = None):
    """
    Writes values as JSON, a line each, all or nothing.

    Args:
        file (`Path`): The file.
        values (`list`): What JSON can hold.
        indent (`int`, *optional*): Spread each over lines of its own.
    """
    with writing(file) as stream:
        stream.writelines(f"{json.dumps(value, ensure_ascii=False, indent=indent)}\n".encode() for value in values)


def describe_source(source: AudioSource, rows: Dataset | IterableDataset) -> dict[str, Any]:
    """
    What tells later that the same rows are read.

    Args:
        source ([`AudioSource`]): The source.
        rows (`datasets.Dataset` or `datasets.IterableDataset`): What it gave.

    Returns:
        `dict`: Its settings and what `describe_rows` says.
    """
    # a weight says what a mixture draws, not what is read
    origin = {name: value for name, value in asdict(source).items() if name != "weight"}
    for name in ("path", "audio_dir"):
        if origin[name] is not None and os.path.exists(origin[name]):
            origin[name] = os.path.abspath(origin[name])
    return {**origin, **describe_rows(source, rows)}


def find_differences(stored: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> str:
    """
    Where the values of one description are not those of another.

    Args:
        stored (`Mapping`): What was written.
        wanted (`Mapping`): What it should say; further values there do not matter.
        prefix (`str`, *optional*): Stands before names in the answer.

    Returns:
        `str`: In words; empty if nowhere.
    """
    found = []
    for name, value in wanted.items():
        if isinstance(value, Mapping):
            found.append(find_differences(stored.get(name, {}), value, f"{prefix}{name}."))
        elif stored.get(name) != value:
            found.append(f"`{prefix}{name}` is {stored.get(name)!r} there and {value!r} here")
    return ", ".join(filter(None, found))
