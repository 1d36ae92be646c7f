"""Repositories of the Hub: weights, settings and a card, with the code that loads them where `ditar_hf` is not."""

import ast
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from transformers import PreTrainedModel
from transformers.dynamic_module_utils import get_relative_import_files
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

import ditar_hf

from .folders import new_folder
from .model_card import TrainingData, model_card
from .modeling.downloads_ditar import refuse_spoilt_weights
from .modeling.modeling_ditar import DiTARForTextToSpeech
from .modeling.modeling_ditar_vae import DiTARVAE
from .modeling.processing_ditar import DiTARProcessor
from .modeling.saved_folders_ditar import refuse_broken_json

PACKAGE = Path(__file__).resolve().parent
MODELS = {"ditar": DiTARForTextToSpeech, "ditar_vae": DiTARVAE}
# `model_type` of config.json -> Auto class -> file and class; what the files import of their folder goes with them
AUTO_MAPS = {
    "ditar": {
        "AutoConfig": "configuration_ditar.DiTARConfig",
        "AutoModel": "modeling_ditar.DiTARModel",
        "AutoModelForTextToWaveform": "modeling_ditar.DiTARForTextToSpeech",
    },
    "ditar_vae": {
        "AutoConfig": "configuration_ditar_vae.DiTARVAEConfig",
        "AutoModel": "modeling_ditar_vae.DiTARVAE",
    },
}
PROCESSOR_MAP = {"AutoProcessor": "processing_ditar.DiTARProcessor"}
FEATURE_EXTRACTOR_MAP = {"AutoFeatureExtractor": "feature_extraction_ditar.DiTARFeatureExtractor"}
TOKENIZER_MAP = {"AutoTokenizer": ["tokenization_ditar.DiTARTokenizer", None]}
PIPELINE_FILE = PACKAGE / "pipelines" / "pipeline_ditar.py"
# beside those that the classes write themselves
KEPT_FILES = ("generation_config.json", "LICENSE", "NOTICE")
# what an export writes; of an earlier commit, where a new one has no such file
REPLACED_FILES = re.compile(
    r"\w+_ditar(_vae)?\.py|model(-\d+-of-\d+)?\.safetensors(\.index\.json)?|voices/[\w-]+\.wav"
)
HEADER = """\
# Copyright 2026 The ditar-hf authors
# SPDX-License-Identifier: Apache-2.0
#
# {path} of ditar-hf {version}, copied by `ditar export`
"""


def export(
    model: str | os.PathLike,
    folder: str | os.PathLike,
    name: str | None = None,
    license: str | None = None,
    languages: Sequence[str] | None = None,
    base_model: str | None = None,
    data: Sequence[TrainingData] = (),
    reports: Sequence[str | os.PathLike] = (),
    revision: str | None = None,
) -> Path:
    """
    Writes a folder that is a repository of the Hub, whole or not at all.

    It loads with `trust_remote_code=True` where `ditar_hf` cannot be imported, for the files of `modeling/` lie in it,
    and as any other where it can. Weights are copied as they are. A README.md of the model's is kept; without one a
    card is written, of which all arguments but `revision` tell.

    Args:
        model (`str` or `os.PathLike`):
            Folder or Hub id of a [`DiTARForTextToSpeech`] with its processor, or of a [`DiTARVAE`].
        folder (`str` or `os.PathLike`): The folder to write; it may exist if it is empty.
        name (`str`, *optional*): Of the repository, such as `org/name`. Defaults to the name of `folder`.
        license (`str`, *optional*): See [`model_card`], as for the following ones.
        languages (`list[str]`, *optional*): Codes of ISO 639.
        base_model (`str`, *optional*): The model on the Hub that training started from.
        data (`list[TrainingData]`, *optional*): What it was trained on.
        reports (`list[str]`, *optional*): Reports of what was measured.
        revision (`str`, *optional*): Branch, tag or commit of `model` on the Hub.

    Returns:
        `Path`: The folder.

    Raises:
        ValueError:
            If there is something at `folder`, `model` is no such model, incomplete, or without a processor or weights
            in safetensors, the card is refused, or there is a README.md that the arguments for a card would not reach.
        OSError: If `model` is not found on the Hub or in the cache.
    """
    folder = Path(folder)
    card = {"license": license, "languages": languages, "base_model": base_model, "data": data, "reports": reports}
    with new_folder(folder) as partial:
        source = _find_model(model, revision)
        model_type = _read_type(source)
        config = _write_model(source, partial, model_type)
        if model_type == "ditar":
            _write_processor(source, partial)
        _write_json(partial / "config.json", {**config, "auto_map": AUTO_MAPS[model_type]})
        _write_code(partial, model_type)
        _write_card(source, partial, name or folder.resolve().name, card)
    return folder


def push(
    model: str | os.PathLike,
    repo_id: str,
    private: bool | None = None,
    branch: str | None = None,
    commit_message: str | None = None,
    token: str | None = None,
    **card: Any,
) -> str:
    """
    Exports a model and makes it one commit of a repository of the Hub, which is created if there is none.

    Of what lies there already, weights, voices and code of an earlier export are replaced or, where the new one has
    none of that name, deleted; all else stays, also a README.md if the model has none of its own and nothing is told
    for a card.

    Args:
        model (`str` or `os.PathLike`): As for [`export`].
        repo_id (`str`): The repository, such as `org/name`.
        private (`bool`, *optional*): Whether a new repository is private. By default what the organisation says.
        branch (`str`, *optional*): The branch to commit to, made if there is none. Defaults to `main`.
        commit_message (`str`, *optional*): By default it says which version of the package wrote the files.
        token (`str`, *optional*): By default the one of `hf auth login`.
        **card: Arguments of [`export`] that a card tells of, and `revision`.

    Returns:
        `str`: The address of the commit.

    Raises:
        ValueError: As [`export`], before anything is sent.
        OSError: If the Hub refuses something or cannot be reached.
    """
    api = HfApi(token=token)
    with TemporaryDirectory() as temporary, _naming_the_hub(api.endpoint):
        folder = export(model, Path(temporary, "repository"), name=repo_id, **card)
        api.create_repo(repo_id, private=private, exist_ok=True)
        if branch is not None:
            api.create_branch(repo_id, branch=branch, exist_ok=True)
        there = api.list_repo_files(repo_id, revision=branch)
        written = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
        has_own_card = os.path.isdir(model) and (Path(model) / "README.md").is_file()
        is_told = any(value for argument, value in card.items() if argument != "revision")
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=branch,
            commit_message=commit_message or f"Exported by ditar-hf {ditar_hf.__version__}",
            delete_patterns=[name for name in there if REPLACED_FILES.fullmatch(name) and name not in written],
            ignore_patterns=["README.md"] if "README.md" in there and not (has_own_card or is_told) else None,
        )
    return commit.commit_url


@contextmanager
def _naming_the_hub(endpoint: str) -> Iterator[None]:
    """Turns what the library beneath huggingface_hub raises without a network into an `OSError` that says so."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("httpx"):
            raise
        raise ConnectionError(
            f"{endpoint} cannot be reached: {error}. No commit was made; `ditar export` makes the same files in a"
            " folder."
        ) from error


def _find_model(model: str | os.PathLike, revision: str | None) -> Path:
    """The folder of a model, which is fetched if it is a Hub id."""
    if os.path.isdir(model):
        if revision is not None:
            raise ValueError(f"`revision` is {revision!r}, but {str(model)!r} is a folder. Leave it out.")
        return Path(model)
    if os.path.exists(model) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(model)):
        raise ValueError(f"`model` is {str(model)!r}, but there is no such folder, and no Hub id is written so.")
    # no code: it is ours that is written
    unused = ["*.py", "*.bin", "*.pt", "*.pth"]
    try:
        folder = Path(snapshot_download(str(model), revision=revision, ignore_patterns=unused))
    except OSError as error:
        raise OSError(
            f"there is no folder {str(model)!r}, and no model of that name could be had from the Hub or its cache: "
            f"{error}"
        ) from error
    refuse_spoilt_weights(folder, str(model))
    return folder


def _read_type(source: Path) -> str:
    """`model_type`, of a folder that holds what can be exported."""
    if (source / "adapter_config.json").is_file():
        raise ValueError(f"`model` {str(source)!r} holds an adapter. Merge it into its model first, and export that.")
    refuse_broken_json(("config.json", "processor_config.json", SAFE_WEIGHTS_INDEX_NAME), source)
    if not (source / "config.json").is_file():
        raise ValueError(f"`model` {str(source)!r} has no config.json. Name the folder of a saved model.")
    model_type = _read_json(source / "config.json").get("model_type")
    if model_type not in MODELS:
        raise ValueError(f"`model` {str(source)!r} is of the type {model_type!r}, not one of {', '.join(MODELS)}.")
    if not _weights(source):
        raise ValueError(
            f"`model` {str(source)!r} has no {SAFE_WEIGHTS_NAME}. Weights in other formats are not exported, for what"
            " can be pickled can run code: save it with `save_pretrained`."
        )
    return model_type


def _weights(source: Path) -> list[str]:
    """Names of the files that `from_pretrained` reads weights of."""
    if (source / SAFE_WEIGHTS_NAME).is_file():
        return [SAFE_WEIGHTS_NAME]
    if (source / SAFE_WEIGHTS_INDEX_NAME).is_file():
        shards = set(_read_json(source / SAFE_WEIGHTS_INDEX_NAME)["weight_map"].values())
        if outside := [name for name in shards if name != Path(name).name]:
            raise ValueError(f"{SAFE_WEIGHTS_INDEX_NAME} of {str(source)!r} names {outside[0]!r}, no file beside it.")
        return [SAFE_WEIGHTS_INDEX_NAME, *sorted(shards)]
    return []


def _write_model(source: Path, folder: Path, model_type: str) -> dict[str, Any]:
    """Copies what a model is made of, which is loaded to see that it is whole; returns its configuration."""
    loaded: PreTrainedModel = MODELS[model_type].from_pretrained(source)
    for name in (*_weights(source), *KEPT_FILES):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    if model_type == "ditar":
        loaded.noise_scheduler.save_pretrained(folder / "scheduler")
        if not (folder / "generation_config.json").exists():
            loaded.generation_config.save_pretrained(folder)
    return _read_json(source / "config.json")


def _write_processor(source: Path, folder: Path):
    if not (source / "processor_config.json").is_file():
        raise ValueError(
            f"`model` {str(source)!r} has no processor beside the model. Save it there first: "
            "`processor.save_pretrained(…)`."
        )
    DiTARProcessor.from_pretrained(source).save_pretrained(folder)
    values = _read_json(folder / "processor_config.json")
    values["auto_map"] = PROCESSOR_MAP
    values["feature_extractor"]["auto_map"] = FEATURE_EXTRACTOR_MAP
    _write_json(folder / "processor_config.json", values)
    values = _read_json(folder / "tokenizer_config.json")
    if values["tokenizer_class"] == "DiTARTokenizer":  # and not that of a text language model
        _write_json(folder / "tokenizer_config.json", {**values, "auto_map": TOKENIZER_MAP})


def _write_code(folder: Path, model_type: str):
    """Copies the files of the Auto classes and of the pipeline, and says what they need."""
    references = list(AUTO_MAPS[model_type].values())
    if model_type == "ditar":
        references += [*PROCESSOR_MAP.values(), *FEATURE_EXTRACTOR_MAP.values(), TOKENIZER_MAP["AutoTokenizer"][0]]
    entries = {PACKAGE / "modeling" / f"{reference.partition('.')[0]}.py" for reference in references}
    files = entries | {Path(file) for entry in entries for file in get_relative_import_files(entry)}
    files |= {PIPELINE_FILE} if model_type == "ditar" else set()
    imported = set()
    for file in sorted(files):
        source = file.read_text(encoding="utf-8")
        header = HEADER.format(path=file.relative_to(PACKAGE).as_posix(), version=ditar_hf.__version__)
        (folder / file.name).write_text(f"{header}\n{source}", encoding="utf-8")
        imported |= _imported_packages(source)
    requirements = [line for line in metadata.requires("ditar-hf") if "extra ==" not in line]
    needed = [line for line in requirements if re.match(r"[\w.-]+", line).group().replace("-", "_") in imported]
    (folder / "requirements.txt").write_text("\n".join(sorted(needed)) + "\n", encoding="utf-8")


def _imported_packages(source: str) -> set[str]:
    """Names of the packages that a file imports, also where it does without them."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def _write_card(source: Path, folder: Path, name: str, card: dict[str, Any]):
    if not (source / "README.md").is_file():
        model_card(folder, name, **card).save(folder / "README.md")
    elif told := [argument for argument, value in card.items() if value]:
        raise ValueError(
            f"`{told[0]}` is for a card, but {str(source)!r} has a README.md, which is kept. Write it there, or take "
            "the README.md away to have a card written."
        )
    else:
        shutil.copyfile(source / "README.md", folder / "README.md")


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _write_json(path: Path, values: dict[str, Any]):
    path.write_text(json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
