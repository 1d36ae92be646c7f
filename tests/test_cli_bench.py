"""`ditar bench` on tiny systems: what it prints, what it writes, and how it refuses."""

import json
import re

import pytest
from transformers import BertConfig
from typer.testing import CliRunner

from ditar_hf import cli
from ditar_hf.evaluation import benchmark_plan


@pytest.fixture
def model(make_model, tmp_path):
    make_model().save_pretrained(tmp_path / "mine")
    return tmp_path / "mine"


@pytest.fixture
def tiny_peer(monkeypatch):
    """In place of the published `pocket_tts` one that is built in no time."""
    from transformers import PocketTTSAudioTokenizerConfig, PocketTTSConfig

    flow_head = {"hidden_size": 16, "num_hidden_layers": 1, "latent_dim": 8, "condition_dim": 32}
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    codec = {"hidden_size": 16, "num_filters": 4, "upsample_groups": 16, "num_hidden_layers": 1}
    codec |= {"intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2}
    configs = {
        "config": PocketTTSConfig(**sizes, latent_dim=8, flow_head_config=flow_head),
        "codec_config": PocketTTSAudioTokenizerConfig(**codec, latent_dim=8, encoder_config=None),
    }
    monkeypatch.setitem(benchmark_plan.PEERS, "pocket_tts", lambda: configs)


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "300")

    def invoke(*arguments):
        arguments = ["bench", "--out", tmp_path / "out", "--device", "cpu", *arguments]
        return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])

    return invoke


def test_a_report_of_all_kinds_of_systems(run, model, tiny_peer, tmp_path):
    options = ["--seconds", 0.4, "--prompt-seconds", 0.2, "--steps", 2, "--batch-sizes", "2,1", "--repeats", 2]
    result = run("--model", model, "--with", "nar, mar,pocket_tts", "--patch-sizes", 2, "--no-isolate", *options)
    assert result.exit_code == 0, result.output
    assert "Rows [" not in result.output  # nothing about limits, which are forced
    rows = re.findall(r"^\| (\S.*?) \|.*$", result.stdout, re.MULTILINE)[1:]
    names = ["DiTAR mine", "DiTAR mine P=2", "NAR mine", "MAR mine", "pocket_tts"]
    assert rows == [name for name in names for _ in (1, 2)]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["benchmark"]["order"][:5] == [[1, 0, name] for name in names]
    assert len(report["benchmark"]["order"]) == 2 * 2 * 5
    for entry in report["summary"]:
        assert entry["figures"]["throughput"]["median"] > 0 and entry["ratios"]["seconds_ratio"]["median"] > 0
    assert report["environment"]["threads"] and report["environment"]["packages"]["transformers"]
    weights = [system["facts"]["weights"] for system in report["benchmark"]["systems"]]
    assert weights == [str(model), "random", "random", "random", "random"]
    assert f"Weights of {model}, float32" in (tmp_path / "out" / "report.md").read_text()
    assert report["isolated"] is False and report["command"].split()[0] == "ditar"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.json", "report.md", "figure.png"}


def test_processes_tell_their_memory(run, model, tmp_path):
    result = run("--model", model, "--seconds", 0.1, "--steps", 1, "--batch-sizes", 1, "--repeats", 1, "--threads", 1)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    (entry,) = report["summary"]
    assert entry["peak_bytes"] >= entry["rest_bytes"] > 50e6
    assert report["environment"]["threads"] == 1 and report["isolated"] is True


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--sizes", "9B"], "'9B'"),
            (["--sizes", ""], "both empty"),
            (["--sizes", "tiny,tiny"], "name one twice"),
            (["--sizes", "tiny", "--with", "f5"], "there is no system 'f5'"),
            (["--sizes", "tiny", "--seconds", "0"], "`seconds`"),
            (["--sizes", "tiny", "--seconds", "nan"], "`seconds`"),
            (["--sizes", "tiny", "--seconds", "5", "--with", "pocket_tts"], "take 4.8 or 5.2"),
            (["--sizes", "tiny", "--prompt-seconds", "-1"], "`prompt_seconds`"),
            (["--sizes", "tiny", "--text-tokens", "0"], "`num_text_tokens`"),
            (["--sizes", "tiny", "--steps", "0"], "`num_inference_steps`"),
            (["--sizes", "tiny", "--guidance-scale", "0.5"], "`guidance_scale`"),
            (["--sizes", "tiny", "--batch-sizes", "0"], "`batch_sizes`"),
            (["--sizes", "tiny", "--batch-sizes", "1,1"], "`batch_sizes`"),
            (["--sizes", "tiny", "--batch-sizes", "one"], "`--batch-sizes` must be whole numbers"),
            (["--sizes", "tiny", "--patch-sizes", "0"], "`patch_sizes`"),
            (["--sizes", "tiny", "--repeats", "0"], "`repeats`"),
            (["--sizes", "tiny", "--threads", "0"], "`threads`"),
            (["--sizes", "tiny", "--dtype", "int8"], "`dtype`"),
            (["--sizes", "tiny", "--device", "abacus"], "`--device`"),
            (["--model", "missing"], "missing"),
        ],
    )
    def test_bad_input(self, run, tmp_path, arguments, message):
        result = run(*arguments)
        assert result.exit_code == 2, result.output
        assert result.stderr.startswith("error: ") and message in result.stderr
        assert not list(tmp_path.iterdir())

    def test_another_model(self, run, tmp_path):
        BertConfig().save_pretrained(tmp_path / "bert")
        result = run("--model", tmp_path / "bert")
        assert result.exit_code == 2 and "of the type `bert`" in result.stderr

    def test_damaged_weights(self, run, model, tmp_path):
        weights = model / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        result = run("--model", model, "--no-isolate")
        assert result.exit_code == 2 and "cut off or damaged" in result.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["mine"]

    def test_a_folder_in_use(self, run, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "file").write_text("old")
        result = run("--sizes", "tiny")
        assert result.exit_code == 2 and "there is something at" in result.stderr
        assert (tmp_path / "out" / "file").read_text() == "old"
