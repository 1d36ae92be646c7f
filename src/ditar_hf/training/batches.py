"""
Batches by a budget of positions of the language model, from sources without end, and exactly resumable.

Each process reads its share of the sources in windows: rows of a window are sorted by length and packed, so that
little is padding, and its batches come in a random order. Where it stands is a few numbers and the states that the
sources had before the window: to resume is to read the window again. (A shuffle buffer, as `datasets` has it, would
lose the rows that it holds.)
"""

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.utils.data import IterableDataset as TorchIterableDataset
from torch.utils.data import get_worker_info

from .audio import UnusableAudioError
from .collator import DiTARDataCollator
from .examples import UNUSABLE, ExampleMaker, LeftOutError, Outline, UnusableRowError
from .row_readers import RowReader, Rows, make_reader

MOST_FAILURES = 1000  # unusable rows in a row after which there is nothing to train on


@dataclass
class BatchArguments:
    """
    How examples are put into batches.

    Args:
        max_positions (`int`, *optional*, defaults to 15000):
            Positions of the language model in a batch of one process, padding included: text and patches. The paper
            has 15,000 on each GPU (appendix A.1).
        window_rows (`int`, *optional*, defaults to 1024):
            Rows that are sorted by length together. They are held undecoded, but latents as they are.

    Raises:
        ValueError: If a value is below 1.
    """

    max_positions: int = 15_000
    window_rows: int = 1024

    def __post_init__(self):
        for name in ("max_positions", "window_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}: it must be at least 1.")


@dataclass
class WeightedRows:
    """
    Rows and their share of the mixture.

    Args:
        name (`str`): Of the source, for messages.
        rows (`datasets.Dataset` or `datasets.IterableDataset`): What [`ExampleMaker`] takes.
        weight (`float`, *optional*, defaults to 1.0): Share of draws, in proportion to the other weights.
    """

    name: str
    rows: Rows
    weight: float = 1.0


class TokenBudgetBatches(TorchIterableDataset):
    """
    Collated batches without end; `DataLoader(batches, batch_size=None)` leaves them as they are.

    Args:
        sources (`list[WeightedRows]`): Where rows come from.
        maker ([`ExampleMaker`]): Makes examples of them.
        arguments ([`BatchArguments`], *optional*): Sizes.
        seed (`int`, *optional*, defaults to 0): Of all draws.
        rank, world_size (`int`, *optional*): This process and how many there are.
        position (`dict`, *optional*): Where to go on, as the batch before gives it.

    Yields:
        `dict` of what [`DiTARDataCollator`] gives, and `position`, `ids` (`list[str]`), `seed` (`int`, for the noise
        of this batch); and since the batch before, `rejected`, a dict from the names of unusable rows to why, and
        `num_left_out`, how many more the filters left out. A worker of a loader that cannot go on gives `{"error":
        message}`, since an exception would lose its message on the way.

    Raises:
        ValueError: If there is no source.
        UnusableAudioError: When it is read, if a thousand rows in a row cannot be used, or a source has none, or none
            that the filters take.
    """

    def __init__(
        self,
        sources: Sequence[WeightedRows],
        maker: ExampleMaker,
        arguments: BatchArguments | None = None,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        position: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        if not sources:
            raise ValueError("`sources` is empty: name at least one.")
        self.sources, self.maker = list(sources), maker
        self.arguments = BatchArguments() if arguments is None else arguments
        self.collator = DiTARDataCollator(maker.processor)
        self.seed, self.rank, self.world_size, self.position = seed, rank, world_size, position

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        if worker is not None and worker.num_workers > 1:
            raise ValueError(f"`num_workers` is {worker.num_workers}: it can be 0 or 1, or the run could not resume.")
        try:
            yield from self._batches()
        except UnusableAudioError as error:
            if worker is None:
                raise
            yield {"error": str(error)}

    def _batches(self) -> Iterator[dict[str, Any]]:
        position = self.position or {"window": 0, "batch": 0, "sources": [None] * len(self.sources)}
        readers = [
            make_reader(source.rows, source.name, f"{self.seed}-{index}", self.rank, self.world_size, state)
            for index, (source, state) in enumerate(zip(self.sources, position["sources"], strict=True))
        ]
        first_batch, rejected = position["batch"], Rejected()
        for window in itertools.count(position["window"]):
            states = [reader.state() for reader in readers]
            batches = self._pack(self._read_window(window, readers, rejected), self._random("batches", window))
            for number in range(first_batch, len(batches)):
                batch = self._collate(batches[number], rejected)
                if batch:
                    yield {
                        **batch,
                        "position": {"window": window, "batch": number + 1, "sources": states},
                        "seed": self._random("noise", window, number).getrandbits(63),
                        "rejected": rejected.reasons,
                        "num_left_out": rejected.num_left_out,
                    }
                    rejected = Rejected()
            first_batch = 0

    def _random(self, *key: Any) -> random.Random:
        return random.Random("-".join(map(str, (self.seed, self.rank, *key))))

    def _read_window(self, window: int, readers: list[RowReader], rejected: "Rejected") -> list[Outline]:
        """Outlines of the next rows that can be used, each source as often as its weight says."""
        rng, weights = self._random("window", window), [source.weight for source in self.sources]
        indices = rng.choices(range(len(readers)), weights, k=self.arguments.window_rows)
        return [self._next_outline(self.sources[index].name, readers[index], rejected) for index in indices]

    def _next_outline(self, source: str, reader: RowReader, rejected: "Rejected") -> Outline:
        """The next row of a source that can be used: what the filters leave out does not lessen its share."""
        first_epoch, num_failures = reader.epoch, 0
        while True:
            row = next(reader)
            name = f"{source}: {row['id']}"
            try:
                return self._outline(row, name)
            except LeftOutError as error:
                rejected.num_left_out += 1
                if reader.epoch > first_epoch + 1:
                    raise UnusableAudioError(
                        f"`filters` leave out all rows; the last one is {name}: {error}."
                    ) from error
            except UNUSABLE as error:
                rejected.reasons[name] = str(error)
                num_failures += 1
                _refuse_to_go_on(num_failures, name, error)

    def _outline(self, row: Mapping[str, Any], name: str) -> Outline:
        outline = self.maker.outline(row)
        outline.name = name
        if outline.num_positions > self.arguments.max_positions:
            raise UnusableRowError(
                f"its {outline.num_positions} positions are more than `max_positions` ({self.arguments.max_positions})"
            )
        return outline

    def _pack(self, outlines: list[Outline], rng: random.Random) -> list[list[Outline]]:
        """Outlines of about one length together, as many as the budget takes with padding; batches in random order."""
        batches: list[list[Outline]] = []
        for outline in sorted(outlines, key=lambda outline: outline.num_positions, reverse=True):
            longest = batches[-1][0].num_positions if batches else 0
            if not batches or (len(batches[-1]) + 1) * longest > self.arguments.max_positions:
                batches.append([])
            batches[-1].append(outline)
        rng.shuffle(batches)
        return batches

    def _collate(self, outlines: list[Outline], rejected: "Rejected") -> dict[str, Any] | None:
        """The batch of those outlines whose audio can be used; `None` if there is none."""
        examples = []
        for outline in outlines:
            try:
                examples.append(self.maker.complete(outline))
            except LeftOutError as error:
                rejected.num_left_out += 1
                rejected.num_in_a_row += 1
                _refuse_to_go_on(rejected.num_in_a_row, outline.name, error)
            except UNUSABLE as error:
                rejected.reasons[outline.name] = str(error)
                rejected.num_in_a_row += 1
                _refuse_to_go_on(rejected.num_in_a_row, outline.name, error)
        if not examples:
            return None
        return {**self.collator(examples), "ids": [example["id"] for example in examples]}


@dataclass
class Rejected:
    """
    Rows that could not be used since the last batch.

    Args:
        reasons (`dict[str, str]`, *optional*): Why, by their names.
        num_left_out (`int`, *optional*, defaults to 0): Others, which the filters left out.
        num_in_a_row (`int`, *optional*, defaults to 0): Those whose audio could not be used.
    """

    reasons: dict[str, str] = field(default_factory=dict)
    num_left_out: int = 0
    num_in_a_row: int = 0


def _refuse_to_go_on(num_failures: int, name: str, error: Exception):
    if num_failures >= MOST_FAILURES:
        raise UnusableAudioError(
            f"`data`: {MOST_FAILURES} rows one after the other cannot be used. The last one is {name}: {error}."
        ) from error
