"""Laws of transcription: what was heard beside what was said, read back as it was, whole after any interruption."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from ditar_hf.training import stores
from ditar_hf.training.audio import decode_audio, resample_audio
from ditar_hf.training.data import AudioSource
from ditar_hf.training.transcription import transcribe_source

RATE = 16_000


class Recognizer:
    """Called as a pipeline of transformers: says how long a recording is, and nothing of a quiet one."""

    def __init__(self):
        self.feature_extractor = SimpleNamespace(sampling_rate=RATE)
        self.heard, self.options = [], []

    def __call__(self, inputs, batch_size, **options):
        assert len(inputs) <= batch_size and {entry["sampling_rate"] for entry in inputs} == {RATE}
        self.heard.append([len(entry["raw"]) for entry in inputs])
        self.options.append(options)
        # a pipeline takes its inputs apart
        waveforms = [entry.pop("raw") for entry in inputs]
        return [
            {"text": f" {len(waveform)} samples. " if np.abs(waveform).max() > 0.01 else " "} for waveform in waveforms
        ]


@pytest.fixture
def asr():
    return Recognizer()


SETTINGS = {"segments_per_shard": 3, "batch_size": 2, "max_seconds": 3.0, "max_gap_seconds": 0.5}
SEGMENTS = [(0.5, 2.0), (3.0, 4.0), (5.0, 6.0), (6.75, 8.0)]


@pytest.fixture
def librilight(tmp_path, make_librilight):
    """Libri-light with speech in all of one file, and several files of which something is wrong."""
    make_librilight([[0.5, 1.0], [1.5, 2.0], [3.0, 4.0], [5.0, 6.0], [6.75, 8.0]])
    make_librilight([[0.0, 3.5], [5.0, 5.25], [6.0, 7.0]], book="wonders", stem="pauses")
    file = make_librilight([[0.0, 2.0], [7.0, 9.0]], book="wonders", stem="shorter")
    file = make_librilight([[0.0, 2.0]], book="wonders", stem="quiet")
    soundfile.write(file, np.zeros(8 * RATE), RATE)
    file = make_librilight([[5.0, 7.0]], book="wonders", stem="truncated")
    file.write_bytes(file.read_bytes()[:50_000])
    make_librilight([[0.0]], book="wonders", stem="unknown")
    make_librilight([[1.0, 3.0]], speaker="200", book="last", stem="x")
    return AudioSource(str(tmp_path / "librilight"), language="en")


def contents(folder) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != ".lock"}


# What is written


def test_segments_come_back_with_what_was_heard(librilight, asr, tmp_path):
    description = transcribe_source(librilight, asr, tmp_path / "out", **SETTINGS)
    source = AudioSource(str(tmp_path / "out"))
    rows = list(source.read())
    first = "100/sea_fairies/01_baum"
    expected = {f"{first}/{number:04d}": segment for number, segment in enumerate(SEGMENTS)}
    expected |= {"100/wonders/pauses/0002": (6.0, 7.0), "100/wonders/shorter/0000": (0.0, 2.0)}
    expected |= {"200/last/x/0000": (1.0, 3.0)}
    assert [row["id"] for row in rows] == list(expected)
    for row, (begin, end) in zip(rows, expected.values(), strict=True):
        file = tmp_path / "librilight" / "small" / row["id"].rpartition("/")[0]
        whole, _ = decode_audio({"path": f"{file}.flac"})
        samples, rate = decode_audio(row["audio"])
        assert rate == RATE
        np.testing.assert_array_equal(samples, whole[round(begin * RATE) : round(end * RATE)])
        assert row["text"] == f"{len(samples)} samples." and row["duration_seconds"] == end - begin
        assert (row["speaker"], row["language"]) == (row["id"].split("/")[0], "en")
    assert source.resolve_format() == "webdataset" and source.read().num_shards == 5
    assert description["totals"] == {
        "num_rows": 7,
        "num_rejected": 6,
        "reasons": {
            "there is no pause in … seconds": 1,
            "it is shorter than … seconds": 1,
            "nothing is heard in it": 1,
            "it goes from … to … seconds of a file of …": 1,
            "it cannot be decoded": 1,
            "its voice activity cannot be read": 1,
        },
        "num_shards": 5,
        "hours": pytest.approx(sum(end - begin for begin, end in expected.values()) / 3600),
    }


def test_what_was_rejected_is_named_with_the_reason(librilight, asr, tmp_path):
    transcribe_source(librilight, asr, tmp_path / "out", **SETTINGS)
    lines = (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    rejected = {entry["id"].removeprefix("100/wonders/"): entry["reason"] for entry in map(json.loads, lines)}
    expected = {
        "pauses/0000": "there is no pause in 3.5 seconds",
        "pauses/0001": "it is shorter than 0.5 seconds",
        "quiet/0000": "nothing is heard in it",
        "shorter/0001": "it goes from 7 to 9 seconds of a file of 8",
        "truncated/0000": "",
        "unknown": "its voice activity cannot be read",
    }
    assert sorted(rejected) == sorted(expected)
    assert all(reason in rejected[name] for name, reason in expected.items())


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_of_other_sources_stay_as_they_are(asr, tmp_path, put_tar, emilia, yodas, streaming):
    if streaming:
        put_tar(tmp_path / "data" / "0.tar", {**emilia(0), **yodas(1, dnsmos=None, speaker=None), **emilia(2)})
    else:
        (tmp_path / "data").mkdir()
        lines = ["file_name,speaker,language,start_seconds,duration_seconds", "a.mp3,eva,en,,", "b.mp3,,,0.05,0.1"]
        (tmp_path / "data" / "metadata.csv").write_text("\n".join([*lines, "missing.mp3,,,,"]))
        for name, (content, _) in (("a", emilia(0).values()), ("b", list(yodas(1).values())[::-1])):
            (tmp_path / "data" / f"{name}.mp3").write_bytes(content)
    source = AudioSource(str(tmp_path / "data"))
    before = list(source.read())
    transcribe_source(source, asr, tmp_path / "out", min_seconds=0.05, segments_per_shard=2)
    after = list(AudioSource(str(tmp_path / "out")).read())
    assert asr.heard == ([[1600, 3200], [1600]] if streaming else [[1600, 1600]])
    assert [row["text"] for row in after] == [f"{length} samples." for length in sum(asr.heard, [])]
    for name in ("id", "speaker", "language", "dnsmos"):
        assert [row[name] for row in after] == [row[name] for row in before][: len(after)]
    # at their own rate, rounded to 16 bits
    samples, rate = decode_audio(after[0]["audio"])
    assert rate == 24_000
    np.testing.assert_allclose(samples, decode_audio(before[0]["audio"])[0], atol=2**-15)


def test_a_pipeline_of_transformers(tmp_path, librilight):
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        pipeline,
    )

    folder = tmp_path / "asr"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({"<pad>": 0, "<unk>": 1, "|": 2, "A": 3, "B": 4, "C": 5}))
    Wav2Vec2CTCTokenizer(folder / "vocab.json").save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    convolutions = {"conv_dim": (16, 16, 16), "conv_kernel": (10, 8, 8), "conv_stride": (5, 8, 8)}
    positions = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
    model = Wav2Vec2ForCTC(Wav2Vec2Config(vocab_size=6, **sizes, **convolutions, **positions))
    with torch.no_grad():
        model.lm_head.weight.mul_(100)
        model.lm_head.bias[:3] = -1e4  # letters only
    model.save_pretrained(folder)
    asr = pipeline("automatic-speech-recognition", model=str(folder))
    description = transcribe_source(librilight, asr, tmp_path / "one", **{**SETTINGS, "batch_size": 1})
    assert description["asr"] == {"name": str(folder), "options": {}, "sampling_rate": RATE}
    rows = list(AudioSource(str(tmp_path / "one")).read())
    assert len(rows) == 8  # it hears something in silence, too
    for row in rows:
        waveform = resample_audio(*decode_audio(row["audio"]), RATE)
        assert row["text"] == asr(waveform)["text"] and set(row["text"]) <= set("ABC")
    assert len({row["text"] for row in rows}) > 1
    transcribe_source(librilight, asr, tmp_path / "two", **SETTINGS)
    assert [row["id"] for row in AudioSource(str(tmp_path / "two")).read()] == [row["id"] for row in rows]


def test_options_reach_the_recogniser(librilight, asr, tmp_path):
    options = {"generate_kwargs": {"language": "en", "temperature": (0.0, 0.2)}}
    first = transcribe_source(librilight, asr, tmp_path / "out", asr_options=options, **SETTINGS)
    assert asr.options and all(given == options for given in asr.options)
    assert transcribe_source(librilight, asr, tmp_path / "out", asr_options=options, **SETTINGS) == first


# Interruptions


class Killed(BaseException):
    """As a process that is ended: nothing catches it."""


def killed_at(function, count):
    """`function`, but its call number `count` never returns."""
    calls = iter(range(1000))

    def call(*arguments, **options):
        if next(calls) == count:
            raise Killed
        return function(*arguments, **options)

    return call


def killed_asr(asr, count):
    function = killed_at(asr, count)
    function.feature_extractor = asr.feature_extractor
    return function


@pytest.fixture
def whole(librilight, asr, tmp_path):
    transcribe_source(librilight, asr, tmp_path / "whole", **SETTINGS)
    return contents(tmp_path / "whole")


def test_it_is_complete_after_any_interruption(librilight, asr, tmp_path, whole, monkeypatch):
    names = [f"speech-{index:05d}.{suffix}" for index in range(5) for suffix in ("tar", "json")]
    assert set(whole) == {"transcription.json", "rejected.jsonl", *names}
    moments = [("asr", count) for count in range(len(asr.heard))] + [("replace", count) for count in range(13)]
    for number, (kind, count) in enumerate(moments):
        out = tmp_path / str(number)
        with monkeypatch.context() as patch, pytest.raises(Killed):
            recognize = killed_asr(asr, count) if kind == "asr" else asr
            if kind == "replace":
                patch.setattr(os, "replace", killed_at(os.replace, count))
            transcribe_source(librilight, recognize, out, **SETTINGS)
        for row in AudioSource(str(out)).read() if list(out.glob("*.tar")) else []:
            assert row["audio"]["bytes"] and row["text"]  # what is there is whole
        transcribe_source(librilight, asr, out, **SETTINGS)
        assert contents(out) == whole, (kind, count)


def test_a_stream_goes_on_where_it_was(asr, tmp_path, put_tar, emilia, monkeypatch):
    for index in range(2):
        members = [emilia(10 * index + number) for number in range(3)]
        put_tar(tmp_path / "data" / f"{index}.tar", {name: value for part in members for name, value in part.items()})
    source, settings = AudioSource(str(tmp_path / "data")), {"min_seconds": 0.05, "segments_per_shard": 2}
    transcribe_source(source, asr, tmp_path / "whole", **settings)
    for count in range(8):
        out = tmp_path / f"out{count}"
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(os, "replace", killed_at(os.replace, count))
            transcribe_source(source, asr, out, **settings)
        transcribe_source(source, asr, out, **settings)
        assert contents(out) == contents(tmp_path / "whole")


def test_what_is_there_is_not_heard_again(librilight, asr, tmp_path, whole):
    (tmp_path / "whole" / "speech-00001.tar").unlink()
    heard = len(asr.heard)
    transcribe_source(librilight, asr, tmp_path / "whole", **SETTINGS)
    assert sum(asr.heard[heard:], []) == [20_000] and contents(tmp_path / "whole") == whole
    heard = len(asr.heard)
    transcribe_source(librilight, asr, tmp_path / "whole", **SETTINGS)
    assert len(asr.heard) == heard


# What is refused


def refused(message, *arguments, **options):
    with pytest.raises(ValueError, match=message):
        transcribe_source(*arguments, **options)


def test_what_was_begun_otherwise_is_left_alone(librilight, asr, tmp_path, whole, make_librilight):
    out = tmp_path / "whole"
    for name, value in {"segments_per_shard": 4, "max_seconds": 3.5, "max_gap_seconds": 0.6, "min_seconds": 1}.items():
        refused(f"`settings.{name}` is", librilight, asr, out, **{**SETTINGS, name: value})
    refused("`asr.options` is|`asr.options.a` is", librilight, asr, out, asr_options={"a": 1}, **SETTINGS)
    refused("`source.language`", AudioSource(librilight.path), asr, out, **SETTINGS)
    make_librilight([[0.0, 1.0]], speaker="300")
    refused("`source.num_rows` is 7 there and 8 here", librilight, asr, out, **SETTINGS)
    assert contents(out) == whole


def test_a_folder_with_other_things_or_in_use(librilight, asr, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    refused("holds other things than transcribed speech", librilight, asr, tmp_path)
    refused("is a file", librilight, asr, tmp_path / "notes.txt")
    (tmp_path / "out").mkdir()
    with stores.FileLock(tmp_path / "out" / ".lock"):
        refused("another process is writing", librilight, asr, tmp_path / "out")


def test_nothing_to_transcribe(asr, tmp_path, put_tar, make_librilight):
    file = make_librilight([[0.0, 1.0]])
    file.write_bytes(b"no audio")
    refused("no row can be used.*cannot be decoded", AudioSource(str(file.parents[3])), asr, tmp_path / "out")
    refused("there is no row", AudioSource(str(put_tar(tmp_path / "x.tar", {}))), asr, tmp_path / "other")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 0),
        ("min_seconds", 0.0),
        ("max_seconds", float("nan")),
        ("max_gap_seconds", -1.0),
        ("min_sampling_rate", 0),
        ("segments_per_shard", 0),
        ("asr_options", {"device": torch.device("cpu")}),
    ],
)
def test_settings_out_of_range(librilight, asr, tmp_path, name, value):
    refused(f"`{name}` ", librilight, asr, tmp_path / "out", **{name: value})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "`asr` answered None"),
        ([{"transcript": "A"}] * 2, "`asr` answered"),
        (["A", "B"], "`asr` answered"),
        ([{"text": "A"}], "`asr` gave 1 answers for 2 segments"),
    ],
)
def test_a_recogniser_that_answers_otherwise(librilight, tmp_path, answer, message):
    def asr(inputs, batch_size):
        return answer

    refused("`sampling_rate` is not given", librilight, asr, tmp_path / "out", **SETTINGS)
    refused(message, librilight, asr, tmp_path / "out", sampling_rate=RATE, **SETTINGS)
