"""The folder that an evaluation of a speech tokenizer leaves: tables, pictures and sound."""

import hashlib
import json
import platform
import re
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import soundfile
import torch

from .pictures import save_comparison
from .summary import NotMeasuredError
from .vae_evaluation import VAEEvaluation
from .vae_metrics import METRICS, Comparison

if TYPE_CHECKING:
    from ditar_hf import DiTARVAE

PACKAGES = (
    "ditar-hf",
    "torch",
    "transformers",
    "numpy",
    "librosa",
    "jiwer",
    "pocketsphinx",
    "speechmos",
    "onnxruntime",
)


def environment(device: torch.device) -> dict[str, Any]:
    """
    What the figures depend on besides model and data.

    Args:
        device (`torch.device`): That computes.

    Returns:
        `dict` of the date, versions (`None` for what is not installed), device and threads.
    """
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "packages": versions,
    }


def _cpu_name() -> str:
    try:
        # the standard library knows it on some systems only
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def describe_vae(vae: "DiTARVAE", name: str) -> dict[str, Any]:
    """
    Which model was evaluated.

    Args:
        vae ([`DiTARVAE`]): The model.
        name (`str`): The folder or Hub id that it was loaded from.

    Returns:
        `dict` of its name, sizes and, of a folder, SHA-256 sums of its configuration and weights, of a repository the
        commit.
    """
    return {
        "name": name,
        "sha256": file_sums(name),
        "commit": getattr(vae.config, "_commit_hash", None),
        "num_parameters": sum(parameter.numel() for parameter in vae.parameters()),
        "sampling_rate": vae.config.sampling_rate,
        "latent_dim": vae.config.latent_dim,
        "frame_rate": vae.config.frame_rate,
    }


def file_sums(name: str) -> dict[str, str] | None:
    """
    Which files a model was loaded from.

    Args:
        name (`str`): The folder or Hub id.

    Returns:
        `dict[str, str]` of SHA-256 sums of configuration and weights of a folder; `None` for a Hub id.
    """
    folder = Path(name)
    sums = {}
    for path in sorted([*folder.glob("config.json"), *folder.glob("*.safetensors")]) if folder.is_dir() else []:
        with open(path, "rb") as file:
            sums[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums or None


class ComparisonWriter:
    """
    Writes sound and pictures of comparisons into a folder, as they come.

    Args:
        folder (`Path`): Where to.
        num_pictures (`int`): The first so many clips are drawn, into `pictures`.
        save_audio (`bool`): Whether all clips are written, with their reconstructions, into `audio`.
    """

    def __init__(self, folder: Path, num_pictures: int, save_audio: bool):
        self.folder, self.num_pictures, self.save_audio = folder, num_pictures, save_audio
        self.num_clips = 0
        self.pictures: list[str] = []
        self.no_pictures: str | None = None

    def __call__(self, comparison: Comparison) -> None:
        """Takes the next comparison."""
        # an id may be a path
        safe = re.sub(r"[^\w.-]+", "_", comparison.clip.id)[-60:].strip("._")
        stem = f"{self.num_clips:04d}-{safe}"
        if self.num_clips < self.num_pictures and self.no_pictures is None:
            self._draw(comparison, stem)
        if self.save_audio:
            self._write(comparison, stem)
        self.num_clips += 1

    def _draw(self, comparison: Comparison, stem: str) -> None:
        (self.folder / "pictures").mkdir(exist_ok=True)
        path = f"pictures/{stem}.png"
        clip, rate = comparison.clip, comparison.sampling_rate
        try:
            save_comparison(clip.waveform, comparison.reconstruction, rate, self.folder / path, clip.id)
            self.pictures.append(path)
        except NotMeasuredError as error:
            self.no_pictures = str(error)
            (self.folder / "pictures").rmdir()

    def _write(self, comparison: Comparison, stem: str) -> None:
        (self.folder / "audio").mkdir(exist_ok=True)
        for name, samples in (("original", comparison.clip.waveform), ("reconstruction", comparison.reconstruction)):
            path = self.folder / "audio" / f"{stem}.{name}.wav"
            soundfile.write(path, samples, comparison.sampling_rate, subtype="PCM_16")


def markdown_table(evaluation: VAEEvaluation) -> str:
    """
    The metrics as a table, and below it those that were not measured, with the reason.

    Args:
        evaluation ([`VAEEvaluation`]): What was measured.

    Returns:
        Markdown.
    """
    rows, missing = [], []
    for name, summary in evaluation.summary().items():
        metric, reasons = METRICS[name], summary["not_measured"]
        if summary["clips"]:
            interval = summary["interval"]
            bounds = "–" if interval is None else " to ".join(f"{bound:.4g}" for bound in interval)
            rows.append(
                f"| {name} | {metric.unit} | {metric.better} | {summary['mean']:.4g} | {bounds} | {summary['clips']} |"
            )
        else:
            missing.append(f"- {name}: {'; '.join(reasons)}")
    lines = ["| metric | unit | better | mean | 95% interval | clips |", "|---|---|---|---:|---:|---:|", *rows]
    return "\n".join([*lines, *(["", "Not measured:", "", *missing] if missing else [])])


def write_report(
    folder: Path, evaluation: VAEEvaluation, settings: dict[str, Any], writer: ComparisonWriter | None = None
) -> None:
    """
    Writes `report.json` and `report.md`.

    Args:
        folder (`Path`): Where to.
        evaluation ([`VAEEvaluation`]): What was measured.
        settings (`dict`): `command`, `model` of [`describe_vae`], `environment` of [`environment`], `data` and others.
        writer ([`ComparisonWriter`], *optional*): Whose pictures the report shows.

    Raises:
        OSError: If a file cannot be written.
    """
    metrics = {
        name: {"unit": METRICS[name].unit, "better": METRICS[name].better, "about": METRICS[name].about, **summary}
        for name, summary in evaluation.summary().items()
    }
    clips, unusable = ([asdict(entry) for entry in entries] for entries in (evaluation.clips, evaluation.unusable))
    report = {**settings, "metrics": metrics, "clips": clips, "unusable": unusable}
    if writer is not None and writer.no_pictures is not None:
        report["pictures_not_drawn"] = writer.no_pictures
    text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    (folder / "report.md").write_text(_markdown_report(evaluation, settings, writer) + "\n", encoding="utf-8")


def _markdown_report(evaluation: VAEEvaluation, settings: dict[str, Any], writer: ComparisonWriter | None) -> str:
    model, machine = settings["model"], settings["environment"]
    narrow = sum(clip.bandwidth is not None for clip in evaluation.clips)
    minutes = sum(clip.seconds for clip in evaluation.clips) / 60
    lines = [
        f"# Reconstruction by {model['name']}",
        "",
        f"{len(evaluation.clips)} clips, {minutes:.2f} minutes, of {settings['data']}. Latents are the mode of the "
        "posterior. Intervals are a bootstrap over clips.",
        "",
        f"{machine['date']}, {machine['device']} ({machine['device_name'] or machine['cpu']}), {machine['threads']} "
        f"threads, torch {machine['packages']['torch']}: `{settings['command']}`",
        "",
        markdown_table(evaluation),
        "",
        *(f"- {name} ({metric.unit}): {metric.about}" for name, metric in METRICS.items()),
    ]
    if narrow:
        lines += [
            "",
            f"{narrow} clips were recorded at a lower rate than the model's {model['sampling_rate']} Hz: only what "
            "lies below their highest frequency is compared. Both sides are silent above it, which lowers "
            "mel_distance and stft_distance: compare them with those of clips of the same rate.",
        ]
    if evaluation.unusable:
        lines += ["", f"{len(evaluation.unusable)} clips could not be used:", ""]
        lines += [f"- {clip.id}: {clip.reason}" for clip in evaluation.unusable]
    if writer is not None:
        lines += ["", *(f"![{path}]({path})\n" for path in writer.pictures)]
        lines += [f"No pictures: {writer.no_pictures}"] if writer.no_pictures else []
    return "\n".join(lines)
