"""FSDP2 through `accelerate`, as DiTAR needs it: what is cut into pieces, what stays whole, and what is rounded."""

import dataclasses

import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from torch import nn

WHOLE_MODULES = r"(.*\.)?vae"  # also of a model that `peft` has wrapped


def configure_sharding(plugin: FullyShardedDataParallelPlugin, model: nn.Module):
    """
    Completes the settings of FSDP2, before `accelerate` cuts a model into pieces.

    Each layer of the language model, the patch encoder and LocDiT are gathered one after the other, unless the
    settings name classes of their own. The tokenizer of speech stays whole, and in fp32. With mixed precision, only
    weights are rounded: neither waveforms and diffusion times on their way in, nor losses and sums of gradients.

    Args:
        plugin (`FullyShardedDataParallelPlugin`): The settings, changed in place.
        model ([`DiTARForTextToSpeech`]): What is trained, or a `peft` model around it.

    Raises:
        ValueError: If a setting is one that does not go with DiTAR.
    """
    _check(plugin)
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    plugin.ignored_modules = WHOLE_MODULES
    if plugin.transformer_cls_names_to_wrap is None:
        frozen = set(base.vae.modules())
        present = {type(module).__name__ for module in base.modules() if module not in frozen}
        plugin.transformer_cls_names_to_wrap = sorted(present.intersection(base._no_split_modules))
    if plugin.mixed_precision_policy is not None:
        plugin.mixed_precision_policy = dataclasses.replace(
            plugin.mixed_precision_policy,
            reduce_dtype=torch.float32,
            output_dtype=None,
            cast_forward_inputs=False,
        )


def _check(plugin: FullyShardedDataParallelPlugin):
    if plugin.fsdp_version != 2:
        raise ValueError(f"`fsdp_version` is {plugin.fsdp_version}: DiTARTrainer needs 2.")
    if plugin.state_dict_type.name != "FULL_STATE_DICT":
        raise ValueError(
            f"`fsdp_state_dict_type` is {plugin.state_dict_type.name}: DiTARTrainer needs FULL_STATE_DICT, so that a "
            "checkpoint is a model that loads."
        )
    if plugin.cpu_ram_efficient_loading:
        raise ValueError(
            "`fsdp_cpu_ram_efficient_loading` is true, the launcher's default: set it to false, as all processes need "
            "the tokenizer of speech."
        )
    if plugin.activation_checkpointing:
        raise ValueError(
            "`fsdp_activation_checkpointing` is true: set `activation_checkpointing` of the training in its place."
        )
