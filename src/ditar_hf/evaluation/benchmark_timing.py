"""Clocks and meters of the benchmark: the time that a call takes, that a part of a model takes in it, and its memory.

All times are of the wall, in seconds; before each reading the device finishes what it was told to do.
"""

import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import psutil
import torch

# short beside a patch, and rare enough not to slow the work that is watched
SAMPLING_SECONDS = 0.005


@dataclass(frozen=True)
class Run:
    """
    One call of a system, for a whole batch.

    Args:
        seconds (`float`): From text and encoded voice to latents, without the vocoder.
        decode_seconds (`float`): Of the vocoder in that call.
        first_patch_seconds (`float`): Until the first patch of latents is there, without the vocoder.
        first_decode_seconds (`float`): Of the vocoder, for a first patch alone.
        speech_seconds (`float`): Length of what each row says.
    """

    seconds: float
    decode_seconds: float
    first_patch_seconds: float
    first_decode_seconds: float
    speech_seconds: float


def now(device: torch.device) -> float:
    """
    The time of the wall once the device has nothing left to do.

    Args:
        device (`torch.device`): It is waited for unless it is the CPU, which is never ahead.

    Returns:
        `float`: Seconds since some moment.
    """
    if device.type not in ("cpu", "meta"):
        torch.accelerator.synchronize(device)
    return time.perf_counter()


class ModuleClock:
    """
    Notes when a module begins and ends its work, as a context manager around what calls it.

    Args:
        module (`torch.nn.Module`): Any part of a model that is called as a whole.
        device (`torch.device`): Where it computes.

    Attributes:
        intervals (`list[tuple[float, float]]`): Begin and end of each call, as by `now`.
    """

    def __init__(self, module: torch.nn.Module, device: torch.device):
        self.module, self.device = module, device
        self.intervals: list[tuple[float, float]] = []
        self._begin = 0.0

    @property
    def seconds(self) -> float:
        """All calls together."""
        return sum(end - begin for begin, end in self.intervals)

    def seconds_before(self, moment: float) -> float:
        """The calls that ended before a moment, together."""
        return sum(end - begin for begin, end in self.intervals if end <= moment)

    def __enter__(self) -> "ModuleClock":
        self._hooks = [
            self.module.register_forward_pre_hook(self._note_begin),
            self.module.register_forward_hook(self._note_end),
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def _note_begin(self, module: torch.nn.Module, arguments: Any) -> None:
        self._begin = now(self.device)

    def _note_end(self, module: torch.nn.Module, arguments: Any, output: Any) -> None:
        self.intervals.append((self._begin, now(self.device)))


class PeakMemory:
    """
    The most memory that is in use while the context lasts.

    On a CPU the resident memory of this process, read every few milliseconds, so that a peak that is shorter may be
    missed; the libraries' code counts. On CUDA the tensors that torch holds.

    Args:
        device (`torch.device`): Where the work is done.

    Attributes:
        rest_bytes (`int`): In use when the context began: of a loaded model its weights, mostly.
        peak_bytes (`int`): The most since then.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.rest_bytes = self.peak_bytes = 0
        self._ended = threading.Event()

    def __enter__(self) -> "PeakMemory":
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self.rest_bytes = torch.cuda.memory_allocated(self.device)
            return self
        self._process = psutil.Process()
        self.rest_bytes = self.peak_bytes = self._process.memory_info().rss
        self._watch = threading.Thread(target=self._sample, daemon=True)
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.device.type == "cuda":
            self.peak_bytes = torch.cuda.max_memory_allocated(self.device)
            return
        self._ended.set()
        self._watch.join()
        self.peak_bytes = max(self.peak_bytes, self._process.memory_info().rss)

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLING_SECONDS):
            self.peak_bytes = max(self.peak_bytes, self._process.memory_info().rss)
