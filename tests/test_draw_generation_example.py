"""The pictures of `generate`'s settings: each panel is what its settings give, and each setting of sound is drawn."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from ditar_hf import DiTARForTextToSpeech, DiTARProcessor, DiTARTokenizer
from ditar_hf.modeling.generation_config_ditar import DEFAULTS

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "docs" / "figures"
# a picture says nothing of how fast it was made
SETTINGS_OF_SPEED = {"compile_patch_step"}


def load_example():
    spec = importlib.util.spec_from_file_location("draw_generation", ROOT / "examples" / "draw_generation.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


example = load_example()


@pytest.fixture
def folder(save_tiny, tmp_path):
    return save_tiny(tmp_path / "model", DiTARTokenizer.from_texts({"en": ["The quick brown fox. Good morning!"]}))


def test_each_setting_of_the_sound_is_drawn():
    panels = [panel for rows in example.PICTURES.values() for row in rows for panel in row]
    assert {name for panel in panels for name in panel} >= DEFAULTS.keys() - SETTINGS_OF_SPEED


@pytest.mark.parametrize("name", example.PICTURES)
def test_a_picture_in_the_docs_is_small_and_has_a_page(name):
    path = FIGURES / f"generation_{name}.png"
    assert path.stat().st_size < 150_000
    page = (ROOT / "docs" / "generation.md").read_text(encoding="utf-8")
    assert f"(figures/{path.name})" in page and f"python examples/draw_generation.py {name} " in page


def test_what_is_named_is_drawn_and_said(folder, tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    example.main(["steps", "length", "--model", str(folder), "--text", "Good morning.", "--out", str(out)])
    assert sorted(path.name for path in out.iterdir()) == ["generation_length.png", "generation_steps.png"]
    assert imread(out / "generation_steps.png").std() > 0
    printed = capsys.readouterr().out
    for name in ("steps", "length"):
        assert printed.count(f"{name}: ") == sum(map(len, example.PICTURES[name]))
    assert "length: max_new_tokens 12 · " in printed and " s, cut off" in printed


def test_a_panel_is_spoken_with_its_settings(folder):
    model = DiTARForTextToSpeech.from_pretrained(folder).eval()
    processor = DiTARProcessor.from_pretrained(folder)

    def say(**panel):
        return example.speak(model, processor, "Good morning.", {"max_new_tokens": 3, "stop_threshold": 1.0, **panel})

    first, has_stopped = say(temperature=1.0, seed=0)
    assert first.shape == (3 * 2400,) and not has_stopped
    assert np.array_equal(first, say(temperature=1.0, seed=0)[0])
    assert not np.array_equal(first, say(temperature=1.0, seed=1)[0])
    assert not np.array_equal(first, say(temperature=1.0, algorithm_type="euler")[0])
    assert np.array_equal(say(temperature=0.0, seed=0)[0], say(temperature=0.0, seed=1)[0])


def test_a_tone_lies_at_its_frequency_and_time():
    rate, hertz = 24_000, 1000
    tone = np.sin(2 * np.pi * hertz * np.arange(rate) / rate)
    spectrum = example.mel_spectrogram(np.concatenate([np.zeros(rate), tone]), rate)
    assert spectrum.shape == (example.NUM_MELS, 1 + 2 * rate // example.HOP_SAMPLES)
    half = rate // example.HOP_SAMPLES
    assert spectrum[:, half + 5 :].sum() > 1e6 * spectrum[:, : half - 5].sum()
    # the scale of Slaney is linear up to 1 kHz and logarithmic above it
    mels = [15 * min(f, 1000) / 1000 + 27 * np.log(max(f, 1000) / 1000) / np.log(6.4) for f in (hertz, 8000)]
    loudest = spectrum[:, half + 5 :].mean(1).argmax()
    assert loudest + 1 == pytest.approx(mels[0] / mels[1] * (example.NUM_MELS + 1), abs=1)


def test_panels_share_their_scale(folder):
    spectrum = np.geomspace(1e-3, 1, 64 * 10).reshape(64, 10)
    figure = example.draw([[("a", spectrum), ("b", spectrum / 10)]], 0.1)
    first, second = (axes.images[0].get_array() for axes in figure.axes)
    assert first.max() == 0 and second.max() == pytest.approx(-10)


def test_silence_is_drawn():
    example.draw([[("silence", np.zeros((64, 3)))]], 0.1)


def test_an_unknown_picture_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        example.main(["volume", "--out", str(tmp_path / "out")])
    assert "'volume'; the pictures are temperature" in capsys.readouterr().err and not (tmp_path / "out").exists()
