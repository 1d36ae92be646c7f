"""Precision, attention, quantisation and placement, as `from_pretrained` takes them."""

import copy
from collections.abc import Iterable
from typing import Any

from transformers import PreTrainedModel
from transformers.quantizers import AutoQuantizationConfig
from transformers.utils.quantization_config import QuantizationConfigMixin

from .configuration_ditar_vae import check_dtype

ATTENTIONS = ("sdpa", "eager", "flash_attention_2")
# kinds of quantisation, and where the configuration of each lists the modules that stay as they are
SKIP_FIELDS = {"torchao": "modules_to_not_convert", "bitsandbytes": "llm_int8_skip_modules"}


def check_options(options: dict[str, Any], model_class: type) -> dict[str, Any]:
    """
    Options of `from_pretrained`, refused where a model could not run with them.

    Args:
        options (`dict`): Keyword arguments; others than those below pass unseen.
        model_class (`type`): What is loaded: its `config_class` names the parts, `_modules_to_not_quantize` what stays
            exact.

    Returns:
        `dict`: The same, with `use_safetensors=True` and a `quantization_config` that leaves these modules alone.

    Raises:
        ValueError: If `dtype`, `attn_implementation`, `quantization_config` or `use_safetensors` is not supported.
        ImportError: If the package of a quantisation is not installed.
    """
    options = {"use_safetensors": None, **options}
    if (dtype := options.get("dtype", options.get("torch_dtype"))) != "auto":
        check_dtype("dtype", dtype)
    check_attention(options.get("attn_implementation"), model_class.config_class.sub_configs)
    if options["use_safetensors"] not in (None, True):
        raise ValueError("`use_safetensors` must be True: weights in a pickle are not read, for it can run code.")
    options["use_safetensors"] = True
    if old := [name for name in ("load_in_8bit", "load_in_4bit") if options.get(name)]:
        raise ValueError(
            f"`{old[0]}` is no argument of `from_pretrained`: pass "
            f"`quantization_config=BitsAndBytesConfig({old[0]}=True)`."
        )
    if options.get("quantization_config") is not None:
        kept = model_class._modules_to_not_quantize
        options["quantization_config"] = check_quantization(options["quantization_config"], kept, model_class.__name__)
    return options


def check_attention(attention: str | dict[str, str] | None, parts: Iterable[str]):
    """
    Refuses kinds of attention that would fail later, load code from the Hub, or go to no part of the model.

    Args:
        attention (`str` or `dict`, *optional*): Asked for, of all or by the name of a part's configuration.
        parts (`Iterable[str]`): These names.

    Raises:
        ValueError: If a kind or a name is unknown.
    """
    by_part = attention if isinstance(attention, dict) else {"": attention}
    if unknown := sorted(set(by_part) - {"", *parts}):
        raise ValueError(f"`attn_implementation` names {unknown[0]!r}: its parts are {', '.join(sorted(parts))}.")
    for kind in by_part.values():
        if kind is not None and kind not in ATTENTIONS:
            raise ValueError(
                f"`attn_implementation` is {kind!r}: pass 'sdpa' or 'eager', or 'flash_attention_2' where "
                "`flash_attn` is installed."
            )


def check_quantization(
    quantization_config: QuantizationConfigMixin | dict[str, Any], kept: Iterable[str] | None, name: str
) -> QuantizationConfigMixin:
    """
    A quantisation that leaves alone what must stay exact.

    Args:
        quantization_config (`QuantizationConfigMixin` or `dict`): Asked for; it is not changed.
        kept (`Iterable[str]`, *optional*): Regular expressions of modules that stay as they are; `None` for all.
        name (`str`): The class that is loaded, for messages.

    Returns:
        `QuantizationConfigMixin`: A copy with `kept` added to the modules that it does not convert.

    Raises:
        ValueError: If nothing in the class may be quantised, or the kind is not supported.
        ImportError: If its package is not installed.
    """
    if kept is None:
        raise ValueError(f"`quantization_config` is given, but {name} stays in full precision: leave it out.")
    if isinstance(quantization_config, dict):
        quantization_config = AutoQuantizationConfig.from_dict(dict(quantization_config))
    method = getattr(quantization_config, "quant_method", None)
    if not isinstance(quantization_config, QuantizationConfigMixin) or method not in SKIP_FIELDS:
        raise ValueError(
            f"`quantization_config` is {quantization_config!r}: pass a TorchAoConfig or a BitsAndBytesConfig of "
            "transformers."
        )
    quantization_config = copy.deepcopy(quantization_config)
    own = getattr(quantization_config, SKIP_FIELDS[method]) or []
    setattr(quantization_config, SKIP_FIELDS[method], [*own, *(pattern for pattern in kept if pattern not in own)])
    return quantization_config


def settle_placement(model: PreTrainedModel):
    """
    Refuses offloading that would go wrong, and names first a device that computes, where pipelines send their inputs.

    Args:
        model (`PreTrainedModel`): Just loaded; the entries of its `hf_device_map`, if any, are sorted.

    Raises:
        ValueError: If an adapter lies on an offloaded model, or all is on the disk, which is no device.
    """
    if getattr(model, "_hf_peft_config_loaded", False) and any(weight.is_meta for weight in model.parameters()):
        raise ValueError(
            "`device_map` offloads a model with an adapter, whose weights would be lost: leave it out, or merge the "
            "adapter (`merge_and_unload`), save the result and load that."
        )
    places = getattr(model, "hf_device_map", None)
    if not places:
        return
    if set(places.values()) == {"disk"}:
        raise ValueError("`device_map` puts all on the disk: keep a part on 'cpu' or a GPU, such as `stop_head`.")
    rank = {"cpu": 1, "disk": 2}
    model.hf_device_map = dict(sorted(places.items(), key=lambda item: rank.get(item[1], 0)))


__all__ = ["check_attention", "check_options", "check_quantization", "settle_placement"]
