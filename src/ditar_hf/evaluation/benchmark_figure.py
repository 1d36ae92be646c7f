"""The picture of a benchmark: throughput over batch size (Fig. 5 of the paper), and latency; needs matplotlib."""

import math
from pathlib import Path
from typing import Any

from .benchmark import Benchmark
from .benchmark_summary import summarize_benchmark
from .summary import require_package


def draw_benchmark(benchmark: Benchmark) -> Any:
    """
    Draws throughput over batch size and, for the smallest batch, how long the first patch takes.

    Both have logarithmic scales: systems differ by factors. The range of all rounds is shaded or marked.

    Args:
        benchmark ([`Benchmark`]): What was measured.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        NotMeasuredError: If matplotlib is not installed.
    """
    figure = require_package("matplotlib.figure", '-e ".[plot]"').Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    entries = [entry for entry in summarize_benchmark(benchmark) if entry["figures"]]
    names = list(dict.fromkeys(entry["system"] for entry in entries))
    colors = {name: f"C{index % 10}" for index, name in enumerate(names)}
    for name in names:
        _draw_throughput(left, [entry for entry in entries if entry["system"] == name], colors[name])
    batch_sizes = sorted({entry["batch_size"] for entry in entries})
    left.set(xscale="log", yscale="log", xlabel="batch size", ylabel="throughput without codec (s of speech a second)")
    left.set_xticks(batch_sizes, [str(size) for size in batch_sizes], minor=False)
    left.set_xticks([], minor=True)
    _label(left.yaxis)
    if entries:
        left.legend()
        smallest = [entry for entry in entries if entry["batch_size"] == batch_sizes[0]]
        _draw_latency(right, smallest, colors, batch_sizes[0])
    return figure


def _draw_throughput(axes: Any, entries: list[dict[str, Any]], color: str) -> None:
    sizes = [entry["batch_size"] for entry in entries]
    values = [entry["figures"]["throughput"] for entry in entries]
    axes.plot(sizes, [value["median"] for value in values], "o-", color=color, label=entries[0]["system"])
    axes.fill_between(
        sizes, [value["low"] for value in values], [value["high"] for value in values], color=color, alpha=0.2
    )


def _draw_latency(axes: Any, entries: list[dict[str, Any]], colors: dict[str, str], batch_size: int) -> None:
    """Bars from above downwards, in the order of the table."""
    for place, entry in enumerate(entries):
        value = entry["figures"]["first_patch_seconds"]
        median, low, high = (1000 * value[name] for name in ("median", "low", "high"))
        axes.barh(
            place, median, xerr=[[median - low], [high - median]], color=colors[entry["system"]], alpha=0.8, capsize=3
        )
        axes.text(high, place, f"  {median:,.0f} ms" if median >= 100 else f"  {median:.3g} ms", va="center")
    axes.set_yticks(range(len(entries)), [entry["system"] for entry in entries])
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel=f"time to the first patch, without codec (ms), batch {batch_size}")
    _label(axes.xaxis)
    # bars begin at a decade, and there is room for the numbers behind them
    values = [1000 * entry["figures"]["first_patch_seconds"][name] for entry in entries for name in ("low", "high")]
    axes.set_xlim(10 ** math.floor(math.log10(min(values)) - 0.1), max(values) * 4)


def _label(axis: Any) -> None:
    """Few numbers, written out, along a logarithmic axis."""
    ticker = require_package("matplotlib.ticker", '-e ".[plot]"')
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(ticker.NullFormatter())


def save_figure(benchmark: Benchmark, path: Path) -> None:
    """
    Draws a benchmark into a file.

    Args:
        benchmark ([`Benchmark`]): What was measured.
        path (`Path`): Where to; the suffix decides the format.

    Raises:
        NotMeasuredError: If matplotlib is not installed.
        OSError: If it cannot be written.
    """
    draw_benchmark(benchmark).savefig(path, dpi=120)
