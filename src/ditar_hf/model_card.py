"""Model cards of DiTAR's repositories, from what lies in their folders and from reports of what was measured."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.utils import validate_repo_id
from safetensors import safe_open

from .card_figures import escaped, read_json, read_report, refuse_repeated

TEMPLATES = Path(__file__).resolve().parent / "card_templates"
# `model_type` of config.json -> template, and what stands in the header of a card
KINDS = {
    "ditar": (
        "model_card.md.jinja",
        {"pipeline_tag": "text-to-speech", "tags": ["ditar", "text-to-speech", "speech-synthesis", "voice-cloning"]},
    ),
    "ditar_vae": ("vae_card.md.jinja", {"tags": ["ditar", "speech-tokenizer", "audio", "vae"]}),
}
# codes of espeak-ng that are not those of the Hub (ISO 639)
LANGUAGE_CODES = {"cmn": "zh"}


@dataclass(frozen=True)
class TrainingData:
    """
    A row of the table of what a model was trained on.

    Args:
        name (`str`): The data set.
        license (`str`): Its terms, in words or as an identifier.
        about (`str`, *optional*): How much and which part of it was used.
        url (`str`, *optional*): Where it is described.
        hub_id (`str`, *optional*): Its name on the Hub, which links the model to it.
    """

    name: str
    license: str
    about: str = ""
    url: str | None = None
    hub_id: str | None = None


def model_card(
    folder: str | Path,
    name: str,
    license: str | None = None,
    languages: Sequence[str] | None = None,
    base_model: str | None = None,
    data: Sequence[TrainingData] = (),
    reports: Sequence[str | Path] = (),
    remote_code: bool | None = None,
) -> ModelCard:
    """
    The card of a model or of a speech tokenizer.

    Sizes, voices and languages are those of the files in the folder. Figures come from reports alone; what was not
    measured, or is not known, is not on the card.

    Args:
        folder (`str` or `Path`): A saved [`DiTARForTextToSpeech`] with its processor, or a saved [`DiTARVAE`].
        name (`str`): Of the repository, such as `org/name`.
        license (`str`, *optional*): Identifier of the Hub, such as `apache-2.0`, of the weights.
        languages (`list[str]`, *optional*):
            Codes of ISO 639. By default those of the tokenizer, for a speech tokenizer none.
        base_model (`str`, *optional*): The model on the Hub that training started from.
        data (`list[TrainingData]`, *optional*): What it was trained on.
        reports (`list[str]` or `list[Path]`, *optional*):
            `report.json` files (or their folders) of `ditar evaluate`, of a speech tokenizer `ditar evaluate-vae`.
        remote_code (`bool`, *optional*):
            Whether the repository holds the code that `trust_remote_code=True` runs. By default as config.json says.

    Returns:
        `huggingface_hub.ModelCard`: `str` of it is the README.md; `card.data` its header, with a `model-index`.

    Raises:
        ValueError:
            If the folder holds neither, `name` is none of a repository, or a report is of another kind, of other
            weights, measures the same as another one, or cannot be read.
    """
    validate_repo_id(name)
    folder = Path(folder)
    config = read_json(folder / "config.json", "folder")
    model_type = config.get("model_type")
    if model_type not in KINDS:
        raise ValueError(
            f"`folder` {str(folder)!r} holds a model of the type {model_type!r}, which has no card here. Name a folder"
            f" of {' or '.join(KINDS)}."
        )
    template, header = KINDS[model_type]
    parsed = [read_report(report, folder, model_type) for report in reports]
    results = [result for report in parsed for result in report.eval_results()]
    refuse_repeated(results)
    fields = {
        "language": _languages(folder) if languages is None else list(languages),
        "license": license,
        "base_model": base_model,
        "datasets": [entry.hub_id for entry in data if entry.hub_id],
        "metrics": sorted({result.metric_type for result in results}),
        "eval_results": results,
        "model_name": name.rpartition("/")[2] if results else None,
    }
    card_data = ModelCardData(
        library_name="transformers", **header, **{key: value for key, value in fields.items() if value}
    )
    return ModelCard.from_template(
        card_data,
        template_path=str(TEMPLATES / template),
        name=name,
        title=name.rpartition("/")[2],
        about=_about(folder),
        voices=_voices(folder),
        figures="\n\n".join(filter(None, (report.table() for report in parsed))),
        training_data=_data_table(data),
        has_license=bool(license),
        has_remote_code="auto_map" in config if remote_code is None else remote_code,
        config=config,
    )


def _data_table(data: Sequence[TrainingData]) -> str:
    if not data:
        return ""
    lines = ["| data | of it | licence |", "|---|---|---|"]
    for entry in data:
        url = entry.url or (f"https://huggingface.co/datasets/{entry.hub_id}" if entry.hub_id else None)
        name = f"[{escaped(entry.name)}]({url})" if url else escaped(entry.name)
        lines.append(f"| {name} | {escaped(entry.about)} | {escaped(entry.license)} |")
    return "\n".join(lines)


def _languages(folder: Path) -> list[str]:
    """Codes of ISO 639 of the languages that the tokenizer reads; none where it is that of a text language model."""
    file = folder / "tokenizer_config.json"
    codes = read_json(file, "folder").get("languages") or [] if file.is_file() else []
    codes = [code.partition("-")[0] for code in codes]
    return list(dict.fromkeys(LANGUAGE_CODES.get(code, code) for code in codes))


def _voices(folder: Path) -> list[str]:
    """Names of the voices that lie with the model, the default one first."""
    file = folder / "processor_config.json"
    values = read_json(file, "folder") if file.is_file() else {}
    names = sorted(values.get("voices") or {})
    return sorted(names, key=lambda name: name != values.get("default_voice"))


def _about(folder: Path) -> str:
    """Parameters, size and rates."""
    counts = Counter()
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"`folder` {str(folder)!r} holds no weights (*.safetensors).")
    for path in files:
        with safe_open(path, "pt") as weights:
            for key in weights.keys():
                counts["vae" if key.startswith("vae.") else "own"] += prod(weights.get_slice(key).get_shape())
    size = sum(path.stat().st_size for path in files) / 1e6
    parts = f"{_millions(counts['own'])} parameters"
    if counts["vae"]:
        parts = (
            f"{_millions(counts.total())} parameters ({_millions(counts['own'])} of the language model, the patch"
            f" encoder and the diffusion head, {_millions(counts['vae'])} of the speech tokenizer)"
        )
    return f"{parts}, {size:,.0f} MB"


def _millions(count: int) -> str:
    return f"{count / 1e9:.2f}B" if count >= 1e9 else f"{count / 1e6:.1f}M"
