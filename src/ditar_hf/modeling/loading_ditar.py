"""Loading that stops where weights are missing or do not fit, for the models of this package."""

import os
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from .downloads_ditar import cached_folder, refuse_spoilt_weights
from .loading_options_ditar import check_options, settle_placement
from .saved_folders_ditar import refuse_broken_json, refuse_folder_without, refuse_missing_folder, refuse_other_names


class CompleteWeightsMixin:
    """
    Refuses a checkpoint without all weights, where the library warns and goes on with random ones.

    It stands before `PreTrainedModel` among the bases of a class. Weights that may be missing are those that the class
    names in `_keys_to_ignore_on_load_missing`.
    """

    # regular expressions of modules that quantisation leaves alone; with `None`, it is refused
    _modules_to_not_quantize: tuple[str, ...] | None = None

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *model_args: Any,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> PreTrainedModel | tuple[PreTrainedModel, dict[str, Any]]:
        """
        As `PreTrainedModel.from_pretrained`, but a folder is complete or refused, and so are options that fail later.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`, *optional*): A folder or the name of a repository.
            *model_args: Passed on.
            ignore_mismatched_sizes (`bool`, *optional*, defaults to `False`):
                Whether weights of another shape than the configuration's are drawn anew.
            output_loading_info (`bool`, *optional*, defaults to `False`):
                Whether to return the library's notes on missing and surplus weights, too.
            **kwargs:
                Passed on, such as `device_map`; `dtype` (fp32, bf16, fp16 or `"auto"`), `attn_implementation`
                (`"sdpa"`, `"eager"`, `"flash_attention_2"`) and `quantization_config` (of torchao or bitsandbytes) are
                checked; names of fields override the configuration.

        Returns:
            The model in `eval()`, or with `output_loading_info=True` the model and a `dict`.

        Raises:
            ValueError: If a file of a local folder is missing, cut off or damaged, weights are missing in it or of
                another shape, or its configuration or one of the options above is refused.
            ImportError: If the package that an option needs is not installed.
            OSError: If a repository, or a file in it, is not found on the Hub or in the cache.
        """
        name, config = str(pretrained_model_name_or_path), kwargs.get("config")
        source, is_local, subfolder = repr(name), os.path.isdir(name), kwargs.get("subfolder") or ""
        if config is not None and not isinstance(config, PreTrainedConfig):
            refuse_other_names(config)
        if pretrained_model_name_or_path is not None or config is None:
            refuse_missing_folder(pretrained_model_name_or_path)
        if is_local:
            _check_files(cls, name, subfolder, is_described=config is not None)
        revision = kwargs.get("_commit_hash") or kwargs.get("revision")
        where = (revision, kwargs.get("cache_dir"), subfolder)
        kwargs = check_options(kwargs, cls)
        try:
            # shapes are compared below, where the message can name them
            model, info = super().from_pretrained(
                pretrained_model_name_or_path,
                *model_args,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **kwargs,
            )
        except (OSError, SafetensorError) as error:
            if isinstance(error, OSError) and not is_local:
                raise OSError(
                    f"there is no folder {source}, and no model of that name could be had from the Hub or its cache: "
                    f"{error}"
                ) from error
            if not is_local and (folder := cached_folder(name, *where)):
                refuse_spoilt_weights(folder, name)
            raise ValueError(
                f"the model in {source} cannot be read ({error}): a file is missing, cut off or damaged. Fetch it "
                "again. Weights are read as safetensors only: pickles can run code."
            ) from error
        if not is_local and (folder := cached_folder(name, *where)):
            refuse_spoilt_weights(folder, name)
        if missing := sorted(info["missing_keys"]):
            raise ValueError(
                f"{source} lacks {len(missing)} weights of {cls.__name__}: {_some(missing)}. They would be random: "
                "load a complete checkpoint, or build the model from its config to train it from scratch."
            )
        if info["mismatched_keys"] and not ignore_mismatched_sizes:
            mismatched = sorted(info["mismatched_keys"])
            shapes = [f"{name} {list(stored)}, not {list(wanted)}" for name, stored, wanted in mismatched]
            raise ValueError(
                f"in {source}, {len(shapes)} weights do not have the shapes that the config of {cls.__name__} asks "
                f"for: {_some(shapes)}. Load it with its own config, or draw them anew with "
                "`ignore_mismatched_sizes=True`."
            )
        settle_placement(model)
        return (model, info) if output_loading_info else model


def _check_files(model_class: type, folder: str, subfolder: str, is_described: bool):
    """Raises where a file that will be read is missing or no JSON."""
    names = ["config.json", "adapter_config.json"]
    if not is_described:
        refuse_folder_without(names, folder, subfolder)
    names = names[is_described:]
    if model_class.can_generate():
        names.append("generation_config.json")
    if not os.path.isfile(os.path.join(folder, subfolder, SAFE_WEIGHTS_NAME)):
        names.append(SAFE_WEIGHTS_INDEX_NAME)
    refuse_broken_json(names, folder, subfolder)


def _some(names: list[str]) -> str:
    """The first 20."""
    return ", ".join(names[:20]) + (" …" if len(names) > 20 else "")
