"""Rows of a source for ever, this process's share of them, from any position."""

import copy
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from datasets import Dataset, IterableDataset
from datasets.distributed import split_dataset_by_node

from .audio import UnusableAudioError

Rows = Dataset | IterableDataset


class RowReader(Protocol):
    """Gives rows without end; `state()` is what [`make_reader`] needs to give the same rows again."""

    epoch: int  # passes that are finished

    def __next__(self) -> dict[str, Any]: ...

    def state(self) -> dict[str, Any]: ...


class TableReader:
    """
    Rows of a table, in a new random order in each pass.

    Args:
        rows (`datasets.Dataset`): The whole table.
        seed (`str`): Of the orders, the same for all processes.
        rank, world_size (`int`): This process and how many there are; each has every `world_size`-th row of an order.
        state (`dict`, *optional*): Where to begin.
    """

    def __init__(self, rows: Dataset, seed: str, rank: int, world_size: int, state: Mapping[str, Any] | None = None):
        self.rows, self.seed, self.rank, self.world_size = rows, seed, rank, world_size
        self.epoch, self.row = (0, rank) if state is None else (state["epoch"], state["row"])
        self._order = self._shuffled()

    def _shuffled(self) -> np.ndarray:
        entropy = list(f"{self.seed}-{self.epoch}".encode())
        return np.random.default_rng(entropy).permutation(len(self.rows))

    def __next__(self) -> dict[str, Any]:
        """The next row."""
        while self.row >= len(self._order):
            # what is left over of a pass moves each process on by as much as there is, so that all have their turn
            self.epoch, self.row = self.epoch + 1, self.row - len(self._order)
            self._order = self._shuffled()
        row = self.rows[int(self._order[self.row])]
        self.row += self.world_size
        return row

    def state(self) -> dict[str, Any]:
        """Where the reader stands."""
        return {"epoch": self.epoch, "row": self.row}


class StreamReader:
    """
    Rows of a stream, pass after pass: its files in a new random order in each pass, the rows of a file in their own.

    Args:
        rows (`datasets.IterableDataset`): The whole stream.
        name (`str`): Of the source, for the message.
        seed (`str`): Of the orders, the same for all processes.
        rank, world_size (`int`): This process and how many there are.
        state (`dict`, *optional*): Where to begin.
    """

    def __init__(
        self,
        rows: IterableDataset,
        name: str,
        seed: str,
        rank: int,
        world_size: int,
        state: Mapping[str, Any] | None = None,
    ):
        # `datasets` shuffles files by the number of the pass, and leaves them as they are in pass 0
        self.first_epoch = 1 + zlib.crc32(seed.encode())
        # where files are fewer than processes, each process reads all and takes every `world_size`-th row
        strategy = "shards" if rows.num_shards >= world_size else "examples"
        self.rows, self.name = split_dataset_by_node(rows, rank, world_size, strategy=strategy), name
        self.epoch, self.num_rows = 0, 0
        self._iterator: Iterator[dict[str, Any]] | None = None
        self._stream_state = None
        if state is not None:
            self.epoch, self.num_rows, self._stream_state = state["epoch"], state["num_rows"], state["stream"]

    def _open(self):
        self.rows.set_epoch(self.first_epoch + self.epoch)
        if self._stream_state is not None:
            self.rows.load_state_dict(copy.deepcopy(self._stream_state))
        self._iterator, self._stream_state = iter(self.rows), None

    def __next__(self) -> dict[str, Any]:
        """The next row; raises an UnusableAudioError if a whole pass has none."""
        if self._iterator is None:
            self._open()
        row = next(self._iterator, None)
        if row is None:
            if not self.num_rows:
                raise UnusableAudioError(f"`path`: there is no speech in {self.name} for this process.")
            self.epoch, self.num_rows = self.epoch + 1, 0
            self._open()
            return next(self)
        self.num_rows += 1
        return row

    def state(self) -> dict[str, Any]:
        """Where the reader stands."""
        if self._iterator is None:
            stream = self._stream_state
        else:
            stream = copy.deepcopy(self.rows.state_dict())
        return {"epoch": self.epoch, "num_rows": self.num_rows, "stream": stream}


def make_reader(
    rows: Rows, name: str, seed: str, rank: int, world_size: int, state: Mapping[str, Any] | None = None
) -> RowReader:
    """
    The reader of a table or of a stream.

    Args:
        rows (`datasets.Dataset` or `datasets.IterableDataset`): All rows.
        name (`str`): Of the source, for messages.
        seed (`str`): Of the order.
        rank, world_size (`int`): This process and how many there are.
        state (`dict`, *optional*): Of a reader of the same rows, to go on from there.

    Returns:
        [`RowReader`].

    Raises:
        ValueError: If the table is empty.
    """
    if isinstance(rows, IterableDataset):
        return StreamReader(rows, name, seed, rank, world_size, state)
    if not len(rows):
        raise ValueError(f"`path`: there is no row in {name}.")
    return TableReader(rows, seed, rank, world_size, state)
