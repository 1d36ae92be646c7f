"""The report: whole or not there, readable, and honest about what was not measured."""

import json
import sys
from dataclasses import replace

import numpy as np
import soundfile
import torch

from ditar_hf import DiTARVAE
from ditar_hf.evaluation.vae_evaluation import ClipResult, VAEEvaluation
from ditar_hf.evaluation.vae_metrics import METRICS, Clip, Comparison, UnusableClip
from ditar_hf.evaluation.vae_report import (
    ComparisonWriter,
    describe_vae,
    environment,
    markdown_table,
    write_report,
)

RATE = 24000
TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(4800) / RATE)).astype(np.float32)
COMPARISON = Comparison(
    clip=Clip("folder/a $b$.wav", TONE),
    reconstruction=TONE / 2,
    original_band=TONE,
    reconstruction_band=TONE / 2,
    sampling_rate=RATE,
    mel_distance=0.5,
    stft_distance=1.5,
    kl_bits_per_second=1000.0,
    decode_real_time_factor=0.25,
)


def result(identifier: str, bandwidth: float | None = None, **values: float) -> ClipResult:
    missing = dict.fromkeys(METRICS.keys() - values.keys(), "librosa is not installed")
    return ClipResult(identifier, 1.5, bandwidth, values, dict.fromkeys(values, 1.0), missing)


EVALUATION = VAEEvaluation(
    [result("a", si_sdr=10.0, mel_distance=0.5), result("b", 8000.0, si_sdr=20.0)], [UnusableClip("c", "it is torn")]
)
SETTINGS = {
    "command": "ditar evaluate-vae",
    "model": {"name": "vae", "sampling_rate": RATE},
    "environment": environment(torch.device("cpu")),
    "data": "speech",
}


class TestTables:
    def test_what_was_measured_has_a_row_and_the_rest_a_reason(self):
        table = markdown_table(EVALUATION)
        row = next(line for line in table.splitlines() if line.startswith("| si_sdr"))
        assert row.split(" | ")[1:4] == ["dB", "higher", "15"] and row.endswith(" to 20 | 2 |")
        assert "| mel_distance | nats | lower | 0.5 | – | 1 |" in table
        missing = table.partition("Not measured:")[2]
        assert "- f0_rmse: librosa is not installed" in missing and "si_sdr" not in missing

    def test_the_report_holds_everything(self, tmp_path):
        write_report(tmp_path, EVALUATION, SETTINGS)
        report = json.loads((tmp_path / "report.json").read_text())
        assert report["metrics"].keys() == METRICS.keys()
        assert report["metrics"]["si_sdr"]["mean"] == 15 and report["metrics"]["si_sdr"]["unit"] == "dB"
        assert report["metrics"]["mel_distance"]["not_measured"] == {"librosa is not installed": 1}
        assert "mean" not in report["metrics"]["f0_rmse"]
        assert [clip["id"] for clip in report["clips"]] == ["a", "b"]
        assert report["unusable"] == [{"id": "c", "reason": "it is torn"}]
        machine = report["environment"]
        assert machine["threads"] == torch.get_num_threads() and machine["packages"]["numpy"] == np.__version__
        assert machine["cpu"] and machine["date"] and report["command"] == "ditar evaluate-vae"
        text = (tmp_path / "report.md").read_text()
        assert markdown_table(EVALUATION) in text and "- c: it is torn" in text
        assert "1 clips were recorded at a lower rate" in text and "ditar evaluate-vae" in text


class TestModel:
    def test_a_folder_is_known_by_its_sums(self, make_vae_config, tmp_path):
        vae = DiTARVAE(make_vae_config())
        vae.save_pretrained(tmp_path)
        first = describe_vae(vae, str(tmp_path))
        assert first["sha256"].keys() == {"config.json", "model.safetensors"}
        vae.latent_mean += 1
        vae.save_pretrained(tmp_path)
        sums = describe_vae(vae, str(tmp_path))["sha256"]
        assert sums["config.json"] == first["sha256"]["config.json"]
        assert sums["model.safetensors"] != first["sha256"]["model.safetensors"]

    def test_a_name_is_kept(self, make_vae_config):
        described = describe_vae(DiTARVAE(make_vae_config()), "somebody/vae")
        assert described["name"] == "somebody/vae" and described["sha256"] is None


class TestComparisons:
    def test_sound_and_pictures(self, tmp_path):
        writer = ComparisonWriter(tmp_path, 1, True)
        writer(COMPARISON)
        writer(replace(COMPARISON, clip=Clip("../b", TONE)))
        assert writer.pictures == ["pictures/0000-folder_a_b_.wav.png"] and writer.no_pictures is None
        assert (tmp_path / writer.pictures[0]).stat().st_size > 10_000
        names = sorted(path.name for path in (tmp_path / "audio").iterdir())
        assert names[2:] == ["0001-b.original.wav", "0001-b.reconstruction.wav"] and len(names) == 4
        samples, rate = soundfile.read(tmp_path / "audio" / "0001-b.reconstruction.wav")
        assert rate == RATE
        np.testing.assert_allclose(samples, TONE / 2, atol=1e-4)
        write_report(tmp_path, EVALUATION, SETTINGS, writer)
        assert f"![{writer.pictures[0]}]" in (tmp_path / "report.md").read_text()

    def test_only_what_is_asked_for(self, tmp_path):
        ComparisonWriter(tmp_path, 0, False)(COMPARISON)
        assert list(tmp_path.iterdir()) == []

    def test_without_matplotlib_the_remedy_is_named(self, tmp_path, monkeypatch):
        for name in ("matplotlib", "matplotlib.figure"):
            monkeypatch.setitem(sys.modules, name, None)
        writer = ComparisonWriter(tmp_path, 5, False)
        writer(COMPARISON)
        writer(COMPARISON)
        write_report(tmp_path, EVALUATION, SETTINGS, writer)
        assert 'pip install -e ".[plot]"' in (tmp_path / "report.md").read_text()
        assert "matplotlib" in json.loads((tmp_path / "report.json").read_text())["pictures_not_drawn"]
        assert not (tmp_path / "pictures").exists()
