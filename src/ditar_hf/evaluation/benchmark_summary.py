"""Figures of a benchmark: medians with their range, and ratios of paired rounds."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from .benchmark import Benchmark, Measurement, SystemResult
from .benchmark_timing import Run

# name of each figure that compares a system with another, and the times whose quotient it is
RATIOS: dict[str, Callable[[Run], float]] = {
    "seconds_ratio": lambda run: run.seconds,
    "total_seconds_ratio": lambda run: run.seconds + run.decode_seconds,
    "first_patch_seconds_ratio": lambda run: run.first_patch_seconds,
}


def spread(values: Sequence[float]) -> dict[str, float]:
    """
    Median and range.

    Args:
        values (`list[float]`): Of all rounds; at least one.

    Returns:
        `dict` with `median`, `low` and `high`.
    """
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def figures_of(measurement: Measurement, batch_size: int, num_steps: int) -> dict[str, Any]:
    """
    Figures of a system at one batch size.

    Args:
        measurement ([`Measurement`]): Its runs.
        batch_size (`int`): Rows.
        num_steps (`int`): Patches or frames of the speech.

    Returns:
        `dict` of a `spread` for each; `milliseconds_per_step` is `None` where all steps come at once. Empty without
        runs.
    """
    runs = measurement.runs
    if not runs:
        return {}
    figures: dict[str, Any] = {
        "first_patch_seconds": spread([run.first_patch_seconds for run in runs]),
        "first_decode_seconds": spread([run.first_decode_seconds for run in runs]),
        "seconds": spread([run.seconds for run in runs]),
        "decode_seconds": spread([run.decode_seconds for run in runs]),
        "real_time_factor": spread([run.seconds / run.speech_seconds for run in runs]),
        "total_real_time_factor": spread([_total(run) / run.speech_seconds for run in runs]),
        "throughput": spread([batch_size * run.speech_seconds / run.seconds for run in runs]),
        "total_throughput": spread([batch_size * run.speech_seconds / _total(run) for run in runs]),
        "milliseconds_per_step": None,
    }
    if num_steps > 1 and any(run.first_patch_seconds != run.seconds for run in runs):
        later = [1000 * (run.seconds - run.first_patch_seconds) / (num_steps - 1) for run in runs]
        figures["milliseconds_per_step"] = spread(later)
    return figures


def _total(run: Run) -> float:
    return run.seconds + run.decode_seconds


def paired_ratios(measurement: Measurement, reference: Measurement) -> dict[str, dict[str, float]]:
    """
    How many times as long a system takes as another, from the quotients of rounds that followed one another.

    Args:
        measurement ([`Measurement`]): Of the system.
        reference ([`Measurement`]): Of the other at the same batch size.

    Returns:
        `dict` of a `spread` for each of `RATIOS`; empty unless both have all rounds.
    """
    pairs = list(zip(measurement.runs, reference.runs, strict=False))
    if not pairs or len(measurement.runs) != len(reference.runs):
        return {}
    return {name: spread([time(run) / time(other) for run, other in pairs]) for name, time in RATIOS.items()}


def summarize_benchmark(benchmark: Benchmark) -> list[dict[str, Any]]:
    """
    Figures of all systems at all batch sizes.

    Args:
        benchmark ([`Benchmark`]): What was measured.

    Returns:
        `list[dict]` with `system`, `reference`, `batch_size`, `failure`, `figures`, `ratios`, and `rest_bytes` and
        `peak_bytes` or `None`; a system that was not built has one entry without batch size.
    """
    by_name = {system.facts["name"]: system for system in benchmark.systems}
    entries = []
    for system in benchmark.systems:
        if system.failure is not None:
            entries.append(_entry(system, None, Measurement(failure=system.failure), Measurement()))
        others = by_name[system.facts["reference"]].measurements
        for batch_size, measurement in system.measurements.items():
            entries.append(_entry(system, batch_size, measurement, others.get(batch_size, Measurement())))
    return entries


def _entry(
    system: SystemResult, batch_size: int | None, measurement: Measurement, reference: Measurement
) -> dict[str, Any]:
    memory = measurement.memory
    return {
        "system": system.facts["name"],
        "reference": system.facts["reference"],
        "batch_size": batch_size,
        "failure": measurement.failure,
        "figures": figures_of(measurement, batch_size or 0, system.facts["num_steps"]),
        "ratios": paired_ratios(measurement, reference),
        "rest_bytes": None if memory is None else memory.rest_bytes,
        "peak_bytes": None if memory is None else memory.peak_bytes,
    }
