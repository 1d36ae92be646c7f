"""The model in the repository: the sizes of its preset, within its budget, with voices of a name, and it speaks."""

import re
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from ditar_hf import DiTARConfig, DiTARForTextToSpeech, DiTARProcessor, DiTARVAE

CARDS = Path(__file__).resolve().parents[1] / "hub_cards"
FOLDER = CARDS / "ditar-tiny-en"


@pytest.fixture(scope="module")
def model():
    return DiTARForTextToSpeech.from_pretrained(FOLDER).eval()


@pytest.fixture(scope="module")
def processor():
    return DiTARProcessor.from_pretrained(FOLDER)


def test_it_has_the_sizes_of_the_preset(model):
    preset = DiTARConfig.from_preset("tiny", lm_config={"vocab_size": model.config.lm_config.vocab_size}).to_dict()
    shipped = model.config.to_dict()
    for part in ("lm_config", "encoder_config", "locdit_config", "vae_config"):
        sizes = [name for name in preset[part] if "hidden" in name or "num_" in name or "size" in name]
        assert {name: shipped[part][name] for name in sizes} == {name: preset[part][name] for name in sizes}


def test_its_tokenizer_of_speech_is_the_one_beside_it(model):
    tokenizer = DiTARVAE.from_pretrained(CARDS / "ditar-vae-tiny")
    assert all(torch.equal(model.vae.state_dict()[name], value) for name, value in tokenizer.state_dict().items())


def test_it_is_small_and_in_half_precision():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 32e6


def test_each_of_its_voices_speaks_and_stops(model, processor):
    assert len(processor.voices) >= 3 and processor.default_voice in processor.voices
    names = [*sorted(processor.voices), "random"]
    inputs = processor(["Good morning."] * len(names), voice=names)
    generators = [torch.Generator().manual_seed(0) for _ in names]
    output = model.generate(**inputs, generator=generators)
    for audio, reached_limit in zip(output.audio, output.reached_limit, strict=True):
        assert 0.3 < len(audio) / 24_000 < 4 and audio.abs().max() > 0.05 and not reached_limit


@pytest.mark.parametrize("name", ["ditar-tiny-en", "ditar-vae-tiny", "space"])
def test_links_of_a_card_hold_where_it_lies_alone(name):
    links = re.findall(r"\]\(([^)]+)\)", (CARDS / name / "README.md").read_text(encoding="utf-8"))
    beside = [link for link in links if not link.startswith(("https://", "#"))]
    assert all((CARDS / name / link).resolve().is_relative_to(CARDS / name) for link in beside)
    assert all((CARDS / name / link).exists() for link in beside)


@pytest.mark.parametrize("name", ["ditar-tiny-en", "ditar-vae-tiny"])
def test_a_card_says_what_was_measured(name):
    results = ModelCard.load(CARDS / name / "README.md").data.eval_results
    assert results and all(result.metric_args["num_items"] and result.dataset_name for result in results)
