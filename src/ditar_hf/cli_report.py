"""What `ditar prepare` says of a source: lines on the terminal, and files. Heavy packages are imported late."""

import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cli_common import note

if TYPE_CHECKING:
    from .training.inspection import Inspection

REPORT_FILE, PICTURE_FILE = "report.json", "histogram.png"
MOST_LISTED = 12  # of languages, rates and phones in the printed report; report.json has them all
LENGTHS = {
    "headers": "by the files' headers",
    "decoded": "as decoded",
    "trimmed": "as decoded, without the silence at their ends",
}


def report_lines(name: str, report: Mapping[str, Any]) -> Iterator[str]:
    """The report to be read: short, and the most important first."""
    num_rows, of_source = report["num_rows"], report["num_source_rows"]
    read = f"{num_rows:,}" if of_source in (None, num_rows) else f"{num_rows:,} of {of_source:,}"
    yield f"{name}: {read} rows read, {report['num_usable_rows']:,} usable: {_duration(report['hours'])} of speech"
    if report["num_usable_rows"]:
        yield from _usable_lines(report)
    if report["unknown_phones"]:
        parts = (f"{_with_codes(phone)} {count:,}" for phone, count in report["unknown_phones"].items())
        yield f"outside the vocabulary: {_listed(parts)}"
    if report["num_rejected"]:
        yield f"rejected: {report['num_rejected']:,} rows"
        for entry in report["rejected"]:
            # a reason with numbers or names is told in full for the example
            detail = "" if entry["example_reason"] == entry["reason"] else f" ({entry['example_reason']})"
            yield f"  {entry['num_rows']:>9,}  {entry['reason']}; such as {entry['example_id']}{detail}"


def write_report(folder: Path, inspection: "Inspection", report: Mapping[str, Any]) -> None:
    """The report with all that there is, and a picture of lengths and speakers where it can be drawn."""
    report = {"command": shlex.join(["ditar", *sys.argv[1:]]), **report}
    (folder / REPORT_FILE).write_text(f"{json.dumps(report, ensure_ascii=False, indent=2)}\n", encoding="utf-8")
    if not inspection.seconds:
        return  # nothing to draw
    from .plotting import draw_histograms

    title = f"{report['num_usable_rows']:,} recordings, {_duration(report['hours'])}"
    speaker_hours = [seconds / 3600 for seconds in inspection.speaker_seconds.values()]
    try:
        draw_histograms(inspection.seconds, speaker_hours, title).savefig(folder / PICTURE_FILE, dpi=120)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "matplotlib":
            raise
        note('no picture without matplotlib: pip install -e ".[plot]"')


def _usable_lines(report: Mapping[str, Any]) -> Iterator[str]:
    speakers = report["speakers"]
    without = f"; {speakers['num_rows_without']:,} rows name none" if speakers["num_rows_without"] else ""
    if speakers["num_speakers"]:
        largest = f"; the largest, {speakers['largest']}, has {speakers['largest_share']:.1%} of the hours"
        yield f"speakers: {speakers['num_speakers']:,}{largest}{without}"
    else:
        yield "speakers: no row names one"
    yield "languages: " + _listed(
        f"{entry['language'] or 'not named'} {entry['num_rows']:,} rows, {_duration(entry['hours'])}"
        for entry in report["languages"]
    )
    yield "sampling rates: " + _listed(
        f"{entry['sampling_rate']:,} Hz {entry['num_rows']:,} rows" for entry in report["sampling_rates"]
    )
    names = ("seconds", "characters_per_second", "tokens_per_second")
    tables = {name.replace("_", " "): report[name] for name in names if report[name] is not None}
    yield f"{'':21}" + "".join(f"{quantile:>9}" for quantile in report["seconds"])
    for label, quantiles in tables.items():
        yield f"{label:21}" + "".join(f"{value:>9.2f}" for value in quantiles.values())
    yield f"lengths are {LENGTHS[report['lengths']]}"


def _with_codes(phone: str) -> str:
    # some are marks that cannot be seen alone
    return f"{phone!r} ({' '.join(f'U+{ord(char):04X}' for char in phone)})"


def _duration(hours: float) -> str:
    return f"{hours:,.2f} hours" if hours >= 1 else f"{hours * 60:.2f} minutes"


def _listed(parts: Iterator[str]) -> str:
    parts = list(parts)
    more = f"; and {len(parts) - MOST_LISTED:,} more" if len(parts) > MOST_LISTED else ""
    return "; ".join(parts[:MOST_LISTED]) + more
