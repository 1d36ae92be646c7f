"""What a benchmark leaves: a table and files."""

import json
from pathlib import Path
from typing import Any

from .benchmark import GIBIBYTE, Benchmark
from .benchmark_figure import save_figure
from .benchmark_summary import summarize_benchmark
from .summary import NotMeasuredError

REPORT_FILE, TABLE_FILE, FIGURE_FILE = "report.json", "report.md", "figure.png"
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
    "with codec ÷ ours",
    "latency ÷ ours",
)
LEGEND = """\
- system: in turns, one call each, in every round. What each is stands below.
- weights: that generate latents; codec: that turn latents into a waveform, without those that encode a prompt.
- steps/s: patches or frames of a second of speech. NFE × rows: solver steps of one diffusion, and its rows for each
  row of the batch (2 with guidance).
- first patch: from text and encoded voice to the first patch of latents, prefill included; + decode: what the codec
  takes for that patch alone, in addition.
- ms a step: each further patch or frame, for the whole batch.
- RTF: time of the batch over the length of one utterance, without the codec, as in the paper's Table 7, and with it.
- throughput: seconds of speech, of all rows together, made in a second, without the codec and with it.
- memory: the most in use in a call before the first round: on a CPU the resident memory of the system's process with
  all libraries, on a GPU the tensors.
- … ÷ ours: quotients of time, of time with the codec and of latency in the same round, by the DiTAR that stands behind
  "against".
- Medians of all rounds; in brackets the lowest and the highest."""


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
            for name in ("seconds_ratio", "total_seconds_ratio", "first_patch_seconds_ratio")
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
        weights = "random weights" if facts["weights"] == "random" else f"weights of {facts['weights']}"
        compiled = f", {facts['compile']}" if facts["compile"] else ""
        lines.append(
            f"- **{facts['name']}**: {facts['about']} {weights[0].upper()}{weights[1:]}, {facts['dtype']}, attention "
            f"{facts['attention']}{compiled}.{against}"
        )
    return [*lines, *(["", f"![{picture}]({picture})"] if picture else [])]
