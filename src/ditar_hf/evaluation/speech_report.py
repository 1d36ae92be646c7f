"""What an evaluation of speech synthesis leaves to be read: report.json, report.md and a page to listen to."""

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from .speech_evaluation import SpeechEvaluation
from .speech_measures import Measure

STYLE = (
    "body{font-family:sans-serif;max-width:70em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}"
    "td,th{border:1px solid #ccc;padding:.3em .6em;text-align:left;vertical-align:top}audio{width:16em}"
)
NOT_MEASURED = "not measured"


def write_speech_report(
    evaluation: SpeechEvaluation,
    scores: Sequence[Mapping[str, Any]],
    measures: Sequence[Measure],
    about: Mapping[str, Any],
) -> str:
    """
    Writes the report into the folder of the evaluation.

    Args:
        evaluation ([`SpeechEvaluation`]): That was scored.
        scores (`list[dict]`): Of [`SpeechEvaluation.score`].
        measures (`list[Measure]`): Columns.
        about (`dict`): `command` and `environment`, and others for report.json.

    Returns:
        `str`: The table, in Markdown.

    Raises:
        OSError: If a file cannot be written.
    """
    summary = evaluation.summary(scores, measures)
    report = {
        **about,
        "settings": evaluation.settings,
        "items": len(evaluation.items),
        "run_aways": evaluation.run_aways,
        "measures": {m.name: {"unit": m.unit, "better": m.better} for m in measures},
        "rows": summary,
        "scores": list(scores),
    }
    text = json.dumps(report, ensure_ascii=False, indent=1, allow_nan=False)
    (evaluation.folder / "report.json").write_text(text + "\n", encoding="utf-8")
    table = markdown_table(summary, measures)
    lines = [f"# Speech of {evaluation.settings.get('model', 'a model')}", "", *_remarks(report, summary), "", table]
    (evaluation.folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (evaluation.folder / "index.html").write_text(_page(evaluation, scores, lines[0][2:], summary, measures), "utf-8")
    return table


def markdown_table(summary: Mapping[str, Mapping[str, Any]], measures: Sequence[Measure]) -> str:
    """
    The means of each row, with 95% intervals over items.

    Args:
        summary (`dict`): Of [`SpeechEvaluation.summary`].
        measures (`list[Measure]`): Columns.

    Returns:
        `str`.
    """
    lines = [
        "| speech | " + " | ".join(f"{m.name} ({m.better} is better)" for m in measures) + " |",
        "|---" * (1 + len(measures)) + "|",
    ]
    most = max((cell["clips"] for cells in summary.values() for cell in cells.values()), default=0)
    for row, cells in summary.items():
        # rows that have fewer items, such as recordings of some texts only, say so
        clips = max((cell["clips"] for cell in cells.values()), default=0)
        label = row if clips == most else f"{row}, {clips} of {most} items"
        lines.append(f"| {label} | " + " | ".join(_cell(cells[m.name], m) for m in measures) + " |")
    return "\n".join(lines)


def _cell(cell: Mapping[str, Any], measure: Measure) -> str:
    if "mean" not in cell:
        return NOT_MEASURED
    is_share = measure.unit == ""
    text, *bounds = (
        f"{value:.1%}" if is_share else f"{value:.3f}" for value in (cell["mean"], *(cell["interval"] or ()))
    )
    return text + (f" [{bounds[0]}, {bounds[1]}]" if bounds else "")


def _remarks(report: Mapping[str, Any], summary: Mapping[str, Mapping[str, Any]]) -> list[str]:
    machine = report["environment"]
    where = machine["device_name"] or machine["cpu"]
    remarks = [
        f"{report['items']} items, {machine['date']}, {machine['device']} ({where}), {machine['threads']} threads, "
        f"torch {machine['packages']['torch']}: `{report['command']}`",
        "",
        f"{len(report['run_aways'])} ran into the limit of their length"
        + (f": {', '.join(report['run_aways'])}." if report["run_aways"] else "."),
    ]
    for row, cells in summary.items():
        for name, cell in cells.items():
            for reason, count in cell["not_measured"].items():
                remarks.append(f"\nNot measured, {name}, {row}, {count} items: {reason}.")
    return remarks


def _page(
    evaluation: SpeechEvaluation,
    scores: Sequence[Mapping[str, Any]],
    title: str,
    summary: Mapping[str, Mapping[str, Any]],
    measures: Sequence[Measure],
) -> str:
    """A page without scripts, whose players fetch a recording when they are used."""
    transcripts = {(score["row"], score["id"]): score["transcript"] for score in scores if "transcript" in score}
    run_aways = set(evaluation.run_aways)
    body = [f"<h1>{html.escape(title)}</h1>", "<table><tr><th>speech</th>"]
    body += [f"<th>{html.escape(m.name)}, {m.better} is better</th>" for m in measures]
    for row, cells in summary.items():
        body += [f"</tr><tr><th>{row}</th>", *(f"<td>{html.escape(_cell(cells[m.name], m))}</td>" for m in measures)]
    body.append("</tr></table><h2>Items</h2><table><tr><th>item</th>")
    body += [f"<th>{row}</th>" for row in evaluation.rows]
    for item in evaluation.items:
        note = " <strong>ran into its limit</strong>" if item.id in run_aways else ""
        body.append(f"</tr><tr><td>{html.escape(item.id)}{note}<br>{html.escape(item.text)}</td>")
        for row in evaluation.rows:
            source = html.escape(quote(f"{row}/{item.id}.wav"))
            player = (
                f'<audio controls preload="none" src="{source}"></audio>'
                if evaluation.audio(row, item).is_file()
                else ""
            )
            body.append(f"<td>{player}<br>{html.escape(transcripts.get((row, item.id), ''))}</td>")
    body.append("</tr></table>")
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    return f'<!DOCTYPE html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n'
