"""What a benchmark says: figures with their spread, ratios of paired rounds, a table and files."""

import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .benchmark import GIBIBYTE, Benchmark, Measurement, SystemResult
from .benchmark_timing import Run
from .summary import NotMeasuredError

REPORT_FILE, TABLE_FILE, FIGURE_FILE = "report.json", "report.md", "figure.png"
# name of each figure that compares a system with another, and the times whose quotient it is
RATIOS: dict[str, Callable[[Run], float]] = {
    "seconds_ratio": lambda run: run.seconds,
    "total_seconds_ratio": lambda run: run.seconds + run.decode_seconds,
    "first_patch_seconds_ratio": lambda run: run.first_patch_seconds,
}
COLUMNS = (
    "system",
    "weights",
    "codec",
    "batch",
    "steps/s",
    "NFE × rows",
    "first patch, ms",
    "+ decode, ms",
    "ms a step",
    "RTF",
    "RTF with codec",
    "throughput",
    "with codec",
    "memory, GiB",
    "time ÷ ours",
    "latency ÷ ours",
)
LEGEND = """\
- system: in turns, one call each, in every round. What each is stands below.
- weights: that generate latents; codec: that turn latents into a waveform.
- steps/s: patches or frames of a second of speech. NFE × rows: solver steps of one diffusion, and its rows for each
  row of the batch (2 with guidance).
- first patch: from text and encoded voice to the first patch of latents, prefill included; + decode: what the codec
  takes for that patch alone, in addition.
- ms a step: each further patch or frame, for the whole batch.
- RTF: time of the batch over the length of one utterance, without the codec, as in the paper's Table 7, and with it.
- throughput: seconds of speech, of all rows together, made in a second, without the codec and with it.
- memory: the most in use in a call before the first round: on a CPU the resident memory of the system's process with
  all libraries, on a GPU the tensors.
- time ÷ ours, latency ÷ ours: quotients of the same round, by the DiTAR that stands behind "against".
- Medians of all rounds; in brackets the lowest and the highest."""


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


def markdown_table(benchmark: Benchmark) -> str:
    """
    One row for each system and batch size, and below those that were not measured, with the reason.

    Args:
        benchmark ([`Benchmark`]): What was measured.

    Returns:
        Markdown.
    """
    facts = {system.facts["name"]: system.facts for system in benchmark.systems}
    rows, missing = [], []
    for entry in summarize_benchmark(benchmark):
        if entry["figures"]:
            rows.append("| " + " | ".join(_cells(entry, facts[entry["system"]])) + " |")
        else:
            where = "" if entry["batch_size"] is None else f", batch {entry['batch_size']}"
            missing.append(f"- {entry['system']}{where}: {entry['failure']}")
    # names stand to the left, numbers to the right
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * (len(COLUMNS) - 1), *rows]
    return "\n".join([*lines, *(["", "Not measured:", "", *missing] if missing else [])])


def _cells(entry: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    figures, ratios = entry["figures"], entry["ratios"]
    is_reference = entry["system"] == entry["reference"]
    per_step = figures["milliseconds_per_step"]
    return [
        entry["system"],
        _millions(facts["num_parameters"]),
        _millions(facts["num_codec_parameters"]),
        str(entry["batch_size"]),
        f"{1 / facts['step_seconds']:g}",
        f"{facts['num_inference_steps']} × {facts['num_branches']}",
        _with_range(figures["first_patch_seconds"], 1000),
        _number(1000 * figures["first_decode_seconds"]["median"]),
        "–" if per_step is None else _number(per_step["median"]),
        _with_range(figures["real_time_factor"]),
        _number(figures["total_real_time_factor"]["median"]),
        _number(figures["throughput"]["median"]),
        _number(figures["total_throughput"]["median"]),
        "–" if entry["peak_bytes"] is None else f"{entry['peak_bytes'] / GIBIBYTE:.2f}",
        *(
            "1" if is_reference else _with_range(ratios[name]) if ratios else "–"
            for name in ("seconds_ratio", "first_patch_seconds_ratio")
        ),
    ]


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f}M"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _with_range(values: dict[str, float], factor: float = 1) -> str:
    median, low, high = (_number(factor * values[name]) for name in ("median", "low", "high"))
    return f"{median} ({low}–{high})"


def write_report(folder: Path, benchmark: Benchmark, settings: dict[str, Any]) -> str | None:
    """
    Writes `report.json`, `report.md` and, where matplotlib is, `figure.png`.

    Args:
        folder (`Path`): Where to.
        benchmark ([`Benchmark`]): What was measured.
        settings (`dict`): `command`, `environment` of `vae_report.environment`, and others.

    Returns:
        `str`, *optional*: Why there is no picture.

    Raises:
        OSError: If a file cannot be written.
    """
    from .benchmark_figure import save_figure

    no_picture = None
    try:
        save_figure(benchmark, folder / FIGURE_FILE)
    except NotMeasuredError as error:
        no_picture = str(error)
    report = {**settings, "summary": summarize_benchmark(benchmark), "benchmark": benchmark.to_dict()}
    text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / REPORT_FILE).write_text(text + "\n", encoding="utf-8")
    lines = _markdown_report(benchmark, settings, None if no_picture else FIGURE_FILE)
    (folder / TABLE_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return no_picture


def read_report(path: Path) -> Benchmark:
    """
    What a `report.json` was written from.

    Args:
        path (`Path`): The file.

    Returns:
        [`Benchmark`].

    Raises:
        OSError: If it cannot be read.
    """
    return Benchmark.from_dict(json.loads(path.read_text(encoding="utf-8"))["benchmark"])


def _markdown_report(benchmark: Benchmark, settings: dict[str, Any], picture: str | None) -> list[str]:
    machine, workload = settings["environment"], benchmark.workload
    voice = f"a voice of {workload.prompt_seconds:g} s" if workload.prompt_seconds else "no voice"
    lines = [
        "# Speed",
        "",
        f"{workload.seconds:g} s of speech in each row, {workload.text_length} tokens of text, {voice}; all lengths "
        "are forced. Weights are random unless a folder is named: speed does not depend on them.",
        "",
        f"{machine['date']}, {machine['device']} ({machine['device_name'] or machine['cpu']}), {machine['threads']} "
        f"threads, torch {machine['packages']['torch']}, transformers {machine['packages']['transformers']}: "
        f"`{settings['command']}`",
        "",
        markdown_table(benchmark),
        "",
        LEGEND,
        "",
    ]
    for system in benchmark.systems:
        facts = system.facts
        against = "" if facts["reference"] == facts["name"] else f" Against {facts['reference']}."
        compiled = ", compiled" if facts["compile"] else ""
        lines.append(
            f"- **{facts['name']}**: {facts['about']} {facts['weights']} weights, {facts['dtype']}, attention "
            f"{facts['attention']}{compiled}.{against}"
        )
    return [*lines, *(["", f"![{picture}]({picture})"] if picture else [])]
