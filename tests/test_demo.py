"""The page of the demo without a browser: what it offers, what it tells, and the Space around it."""

import re
import runpy
import shutil
import socket
import sys
import tomllib
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import torch
from huggingface_hub import SpaceCard
from typer.testing import CliRunner

from ditar_hf import DiTARForTextToSpeech, DiTARProcessor, DiTARTokenizer, cli
from ditar_hf.demo import build_demo

ROOT = Path(__file__).resolve().parents[1]
SPACE = ROOT / "hub_cards" / "space"
TEXT = "Good morning."


@pytest.fixture
def parts(save_tiny, tmp_path):
    """Builds a model and its processor, of one language or more, with or without voices of a name."""

    def make(languages=("en",), voices=("ada", "bob"), default_voice="bob"):
        tokenizer = DiTARTokenizer.from_texts({language: [TEXT] for language in languages})
        path = save_tiny(tmp_path / "model", tokenizer)
        processor = DiTARProcessor.from_pretrained(path)
        for name in voices:
            processor.add_voice(name, np.random.default_rng(0).normal(0, 0.1, 24_000), 24_000, TEXT)
        processor.default_voice = default_voice
        processor.save_pretrained(path)
        return DiTARForTextToSpeech.from_pretrained(path), processor

    return make


def component(demo, label):
    """The one whose label begins so."""
    return next(block for block in demo.blocks.values() if str(getattr(block, "label", "")).startswith(label))


def pressed(demo):
    """What the button calls."""
    return next(function.fn for function in demo.fns.values() if function.api_name == "speak")


def test_it_offers_what_the_model_has(parts):
    model, processor = parts()
    model.generation_config.update(temperature=0.3, guidance_scale=7.0, num_inference_steps=80)
    demo = build_demo(model, processor, "tiny")
    voice = component(demo, "Voice")
    assert [value for _, value in voice.choices] == ["ada", "bob", "random", "a recording"] and voice.value == "bob"
    assert component(demo, f"bob: “{TEXT}”").visible
    assert component(demo, "Temperature").value == 0.3
    assert component(demo, "Guidance").value == component(demo, "Guidance").maximum == 7.0
    assert component(demo, "Steps").value == component(demo, "Steps").maximum == 80
    assert not component(demo, "Language").visible
    recording = component(demo, "Recording")
    assert set(recording.sources) == {"upload", "microphone"} and not recording.parent.visible
    assert component(demo, "The person in the recording agrees").value is False


def test_it_offers_no_voices_where_there_are_none(parts):
    demo = build_demo(*parts(voices=(), default_voice=None), "tiny")
    voice = component(demo, "Voice")
    assert [value for _, value in voice.choices] == ["random", "a recording"] and voice.value == "random"


def test_languages_can_be_chosen(parts):
    language = component(build_demo(*parts(languages=("en", "de")), "tiny"), "Language")
    assert language.visible and [value for _, value in language.choices] == ["en-us", "de"]
    assert language.value == "en-us"


def test_it_tells_nobody(parts):
    assert build_demo(*parts(), "tiny").analytics_enabled is False


def test_the_button_gives_sound_a_line_and_a_picture(parts):
    model, processor = parts()
    demo = build_demo(model, processor, "tiny")
    arguments = (TEXT, "ada", None, "", False, 1.0, 2.0, 2, " 7 ", "en-us")
    (rate, samples), line, picture = pressed(demo)(*arguments)
    generator = torch.Generator().manual_seed(7)
    settings = {"temperature": 1.0, "guidance_scale": 2.0, "num_inference_steps": 2}
    output = model.generate(**processor(TEXT, voice="ada"), generator=generator, **settings)
    assert rate == 24_000 and samples.dtype == np.int16
    np.testing.assert_allclose(samples / 2**15, output.audio[0].numpy(), atol=1 / 2**15)
    assert "seed 7" in line
    assert picture.dtype == np.uint8 and picture.shape[2] == 3 and np.unique(picture.reshape(-1, 3), axis=0).size > 100


@pytest.mark.parametrize("seed", ["x", "-1", "1.5", "²", "9" * 30, "9" * 5000])
def test_a_seed_that_is_none_is_refused(parts, seed):
    with pytest.raises(gr.Error, match="seed|integer"):
        pressed(build_demo(*parts(), "tiny"))(TEXT, "ada", None, "", False, 1.0, 2.0, 2, seed, None)


def test_what_is_quoted_in_an_error_is_no_html(parts):
    page = pressed(build_demo(*parts(), "tiny"))
    with pytest.raises(gr.Error) as caught:
        page("<?>", "ada", None, "", False, 1.0, 2.0, 2, "", None)
    message = caught.value.message
    # and it stays until it is closed
    assert "&lt;?&gt;" in message and "<" not in message and caught.value.duration is None


class TestCommand:
    @pytest.fixture
    def run(self, monkeypatch):
        monkeypatch.setenv("COLUMNS", "200")
        return lambda *arguments: CliRunner().invoke(cli.app, ["demo", *map(str, arguments)])

    def test_without_gradio_it_says_what_to_install(self, run, monkeypatch):
        monkeypatch.delitem(sys.modules, "ditar_hf.demo")
        monkeypatch.setitem(sys.modules, "gradio", None)
        result = run()
        assert result.exit_code == 2 and 'the demo needs gradio: pip install -e ".[demo]"' in result.stderr

    def test_a_model_that_is_none(self, run, tmp_path):
        result = run("--model", tmp_path)
        assert result.exit_code == 2 and f"cannot load the model `{tmp_path}`" in result.stderr

    def test_a_port_that_is_taken(self, run, parts, tmp_path):
        parts()
        with socket.create_server(("127.0.0.1", 0)) as server:
            result = run("--model", tmp_path / "model", "--port", server.getsockname()[1], "--device", "cpu")
        assert result.exit_code == 2 and "port" in result.stderr

    @pytest.mark.parametrize("port", [0, 65536, "x"])
    def test_a_port_that_cannot_be_one(self, run, port):
        assert run("--port", port).exit_code == 2


class TestSpace:
    def test_its_page_is_the_demo_of_the_model_it_is_told(self, parts, tmp_path, monkeypatch):
        parts()
        monkeypatch.setenv("DITAR_MODEL", str(tmp_path / "model"))
        demo = runpy.run_path(str(SPACE / "app.py"))["demo"]
        assert isinstance(demo, gr.Blocks) and component(demo, "Voice").value == "bob"

    def test_without_a_model_it_says_which_variable_to_set(self, tmp_path, monkeypatch):
        monkeypatch.delenv("DITAR_MODEL", raising=False)
        shutil.copy(SPACE / "app.py", tmp_path)
        with pytest.raises(ValueError, match="set the variable DITAR_MODEL"):
            runpy.run_path(str(tmp_path / "app.py"))

    def test_it_installs_what_the_package_needs_at_the_versions_of_the_constraints(self):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        needed = [*project["dependencies"], *project["optional-dependencies"]["demo"]]
        names = {re.match(r"[\w.-]+", requirement)[0] for requirement in needed}
        pins = (SPACE / "requirements.txt").read_text(encoding="utf-8").splitlines()[1:]
        assert {pin.partition("==")[0] for pin in pins} == names
        assert set(pins) <= set((ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())

    def test_its_card_says_how_to_run_it(self):
        card = SpaceCard.load(SPACE / "README.md")
        values = card.data.to_dict()
        assert values["sdk"] == "gradio" and values["license"] == "apache-2.0"
        assert (SPACE / values["app_file"]).is_file()
        assert (
            f"gradio=={values['sdk_version']}" in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        )
        assert len(values["short_description"]) <= 60 and "consent" in card.text
