"""`ditar evaluate` from a list to a report, on one process and on two, and after an interruption."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from ditar_hf import DiTARForTextToSpeech, DiTARTokenizer
from ditar_hf.cli import app
from ditar_hf.evaluation.speech_measures import Measure
from ditar_hf.evaluation.summary import NotMeasuredError

runner = CliRunner()
RATE = 16000


@pytest.fixture
def test_set(save_tiny, tmp_path):
    """A tiny model, and a list of three items of which two have prompts."""
    save_tiny(tmp_path / "model", DiTARTokenizer.from_texts({"en": ["The quick brown fox jumps. Good morning!"]}))
    noise = np.random.default_rng(0)
    for name in ("prompt", "target"):
        soundfile.write(tmp_path / f"{name}.wav", noise.normal(0, 0.1, RATE), RATE)
    rows = ["id,text,prompt_audio,prompt_text,target_audio", "a,Good morning.,prompt.wav,The fox.,target.wav"]
    rows += ["b,The quick fox.,,,", "c,The fox jumps.,prompt.wav,The fox.,"]
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def arguments(folder, out, *more):
    options = {"--model": folder / "model", "--set": "folder", "--list": folder / "list.csv", "--out": folder / out}
    return ["evaluate", *(str(part) for option in options.items() for part in option), "--device", "cpu", *more]


def contents(folder):
    """Speech, and what was measured of it."""
    report = json.loads((folder / "report.json").read_text())
    sound = {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.wav"))}
    scores = sorted(report["scores"], key=lambda score: json.dumps({**score, "value": None}, sort_keys=True))
    return sound, scores, report["rows"], report["run_aways"]


def rounded(values):
    """Numbers to three digits behind the point, in whatever they stand."""
    if isinstance(values, dict):
        return {key: rounded(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [rounded(value) for value in values]
    return round(values, 3) if isinstance(values, float) else values


def test_a_set_is_spoken_and_measured(test_set):
    result = runner.invoke(app, arguments(test_set, "out"))
    assert result.exit_code == 0, result.output
    report = json.loads((test_set / "out" / "report.json").read_text())
    assert list(report["rows"]) == ["model", "resynthesis", "recording"]
    assert report["model"]["sha256"].keys() == {"config.json", "model.safetensors"}
    word_error = next(cell for name, cell in report["rows"]["model"].items() if "offline-en (pocketsphinx" in name)
    assert word_error["clips"] == 3 and word_error["mean"] >= 0
    assert len(list((test_set / "out" / "model").glob("*.wav"))) == 3
    assert "| model |" in result.stdout and (test_set / "out" / "index.html").is_file()


def test_an_interrupted_evaluation_goes_on(test_set):
    for out in ("whole", "cut"):
        assert runner.invoke(app, arguments(test_set, out)).exit_code == 0
    # as a kill leaves it: some speech, a file half-written, no report
    (test_set / "cut" / "model" / "b.wav").unlink()
    (test_set / "cut" / "model" / ".partial-b.wav").write_bytes(b"RIFF")
    shutil.rmtree(test_set / "cut" / "resynthesis")
    (test_set / "cut" / "report.json").unlink()
    (test_set / "cut" / "scores.jsonl").write_text((test_set / "cut" / "scores.jsonl").read_text()[:-20])
    assert runner.invoke(app, arguments(test_set, "cut")).exit_code == 0
    assert contents(test_set / "whole") == contents(test_set / "cut")


def test_two_processes_equal_one(test_set):
    assert runner.invoke(app, arguments(test_set, "one")).exit_code == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    # without a GPU also where no device is named
    named = arguments(test_set, "two")
    place = named.index("--device")
    unnamed = [*named[:place], *named[place + 2 :]] if not torch.cuda.is_available() else named
    done = subprocess.run([*command, "-m", "ditar_hf.cli", *unnamed], capture_output=True, text=True, cwd=test_set)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("index.html to listen to") == 1
    (sound, *numbers), (other_sound, *other_numbers) = contents(test_set / "one"), contents(test_set / "two")
    # on some machines the last bits of a product are others in another process
    assert sound.keys() == other_sound.keys()
    for name in sound:
        samples = np.frombuffer(sound[name][44:], np.int16).astype(int)
        assert np.abs(samples - np.frombuffer(other_sound[name][44:], np.int16)).max() <= 1
    assert rounded(numbers) == rounded(other_numbers)


@pytest.mark.parametrize(
    "more, message",
    [
        (["--set", "seed"], "is no test set"),
        (["--protocol", "wer"], "`--protocol` 'wer' is not known"),
        (["--encoder", "ears"], "`--encoder` 'ears' is not known"),
        (["--temperature", "2"], "temperature"),
        (["--list", "nowhere.csv"], "`--list`: there is no list"),
        (["--set", "seed-fr"], "`--set` 'seed-fr' is no test set"),
        (["--model", "./nowhere"], "there is no folder './nowhere'"),
        (["--model", "nowhere"], "there is no folder `nowhere`, and no model of that name could be had from the Hub"),
    ],
)
def test_bad_input_is_one_line(test_set, more, message):
    result = runner.invoke(app, arguments(test_set, "out", *more))
    assert result.exit_code == 2, result.output
    assert message in result.stderr.splitlines()[-1]
    assert not list((test_set / "out").rglob("*.wav"))


def test_an_interruption_says_how_to_go_on(test_set, monkeypatch):
    generate, calls = DiTARForTextToSpeech.generate, []

    def interrupted(self, *args, **kwargs):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return generate(self, *args, **kwargs)

    monkeypatch.setattr(DiTARForTextToSpeech, "generate", interrupted)
    result = runner.invoke(app, arguments(test_set, "cut"))
    assert result.exit_code == 130
    assert "interrupted: 2 of 3 are spoken, and the same command goes on" in result.stderr


def test_where_nothing_can_be_measured_it_fails_and_keeps_the_speech(test_set, monkeypatch):
    def not_had(*args):
        raise NotMeasuredError("it is not installed")

    measures = [Measure("quality", "", "higher", not_had)]
    monkeypatch.setattr("ditar_hf.evaluation.speech_measures.load_measures", lambda *args: measures)
    result = runner.invoke(app, arguments(test_set, "out"))
    assert result.exit_code == 2 and "nothing was measured" in result.stderr
    assert len(list((test_set / "out" / "model").glob("*.wav"))) == 3


def test_other_weights_and_other_recordings_are_another_evaluation(test_set):
    assert runner.invoke(app, arguments(test_set, "out")).exit_code == 0
    weights = load_file(test_set / "model" / "model.safetensors")
    before = (test_set / "model" / "model.safetensors").read_bytes()
    save_file(
        {name: value / 2 for name, value in weights.items()},
        test_set / "model" / "model.safetensors",
        {"format": "pt"},
    )
    result = runner.invoke(app, arguments(test_set, "out"))
    assert result.exit_code == 2 and "another `sha256`" in result.stderr
    (test_set / "model" / "model.safetensors").write_bytes(before)
    soundfile.write(test_set / "prompt.wav", np.random.default_rng(9).normal(0, 0.1, RATE), RATE)
    result = runner.invoke(app, arguments(test_set, "out"))
    assert result.exit_code == 2 and "another `items`" in result.stderr


def test_settings_that_were_refused_do_not_stay(test_set):
    assert runner.invoke(app, arguments(test_set, "out", "--steps", "0")).exit_code == 2
    assert runner.invoke(app, arguments(test_set, "out", "--steps", "1")).exit_code == 0


def test_settings_of_another_evaluation_are_refused(test_set):
    assert runner.invoke(app, arguments(test_set, "out")).exit_code == 0
    result = runner.invoke(app, arguments(test_set, "out", "--steps", "1"))
    assert result.exit_code == 2 and "another `generation`" in result.stderr
