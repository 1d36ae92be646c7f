"""The studies of inference run, and what they write is what they measured."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from ditar_hf import DiTARTokenizer
from ditar_hf.evaluation.word_error import split_words

STUDIES = Path(__file__).resolve().parents[1] / "examples" / "studies"


def load(name):
    spec = importlib.util.spec_from_file_location(f"study_{name}", STUDIES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def model(save_tiny, tmp_path):
    return save_tiny(
        tmp_path / "model", DiTARTokenizer.from_texts({"en": ["The quick brown fox jumps. Good morning!"]})
    )


def read(folder, name):
    assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("study", ["guidance", "temperature", "solver"])
def test_word_error_is_measured_for_each_value_and_number_of_steps(model, tmp_path, study):
    (tmp_path / "sentences.txt").write_text("The quick fox.\nGood morning.\n")
    example, out = load("word_error"), tmp_path / "out"
    example.main(
        [study, f"--model={model}", f"--sentences={tmp_path}/sentences.txt", "--steps", "1", "2", f"--out={out}"]
    )
    setting, values = example.SETTINGS[study]
    results = read(out, "word_error")["results"]
    assert [(result[setting], result["steps"]) for result in results] == [(v, n) for v in values for n in (1, 2)]
    assert all(result["interval"][0] <= result["word_error"] <= result["interval"][1] for result in results)


def test_a_sentence_sounds_the_same_whatever_else_is_measured(model, tmp_path):
    (tmp_path / "sentences.txt").write_text("The quick fox.\nGood morning.\n")
    arguments = ["temperature", f"--model={model}", f"--sentences={tmp_path}/sentences.txt", "--save-audio", "--steps"]
    load("word_error").main([*arguments, "2", "--values", "1.0", f"--out={tmp_path}/one"])
    load("word_error").main([*arguments, "1", "2", f"--out={tmp_path}/all"])
    for row in ("000.wav", "001.wav"):
        one, other = (tmp_path / run / "1.0-2" / row for run in ("one", "all"))
        assert one.read_bytes() == other.read_bytes()


def test_diversity_is_none_without_noise(model, tmp_path, monkeypatch):
    def embed(waveform, sampling_rate):
        spectrum = np.abs(np.fft.rfft(waveform, 256))[:32]
        return spectrum / np.linalg.norm(spectrum)

    example, out = load("diversity"), tmp_path / "out"
    monkeypatch.setattr(example, "load_speaker_encoder", lambda name: embed)
    arguments = ["--temperatures", "0", "1", "--samples", "6", "--batch-size", "4", "--text", "Good morning."]
    example.main([f"--model={model}", *arguments, f"--out={out}"])
    none, full = read(out, "diversity")["results"]
    assert none["distance"] == pytest.approx(0, abs=1e-5) and full["distance"] > 1e-4
    assert len(none["points"]) == len(full["points"]) == 6


def test_diversity_without_its_encoder_says_what_is_missing(model, tmp_path, capsys):
    example = load("diversity")
    arguments = [f"--model={model}", "--encoder", "wavlm-base-plus-sv", f"--out={tmp_path / 'out'}"]
    with pytest.raises(SystemExit):
        example.main(arguments)
    assert "cannot be had" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_each_window_of_patches_has_a_time(model, tmp_path):
    out = tmp_path / "out"
    load("length").main([f"--model={model}", "--patches", "9", "--window", "4", "--repeats", "1", f"--out={out}"])
    report = read(out, "length")
    assert report["patches"] == [1, 5]
    assert all(len(times) == 2 and min(times) > 0 for times in report["milliseconds"].values())


def test_the_sentences_can_be_compared():
    lines = (STUDIES / "sentences.txt").read_text(encoding="utf-8").splitlines()
    assert len(set(lines)) == len(lines) >= 20 and all(split_words(line) for line in lines)
