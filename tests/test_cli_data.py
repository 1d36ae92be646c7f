"""`ditar prepare` and `ditar transcribe`: what they say and write, what reaches the library, and how they refuse."""

import inspect
import json
import re
import sys
from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from ditar_hf import DiTARTokenizer, cli, cli_data
from ditar_hf.training import inspection, latents, transcription
from ditar_hf.training.data import AudioSource
from ditar_hf.training.examples import ExampleArguments
from ditar_hf.training.filters import FilterArguments
from ditar_hf.training.inspection import Inspection, inspect_source

RATE = 16_000
OF_SOURCE = {
    "format": "datasets",
    "name": "clean",
    "split": "test",
    "revision": "v1",
    "audio_column": "clip",
    "speaker_column": "client",
    "language_column": "locale",
    "language": "de",
    "audio_dir": "librilight",
}


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs `ditar …` in a folder with `data`, of which three rows of five are usable, and a folder `librilight`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "data").mkdir()
    noise = 0.2 * np.random.default_rng(0).standard_normal(4 * RATE)
    lines = ["file_name,text,speaker,language"]
    texts = {"a": "The cat sat.,eva,en", "b": "A cat.,eva,en", "c": "Katze.,,de", "d": ",eva,en", "e": "The cat.,,en"}
    for number, (name, text) in enumerate(texts.items()):
        soundfile.write(f"data/{name}.wav", noise[: (number + 1) * RATE // 2], RATE)
        lines.append(f"{name}.wav,{text}")
    (tmp_path / "data" / "e.wav").write_bytes(b"RIFF, but no more")
    (tmp_path / "data" / "metadata.csv").write_text("\n".join(lines))
    file = tmp_path / "librilight" / "small" / "100" / "book" / "part.flac"
    file.parent.mkdir(parents=True)
    soundfile.write(file, noise, RATE)
    file.with_suffix(".json").write_text(json.dumps({"voice_activity": [[0.0, 1.0], [1.5, 2.0], [3.5, 3.6]]}))

    def invoke(*arguments):
        return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])

    return invoke


def assert_refused(result, message):
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    assert re.search(message, result.stderr) and "Traceback" not in result.output, result.stderr


def as_options(values) -> list:
    return [part for name, value in values.items() for part in (f"--{name.replace('_', '-')}", value)]


# ditar prepare


def test_the_report(run):
    result = run("prepare", "data", "--min-seconds", 0.1)
    assert result.exit_code == 0 and result.stderr == "", result.output
    lines = result.stdout.splitlines()
    assert lines[:5] == [
        "data: 5 rows read, 3 usable: 0.05 minutes of speech",
        "speakers: 1; the largest, eva, has 50.0% of the hours; 1 rows name none",
        "languages: en 2 rows, 0.03 minutes; de 1 rows, 0.03 minutes",
        "sampling rates: 16,000 Hz 3 rows",
        "                           min       5%      25%   median      75%      95%      max",
    ]
    assert lines[5].split() == ["seconds", "0.50", "0.55", "0.75", "1.00", "1.25", "1.45", "1.50"]
    assert lines[6].startswith("characters per second") and lines[7] == "lengths are by the files' headers"
    assert lines[8] == "rejected: 2 rows"
    assert re.fullmatch(" +1  no text; such as d.wav", lines[9])
    assert re.fullmatch(r" +1  it cannot be decoded; such as e.wav \(it cannot be decoded: .+\)", lines[10])
    assert len(lines) == 11
    decoded = run("prepare", "data", "--min-seconds", 0.1, "--decode").stdout
    assert decoded == result.stdout.replace("by the files' headers", "as decoded")
    part = run("prepare", "data", "--min-seconds", 0.1, "--limit", 2).stdout
    assert part.startswith("data: 2 of 5 rows read, 2 usable")


def test_files_of_the_report(run, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["ditar", "prepare", "my data"])
    result = run("prepare", "data", "--min-seconds", 0.1, "--out", "new/report")
    assert result.stdout.endswith("new/report: histogram.png and report.json\n"), result.output
    report = json.loads((tmp_path / "new" / "report" / "report.json").read_text())
    expected = inspect_source(AudioSource("data"), FilterArguments(min_seconds=0.1)).summarize()
    assert {name: report[name] for name in expected} == expected
    assert report["command"] == "ditar prepare 'my data'" and report["filters"]["min_seconds"] == 0.1
    assert report["source"]["path"] == "data" and report["model"] is None
    assert (tmp_path / "new" / "report" / "histogram.png").read_bytes().startswith(b"\x89PNG")
    again = run("prepare", "data", "--out", "new/report")
    assert_refused(again, "there is something at new/report already")
    assert json.loads((tmp_path / "new" / "report" / "report.json").read_text()) == report
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["report"]


def test_the_report_stands_without_a_picture(run, monkeypatch, tmp_path):
    nothing = run("prepare", "data", "--languages", "fr", "--out", "none")
    assert nothing.exit_code == 0 and nothing.stdout.endswith("none: report.json\n"), nothing.output
    assert nothing.stderr == "note: no row can be used\n"
    assert "0 usable" in nothing.stdout and "another language" in nothing.stdout
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = run("prepare", "data", "--out", "report")
    assert result.exit_code == 0 and "note: no picture without matplotlib" in result.stderr, result.output
    assert [file.name for file in (tmp_path / "report").iterdir()] == ["report.json"]


def test_the_processor_of_a_model_is_tried(run, save_tiny, tmp_path, caplog):
    save_tiny(tmp_path / "model", DiTARTokenizer.from_texts({"en": ["A cat. The cat."]}))
    options = ["--min-seconds", 0.1, "--languages", "en", "--no-require-text", "--model", "model"]
    result = run("prepare", "data", *options)
    assert result.exit_code == 0 and result.stderr == "", result.output
    assert not [record for record in caplog.records if record.name == cli_data.TOKENIZER_LOGGER]  # the report says it
    assert re.search(r"^tokens per second( +\d+\.\d\d){7}$", result.stdout, re.MULTILINE)
    assert "outside the vocabulary: 's' (U+0073) 1\n" in result.stdout
    assert "1  … phones of its text are outside the vocabulary; such as a.wav (1 phones" in result.stdout
    assert "1  it has no text; such as d.wav" in result.stdout
    trimmed = run("prepare", "data", *options, "--decode", "--out", "report")
    assert "lengths are as decoded, without the silence at their ends" in trimmed.stdout
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["num_tokens"] == len("ɐ kˈæt.") - 1 and report["model"] == "model"  # the stress is part of a phone


@pytest.fixture
def spy(monkeypatch):
    """What reaches the library, in place of an inspection."""
    kept = {}

    def inspect_source(source, filters, processor, examples, **options):
        kept.update(source=source, filters=filters, processor=processor, examples=examples, options=options)
        found = Inspection("headers")
        found.add({"id": "a", "text": None, "speaker": None, "language": None}, 1.0, RATE, None)
        return found

    monkeypatch.setattr(inspection, "inspect_source", inspect_source)
    return kept


def test_what_is_not_given_is_left_to_the_library(run, spy):
    result = run("prepare", "data")
    assert result.exit_code == 0, result.output
    assert "speakers: no row names one\nlanguages: not named 1 rows" in result.stdout
    assert spy == {
        "source": AudioSource("data"),
        "filters": FilterArguments(),
        "processor": None,
        "examples": ExampleArguments(),
        "options": {"decode": False, "limit": None},
    }


def test_options_reach_the_library(run, spy):
    of_filters = {"min_dnsmos": 2.5, "min_seconds": 1.5, "max_seconds": 7.5, "max_characters_per_second": 30.0}
    of_filters["min_characters_per_second"] = 3.0
    of_source = {**OF_SOURCE, "text_column": "sentence"}
    options = as_options({**of_source, **of_filters, "min_sampling_rate": 8000, "limit": 7})
    flags = ["--streaming", "--decode", "--no-require-text", "--languages", "de", "--languages", "en"]
    result = run("prepare", "user/speech", *options, *flags)
    assert result.exit_code == 0, result.output
    assert spy["source"] == AudioSource("user/speech", streaming=True, **of_source)
    assert spy["filters"] == FilterArguments(languages=["de", "en"], require_text=False, **of_filters)
    assert spy["examples"] == ExampleArguments(min_sampling_rate=8000)
    assert spy["options"] == {"decode": True, "limit": 7}


def test_long_lists_are_cut_in_the_report_only(run, spy, monkeypatch, tmp_path):
    found = Inspection("headers")
    for number in range(20):
        row = {"id": str(number), "text": None, "speaker": str(number), "language": f"l{number:02}"}
        found.add(row, 3600.0 * (number + 1), RATE, None)
    monkeypatch.setattr(inspection, "inspect_source", lambda *arguments, **options: found)
    result = run("prepare", "data", "--out", "report")
    assert "20 usable: 210.00 hours of speech\nspeakers: 20; the largest, 19, has 9.5% of the hours\n" in result.stdout
    assert "; l11 1 rows, 12.00 hours; and 8 more\n" in result.stdout and "l12" not in result.stdout
    assert len(json.loads((tmp_path / "report" / "report.json").read_text())["languages"]) == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "there is no folder missing"),
        (["data", "--format", "wav"], "`format` is 'wav'"),
        (["data", "--limit", 0], "`limit` is 0"),
        (["data", "--min-dnsmos", 9], "`min_dnsmos` is 9"),
        (["data", "--min-seconds", 5, "--max-seconds", 2], "`min_seconds` is 5.0"),
        (["data", "--model", "data"], "`--model`: there is no processor of DiTAR in data"),
        (["data", "--audio-dir", "librilight"], "only `libriheavy` has one"),
        (["data", "--out", "data/report"], "`out` is data/report, within data"),
        (["data", "--out", "librilight"], "there is something at librilight already"),
    ],
)
def test_prepare_refuses(run, arguments, message, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    assert_refused(run("prepare", *arguments), message)
    assert sorted(tmp_path.rglob("*")) == before


# ditar transcribe


@pytest.fixture
def recognizer(monkeypatch):
    """A recogniser that says how much it hears, in place of a pipeline of transformers."""
    calls = []

    def recognize(inputs, batch_size, **options):
        calls.append({"num_inputs": len(inputs), "batch_size": batch_size, "options": options})
        return [{"text": f" {len(entry['raw'])} samples."} for entry in inputs]

    def load(name, device):
        recognize.loaded, recognize.model.name_or_path = (name, device), name
        return recognize

    recognize.feature_extractor = SimpleNamespace(sampling_rate=RATE)
    recognize.model, recognize.calls = SimpleNamespace(), calls
    monkeypatch.setattr(cli_data, "_load_recognizer", load)
    return recognize


def test_transcribes_and_goes_on(run, recognizer, tmp_path):
    arguments = ["librilight", "out", "--asr", "some/asr", "--language", "en", "--device", "cpu"]
    result = run("transcribe", *arguments, "--max-seconds", 1, "--segments-per-shard", 1)
    assert (
        result.stdout
        == "out: 2 rows, 0.00 hours of speech; 1 rejected, see rejected.jsonl: 1 it is shorter than … seconds\n"
    )
    assert recognizer.loaded == ("some/asr", torch.device("cpu"))
    rows = list(AudioSource("out").read())
    assert [row["text"] for row in rows] == ["16000 samples.", "8000 samples."]
    assert [(row["speaker"], row["language"]) for row in rows] == [("100", "en")] * 2
    (tmp_path / "out" / "speech-00001.tar").unlink()
    num_calls = len(recognizer.calls)
    again = run("transcribe", *arguments, "--max-seconds", 1, "--segments-per-shard", 1)
    assert again.stdout == result.stdout and len(recognizer.calls) == num_calls + 1
    other = run("transcribe", *arguments, "--max-seconds", 2, "--segments-per-shard", 1)
    assert_refused(other, "begun with something else: `settings.max_seconds` is 1.0 there and 2.0 here")
    # what was made is a source like any other
    assert "out: 2 rows read, 2 usable" in run("prepare", "out", "--min-seconds", 0.1).stdout


def test_a_pipeline_of_transformers(run, tmp_path, monkeypatch):
    from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    folder = tmp_path / "asr"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({"<pad>": 0, "<unk>": 1, "|": 2, "A": 3, "B": 4}))
    Wav2Vec2CTCTokenizer(folder / "vocab.json").save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    convolutions = {"conv_dim": (16, 16), "conv_kernel": (10, 8), "conv_stride": (20, 16)}
    positions = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
    model = Wav2Vec2ForCTC(Wav2Vec2Config(vocab_size=5, **sizes, **convolutions, **positions))
    with torch.no_grad():
        model.lm_head.bias[:3] = -1e4  # letters only
    model.save_pretrained(folder)
    arguments = ["--asr", "asr", "--language", "en", "--device", "cpu", "--batch-size", 1]
    result = run("transcribe", "librilight", "out", *arguments)
    assert result.exit_code == 0, result.output
    assert all(set(row["text"]) <= set("AB") for row in AudioSource("out").read())
    # a folder is known wherever the command is called
    description = (tmp_path / "out" / "transcription.json").read_text()
    assert json.loads(description)["asr"]["name"] == str(folder)
    monkeypatch.chdir(tmp_path / "data")
    again = run("transcribe", "../librilight", "../out", *arguments[2:], "--asr", "../asr")
    assert again.exit_code == 0, again.output
    assert (tmp_path / "out" / "transcription.json").read_text() == description


@pytest.mark.parametrize(("language", "code"), [("en", "en"), ("en-US", "en"), (None, None)])
def test_a_multilingual_recogniser_is_told_the_language(run, recognizer, language, code):
    recognizer.model.generation_config = SimpleNamespace(is_multilingual=True, lang_to_id={"<|en|>": 1, "<|de|>": 2})
    options = [] if language is None else ["--language", language]
    result = run("transcribe", "librilight", "out", "--asr", "some/asr", "--device", "cpu", *options)
    assert result.exit_code == 0, result.output
    told = {} if code is None else {"generate_kwargs": {"language": code, "task": "transcribe"}}
    assert recognizer.calls and all(call["options"] == told for call in recognizer.calls)
    other = run("transcribe", "librilight", "other", "--asr", "some/asr", "--language", "xx", "--device", "cpu")
    assert_refused(other, "`--language` is xx, which some/asr does not know")


def test_options_reach_the_transcription(run, recognizer, monkeypatch):
    kept = {}

    def transcribe_source(source, asr, out, **settings):
        kept.update(source=source, asr=asr, settings=settings)
        return {"totals": {"num_rows": 3, "hours": 1.234, "num_rejected": 0}}

    monkeypatch.setattr(transcription, "transcribe_source", transcribe_source)
    result = run("transcribe", "data", "out", "--asr", "some/asr", "--device", "cpu")
    assert result.stdout == "out: 3 rows, 1.23 hours of speech\n", result.output
    assert kept == {"source": AudioSource("data"), "asr": recognizer, "settings": {"asr_options": {}}}
    settings = {"min_seconds": 1.5, "max_seconds": 7.5, "max_gap_seconds": 0.25, "min_sampling_rate": 8000}
    settings |= {"segments_per_shard": 11, "batch_size": 3}
    options = as_options({**OF_SOURCE, **settings})
    run("transcribe", "user/speech", "out", "--asr", "some/asr", "--device", "cpu", "--streaming", *options)
    assert kept["source"] == AudioSource("user/speech", streaming=True, **OF_SOURCE)
    assert kept["settings"] == {"asr_options": {}, **settings}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing", "out", "--asr", "data"], "there is no folder missing"),
        (["data", "out", "--asr", "data"], "`--asr`: the recogniser data cannot be loaded"),
        (["data", "out", "--asr", "data", "--device", "abacus"], "`--device` must be"),
        (["data", "data/out", "--asr", "data"], "`out` is data/out, within data"),
    ],
)
def test_transcribe_refuses(run, arguments, message, tmp_path):
    assert_refused(run("transcribe", *arguments), message)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["librilight", "out", "--batch-size", 0], "`batch_size` is 0"),
        (["librilight", "data"], "holds other things than transcribed speech"),
    ],
)
def test_transcribe_refuses_what_the_library_does(run, recognizer, arguments, message, tmp_path):
    assert_refused(run("transcribe", *arguments, "--asr", "some/asr", "--device", "cpu"), message)
    assert not (tmp_path / "out").exists()


# What they share


def test_encode_takes_the_folder_of_librilight_too(run, make_vae_config, monkeypatch, tmp_path):
    from ditar_hf import DiTARVAE

    kept = []

    def encode_source(vae, source, out, filters, examples, **settings):
        kept.append(source)
        return {"totals": {"num_rows": 3, "hours": 1.234, "num_rejected": 0}}

    DiTARVAE(make_vae_config()).save_pretrained(tmp_path / "vae")
    monkeypatch.setattr(latents, "encode_source", encode_source)
    result = run("encode", "cuts.jsonl.gz", "store", "--vae", "vae", "--audio-dir", "librilight", "--device", "cpu")
    assert result.exit_code == 0 and kept == [AudioSource("cuts.jsonl.gz", audio_dir="librilight")], result.output


def test_the_help_names_the_defaults_of_the_library(run):
    text = run("prepare", "--help").stdout
    defaults = {field.name: field.default for owner in (FilterArguments, ExampleArguments) for field in fields(owner)}
    for name in ("max_characters_per_second", "min_characters_per_second", "min_sampling_rate"):
        assert f"{defaults[name]:g} if not given" in text
    assert defaults["require_text"] is True
    text, parameters = (
        run("transcribe", "--help").stdout,
        inspect.signature(transcription.transcribe_source).parameters,
    )
    settings = ("min_seconds", "max_seconds", "max_gap_seconds", "min_sampling_rate", "segments_per_shard")
    for name in (*settings, "batch_size"):
        assert f"{parameters[name].default:g} if not given" in text
