"""`ditar train-vae`: a run from its file, its resumption, and how it ends on bad input."""

import shutil

import numpy as np
import pytest
import soundfile
import yaml
from typer.testing import CliRunner

from ditar_hf import DiTARVAE
from ditar_hf.cli import app


def run(*arguments):
    return CliRunner().invoke(app, ["train-vae", *map(str, arguments)])


@pytest.fixture
def write_config(tmp_path, make_vae_config):
    """Writes the file of a run of four steps on three recordings, among them one in stereo and one of 24 bit."""
    folder = tmp_path / "speech"
    folder.mkdir()
    noise = np.random.default_rng(0).standard_normal((12000, 2)) * 0.1
    soundfile.write(folder / "mono.flac", noise[:, 0], 24000)
    soundfile.write(folder / "stereo.wav", noise, 16000)
    soundfile.write(folder / "int24.wav", noise[:, 0], 24000, subtype="PCM_24")
    sizes = make_vae_config().to_diff_dict()
    vae = {name: sizes[name] for name in sizes if name not in ("model_type", "transformers_version")}

    def write(**overrides):
        values = {
            "output_dir": str(tmp_path / "run"),
            "data": [{"path": str(folder)}],
            "vae": vae,
            "crops": {"crop_seconds": 0.2},
            "max_steps": 4,
            "batch_size": 2,
            "num_statistics_batches": 1,
            "save_steps": 2,
            "cpu": True,
        }
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump({**values, **overrides}))
        return path

    return write


def test_a_run_and_its_resumption(write_config, tmp_path):
    result = run(write_config())
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("run: the trained tokenizer\n")
    assert "step 4/4 loss " in result.stdout and " audio_seconds_per_second " in result.stdout
    first = DiTARVAE.from_pretrained(tmp_path / "run").state_dict()
    again = run(write_config())
    assert again.exit_code == 2 and "checkpoint-4: resume" in again.stderr
    # the last checkpoint is lost, and the run ends as it did
    shutil.rmtree(tmp_path / "run/checkpoint-4")
    resumed = run(write_config(), "--resume")
    assert resumed.exit_code == 0, resumed.output
    second = DiTARVAE.from_pretrained(tmp_path / "run").state_dict()
    assert all((first[name] == second[name]).all() for name in first)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"max_stepps": 3}, "did you mean `max_steps`"),
        ({"data": [{"path": "nowhere"}]}, "no folder nowhere"),
        ({"data": [{"path": "org/name"}]}, "For a data set of the Hub"),
        ({"vae": {"latent_dim": 0}}, "`latent_dim`"),
        ({"start_from": "nowhere/at/all"}, "nowhere/at/all"),
    ],
)
def test_bad_input_ends_in_one_line(write_config, overrides, message, tmp_path):
    result = run(write_config(**overrides))
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1
    assert message in result.stderr
    assert not (tmp_path / "run").exists()


def test_nothing_to_resume(write_config):
    result = run(write_config(), "--resume")
    assert result.exit_code == 2 and "no checkpoint" in result.stderr
