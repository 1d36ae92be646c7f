"""Laws of adapters at inference: a folder of `add_lora` speaks through every door, whatever the model is loaded as."""

import re
import shutil

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForTextToWaveform, BitsAndBytesConfig, pipeline

from ditar_hf import (
    DiTARFeatureExtractor,
    DiTARForTextToSpeech,
    DiTARProcessor,
    DiTARTextToSpeechPipeline,
    DiTARTokenizer,
)
from ditar_hf.training.lora import add_lora

TEXT = "abdeɡ hijk."
FIXED = {"temperature": 0, "num_inference_steps": 2, "max_new_tokens": 3, "min_new_tokens": 3}


@pytest.fixture
def processor():
    return DiTARProcessor(DiTARFeatureExtractor(), DiTARTokenizer.from_phonemes(list("abdefɡhijk")))


@pytest.fixture
def folders(make_model, processor, tmp_path):
    """A model with its processor, and an adapter of it that changes how it sounds."""
    model, adapter = tmp_path / "model", tmp_path / "adapter"
    make_model(lm_config={"vocab_size": len(processor.tokenizer)}).save_pretrained(model)
    processor.save_pretrained(model)
    adapted = add_lora(DiTARForTextToSpeech.from_pretrained(model), r=4)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    adapted.save_pretrained(adapter)
    return model, adapter


@pytest.fixture
def speak(processor):
    """Speech of a model, or of the pipeline of a folder."""

    def run(model, **options) -> torch.Tensor:
        if isinstance(model, torch.nn.Module):
            return model.generate(**processor(TEXT, phonemize=False), **FIXED).audio[0]
        speaker = pipeline("text-to-speech", model=str(model), **options)
        output = speaker(TEXT, preprocess_params={"phonemize": False}, generate_kwargs=FIXED)
        return torch.from_numpy(output["audio"])

    return run


@pytest.fixture
def expected(folders, speak):
    """What the adapter sounds like by PEFT's own loader; not what the model does without it."""
    plain = speak(DiTARForTextToSpeech.from_pretrained(folders[0]))
    speech = speak(PeftModel.from_pretrained(DiTARForTextToSpeech.from_pretrained(folders[0]), folders[1]))
    assert (speech - plain).std() > 0.3 * speech.std()
    return speech


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({}, 0),
        ({"pipeline_class": DiTARTextToSpeechPipeline}, 0),
        ({"device_map": "auto"}, 0),
        ({"device_map": {"": "cpu"}}, 0),
        ({"model_kwargs": {"attn_implementation": "eager"}}, 1e-3),
        ({"dtype": "bfloat16"}, 0.2),
        ({"dtype": torch.float16}, 0.2),
    ],
    ids=["plain", "own pipeline", "auto", "cpu", "eager", "bfloat16", "float16"],
)
def test_a_pipeline_speaks_with_it(folders, speak, expected, options, tolerance):
    assert (speak(folders[1], **options) - expected).std() <= tolerance * expected.std()


@pytest.mark.parametrize("load", [DiTARForTextToSpeech.from_pretrained, AutoModelForTextToWaveform.from_pretrained])
def test_from_pretrained_takes_its_folder(folders, speak, expected, load):
    model = load(folders[1])
    assert type(model) is DiTARForTextToSpeech
    assert torch.equal(speak(model), expected)


@pytest.mark.parametrize("package", ["torchao", "bitsandbytes"])
def test_it_goes_on_a_quantised_model_and_stays_exact(folders, speak, expected, package):
    pytest.importorskip(package, reason=f'{package} is not installed: pip install -e ".[quantization]"')
    quantization = BitsAndBytesConfig(load_in_8bit=True)
    if package == "torchao":
        from torchao.quantization import Int8WeightOnlyConfig
        from transformers import TorchAoConfig

        quantization = TorchAoConfig(Int8WeightOnlyConfig())
    model, adapter = folders
    base = DiTARForTextToSpeech.from_pretrained(model, quantization_config=quantization)
    speech = speak(PeftModel.from_pretrained(base, adapter))
    assert 0 < (speech - expected).std() < 0.3 * expected.std()
    assert torch.equal(speak(adapter, model_kwargs={"quantization_config": quantization}), speech)


def test_it_cannot_be_offloaded(folders, tmp_path):
    device_map = {"model": "cpu", "locdit": "disk", "stop_head": "cpu", "vae": "cpu"}
    for load in (DiTARForTextToSpeech.from_pretrained, AutoModelForTextToWaveform.from_pretrained):
        with pytest.raises(ValueError, match="`device_map` offloads a model with an adapter"):
            load(folders[1], device_map=device_map, offload_folder=tmp_path / "disk")


def test_a_model_that_is_gone_is_named(folders):
    shutil.rmtree(folders[0])
    with pytest.raises(ValueError, match=f"{re.escape(str(folders[1]))}.*{re.escape(str(folders[0]))}"):
        DiTARForTextToSpeech.from_pretrained(folders[1])
    with pytest.raises(OSError, match=re.escape(str(folders[0]))):
        pipeline("text-to-speech", model=str(folders[1]))
