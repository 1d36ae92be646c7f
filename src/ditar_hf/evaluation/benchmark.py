"""The benchmark: all systems in one run, in turns (A B C A B C …), so that a ratio is of two neighbours in time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import psutil
import torch

from .benchmark_plan import skeleton
from .benchmark_systems import SystemSpec, Workload
from .benchmark_timing import Run
from .benchmark_workers import LocalWorker, Memory, ProcessWorker, SystemFailure

GIBIBYTE = 2**30
# of an interpreter with its libraries, and room for what a call needs besides weights
OVERHEAD_BYTES = GIBIBYTE
Worker = LocalWorker | ProcessWorker


@dataclass
class Measurement:
    """
    A system at one batch size.

    Args:
        runs (`list[Run]`): One for each round; none if it failed.
        memory ([`Memory`], *optional*): Of the call before the first round.
        failure (`str`, *optional*): Why it was not measured.
    """

    runs: list[Run] = field(default_factory=list)
    memory: Memory | None = None
    failure: str | None = None


@dataclass
class SystemResult:
    """
    A system at all batch sizes.

    Args:
        facts (`dict`): As by [`System.describe`].
        failure (`str`, *optional*): Why it was not measured at all.
        measurements (`dict[int, Measurement]`): By batch size.
    """

    facts: dict[str, Any]
    failure: str | None = None
    measurements: dict[int, Measurement] = field(default_factory=dict)


@dataclass
class Benchmark:
    """
    What was measured.

    Args:
        workload ([`Workload`]): What all said.
        systems (`list[SystemResult]`): In the order of their turns.
        order (`list[tuple[int, int, str]]`): Batch size, round and name of each timed call, as they followed.
    """

    workload: Workload
    systems: list[SystemResult]
    order: list[tuple[int, int, str]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        values = asdict(self)
        for system in values["systems"]:
            system["measurements"] = {str(size): value for size, value in system["measurements"].items()}
        values["order"] = [list(entry) for entry in self.order]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Benchmark":
        """
        What `to_dict` was given.

        Args:
            values (`dict`): Its result.

        Returns:
            [`Benchmark`].
        """
        systems = []
        for system in values["systems"]:
            measurements = {}
            for size, entry in system["measurements"].items():
                memory = None if entry["memory"] is None else Memory(**entry["memory"])
                measurements[int(size)] = Measurement([Run(**run) for run in entry["runs"]], memory, entry["failure"])
            systems.append(SystemResult(system["facts"], system["failure"], measurements))
        return cls(Workload(**values["workload"]), systems, [tuple(entry) for entry in values["order"]])


def run_benchmark(
    specs: Sequence[SystemSpec],
    batch_sizes: Sequence[int] = (1,),
    repeats: int = 5,
    threads: int | None = None,
    isolate: bool = True,
    on_call: Callable[[str], None] | None = None,
) -> Benchmark:
    """
    Builds all systems and times them in turns.

    Before the first round of a batch size each system is called once without a clock, in which its memory is watched.
    A system that has not enough memory is left out, and the others go on.

    Args:
        specs (`list[SystemSpec]`): From [`plan_systems`].
        batch_sizes (`list[int]`, *optional*, defaults to `(1,)`): Taken in ascending order.
        repeats (`int`, *optional*, defaults to 5): Rounds of each batch size.
        threads (`int`, *optional*): Of torch on a CPU; torch's own number by default.
        isolate (`bool`, *optional*, defaults to `True`):
            Give each system a process of its own: without, its memory is not measured.
        on_call (callable, *optional*): Is told before each call what comes, in a few words.

    Returns:
        [`Benchmark`].

    Raises:
        ValueError: If a number makes no sense, or a system cannot be built.
        RuntimeError: If a system makes another length of speech than it was asked for.
    """
    check_numbers(batch_sizes, repeats, threads)
    tell = on_call or (lambda words: None)
    result = Benchmark(specs[0].workload, [SystemResult(skeleton(spec).describe()) for spec in specs])
    with ExitStack() as stack:
        if not isolate:
            stack.enter_context(_limited_threads(threads))
        workers: dict[str, Worker] = {}
        for spec, system in zip(specs, result.systems, strict=True):
            tell(f"building {spec.name}")
            try:
                check_room(spec, system.facts["num_bytes"])
                worker = ProcessWorker(spec, threads) if isolate else LocalWorker(spec)
            except SystemFailure as error:
                system.failure = str(error)
                continue
            stack.callback(worker.close)
            workers[spec.name] = worker
        for batch_size in sorted(batch_sizes):
            _measure(result, workers, torch.device(specs[0].device), batch_size, repeats, tell)
    return result


def _measure(
    result: Benchmark,
    workers: dict[str, Worker],
    device: torch.device,
    batch_size: int,
    repeats: int,
    tell: Callable[[str], None],
) -> None:
    """All systems at one batch size: first each once without a clock, then in turns."""
    running: dict[str, Measurement] = {}
    for system in result.systems:
        name = system.facts["name"]
        if name not in workers:
            continue
        measurement = Measurement()
        tell(f"batch {batch_size}, warm-up: {name}")
        try:
            check_growth(system.measurements, batch_size, device)
            measurement.memory = workers[name].warm_up(batch_size)
            running[name] = measurement
        except SystemFailure as error:
            measurement.failure = str(error)
        system.measurements[batch_size] = measurement
    for index in range(repeats):
        for name, measurement in running.items():
            if measurement.failure is not None:
                continue
            tell(f"batch {batch_size}, round {index + 1} of {repeats}: {name}")
            try:
                run = workers[name].speak(batch_size)
            except SystemFailure as error:
                # rounds that are not complete have nothing to be paired with
                measurement.failure, measurement.runs = str(error), []
                continue
            measurement.runs.append(run)
            result.order.append((batch_size, index, name))


def check_numbers(batch_sizes: Sequence[int], repeats: int, threads: int | None) -> None:
    """
    Raises unless the numbers of a benchmark make sense.

    Args:
        batch_sizes (`list[int]`): Rows.
        repeats (`int`): Rounds.
        threads (`int`, *optional*): Of torch.

    Raises:
        ValueError: If one does not.
    """
    if not batch_sizes or min(batch_sizes) < 1 or len(set(batch_sizes)) < len(batch_sizes):
        raise ValueError(f"`batch_sizes` must be different positive numbers, got {list(batch_sizes)}.")
    if repeats < 1:
        raise ValueError(f"`repeats` must be at least 1, got {repeats}.")
    if threads is not None and threads < 1:
        raise ValueError(f"`threads` must be at least 1, got {threads}.")


def free_bytes(device: torch.device) -> int | None:
    """
    Memory that is free for another system.

    Args:
        device (`torch.device`): Where it would be.

    Returns:
        `int`, or `None` where nobody knows.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available if device.type == "cpu" else None


def check_room(spec: SystemSpec, num_bytes: int) -> None:
    """
    Raises where a system would not fit beside those that are there.

    Args:
        spec ([`SystemSpec`]): Which one.
        num_bytes (`int`): Of its weights.

    Raises:
        SystemFailure: If it would not; the message has both numbers.
    """
    free = free_bytes(torch.device(spec.device))
    # weights are made in float32 and then rounded
    needed = num_bytes * (1 if spec.dtype == "float32" else 2) + OVERHEAD_BYTES
    if free is not None and needed > free:
        raise SystemFailure(
            f"it needs about {needed / GIBIBYTE:.1f} GiB of memory, and {free / GIBIBYTE:.1f} GiB are free beside the "
            "systems before it"
        )


def check_growth(measurements: dict[int, Measurement], batch_size: int, device: torch.device) -> None:
    """
    Raises where a system failed at a smaller batch, or grew so much there that this one would not fit.

    Args:
        measurements (`dict[int, Measurement]`): Of smaller batches.
        batch_size (`int`): The next.
        device (`torch.device`): Where it computes.

    Raises:
        SystemFailure: If so.
    """
    if not measurements:
        return
    largest = max(measurements)
    before, free = measurements[largest], free_bytes(device)
    if before.failure is not None:
        raise SystemFailure(f"it failed at batch {largest} already")
    if before.memory is None or free is None:
        return
    growth = (before.memory.peak_bytes - before.memory.rest_bytes) * batch_size / largest
    if growth > free:
        raise SystemFailure(
            f"it would need about {growth / GIBIBYTE:.1f} GiB more, going by batch {largest}, and "
            f"{free / GIBIBYTE:.1f} GiB of memory are free"
        )


@contextmanager
def _limited_threads(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
