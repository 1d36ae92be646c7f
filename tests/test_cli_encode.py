"""`ditar encode` on a tiny speech tokenizer: what it writes and says, what reaches the library, and how it refuses."""

import inspect
import re

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from ditar_hf import DiTARForTextToSpeech, DiTARTokenizer, DiTARVAE, cli
from ditar_hf.training import latents
from ditar_hf.training.data import AudioSource
from ditar_hf.training.examples import ExampleArguments
from ditar_hf.training.filters import FilterArguments
from ditar_hf.training.latents import load_latents

RATE = 24_000
TONE = (0.3 * np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE)).astype(np.float32)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs `ditar encode` beside a folder `data` of two recordings, a damaged one and one more, and `vae`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "data").mkdir()
    soundfile.write("data/a.wav", TONE, RATE)
    soundfile.write("data/b.flac", np.concatenate([TONE[: RATE // 2], np.zeros(RATE, "f4")]), RATE)
    (tmp_path / "data" / "c.mp3").write_bytes(b"no audio")
    lines = ["file_name,text,language", "a.wav,One.,", "b.flac,Two.,en", "c.mp3,Three.,", "a.wav,Eins.,de"]
    (tmp_path / "data" / "metadata.csv").write_text("\n".join(lines))

    def invoke(*arguments):
        return CliRunner().invoke(cli.app, ["encode", *[str(argument) for argument in arguments]])

    return invoke


@pytest.fixture
def vae(make_vae_config, run, tmp_path):
    model = DiTARVAE(make_vae_config()).eval()
    model.save_pretrained(tmp_path / "vae")
    return model


def assert_refused(result, message):
    assert result.exit_code == 2, result.output
    assert re.search(message, result.stderr), result.stderr
    assert "error: " in result.stderr and "Traceback" not in result.stderr


def test_encodes_completes_and_refuses_another_tokenizer(run, vae, make_vae_config, tmp_path):
    options = ["--vae", "vae", "--language", "en", "--languages", "en", "--device", "cpu"]
    result = run("data", "store", *options)
    assert result.exit_code == 0, result.output
    reasons = "1 it cannot be decoded, 1 another language"
    assert result.stdout == f"store: 2 rows, 0.00 hours of speech; 2 rejected, see rejected.jsonl: {reasons}\n"
    assert result.stderr == ""
    rows = load_latents(tmp_path / "store", vae)
    assert [row["id"] for row in rows] == ["a.wav", "b.flac"]
    assert [row["latents"].shape for row in rows] == [(40, 8), (24, 8)]  # of the silence a tenth of a second is left
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "store").glob("latents*")}
    again = run(tmp_path / "data", "store", *options)
    assert again.stdout == result.stdout and len(before) == 2
    assert before == {file: file.stat().st_mtime_ns for file in before}  # nothing was done anew
    assert_refused(run("data", "store", *options, "--no-trim"), "`settings.trim_margin_seconds` is 0.1 there")
    assert run("data", "whole", *options, "--no-trim").exit_code == 0
    assert [row["latents"].shape for row in load_latents(tmp_path / "whole", vae)] == [(40, 8), (60, 8)]
    torch.manual_seed(1)
    DiTARVAE(make_vae_config()).save_pretrained(tmp_path / "other")
    assert_refused(run("data", "store", *options, "--vae", "other"), "begun with something else: `vae_hash`")


def test_takes_the_tokenizer_of_a_model(run, save_tiny, tmp_path):
    save_tiny(tmp_path / "model", DiTARTokenizer.from_texts({"en": ["One."]}))
    assert run("data", "store", "--vae", "model").exit_code == 0
    model = DiTARForTextToSpeech.from_pretrained(tmp_path / "model")
    assert len(load_latents(tmp_path / "store", model.vae)) == 3


@pytest.fixture
def spy(monkeypatch):
    kept = {}

    def encode_source(vae, source, out, filters, examples, **settings):
        kept.update(vae=vae, source=source, out=out, filters=filters, examples=examples, settings=settings)
        return {"totals": {"num_rows": 3, "hours": 1.234, "num_rejected": 0}}

    monkeypatch.setattr(latents, "encode_source", encode_source)
    return kept


def test_what_is_not_given_is_left_to_the_library(run, vae, spy, tmp_path):
    result = run("data", "store", "--vae", "vae", "--device", "cpu")
    assert result.stdout == "store: 3 rows, 1.23 hours of speech\n", result.output
    assert spy["source"] == AudioSource("data") and spy["settings"] == {"device": torch.device("cpu")}
    assert spy["filters"] == FilterArguments() and spy["examples"] == ExampleArguments()


def test_half_precision_on_the_disk_is_single_in_memory(run, vae, spy, make_model, tmp_path):
    make_model().half().save_pretrained(tmp_path / "model")
    vae.half().save_pretrained(tmp_path / "vae")
    for name in ("vae", "model"):
        assert run("data", "store", "--vae", name, "--device", "cpu").exit_code == 0
        assert {value.dtype for value in spy["vae"].state_dict().values()} == {torch.float32}


def test_options_reach_the_library(run, vae, spy):
    of_source = {
        "format": "datasets",
        "name": "clean",
        "split": "test",
        "revision": "v1",
        "audio_column": "clip",
        "text_column": "sentence",
        "speaker_column": "client",
        "language_column": "locale",
        "language": "de",
    }
    of_filters = {"min_dnsmos": 2.5, "min_seconds": 1.5, "max_seconds": 7.5}
    of_filters |= {"max_characters_per_second": 30.0, "min_characters_per_second": 3.0}
    settings = {"rows_per_shard": 11, "batch_seconds": 3.0, "dtype": "bfloat16", "patch_size": 2}
    values = {**of_source, **of_filters, **settings, "min_sampling_rate": 8000}
    options = [part for name, value in values.items() for part in (f"--{name.replace('_', '-')}", value)]
    flags = ["--streaming", "--no-require-text", "--no-trim", "--languages", "de", "--languages", "en"]
    result = run("user/speech", "store", "--vae", "vae", "--device", "cpu", *flags, *options)
    assert result.exit_code == 0, result.output
    assert spy["source"] == AudioSource("user/speech", streaming=True, **of_source)
    assert spy["filters"] == FilterArguments(languages=["de", "en"], require_text=False, **of_filters)
    assert spy["examples"] == ExampleArguments(min_sampling_rate=8000, trim_margin_seconds=None)
    assert spy["settings"] == {**settings, "device": torch.device("cpu")}


def test_the_help_names_the_defaults_of_the_library(run):
    text, parameters = run("--help").stdout, inspect.signature(latents.encode_source).parameters
    for name in ("patch_size", "rows_per_shard", "batch_seconds"):
        assert f"{parameters[name].default:g} if not given" in text
    assert f"used; {latents.MAX_SECONDS:g} if not given" in text
    assert f"all but {ExampleArguments.trim_margin_seconds:g} seconds" in text
    for owner, names in {
        ExampleArguments: ["min_sampling_rate"],
        FilterArguments: ["min_characters_per_second", "max_characters_per_second"],
    }.items():
        for name in names:
            assert f"{getattr(owner, name):g} if not given" in text
    assert f"{parameters['dtype'].default} (if not given)" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing", "store", "--vae", "vae"], "there is no folder missing"),
        (["data", "store", "--vae", "vae", "--format", "wav"], "`format` is 'wav'"),
        (["data", "store", "--vae", "vae", "--rows-per-shard", "0"], "`rows_per_shard` is 0"),
        (["data", "store", "--vae", "vae", "--min-seconds", "50"], "`min_seconds` is 50.0 and `max_seconds` 40.0"),
        (["data", "store", "--vae", "vae", "--device", "abacus"], "`--device` must be"),
        (["data", "store", "--vae", "data"], "data"),
        (["data", "data", "--vae", "vae"], "holds other things"),
        (["data", "store"], "--vae"),
    ],
)
def test_refuses(run, vae, tmp_path, arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2 and re.search(message, result.output + result.stderr), result.output
    assert not (tmp_path / "store").exists()
