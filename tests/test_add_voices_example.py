"""`examples/tiny/add_voices.py` as it says itself: recordings and flite give a model voices of a name."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ditar_hf import DiTARProcessor, DiTARTokenizer

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "tiny" / "add_voices.py"
RATE = 24_000


@pytest.fixture
def add_voices(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))  # as when Python is called with the file
    spec = importlib.util.spec_from_file_location("add_voices", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*words):
        monkeypatch.setattr("sys.argv", ["add_voices.py", *map(str, words)])
        module.main()

    return run


@pytest.fixture
def model(save_tiny, tmp_path):
    return save_tiny(tmp_path / "model", DiTARTokenizer.from_texts(["The birch canoe slid.", "Hello there!"]))


def test_recordings(add_voices, model, tmp_path, capsys):
    for name, pitch, rate in (("eve", 220, 16_000), ("bob", 110, RATE)):
        tone = 0.3 * np.sin(2 * np.pi * pitch * np.arange(round(0.75 * rate)) / rate)
        soundfile.write(tmp_path / f"{name}.flac", np.stack([tone, tone / 2], axis=1), rate)
    add_voices("--model", model, "--recording", f"eve={tmp_path / 'eve.flac'}", "Hello there!", "--default", "eve")
    add_voices("--model", model, "--recording", f"bob={tmp_path / 'bob.flac'}", "The birch canoe.")
    processor = DiTARProcessor.from_pretrained(model)
    assert processor.voices.keys() == {"bob", "eve"} and processor.default_voice == "eve"
    assert processor.voices["eve"].text == "Hello there!" and len(processor.voices["eve"].audio) == 7 * 2400
    assert "eve (default): 0.7 s, Hello there!\n" in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("flite") is None, reason="needs flite")
def test_flite(add_voices, model):
    add_voices("--model", model, "--flite", "ada=slt", "ben=rms", "--sentence", "Hello there! The birch canoe slid.")
    voices = DiTARProcessor.from_pretrained(model).voices
    assert voices.keys() == {"ada", "ben"} and 1 < len(voices["ada"].audio) / RATE < 5
    assert voices["ada"].text == "Hello there! The birch canoe slid."


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--flite", "ada=nobody"], SystemExit),
        (["--flite", "slt"], SystemExit),
        (["--recording", "ada", "Hello!"], ValueError),
        (["--default", "ada"], ValueError),
    ],
)
def test_bad_input_changes_nothing(add_voices, model, words, error):
    before = (model / "processor_config.json").read_bytes()
    with pytest.raises(error):
        add_voices("--model", model, *words)
    assert (model / "processor_config.json").read_bytes() == before and not (model / "voices").exists()


def test_it_is_short():
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 80
