"""Batches of random crops for the training of the speech tokenizer, each a function of its number alone."""

import copy
import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from datasets import Dataset, IterableDataset
from datasets.distributed import split_dataset_by_node
from torch.utils.data import IterableDataset as TorchIterableDataset
from torch.utils.data import get_worker_info

from ..modeling.loss_ditar_vae import limit_bandwidth
from .audio import MIN_SAMPLING_RATE, UnusableAudioError, decode_audio, resample_audio, segment_of
from .data import AudioSource, describe_rows

MOST_FAILURES = 1000  # unusable rows in a row after which there is nothing to train on


@dataclass
class CropArguments:
    """
    How crops are cut from recordings and varied.

    A crop's loudness is drawn, not kept: its peak is brought to a level uniform in `peak_decibels`, but a pause is not
    raised by more than `max_gain_decibels`. What is shorter than a crop is followed by zeros.

    Args:
        crop_seconds (`float`, *optional*, defaults to 1.2): Length of a crop, rounded to whole latent frames.
        peak_decibels (`tuple[float, float]`, *optional*, defaults to `(-16.0, -1.0)`):
            Range of a crop's peak, in dB of full scale; `None` leaves the level as it was recorded.
        max_gain_decibels (`float`, *optional*, defaults to 30.0): Most by which a crop is made louder.
        max_speed_change (`float`, *optional*, defaults to 0.0):
            Half of the crops are played up to this share slower or faster, which makes new voices; 0.12 is two
            semitones either way.
        invert_probability (`float`, *optional*, defaults to 0.5): Share of crops turned upside down.
        narrow_probability (`float`, *optional*, defaults to 0.25):
            Share of the full-band crops that the encoder hears without what lies above a frequency drawn between 7
            and 8 kHz, while the decoder shall make all of it. It teaches what belongs on top of material of 16 kHz,
            where the loss says nothing.
        ignore_above_bandwidth (`bool`, *optional*, defaults to `True`):
            Whether the losses leave out what lies above half of a recording's own rate. Where little of the material
            reaches higher, the decoder may invent a band of noise there; `False` teaches that it is silent.
        min_sampling_rate (`int`, *optional*, defaults to 16000): Recordings of a lower rate are not used, in Hz.
        window_rows (`int`, *optional*, defaults to 256):
            Rows of a streamed source that are shuffled together. `datasets`' own shuffle buffer would lose rows when
            a run is resumed.

    Raises:
        ValueError: If a value is out of its range.
    """

    crop_seconds: float = 1.2
    peak_decibels: tuple[float, float] | None = (-16.0, -1.0)
    max_gain_decibels: float = 30.0
    max_speed_change: float = 0.0
    invert_probability: float = 0.5
    narrow_probability: float = 0.25
    ignore_above_bandwidth: bool = True
    min_sampling_rate: int = MIN_SAMPLING_RATE
    window_rows: int = 256

    def without_changes(self) -> "CropArguments":
        """The same lengths of the recordings as they are: no level, speed, sign or bandwidth is drawn."""
        return replace(self, peak_decibels=None, max_speed_change=0.0, invert_probability=0.0, narrow_probability=0.0)

    def __post_init__(self):
        if not self.crop_seconds > 0:
            raise ValueError(f"`crop_seconds` is {self.crop_seconds}: it must be positive.")
        if self.peak_decibels is not None:
            self.peak_decibels = tuple(self.peak_decibels)
            if len(self.peak_decibels) != 2 or not self.peak_decibels[0] <= self.peak_decibels[1] <= 0:
                raise ValueError(f"`peak_decibels` is {self.peak_decibels}: give the lower and the upper, up to 0 dB.")
        if not self.max_gain_decibels >= 0:
            raise ValueError(f"`max_gain_decibels` is {self.max_gain_decibels}: it must not be negative.")
        if not 0 <= self.max_speed_change < 0.5:
            raise ValueError(f"`max_speed_change` is {self.max_speed_change}: it must lie in [0, 0.5).")
        for name in ("invert_probability", "narrow_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}: a probability lies in [0, 1].")
        if self.window_rows < 1:
            raise ValueError(f"`window_rows` is {self.window_rows}: it must be at least 1.")


@dataclass
class StreamPosition:
    """
    Where a process stands in a streamed source.

    Args:
        epoch (`int`): Passes finished.
        window (`int`): Windows finished in this pass.
        row (`int`): Rows used of this window.
        state (`dict`, *optional*): Of the `datasets.IterableDataset` at the beginning of the window.
    """

    epoch: int = 0
    window: int = 0
    row: int = 0
    state: dict[str, Any] | None = None


class StreamReader:
    """
    Rows of a streamed source for ever, shuffled in windows, from any position.

    Args:
        rows (`datasets.IterableDataset`): The source, already this process's share.
        path (`str`): Its path, for the message.
        window_rows (`int`): Rows shuffled together.
        seed (`str`): Makes the order of a window, with its number.
        position ([`StreamPosition`]): Where to begin; kept up to date.
    """

    def __init__(self, rows: IterableDataset, path: str, window_rows: int, seed: str, position: StreamPosition):
        self.rows, self.path, self.window_rows, self.seed, self.position = rows, path, window_rows, seed, position
        self._window: list[dict[str, Any]] = []
        self._iterator: Iterator[dict[str, Any]] | None = None
        self._rows_read = 0

    def __next__(self) -> dict[str, Any]:
        """The next row; raises an UnusableAudioError if a whole pass finds none."""
        if self._iterator is None:
            self._open()
            self._read_window()
        while self.position.row >= len(self._window):
            if self._window:
                self.position.window, self.position.row = self.position.window + 1, 0
                self.position.state = copy.deepcopy(self.rows.state_dict())
            else:
                if not self._rows_read:
                    raise UnusableAudioError(f"`path`: there is no speech in {self.path}.")
                self.position.epoch, self.position.window, self.position.row = self.position.epoch + 1, 0, 0
                self.position.state = None
                self._open()
            self._read_window()
        row = self._window[self.position.row]
        self.position.row += 1
        return row

    def _open(self):
        self.rows.set_epoch(self.position.epoch)
        if self.position.state is not None:
            self.rows.load_state_dict(copy.deepcopy(self.position.state))
        self._iterator, self._rows_read = iter(self.rows), self.position.window

    def _read_window(self):
        self._window = list(itertools.islice(self._iterator, self.window_rows))
        self._rows_read += len(self._window)
        key = f"{self.seed}-{self.position.epoch}-{self.position.window}"
        random.Random(key).shuffle(self._window)


class CropBatches(TorchIterableDataset):
    """
    Finished batches of crops without end; `DataLoader(batches, batch_size=None)` leaves them as they are.

    Which recording, which part of it and how it is varied is drawn from the seed and the crop's number. So for sources
    on this machine batch n is the same however many processes and workers there are, and a run resumes at any batch
    without reading what came before. A streamed source is split among processes and resumes from its own state.

    Args:
        sources (`list[AudioSource]`): Where recordings come from.
        arguments ([`CropArguments`]): How crops are cut.
        sampling_rate (`int`): Of the crops, in Hz.
        hop_length (`int`): Samples in a latent frame.
        batch_size (`int`): Crops in a batch of one process.
        seed (`int`, *optional*, defaults to 0): Of all draws.
        rank, world_size (`int`, *optional*): This process and how many there are.
        first_batch (`int`, *optional*, defaults to 0): Number of the batch to begin with.
        positions (`dict[int, dict]`, *optional*): Of the streamed sources, as the batch before gives them.

    Yields:
        `dict` with `target_waveforms` and `waveforms` `(batch_size, num_samples)`, what shall be made and what the
        encoder hears; `bandwidths` `(batch_size,)` in Hz; `ids` and `seeds`, lists; `rejected`, a dict from the ids
        of unusable recordings to why; `positions` in the streamed sources after it. A worker of a loader that cannot
        go on gives `{"error": message}`, since an exception would lose its message on the way.

    Raises:
        ValueError: If a folder is empty, or several workers shall read a streamed source.
        UnusableAudioError: When it is read, if a thousand recordings in a row cannot be used, or a stream has none.
    """

    def __init__(
        self,
        sources: Sequence[AudioSource],
        arguments: CropArguments,
        *,
        sampling_rate: int,
        hop_length: int,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        first_batch: int = 0,
        positions: Mapping[int, dict[str, Any]] | None = None,
    ):
        super().__init__()
        self.arguments, self.sampling_rate, self.seed = arguments, sampling_rate, seed
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        self.first_batch, self.positions = first_batch, dict(positions or {})
        self.sources = list(sources)
        self.rows = [source.read() for source in self.sources]
        self.num_samples = max(1, round(arguments.crop_seconds * sampling_rate / hop_length)) * hop_length

    def describe_rows(self) -> list[dict[str, Any]]:
        """Of each source what tells later whether it still holds the same rows."""
        return [describe_rows(source, rows) for source, rows in zip(self.sources, self.rows, strict=True)]

    def check_workers(self, num_workers: int):
        """
        Raises where a run could not be resumed.

        Args:
            num_workers (`int`): Of the `DataLoader`.

        Raises:
            ValueError: If there is a streamed source, which `datasets` would split among more workers than one.
        """
        if num_workers > 1 and any(isinstance(rows, IterableDataset) for rows in self.rows):
            raise ValueError(f"`num_workers` is {num_workers}: with a streamed source it can be 0 or 1.")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        worker_id, num_workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        self.check_workers(num_workers)
        positions = {index: StreamPosition(**position) for index, position in self.positions.items()}
        readers = {
            index: StreamReader(
                split_dataset_by_node(rows, self.rank, self.world_size),
                self.sources[index].path,
                self.arguments.window_rows,
                f"{self.seed}-{index}-{self.rank}",
                positions.setdefault(index, StreamPosition()),
            )
            for index, rows in enumerate(self.rows)
            if isinstance(rows, IterableDataset)
        }
        for number in itertools.count(self.first_batch + worker_id, num_workers):
            try:
                batch = self._make_batch(number, readers)
            except UnusableAudioError as error:
                if worker is None:
                    raise
                yield {"error": str(error)}
                return
            yield {**batch, "positions": {index: copy.deepcopy(asdict(p)) for index, p in positions.items()}}

    def _make_batch(self, number: int, readers: dict[int, StreamReader]) -> dict[str, Any]:
        first, rejected = (number * self.world_size + self.rank) * self.batch_size, {}
        crops = [self._draw(crop, readers, rejected) for crop in range(first, first + self.batch_size)]
        return {
            **{name: torch.stack([crop[name] for crop in crops]) for name in ("target_waveforms", "waveforms")},
            "bandwidths": torch.tensor([crop["bandwidth"] for crop in crops]),
            "ids": [crop["id"] for crop in crops],
            "seeds": [crop["seed"] for crop in crops],
            "rejected": rejected,
        }

    def _draw(self, number: int, readers: dict[int, StreamReader], rejected: dict[str, str]) -> dict[str, Any]:
        """Crop of a number, from the first recording drawn that can be used."""
        rng = random.Random(f"{self.seed}-{number}")
        for _ in range(MOST_FAILURES):
            index = rng.choices(range(len(self.rows)), [source.weight for source in self.sources])[0]
            rows = self.rows[index]
            row = rows[rng.randrange(len(rows))] if isinstance(rows, Dataset) else next(readers[index])
            try:
                return {"id": row["id"], "seed": rng.getrandbits(63), **self._crop(row, rng)}
            except UnusableAudioError as error:
                rejected[f"{self.sources[index].path}: {row['id']}"] = str(error)
        raise UnusableAudioError(
            f"`data`: {MOST_FAILURES} recordings in a row cannot be used. The last one is {row['id']}: "
            f"{list(rejected.values())[-1]}."
        )

    def _crop(self, row: dict[str, Any], rng: random.Random) -> dict[str, Any]:
        arguments = self.arguments
        speed = 1 + rng.choice((0, 1)) * rng.uniform(-1, 1) * arguments.max_speed_change
        seconds = self.num_samples / self.sampling_rate * speed
        samples, rate = decode_audio(
            row["audio"], rng.random(), seconds, arguments.min_sampling_rate, **segment_of(row)
        )
        bandwidth = min(rate * speed, self.sampling_rate) / 2
        samples = resample_audio(samples, rate * speed, self.sampling_rate)[: self.num_samples]
        if arguments.peak_decibels is not None:
            peak_decibels = 20 * math.log10(max(np.abs(samples).max(), 1e-9))
            gain = min(rng.uniform(*arguments.peak_decibels) - peak_decibels, arguments.max_gain_decibels)
            samples = samples * 10 ** (gain / 20)
        if rng.random() < arguments.invert_probability:
            samples = -samples
        target = torch.from_numpy(np.pad(samples, (0, self.num_samples - len(samples))).astype(np.float32))
        heard, cutoff = target, rng.uniform(7000, 8000)
        if bandwidth > 8500 and rng.random() < arguments.narrow_probability:
            heard = limit_bandwidth(target[None], torch.tensor([cutoff]), self.sampling_rate)[0]
        judged = bandwidth if arguments.ignore_above_bandwidth else self.sampling_rate / 2
        return {"target_waveforms": target, "waveforms": heard, "bandwidth": float(judged)}
