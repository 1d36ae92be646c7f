"""Laws of what `from_pretrained` takes besides weights: an option is obeyed and the model speaks, or it is refused."""

import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import BitsAndBytesConfig, GPTQConfig, pipeline
from transformers.utils import is_flash_attn_2_available

from ditar_hf import (
    DiTARFeatureExtractor,
    DiTARForTextToSpeech,
    DiTARModel,
    DiTARProcessor,
    DiTARTokenizer,
    DiTARVAE,
)

BOS, PATCH = 2, 3
IDS = torch.tensor([[0, 0, 5, BOS, PATCH, PATCH], [7, 8, 9, BOS, PATCH, PATCH]])
MASK = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
PROMPT = 0.3 * torch.randn(2, 4800, generator=torch.Generator().manual_seed(0))
FIXED = {"temperature": 0, "num_inference_steps": 2, "max_new_tokens": 3, "min_new_tokens": 3}
PARTS = ("model.language_model", "model.patch_encoder", "locdit", "stop_head", "vae")
INSTALL = 'is not installed: pip install -e ".[quantization]"'


def speak(model, **settings) -> torch.Tensor:
    """Two rows with voice prompts, one after the other."""
    output = model.generate(
        input_ids=IDS, attention_mask=MASK, prompt_values=PROMPT, **{**FIXED, "guidance_scale": 2.0, **settings}
    )
    assert all(row.dtype == torch.float32 and row.isfinite().all() for row in output.audio)
    return torch.cat(output.audio)


@pytest.fixture
def folder(make_model, tmp_path):
    """A model with a processor."""
    tokenizer = DiTARTokenizer.from_phonemes(list("abdefɡhijk"))
    path = tmp_path / "model"
    make_model(lm_config={"vocab_size": len(tokenizer)}, alignment_loss_weight=1.0).save_pretrained(path)
    DiTARProcessor(DiTARFeatureExtractor(), tokenizer).save_pretrained(path)
    return path


@pytest.fixture
def load(folder):
    return lambda **options: DiTARForTextToSpeech.from_pretrained(folder, **options)


def places(tmp_path, *on_disk):
    """Options that keep some parts on the disk."""
    device_map = {part: "disk" if part in on_disk else "cpu" for part in PARTS + ("alignment_head",)}
    return {"device_map": device_map, "offload_folder": tmp_path / "disk"}


class TestPrecision:
    @pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "auto"])
    def test_each_precision_speaks_nearly_alike(self, load, name, dtype):
        exact = speak(load())
        for value in (dtype, getattr(torch, dtype)) if dtype != "auto" else (dtype,):
            model = load(**{name: value})
            assert model.dtype == (torch.float32 if dtype == "auto" else getattr(torch, dtype))
            assert {tensor.dtype for tensor in (*model.vae.parameters(), *model.vae.buffers())} == {torch.float32}
            assert (speak(model) - exact).std() < (0.1 * exact.std() if model.dtype != torch.float32 else 1e-9)

    @pytest.mark.parametrize("dtype", [torch.float64, "float8", torch.float8_e4m3fn, torch.int8, {"": "float32"}, 32])
    @pytest.mark.parametrize("model_class", [DiTARForTextToSpeech, DiTARModel, DiTARVAE])
    def test_others_are_refused(self, folder, model_class, dtype):
        with pytest.raises(ValueError, match=r"`dtype` is .*, but the model runs in float32, bfloat16, float16"):
            model_class.from_pretrained(folder, dtype=dtype)


class TestAttention:
    @pytest.mark.parametrize("attention", ["sdpa", "eager", None])
    def test_it_reaches_all_parts(self, load, attention):
        model = load(attn_implementation=attention)
        config = model.config
        parts = (config, config.lm_config, config.encoder_config, config.locdit_config)
        assert {part._attn_implementation for part in parts} == {attention or "sdpa"}
        torch.testing.assert_close(speak(model), speak(load()), atol=1e-4, rtol=0)

    def test_a_part_may_have_its_own(self, load):
        model = load(attn_implementation={"locdit_config": "eager"})
        assert model.config.locdit_config._attn_implementation == "eager"
        assert model.config.lm_config._attn_implementation == "sdpa"
        torch.testing.assert_close(speak(model), speak(load()), atol=1e-4, rtol=0)

    @pytest.mark.skipif(is_flash_attn_2_available(), reason="flash_attn is installed")
    def test_a_missing_package_is_named(self, load):
        with pytest.raises(ImportError, match="FlashAttention2 .*installed"):
            load(attn_implementation="flash_attention_2")

    @pytest.mark.parametrize(
        "attention",
        ["nonsense", "", 3, "flex_attention", "paged|eager", "paged|sdpa", "kernels-community/flash-attn2"],
    )
    def test_others_are_refused(self, load, attention):
        for value in (attention, {"lm_config": attention}):
            with pytest.raises(ValueError, match=rf"`attn_implementation` is {re.escape(repr(attention))}: pass 'sd"):
                load(attn_implementation=value)

    def test_a_part_that_is_not_there_is_refused(self, load):
        with pytest.raises(ValueError, match="names 'locdit': its parts are encoder_config, lm_config, locdit_config"):
            load(attn_implementation={"locdit": "eager"})


class TestPlacement:
    @pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}, torch.device("cpu")])
    def test_one_device_changes_nothing(self, load, device_map):
        assert torch.equal(speak(load(device_map=device_map)), speak(load()))

    @pytest.mark.parametrize("parts", [*((part,) for part in PARTS), PARTS], ids=[*PARTS, "these"])
    def test_parts_on_the_disk_change_nothing(self, load, tmp_path, parts):
        model = load(**places(tmp_path, *parts))
        assert all(weight.is_meta for part in parts for weight in model.get_submodule(part).parameters())
        assert torch.equal(speak(model), speak(load()))
        assert all(weight.is_meta for part in parts for weight in model.get_submodule(part).parameters())

    def test_a_pipeline_takes_them(self, folder, tmp_path):
        options = places(tmp_path, "model.language_model", "locdit")  # in this order the disk comes first
        plain, offloaded = (
            pipeline("text-to-speech", model=str(folder), **kwargs)(
                "abde", preprocess_params={"phonemize": False}, generate_kwargs=FIXED
            )["audio"]
            for kwargs in ({}, {"model_kwargs": options})
        )
        assert np.array_equal(plain, offloaded)

    def test_one_part_lies_elsewhere(self, load, tmp_path):
        with pytest.raises(ValueError, match="`device_map` puts all on the disk: keep a part on 'cpu'"):
            load(device_map={"": "disk"}, offload_folder=tmp_path / "disk")

    def test_compilation_needs_one_device(self, load, tmp_path):
        with pytest.raises(ValueError, match="`compile_patch_step=True` needs all weights on one device"):
            speak(load(**places(tmp_path, "locdit")), compile_patch_step=True, cache_implementation="static")

    def test_several_accelerators_are_refused(self, load):
        model = load()
        model.hf_device_map = {"model": 1, "locdit": 0, "stop_head": 0, "vae": "cpu"}
        with pytest.raises(ValueError, match=r"spread over the devices 0, 1, .*`device_map=\{'': 0\}`"):
            speak(model)

    def test_a_model_without_weights_is_refused(self, load):
        with pytest.raises(ValueError, match="the weights are on the meta device"):
            speak(load(device_map="meta"))

    def test_a_device_that_is_none_is_refused(self, load):
        with pytest.raises(ValueError, match="nonsense"):
            load(device_map="nonsense")


class TestQuantization:
    """Each kind, as `request` gives it, on a CPU."""

    @pytest.fixture
    def folder(self, make_model, tmp_path):
        """As above, but as wide as a block of 64 weights: bitsandbytes takes no less where the CPU has AVX512-BF16."""
        tokenizer = DiTARTokenizer.from_phonemes(list("abdefɡhijk"))
        sizes = {"hidden_size": 64, "intermediate_size": 128}
        make_model(
            lm_config={"vocab_size": len(tokenizer), **sizes},
            encoder_config=sizes,
            locdit_config=sizes,
            vae_config={"latent_dim": 64},
            latent_dim=64,
            alignment_loss_weight=1.0,
        ).save_pretrained(tmp_path / "model")
        DiTARProcessor(DiTARFeatureExtractor(), tokenizer).save_pretrained(tmp_path / "model")
        return tmp_path / "model"

    @pytest.fixture(params=["torchao int8", "bitsandbytes int8", "bitsandbytes nf4", "bitsandbytes as a dict"])
    def quantization(self, request):
        package, _, kind = request.param.partition(" ")
        pytest.importorskip(package, reason=f"{package} {INSTALL}")
        if package == "torchao":
            from torchao.quantization import Int8WeightOnlyConfig
            from transformers import TorchAoConfig

            return TorchAoConfig(Int8WeightOnlyConfig())
        if kind == "int8":
            return BitsAndBytesConfig(load_in_8bit=True)
        if kind == "nf4":
            return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
        return {"quant_method": "bitsandbytes", "load_in_8bit": True}

    @staticmethod
    def converted(model) -> set[str]:
        """Names of the matrices that are no longer plain."""
        return {
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear)
            and (type(module) is not nn.Linear or type(module.weight.data) is not torch.Tensor)
        }

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_layers_of_lm_encoder_and_locdit_are_quantised_and_nothing_else(self, load, quantization, dtype):
        plain, model = load(dtype=dtype), load(dtype=dtype, quantization_config=quantization)
        linear = {name for name, module in plain.named_modules() if isinstance(module, nn.Linear)}
        layers = ("model.language_model.layers.", "model.patch_encoder.transformer.", "locdit.transformer.")
        assert self.converted(model) == {name for name in linear if name.startswith(layers)}
        before = plain.state_dict()
        for name, weight in model.named_parameters():
            if not name.startswith(layers):
                assert weight.dtype == before[name].dtype and torch.equal(weight, before[name]), name
        speech, quantised = speak(plain), speak(model)
        assert 0 < (quantised - speech).std() < speech.std()  # four bits are rough on matrices of 32 columns

    def test_the_caller_s_configuration_stays_as_it_is(self, load, quantization):
        before = str(quantization)
        load(quantization_config=quantization)
        assert str(quantization) == before

    def test_what_the_caller_keeps_is_kept_too(self, load, quantization):
        if isinstance(quantization, dict):
            quantization["llm_int8_skip_modules"] = ["model.language_model"]
        elif isinstance(quantization, BitsAndBytesConfig):
            quantization.llm_int8_skip_modules = ["model.language_model"]
        else:
            quantization.modules_to_not_convert = ["model.language_model"]
        names = self.converted(load(quantization_config=quantization))
        assert names and all(name.startswith(("model.patch_encoder.transformer.", "locdit.tr")) for name in names)

    def test_it_comes_back_from_its_folder(self, load, quantization, folder, tmp_path):
        model = load(quantization_config=quantization)
        model.save_pretrained(tmp_path / "small")
        loaded = DiTARForTextToSpeech.from_pretrained(tmp_path / "small")
        assert self.converted(loaded) == self.converted(model)
        assert torch.equal(speak(loaded), speak(model))
        sizes = [(path / "model.safetensors").stat().st_size for path in (tmp_path / "small", folder)]
        assert sizes[0] < sizes[1]
        exact = load_file(folder / "model.safetensors")
        for name, weight in loaded.vae.state_dict().items():
            assert torch.equal(weight, exact[f"vae.{name}"]), name

    def test_casts_leave_the_tokenizer_of_speech_alone(self, load, quantization):
        model = load(quantization_config=quantization)
        if not isinstance(quantization, dict | BitsAndBytesConfig):  # whose models refuse casts
            model.to(torch.bfloat16)
            assert model.stop_head.weight.dtype == torch.bfloat16
        assert model.vae.dtype == torch.float32
        speak(model)

    def test_a_part_loads_quantised(self, folder, quantization):
        model = DiTARModel.from_pretrained(folder, quantization_config=quantization)
        layers = ("language_model.layers.", "patch_encoder.transformer.")
        assert self.converted(model) and all(name.startswith(layers) for name in self.converted(model))

    def test_a_pipeline_passes_it_on(self, folder, quantization):
        speaker = pipeline("text-to-speech", model=str(folder), model_kwargs={"quantization_config": quantization})
        assert self.converted(speaker.model)
        output = speaker("abde", preprocess_params={"phonemize": False}, generate_kwargs=FIXED)
        assert np.isfinite(output["audio"]).all() and output["audio"].std() > 0

    def test_the_tokenizer_of_speech_is_never_quantised(self, folder):
        with pytest.raises(ValueError, match="DiTARVAE stays in full precision: leave it out"):
            DiTARVAE.from_pretrained(folder, quantization_config={"load_in_8bit": True})

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ("int8", "`quantization_config` is 'int8': pass a TorchAoConfig or a BitsAndBytesConfig"),
            (3, "`quantization_config` is 3: pass"),
            (GPTQConfig(bits=4), "`quantization_config` is GPTQConfig.*: pass a TorchAoConfig"),
            ({"quant_method": "quanto", "weights": "int8"}, "`quantization_config` is QuantoConfig.*: pass"),
            ({"quant_method": "nonsense"}, "Unknown quantization type, got nonsense"),
            ({}, "has no `quant_method`"),
        ],
    )
    def test_other_kinds_are_refused(self, load, config, message):
        with pytest.raises(ValueError, match=message):
            load(quantization_config=config)

    @pytest.mark.parametrize("name", ["load_in_8bit", "load_in_4bit"])
    def test_old_arguments_name_the_new_one(self, load, name):
        with pytest.raises(ValueError, match=rf"`{name}` is no argument.*BitsAndBytesConfig\({name}=True\)"):
            load(**{name: True})

    def test_a_missing_package_is_named(self, load, monkeypatch):
        monkeypatch.setattr("transformers.quantizers.quantizer_bnb_8bit.is_bitsandbytes_available", lambda: False)
        with pytest.raises(ImportError, match="requires bitsandbytes: `pip install"):
            load(quantization_config=BitsAndBytesConfig(load_in_8bit=True))


class TestPickles:
    def test_a_folder_with_a_pickle_is_refused(self, load, folder):
        torch.save(load().state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        for options in ({}, {"use_safetensors": None}, {"use_safetensors": True}):
            with pytest.raises(ValueError, match="no file named model.safetensors.*safetensors only: pickles can run"):
                load(**options)

    def test_a_pickle_cannot_be_asked_for(self, load):
        with pytest.raises(ValueError, match="`use_safetensors` must be True"):
            load(use_safetensors=False)
