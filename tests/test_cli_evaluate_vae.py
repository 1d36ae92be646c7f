"""`ditar evaluate-vae` on a tiny tokenizer: what it reads, what it writes, and how it refuses."""

import json
import re
import sys

import numpy as np
import pytest
import soundfile
from datasets import Dataset
from transformers import BertConfig
from typer.testing import CliRunner

from ditar_hf import cli
from ditar_hf.evaluation import recognizers
from ditar_hf.evaluation.vae_metrics import METRICS

RATE = 24000


def speech(pitch: float, rate: int = RATE, seconds: float = 0.4) -> np.ndarray:
    time = np.arange(int(rate * seconds)) / rate
    tones = sum(np.sin(2 * np.pi * k * pitch * time) / k for k in range(1, 6))
    return (0.2 * tones * (1 + np.sin(40 * time)) / 2).astype(np.float32)


@pytest.fixture
def data(tmp_path):
    """Three recordings with texts, the second of 16 kHz, the third damaged."""
    folder = tmp_path / "data"
    folder.mkdir()
    soundfile.write(folder / "a.wav", speech(120), RATE)
    soundfile.write(folder / "b.flac", speech(200, 16000), 16000)
    (folder / "c.wav").write_bytes(b"RIFF, but no more")
    (folder / "metadata.csv").write_text("file_name,text\na.wav,One two.\nb.flac,Three.\nc.wav,Four.\n")
    return folder


@pytest.fixture
def vae(make_model, tmp_path):
    make_model().vae.save_pretrained(tmp_path / "vae")
    return tmp_path / "vae"


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs `ditar evaluate-vae … --out tmp_path/out`, without the packages that take long."""
    for name in ("librosa", "speechmos", "speechmos.dnsmos"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments):
        arguments = ["evaluate-vae", *arguments, "--out", tmp_path / "out", "--device", "cpu"]
        return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])

    return invoke


@pytest.fixture
def report(tmp_path):
    return lambda: json.loads((tmp_path / "out" / "report.json").read_text())


def assert_refused(result, message, tmp_path):
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ") and re.search(message, result.stderr), result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*partial*"))


def test_a_report_of_a_folder(run, vae, data, tmp_path, report):
    result = run(vae, data, "--save-audio", "--pictures", 1)
    assert result.exit_code == 0, result.output
    assert "| mel_distance | nats | lower |" in result.stdout and "report.md" in result.stdout
    assert "- f0_rmse: librosa is not installed: pip install" in result.stdout
    assert "1 clips could not be used" in result.stderr
    written = report()
    assert written["metrics"].keys() == METRICS.keys()
    assert [(clip["id"], clip["bandwidth"]) for clip in written["clips"]] == [("a.wav", None), ("b.flac", 8000)]
    assert [clip["id"] for clip in written["unusable"]] == ["c.wav"]
    assert written["metrics"]["si_sdr"]["clips"] == 2 and written["metrics"]["kl_rate"]["mean"] > 0
    assert "no recogniser was named" in written["metrics"]["word_error_between"]["not_measured"]
    assert written["model"]["sha256"].keys() == {"config.json", "model.safetensors"}
    assert len(list((tmp_path / "out" / "pictures").iterdir())) == 1
    assert len(list((tmp_path / "out" / "audio").iterdir())) == 4
    assert (tmp_path / "out" / "report.md").read_text().count("\n| ") >= 8


def test_a_whole_model_has_a_tokenizer(run, vae, data, make_model, tmp_path, report):
    make_model().save_pretrained(tmp_path / "model")
    assert run(vae, data, "--pictures", 0).exit_code == 0
    alone = report()["clips"][0]["values"]
    (tmp_path / "out").rename(tmp_path / "first")
    result = run(tmp_path / "model", data, "--pictures", 0)
    assert result.exit_code == 0, result.output
    whole = report()["clips"][0]["values"]
    assert whole["si_sdr"] == alone["si_sdr"] and whole["kl_rate"] == alone["kl_rate"]


def test_word_errors_with_a_recogniser(run, vae, data, report, monkeypatch):
    monkeypatch.setattr(recognizers, "load_recognizer", lambda name, device: lambda waveform, rate: f"{name} two")
    assert run(vae, data, "--asr", "one", "--pictures", 0).exit_code == 0
    metrics = report()["metrics"]
    # of "one two" and "three", "one two" was heard both times
    assert metrics["word_error_original"]["mean"] == pytest.approx(2 / 3)
    assert metrics["word_error_between"]["mean"] == 0


def test_without_the_recogniser_s_package_the_rest_is_measured(run, vae, data, report, monkeypatch):
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    result = run(vae, data, "--asr", "pocketsphinx", "--pictures", 0)
    assert result.exit_code == 0, result.output
    reason = "cannot be had: pocketsphinx is not installed: pip install pocketsphinx"
    assert "- word_error_between: the recogniser pocketsphinx" in result.stdout and reason in result.stdout
    assert report()["metrics"]["si_sdr"]["clips"] == 2


def test_without_matplotlib_there_are_no_pictures(run, vae, data, tmp_path, monkeypatch):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    result = run(vae, data)
    assert result.exit_code == 0, result.output
    assert 'no pictures: matplotlib is not installed: pip install -e ".[plot]"' in result.stderr
    assert not (tmp_path / "out" / "pictures").exists()


def test_long_recordings_are_cut_and_lose_their_text(run, vae, data, report):
    result = run(vae, data, "--max-seconds", 0.2, "--pictures", 0)
    assert result.exit_code == 0, result.output
    written = report()
    assert [clip["seconds"] for clip in written["clips"]] == [pytest.approx(0.2)] * 2
    assert "beginning" in written["clips"][0]["not_measured"]["word_error_original"]


def test_few_clips_are_spread_over_a_folder(run, vae, tmp_path, report):
    (tmp_path / "many").mkdir()
    for index in range(6):
        soundfile.write(tmp_path / "many" / f"{index}.wav", speech(100 + 20 * index, seconds=0.2), RATE)
    soundfile.write(tmp_path / "many" / "short.wav", speech(100, seconds=0.05), RATE)
    assert run(vae, tmp_path / "many", "--max-clips", 3, "--pictures", 0).exit_code == 0
    assert [clip["id"] for clip in report()["clips"]] == ["0.wav", "2.wav", "4.wav"]
    (tmp_path / "out").rename(tmp_path / "first")
    assert run(vae, tmp_path / "many", "--max-clips", 100, "--pictures", 0).exit_code == 0
    written = report()
    assert len(written["clips"]) == 6 and "less than 0.1 s" in written["unusable"][0]["reason"]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_data_set_with_names_of_its_own(run, vae, tmp_path, report, streaming):
    folder = tmp_path / "parquet"
    folder.mkdir()
    soundfile.write(tmp_path / "a.wav", speech(120), RATE)
    clips = [{"bytes": (tmp_path / "a.wav").read_bytes(), "path": "a.wav"}] * 2
    rows = Dataset.from_dict({"id": ["x", "y"], "clip": clips, "sentence": ["One.", "Two."]})
    rows.to_parquet(folder / "test-00000-of-00001.parquet")
    options = ["--split", "test", "--audio-column", "clip", "--text-column", "sentence", "--name", "default"]
    result = run(vae, folder, "--pictures", 0, *options, *(["--streaming"] if streaming else []))
    assert result.exit_code == 0, result.output
    written = report()
    assert [clip["id"] for clip in written["clips"]] == ["x", "y"]
    # there are texts: only the recogniser is missing
    assert "no recogniser was named" in written["clips"][0]["not_measured"]["word_error_original"]
    assert written["options"]["text_column"] == "sentence" and written["options"]["streaming"] is streaming


class TestRefusals:
    def test_an_empty_data_set(self, run, vae, tmp_path):
        (tmp_path / "empty").mkdir()
        assert_refused(run(vae, tmp_path / "empty"), "there is no speech in", tmp_path)

    def test_no_data(self, run, vae, tmp_path):
        assert_refused(run(vae, tmp_path / "missing"), "there is no folder", tmp_path)

    def test_only_damaged_clips(self, run, vae, data, tmp_path):
        for name in ("a.wav", "b.flac"):
            (data / name).write_bytes(b"torn")
        assert_refused(run(vae, data), r"none can be used of 3 \(a.wav: .* cannot be decoded", tmp_path)

    def test_another_model(self, run, data, tmp_path):
        BertConfig().save_pretrained(tmp_path / "bert")
        assert_refused(run(tmp_path / "bert", data), "bert", tmp_path)

    def test_no_model(self, run, data, tmp_path):
        assert_refused(run(tmp_path / "missing", data), "missing", tmp_path)

    def test_damaged_weights(self, run, vae, data, tmp_path):
        weights = (vae / "model.safetensors").read_bytes()
        (vae / "model.safetensors").write_bytes(weights[:-100])
        assert_refused(run(vae, data), "cut off or damaged", tmp_path)

    def test_no_recogniser(self, run, vae, data, tmp_path):
        assert_refused(run(vae, data, "--asr", "nobody/nothing"), "nobody/nothing", tmp_path)

    def test_an_unknown_format(self, run, vae, data, tmp_path):
        assert_refused(run(vae, data, "--format", "vinyl"), "`format` is 'vinyl'", tmp_path)

    def test_a_folder_in_use(self, run, vae, data, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "file").write_text("old")
        result = run(vae, data)
        assert result.exit_code == 2 and "there is something at" in result.stderr
        assert (tmp_path / "out" / "file").read_text() == "old"
