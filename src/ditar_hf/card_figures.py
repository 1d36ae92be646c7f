"""Figures of a model card: what a report of `ditar evaluate` or `ditar evaluate-vae` measured, and nothing else."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

# `model_type` of config.json -> the command that measures it, and its task on the Hub
COMMANDS = {"ditar": "ditar evaluate", "ditar_vae": "ditar evaluate-vae"}
TASKS = {"ditar": "text-to-speech", "ditar_vae": "audio-to-audio"}
# how the names of measures begin in reports of `ditar evaluate` -> identifiers of metrics
METRIC_TYPES = {
    "error of words": "wer",
    "error of characters": "cer",
    "likeness": "speaker_similarity",
    "naturalness": "utmos",
    "quality": "dnsmos",
}
MODEL_ROW = "model"


@dataclass(frozen=True)
class Figure:
    """
    One measure.

    Args:
        name (`str`): As in the report.
        metric_type (`str`): Identifier of the metric.
        unit (`str`): Its unit; empty for a share.
        better (`str`): What is better, such as `"lower"`.
        cells (`dict`): For each kind of speech its summary, `{}` where it was not measured.
    """

    name: str
    metric_type: str
    unit: str
    better: str
    cells: dict[str, Mapping[str, Any]]

    @property
    def of_model(self) -> Mapping[str, Any]:
        """The summary of what the model made."""
        return self.cells[MODEL_ROW]


@dataclass(frozen=True)
class Report:
    """
    What a card takes from a report.json.

    Args:
        model_type (`str`): Of the model that was measured, as in its config.json.
        figures (`list[Figure]`): All measures.
        data_name (`str`): What it was measured on.
        data_type (`str`): The kind of that.
        settings (`dict`): Of generation, and the seed.
        remark (`str`): When, where and by which command.
        sha256 (`dict[str, str]`): Of the files that were measured, where the report knows them.
    """

    model_type: str
    figures: list[Figure]
    data_name: str
    data_type: str
    settings: dict[str, Any]
    remark: str
    sha256: dict[str, str]

    def eval_results(self) -> list[EvalResult]:
        """
        The figures as the Hub's `model-index` has them.

        Returns:
            `list[EvalResult]`: One for each measure of the model that was taken; values as in the report.
        """
        results = []
        for figure in self.figures:
            if not figure.of_model:
                continue
            arguments = {**self.settings, "num_items": figure.of_model["clips"], "better": figure.better}
            if figure.unit:
                arguments["unit"] = figure.unit
            if figure.of_model["interval"] is not None:
                arguments["interval_95"] = list(figure.of_model["interval"])
            results.append(
                EvalResult(
                    task_type=TASKS[self.model_type],
                    dataset_type=self.data_type,
                    dataset_name=self.data_name,
                    dataset_config=self.data_name,
                    metric_type=figure.metric_type,
                    metric_name=figure.name,
                    metric_value=figure.of_model["mean"],
                    metric_args=arguments,
                )
            )
        return results

    def table(self) -> str:
        """
        A row for each measure of the model, and beside it what else was measured.

        Returns:
            `str`: Markdown; empty if nothing was measured.
        """
        figures = [figure for figure in self.figures if figure.of_model]
        if not figures:
            return ""
        columns = [row for row in figures[0].cells if any(figure.cells[row] for figure in figures)]
        lines = [
            f"**{escaped(self.data_name)}**: {self.remark}. In brackets 95% bootstrap intervals.",
            "",
            f"| measure | {' | '.join(columns)} |",
            f"|---|{'---:|' * len(columns)}",
        ]
        for figure in figures:
            name = f"{figure.name} ({figure.unit + '; ' if figure.unit else ''}{figure.better} is better)"
            cells = " | ".join(_number(figure.cells[row], figure.unit) for row in columns)
            lines.append(f"| {escaped(name)} | {cells} |")
        return "\n".join(lines)


def read_report(path: str | Path, folder: Path, model_type: str) -> Report:
    """
    Reads the report of a model.

    Args:
        path (`str` or `Path`): A report.json, or its folder.
        folder (`Path`): Of the model that it must have measured.
        model_type (`str`): Of that model.

    Returns:
        [`Report`].

    Raises:
        ValueError: If it is no such report, or of another kind of model, or of other weights than those in `folder`.
    """
    path = Path(path) / "report.json" if Path(path).is_dir() else Path(path)
    values = read_json(path, "reports")
    try:
        report = _of_speech(values) if "rows" in values else _of_vae(values)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"`reports`: {str(path)!r} is no report of `ditar evaluate` or `ditar evaluate-vae`: {error!r} in it."
        ) from error
    if report.model_type != model_type:
        raise ValueError(
            f"`reports`: {str(path)!r} measures another kind of model. Pass one of `{COMMANDS[model_type]}`."
        )
    _refuse_other_weights(report, path, folder)
    return report


def refuse_repeated(results: Sequence[EvalResult]):
    """
    Refuses figures of which it would not be clear which one holds.

    Args:
        results (`list[EvalResult]`): All of a card.

    Raises:
        ValueError: If two have the same metric on the same data with the same settings.
    """

    def identity(result: EvalResult) -> str:
        arguments = {key: value for key, value in result.metric_args.items() if key != "interval_95"}
        return json.dumps([result.unique_identifier, result.metric_name, arguments], sort_keys=True)

    repeated = [key for key, count in Counter(map(identity, results)).items() if count > 1]
    if repeated:
        raise ValueError(f"`reports`: two of them measure the same, {repeated[0]}. Pass one of them.")


def read_json(path: Path, argument: str) -> dict[str, Any]:
    """
    Reads a JSON object.

    Args:
        path (`Path`): The file.
        argument (`str`): What messages call it.

    Returns:
        `dict`.

    Raises:
        ValueError: If there is none.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"`{argument}`: {str(path)!r} cannot be read: {error}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"`{argument}`: {str(path)!r} holds no JSON object.")
    return values


def escaped(text: str) -> str:
    """Text as a cell of a table in Markdown."""
    return " ".join(text.split()).replace("|", "\\|")


def _of_speech(report: dict[str, Any]) -> Report:
    settings, rows = report["settings"], report["rows"]
    figures = []
    for name, measure in report["measures"].items():
        known = [kind for start, kind in METRIC_TYPES.items() if name.startswith(start)]
        metric_type = known[0] if known else re.sub(r"\W+", "_", name.partition(",")[0].lower()).strip("_")
        cells = {row: _cell(cells[name]) for row, cells in rows.items()}
        figures.append(Figure(name, metric_type, measure["unit"], measure["better"], cells))
    generation = {key: value for key, value in settings["generation"].items() if value is not None}
    remark = f"{report['items']} items, of which {len(report['run_aways']) or 'none'} ran into the limit of length"
    return Report(
        "ditar",
        figures,
        settings["list"],
        settings["set"],
        {**generation, "seed": settings["seed"]},
        f"{remark}; {_where(report)}",
        _sums(report),
    )


def _of_vae(report: dict[str, Any]) -> Report:
    figures = [
        Figure(name, name, metric["unit"], metric["better"], {MODEL_ROW: _cell(metric)})
        for name, metric in report["metrics"].items()
    ]
    remark = f"{len(report['clips'])} clips, latents are the mode of the posterior; {_where(report)}"
    return Report("ditar_vae", figures, Path(str(report["data"])).name, "recordings", {}, remark, _sums(report))


def _cell(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    return summary if "mean" in summary else {}


def _where(report: dict[str, Any]) -> str:
    machine = report["environment"]
    device, threads = machine["device_name"] or machine["cpu"], machine["threads"]
    return (
        f"{machine['date'][:10]}, {device}, {threads} thread{'s' * (threads != 1)}, torch"
        f" {machine['packages']['torch']}: `{report['command']}`"
    )


def _sums(report: dict[str, Any]) -> dict[str, str]:
    return (report.get("model") or {}).get("sha256") or {}


def _refuse_other_weights(report: Report, path: Path, folder: Path):
    for name, expected in report.sha256.items():
        if not name.endswith(".safetensors"):
            continue  # a configuration changes when it is exported
        if not (folder / name).is_file():
            raise ValueError(f"`reports`: {str(path)!r} measured `{name}`, which is not in {str(folder)!r}.")
        with open(folder / name, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                raise ValueError(
                    f"`reports`: {str(path)!r} measured other weights than the `{name}` of {str(folder)!r}. Measure"
                    " these, or leave the report out."
                )


def _number(cell: Mapping[str, Any], unit: str) -> str:
    if not cell:
        return "–"
    mean, *bounds = (
        f"{value:.1%}" if not unit else f"{value:.4g}" for value in (cell["mean"], *(cell["interval"] or ()))
    )
    return mean + (f" [{', '.join(bounds)}]" if bounds else "")
