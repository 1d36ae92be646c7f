"""What FSDP2 is told of a model, and which settings of it are refused."""

import pytest
import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from torch.distributed.fsdp import MixedPrecisionPolicy

from ditar_hf.training.lora import add_lora
from ditar_hf.training.sharding import configure_sharding


@pytest.fixture
def make_plugin(monkeypatch):
    """Factory of the settings that `examples/accelerate/fsdp2.yaml` makes; keywords replace."""
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "false")

    def make(**fields):
        values = {"fsdp_version": 2, "auto_wrap_policy": "transformer_based_wrap"}
        return FullyShardedDataParallelPlugin(**{**values, "state_dict_type": "full_state_dict", **fields})

    return make


QWEN3 = {
    "model_type": "qwen3",
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
}


@pytest.mark.parametrize(
    "lm, layer", [({}, "ArceeDecoderLayer"), (QWEN3, "Qwen3DecoderLayer")], ids=["arcee", "qwen3"]
)
def test_blocks_of_the_model_are_cut_whatever_its_language_model(make_plugin, make_model, lm, layer):
    plugin = make_plugin()
    configure_sharding(plugin, make_model(lm_config=lm))
    assert set(plugin.transformer_cls_names_to_wrap) == {layer, "DiTARPatchEncoder", "LocDiT"}


def test_classes_that_are_named_are_kept(make_plugin, make_model):
    plugin = make_plugin(transformer_cls_names_to_wrap=["DiTARTransformerBlock"])
    configure_sharding(plugin, make_model())
    assert plugin.transformer_cls_names_to_wrap == ["DiTARTransformerBlock"]


def test_the_tokenizer_of_speech_stays_whole_within_an_adapter_too(make_plugin, make_model, tmp_path):
    from accelerate.utils.fsdp_utils import get_parameters_from_modules

    model = make_model()
    model.save_pretrained(tmp_path)
    plugin, whole = make_plugin(), set(model.vae.parameters())
    configure_sharding(plugin, model)
    assert get_parameters_from_modules(plugin.ignored_modules, model, "cpu") == whole
    pytest.importorskip("peft")
    adapted = add_lora(type(model).from_pretrained(tmp_path), r=2)
    configure_sharding(plugin, adapted)
    whole = set(adapted.get_base_model().vae.parameters())
    assert get_parameters_from_modules(plugin.ignored_modules, adapted, "cpu") == whole


def test_only_weights_are_rounded(make_plugin, make_model):
    plugin = make_plugin(mixed_precision_policy="bf16")
    configure_sharding(plugin, make_model())
    assert plugin.mixed_precision_policy == MixedPrecisionPolicy(
        param_dtype=torch.bfloat16, reduce_dtype=torch.float32, output_dtype=None, cast_forward_inputs=False
    )


@pytest.mark.parametrize(
    "fields, name",
    [
        ({"fsdp_version": 1}, "fsdp_version"),
        ({"state_dict_type": "sharded_state_dict"}, "fsdp_state_dict_type"),
        ({"cpu_ram_efficient_loading": True}, "fsdp_cpu_ram_efficient_loading"),
        ({"activation_checkpointing": True}, "fsdp_activation_checkpointing"),
    ],
)
def test_other_settings_are_refused(make_plugin, make_model, fields, name):
    with pytest.raises(ValueError, match=f"`{name}` is"):
        configure_sharding(make_plugin(**fields), make_model())
