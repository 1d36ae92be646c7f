"""Folders that a long preparation fills: a description, a lock, and shards that are whole or not there."""

import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from datasets import Dataset, IterableDataset
from filelock import FileLock, Timeout
from transformers.utils import logging

from .checkpoints import differing_fields
from .data import AudioSource, describe_rows
from .inspection import group_reason

LOCK_FILE, REJECTED_FILE = ".lock", "rejected.jsonl"


@dataclass(frozen=True)
class Store:
    """
    A folder of shards, each of which stands for a fixed range of what goes in, used or not.

    A shard bears its name only when it is whole, so that a run that was stopped at any moment goes on where it was.
    The description says what the store is made of, and at the end that it is complete.

    Args:
        folder (`Path`): Where it lies.
        contents (`str`): What it holds, for messages.
        description_file (`str`): Name of the file that says what it is.
        format_version (`int`): The version of the description that is understood.
        shard_file (`str`): Name of a shard with a place for its number, such as `"latents-{:05d}.parquet"`.
    """

    folder: Path
    contents: str
    description_file: str
    format_version: int
    shard_file: str

    def read_description(self) -> dict[str, Any] | None:
        """
        What the store says of itself.

        Returns:
            `dict`, or `None` if there is no store.

        Raises:
            ValueError: If it cannot be read, or is of another version.
        """
        file = self.folder / self.description_file
        if not file.is_file():
            return None
        try:
            description = json.loads(file.read_text(encoding="utf-8"))
            version = description["format_version"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is damaged ({error!r}). Begin again in another folder.") from error
        if version != self.format_version:
            raise ValueError(
                f"{file} is of format {version}, not {self.format_version}. Begin again in another folder."
            )
        return description

    def shard(self, index: int) -> Path:
        """
        File of a shard.

        Args:
            index (`int`): Its number.

        Returns:
            `Path`: There or not.
        """
        return self.folder / self.shard_file.format(index)

    def leading_shards(self) -> list[Path]:
        """
        What is there without a gap.

        Returns:
            `list[Path]`: Shards from the first to the one before the first that is not there.
        """
        return list(itertools.takewhile(Path.is_file, map(self.shard, itertools.count())))

    def is_whole(self, description: Mapping[str, Any]) -> bool:
        """
        Whether all that a description promises is there.

        Args:
            description (`Mapping`): As `read_description` gives it.

        Returns:
            `bool`.
        """
        return description["complete"] and len(self.leading_shards()) >= description["totals"]["num_shards"]

    def refuse_foreign(self):
        """
        Raises where the folder holds what is not ours.

        Raises:
            ValueError: If it is a file, or holds other things.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"`out`: {self.folder} is a file. Name a folder.")
        # all that a run that was killed at once can have left
        begun = {LOCK_FILE, f"{self.description_file}.tmp"}
        if self.folder.is_dir() and not (self.folder / self.description_file).is_file():
            if {file.name for file in self.folder.iterdir()} - begun:
                raise ValueError(
                    f"`out`: {self.folder} holds other things than {self.contents}. Name a new folder or an empty one."
                )

    def complete(
        self,
        description: Mapping[str, Any],
        items: Callable[[int], Iterator[Any]],
        items_per_shard: int,
        write: Callable[[Path, list[Any]], None],
        summarize: Callable[[Path], Mapping[str, Any]],
        *,
        bar: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """
        Writes what the store lacks.

        Args:
            description (`Mapping`): What the store is made of, as JSON can hold it; `source` has a `path`.
            items (`Callable`): What goes in, from that number on.
            items_per_shard (`int`): How many a shard stands for.
            write (`Callable`): Writes the shard of such items, whole or not at all.
            summarize (`Callable`): `num_rows`, `seconds` and `rejected`, a list of `id` and `reason`, of a shard.
            bar (`Mapping`, *optional*): Options of the bar on the terminal.

        Returns:
            `dict`: The description with `totals`: `num_rows`, `num_rejected`, `reasons`, `num_shards` and `hours`.

        Raises:
            ValueError: If the folder was begun with something else, is being written by another process, or in the
                end there is no row that can be used.
        """
        description = {"format_version": self.format_version, **json.loads(json.dumps(description))}
        with locked(self.folder):
            stored = self.read_description()
            if stored is None:
                write_lines(self.folder / self.description_file, [{**description, "complete": False}], indent=2)
            elif found := find_differences(stored, description):
                raise ValueError(
                    f"`out`: {self.folder} was begun with something else: {found}. Use that, or another folder."
                )
            elif self.is_whole(stored):
                return stored
            for index, some in self._missing(items, items_per_shard, bar or {}):
                write(self.shard(index), some)
            description |= {"complete": True, "totals": self._count(description["source"]["path"], summarize)}
            write_lines(self.folder / self.description_file, [description], indent=2)
        return description

    def _missing(
        self, items: Callable[[int], Iterator[Any]], items_per_shard: int, bar: Mapping[str, Any]
    ) -> Iterator[tuple[int, list[Any]]]:
        """Numbers and items of the shards that are not there."""
        first = len(self.leading_shards())
        iterator = iter(items(first * items_per_shard))
        # it vanishes when done, and is for terminals only (`disable=None`)
        with logging.tqdm(initial=first * items_per_shard, leave=False, disable=None, **bar) as progress:
            for index in itertools.count(first):
                some = list(itertools.islice(iterator, items_per_shard))
                if not some:
                    return
                if not self.shard(index).is_file():
                    yield index, some
                progress.update(len(some))

    def _count(self, source: str, summarize: Callable[[Path], Mapping[str, Any]]) -> dict[str, Any]:
        """Totals of all shards; writes down what was rejected, which may be more than fits into memory."""
        files, reasons, example, num_rows, seconds = self.leading_shards(), Counter(), None, 0, 0.0
        with writing(self.folder / REJECTED_FILE) as stream:
            for summary in map(summarize, files):
                num_rows, seconds = num_rows + summary["num_rows"], seconds + summary["seconds"]
                for entry in summary["rejected"]:
                    example = example or entry
                    reasons[group_reason(entry["reason"])] += 1
                    stream.write(_as_line(entry))
        if not num_rows:
            why = f"no row can be used ({self.folder / REJECTED_FILE}), {example}" if example else "there is no row"
            raise ValueError(f"`source`: of {source} {why}. Check path, format and filters.")
        return {
            "num_rows": num_rows,
            "num_rejected": reasons.total(),
            "reasons": dict(reasons.most_common()),
            "num_shards": len(files),
            "hours": seconds / 3600,
        }


@contextmanager
def writing(file: Path) -> Iterator[BinaryIO]:
    """
    Opens a file that bears its name only when it is whole, as a context manager.

    A kill leaves at most a file of the same name with `.tmp` behind it, which the next run overwrites.

    Args:
        file (`Path`): The file to write or to replace.

    Yields:
        A binary stream.
    """
    temporary = file.with_name(f"{file.name}.tmp")
    with open(temporary, "wb") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, file)


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


def write_lines(file: Path, values: list[Any], indent: int | None = None):
    """
    Writes values as JSON, a line each, all or nothing.

    Args:
        file (`Path`): The file.
        values (`list`): What JSON can hold.
        indent (`int`, *optional*): Spread each over lines of its own.
    """
    with writing(file) as stream:
        stream.writelines(_as_line(value, indent) for value in values)


def _as_line(value: Any, indent: int | None = None) -> bytes:
    return f"{json.dumps(value, ensure_ascii=False, indent=indent)}\n".encode()


def rows_from(rows: Dataset | IterableDataset, first: int) -> IterableDataset:
    """
    Rows from a number on; audio of those before is not read where that can be helped.

    Args:
        rows (`datasets.Dataset` or `datasets.IterableDataset`): All rows.
        first (`int`): How many are left out.

    Returns:
        `datasets.IterableDataset`.
    """
    stream = rows.to_iterable_dataset() if isinstance(rows, Dataset) else rows
    return stream.skip(first)


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


def find_differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """
    Where one description is not another.

    Args:
        stored (`Mapping`): What was written; further fields at its top do not matter.
        wanted (`Mapping`): What it should say, as JSON can hold it.

    Returns:
        `str`: In words; empty if nowhere.
    """
    there, here = {name: stored.get(name) for name in wanted}, json.loads(json.dumps(wanted))
    return ", ".join(
        f"`{name}` is {before!r} there and {after!r} here" for name, before, after in differing_fields(there, here)
    )
