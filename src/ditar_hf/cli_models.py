"""The model that a command speaks with: where it is, and how it is loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .cli_common import errors_only

if TYPE_CHECKING:
    from ditar_hf import DiTARForTextToSpeech, DiTARProcessor

DEFAULT_MODEL = Path("hub_cards", "ditar-tiny-en")


def find_model(model: str | None) -> str:
    """The folder or Hub id that was given, or the model of the clone."""
    if model is not None:
        return model
    # In an editable installation this file is <clone>/src/ditar_hf/cli_models.py.
    folder = Path(__file__).resolve().parents[2] / DEFAULT_MODEL
    if not (folder / "config.json").is_file():
        raise ValueError(f"there is no model at `{folder}`; pass one with `--model FOLDER_OR_HUB_ID`")
    return str(folder)


def load_processor(name: str) -> "DiTARProcessor":
    """The processor of a model, which is quick to load and says whether it is one of DiTAR."""
    from transformers import AutoConfig

    from ditar_hf import DiTARProcessor
    from ditar_hf.modeling.saved_folders_ditar import refuse_broken_json, refuse_folder_without, refuse_missing_folder

    refuse_missing_folder(name)
    with _naming_the_model(name):
        refuse_folder_without(["config.json", "adapter_config.json"], name)
        refuse_broken_json(["config.json"], name)
        # Only the config says whose folder it is.
        model_type = AutoConfig.from_pretrained(name, trust_remote_code=False).model_type
        if model_type != "ditar":
            raise ValueError(f"it is of the type `{model_type}`, not `ditar`")
        return DiTARProcessor.from_pretrained(name)


def load_model(name: str) -> "DiTARForTextToSpeech":
    """The model itself."""
    from ditar_hf import DiTARForTextToSpeech

    with _naming_the_model(name):
        return DiTARForTextToSpeech.from_pretrained(name)


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep warnings of loading, and bars that stay, away."""
    from transformers.utils.logging import set_tqdm_hook

    # Bars of tqdm vanish when done (`leave`) and are for terminals only (`disable=None`).
    previous = set_tqdm_hook(lambda bar, args, kwargs: bar(*args, **{**kwargs, "leave": False, "disable": None}))
    try:
        with errors_only("transformers"), errors_only("huggingface_hub"):
            yield
    finally:
        set_tqdm_hook(previous)


@contextmanager
def _naming_the_model(name: str) -> Iterator[None]:
    """Turn what loading raises into a `ValueError` that names the model, and load quietly."""
    try:
        with quiet_loading():
            yield
    except Exception as error:
        if not Path(name).is_dir():
            # the libraries would speak of one file of many
            raise ValueError(
                f"there is no folder `{name}`, and no model of that name could be had from the Hub or its cache: "
                f"{str(error).splitlines()[0]}"
            ) from error
        # Any exception: which one a damaged file ends in is up to the loaders of several libraries.
        raise ValueError(f"cannot load the model `{name}`: {error}") from error
