"""Laws of `AudioSource`: each layout of a data set gives the same schema, and what is not one is refused."""

import io
import json
import pickle
import re
import sys
import typing
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import soundfile
from datasets import Audio, Dataset, DatasetDict, IterableDataset
from datasets.distributed import split_dataset_by_node

from ditar_hf.training.audio import UnusableAudioError, decode_audio, segment_of
from ditar_hf.training.data import EXAMPLE_FEATURES, READERS, AudioSource, describe_rows, detect_format

RATE = 24_000


def clip(num_samples: int, format: str = "WAV", rate: int = RATE) -> bytes:
    file = io.BytesIO()
    samples = 0.3 * np.sin(2 * np.pi * 200 * np.arange(num_samples) / rate)
    soundfile.write(file, samples.astype(np.float32), rate, format=format)
    return file.getvalue()


def put(file: Path, content: bytes | str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def rows_of(path: Path | str, **options) -> list[dict]:
    """All rows, after a check that they have the schema and that skipping rows leaves the rest."""
    rows = AudioSource(str(path), **options).read()
    assert rows.features == EXAMPLE_FEATURES
    listed = list(rows)
    assert all(list(row) == list(EXAMPLE_FEATURES) for row in listed)
    assert len({row["id"] for row in listed}) == len(listed)
    if isinstance(rows, IterableDataset):
        assert list(rows.skip(1)) == listed[1:]
    return listed


def numbers_of(rows: list[dict]) -> list[tuple]:
    return [(row["start_seconds"], row["duration_seconds"], row["dnsmos"]) for row in rows]


def fields_of(rows: list[dict]) -> list[tuple]:
    return [(row["id"], row["text"], row["speaker"], row["language"]) for row in rows]


def lengths_of(rows: list[dict]) -> list[int]:
    return [len(decode_audio(row["audio"])[0]) for row in rows]


# Folders


def test_metadata(tmp_path):
    put(tmp_path / "metadata.csv", 'file_name,text,speaker,language\na/x.wav,"Yes, I do.",eva,\ny.flac,,,de\n')
    put(tmp_path / "a" / "x.wav", clip(2400))
    put(tmp_path / "y.flac", clip(1200, "FLAC"))
    rows = rows_of(tmp_path, language="en")
    assert fields_of(rows) == [("a/x.wav", "Yes, I do.", "eva", "en"), ("y.flac", None, None, "de")]
    assert lengths_of(rows) == [2400, 1200]


def test_metadata_with_a_byte_order_mark_and_other_columns(tmp_path):
    put(tmp_path / "metadata.csv", "\ufefffile_name,quality\r\nx.wav,3\r\n")
    assert fields_of(rows_of(tmp_path)) == [("x.wav", None, None, None)]


def test_metadata_may_state_numbers(tmp_path):
    lines = ["x.wav,0.5,0.25,3.5", "x.wav,,,", "x.wav,0,,4"]
    put(tmp_path / "metadata.csv", "\n".join(["file_name,start_seconds,duration_seconds,dnsmos", *lines]))
    put(tmp_path / "x.wav", clip(24_000))
    rows = list(AudioSource(str(tmp_path)).read())
    assert numbers_of(rows) == [(0.5, 0.25, 3.5), (None, None, None), (0.0, None, 4.0)]
    assert [len(decode_audio(row["audio"], **segment_of(row))[0]) for row in rows] == [6000, 24_000, 24_000]


def test_ljspeech(tmp_path):
    lines = ['LJ001-0001|He said "5|He said "five', "LJ001-0002|Raw only", "", ""]
    put(tmp_path / "metadata.csv", "\n".join(lines))
    for name in ("LJ001-0001", "LJ001-0002"):
        put(tmp_path / "wavs" / f"{name}.wav", clip(2205, rate=22_050))
    rows = rows_of(tmp_path, language="en")
    expected = [("LJ001-0001", 'He said "five', None, "en"), ("LJ001-0002", "Raw only", None, "en")]
    assert fields_of(rows) == expected and lengths_of(rows) == [2205, 2205]
    assert numbers_of(rows) == [(None, None, None)] * 2


def test_libritts(tmp_path):
    for name, text in (("84_121123_000007_000001", "Go."), ("19_198_000000_000000", "Stay?\n")):
        speaker, chapter, *_ = name.split("_")
        folder = tmp_path / "dev-clean" / speaker / chapter
        put(folder / f"{name}.wav", clip(2400))
        put(folder / f"{name}.original.txt", "Original.")
        put(folder / f"{name}.normalized.txt", text)
    rows = rows_of(tmp_path)
    assert fields_of(rows) == [
        ("19_198_000000_000000", "Stay?", "19", None),
        ("84_121123_000007_000001", "Go.", "84", None),
    ]
    assert lengths_of(rows) == [2400, 2400]


def test_librilight(tmp_path):
    for speaker, book, name in (("100", "sea_fairies", "01_baum"), ("100", "other", "01_baum"), ("2", "x", "y")):
        file = put(tmp_path / "small" / speaker / book / f"{name}.flac", clip(1600, "FLAC", rate=16_000))
        book_meta = {"speaker": speaker, "book_meta": {}, "snr": 9.1, "voice_activity": [[0.0, 0.1]]}
        put(file.with_suffix(".json"), json.dumps(book_meta))
    rows = rows_of(tmp_path)
    assert fields_of(rows) == [
        ("100/other/01_baum", None, "100", None),
        ("100/sea_fairies/01_baum", None, "100", None),
        ("2/x/y", None, "2", None),
    ]
    assert lengths_of(rows) == [1600] * 3


def test_files(tmp_path):
    put(tmp_path / "b.WAV", clip(100))
    put(tmp_path / "a" / "c.mp3", clip(2400, "MP3"))
    put(tmp_path / "notes.txt", "not audio")
    rows = rows_of(tmp_path, language="fr")
    assert fields_of(rows) == [("a/c.mp3", None, None, "fr"), ("b.WAV", None, None, "fr")]
    assert lengths_of(rows) == [2400, 100]


# Data sets


def audio_dataset(count: int = 3, **columns) -> Dataset:
    rows = {"audio": [{"bytes": clip(100 * (i + 1)), "path": f"{i}.wav"} for i in range(count)], **columns}
    # as other programs save it: to be decoded on reading
    return Dataset.from_dict(rows).cast_column("audio", Audio(sampling_rate=RATE))


def test_a_saved_dataset(tmp_path):
    rows = audio_dataset(text=["One.", "", None], speaker=[7, 7, 8], id=["a", "b", "c"])
    rows.save_to_disk(tmp_path / "one")
    DatasetDict({"train": rows.select([0]), "test": rows}).save_to_disk(tmp_path / "splits")
    for path, options in ((tmp_path / "one", {}), (tmp_path / "splits", {"split": "test"})):
        listed = rows_of(path, language="en", **options)
        assert fields_of(listed) == [("a", "One.", "7", "en"), ("b", None, "7", "en"), ("c", None, "8", "en")]
        assert lengths_of(listed) == [100, 200, 300]


@pytest.mark.parametrize("streaming", [False, True])
def test_parquet_with_names_of_its_own(tmp_path, streaming):
    rows = audio_dataset(sentence=["One.", "Two.", "Three."], locale=["en", "de", None], client_id=["x", "y", "z"])
    (tmp_path / "data").mkdir()
    rows.rename_column("audio", "clip").to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    names = {"audio_column": "clip", "text_column": "sentence", "speaker_column": "client_id"}
    listed = rows_of(tmp_path, streaming=streaming, language_column="locale", language="en", **names)
    assert [fields[1:] for fields in fields_of(listed)] == [
        ("One.", "x", "en"),
        ("Two.", "y", "de"),
        ("Three.", "z", "en"),
    ]
    assert lengths_of(listed) == [100, 200, 300]


@pytest.mark.parametrize("streaming", [False, True])
def test_parquet_with_numbers(tmp_path, streaming):
    numbers = {"duration": ["0.5", None, "long"], "dnsmos": [3, None, float("nan")], "start_seconds": [0.1, None, 0.0]}
    audio_dataset(**numbers).to_parquet(tmp_path / "train.parquet")
    rows = rows_of(tmp_path, streaming=streaming)
    assert numbers_of(rows) == [(pytest.approx(0.1), 0.5, 3.0), (None, None, None), (0.0, None, None)]


def test_rows_that_were_saved_are_the_same_rows(tmp_path):
    put(tmp_path / "data" / "metadata.csv", "file_name,text,start_seconds,duration_seconds,dnsmos\nx.wav,A.,0,0.1,3\n")
    put(tmp_path / "data" / "x.wav", clip(24_000))
    rows = AudioSource(str(tmp_path / "data"), language="en").read()
    rows.save_to_disk(tmp_path / "saved")
    assert list(AudioSource(str(tmp_path / "saved")).read()) == list(rows)


def test_a_dataset_on_the_disk_can_be_drawn_from_at_random(tmp_path):
    audio_dataset(text=["a", "b", "c"]).save_to_disk(tmp_path)
    rows = AudioSource(str(tmp_path)).read()
    assert isinstance(rows, Dataset) and len(rows) == 3
    assert [rows[index]["text"] for index in (2, 0, 1)] == ["c", "a", "b"]
    assert len(set(rows["id"])) == 3
    assert [row["text"] for row in rows.select([1]).to_iterable_dataset()] == ["b"]


def test_a_dataset_on_the_disk_is_not_copied(tmp_path):
    size = 5_000_000
    audio_dataset(1).select([0] * 2).map(lambda row: {"audio": {"path": None, "bytes": bytes(size)}}).save_to_disk(
        tmp_path
    )
    files, before = sorted(tmp_path.iterdir()), pyarrow.total_allocated_bytes()
    rows = AudioSource(str(tmp_path)).read()
    assert pyarrow.total_allocated_bytes() - before < size / 10 and sorted(tmp_path.iterdir()) == files
    # as it reaches the workers of a `DataLoader` that are not forked
    assert len(pickle.dumps(rows)) < size / 10
    assert len(pickle.loads(pickle.dumps(rows))[1]["audio"]["bytes"]) == size


def test_processes_that_share_a_stream_number_no_two_rows_alike(tmp_path):
    for part in (0, 1):
        named = [{"bytes": clip(100), "path": f"{name}{part}.wav"} for name in "xyz"]
        rows = Dataset.from_dict({"audio": named}).cast_column("audio", Audio())
        rows.to_parquet(tmp_path / f"train-0000{part}-of-00002.parquet")
    stream = AudioSource(str(tmp_path), streaming=True).read()
    ids = [row["id"] for rank in (0, 1) for row in split_dataset_by_node(stream, rank, 2)]
    assert len(set(ids)) == 6


def test_what_tells_that_a_source_has_changed(tmp_path, put_tar, emilia):
    put_tar(tmp_path / "0.tar", emilia(0))
    put(tmp_path / "files" / "a.wav", clip(100))
    for path, name in ((tmp_path / "*.tar", "tars"), (tmp_path / "files", "rows")):
        source = AudioSource(str(path))
        before = describe_rows(source, source.read())
        assert before[f"num_{name}"] == 1 and describe_rows(source, source.read()) == before
        put_tar(tmp_path / "1.tar", emilia(1))
        put(tmp_path / "files" / "b.wav", clip(100))
        assert describe_rows(source, source.read())[f"{name}_hash"] != before[f"{name}_hash"]
        (tmp_path / "files" / "b.wav").unlink()


def test_a_source_may_be_moved_but_not_get_other_texts(tmp_path, put_tar, emilia):
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        put_tar(tmp_path / folder / "EN-0.tar", emilia(0))
    sources = [AudioSource(str(tmp_path / folder / "*.tar"), streaming=True) for folder in ("here", "there")]
    assert describe_rows(sources[0], sources[0].read()) == describe_rows(sources[1], sources[1].read())
    rows = [{"id": "a", "text": "one"}, {"id": "b", "text": "two"}]
    hashes = [
        describe_rows(sources[0], Dataset.from_list(some))["rows_hash"]
        for some in (rows, [rows[0], {**rows[1], "text": "2"}])
    ]
    assert hashes[0] != hashes[1]


def test_a_row_without_audio_is_left_to_the_decoder(tmp_path):
    rows = {"audio": [{"bytes": clip(100), "path": None}, None], "text": ["One.", "Two."]}
    Dataset.from_dict(rows).cast_column("audio", Audio()).save_to_disk(tmp_path)
    listed = rows_of(tmp_path)
    assert [row["text"] for row in listed] == ["One.", "Two."]
    with pytest.raises(UnusableAudioError, match="no audio"):
        decode_audio(listed[1]["audio"])


# What is refused


def refused(message: str, path: Path | str, **options):
    with pytest.raises(ValueError, match=message):
        rows = AudioSource(str(path), **options).read()
        next(iter(rows))


def test_settings_out_of_range():
    refused("`format` is 'wds'.*'webdataset'", ".", format="wds")
    for weight in (0, -1.0, float("nan")):
        refused("`weight` of .* must be positive", ".", weight=weight)


def test_a_folder_of_audio_is_for_libriheavy(tmp_path):
    put(tmp_path / "x.wav", clip(100))
    refused("`audio_dir` is '/audio': only `libriheavy` has one, and this is `files`", tmp_path, audio_dir="/audio")


def test_what_is_not_there(tmp_path):
    refused("no folder", tmp_path / "missing")
    refused("no speech", tmp_path)
    refused("no tar file", tmp_path / "missing.tar")
    refused("no tar file", tmp_path / "*.tar")
    refused("no tar file", tmp_path, format="webdataset")
    put(tmp_path / "metadata.csv", "file_name,text\n")
    refused("no speech", tmp_path)


def test_a_hub_id_is_not_guessed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused("there is no folder amphion/Emilia-Dataset.*`format: datasets`", "amphion/Emilia-Dataset")


def test_columns_that_are_missing(tmp_path):
    put(tmp_path / "a" / "metadata.csv", "file,text\nx.wav,One.\n")
    refused("no column `file_name`; it has `file`, `text`", tmp_path / "a", format="metadata")
    put(tmp_path / "b" / "metadata.csv", "x.wav\n")
    refused(r"metadata.csv, near line 1: it has no `\|`", tmp_path / "b")
    put(tmp_path / "e" / "metadata.csv", "file_name,text\na.wav,A.\n,B.\n")
    refused("metadata.csv, near line 3: there is no `file_name`", tmp_path / "e")
    put(tmp_path / "f" / "metadata.csv", f"file_name,text\na.wav,{'a' * 200_000}\n")
    refused("metadata.csv, near line 1: field larger", tmp_path / "f")
    put(tmp_path / "g" / "metadata.csv", "file_name,start_seconds\na.wav,0:30\n")
    refused("metadata.csv, near line 2: `start_seconds` is '0:30', no number", tmp_path / "g")
    audio_dataset(text=["a", "b", "c"]).save_to_disk(tmp_path / "c")
    refused("no column `clip`; it has `audio`, `text`", tmp_path / "c", audio_column="clip")
    DatasetDict({"train": audio_dataset()}).save_to_disk(tmp_path / "d")
    refused("no split `test`; it has `train`", tmp_path / "d", split="test")


def test_tables_and_texts_that_are_not_utf_8_are_named(tmp_path):
    put(tmp_path / "a" / "metadata.csv", "file_name,text\nx.wav,Zürich.\n".encode("latin-1"))
    put(tmp_path / "b" / "metadata.csv", "x|Zürich.|Zürich.\n".encode("latin-1"))
    put(tmp_path / "c" / "84_1_0_0.normalized.txt", "Zürich.".encode("latin-1"))
    put(tmp_path / "d" / "metadata.csv", "file_name,text\nx.wav,Zurich.\n".encode("utf-16"))
    for name in "abcd":
        refused(f"`path`: .*{name}/(metadata.csv|84_1.*txt) is no text in UTF-8.*Convert it", tmp_path / name)


@pytest.mark.parametrize("streaming", [False, True])
def test_what_datasets_needs_torchcodec_for_is_named(tmp_path, monkeypatch, streaming):
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    put(tmp_path / "data" / "metadata.csv", "file_name,text\nx.wav,One.\n")
    put(tmp_path / "data" / "x.wav", clip(2400))
    message = "of .*data the library `datasets` makes rows by torchcodec.*Leave `format` out"
    refused(message, tmp_path / "data", format="datasets", streaming=streaming)
    assert fields_of(rows_of(tmp_path / "data")) == [("x.wav", "One.", None, None)]


@pytest.mark.parametrize(
    ("names", "format"),
    [
        (["x.tar"], "webdataset"),
        (["libriheavy_cuts_small.jsonl.gz", "small/a/b/c.flac", "small/a/b/c.json"], "librilight"),
        (["data/train.parquet"], "datasets"),
        (["dataset_info.json", "state.json"], "datasets"),
        (["a/b/c.flac", "a/b/c.json"], "librilight"),
        (["a/b/c.flac"], "files"),
        (["a/b/a_b_0_0.wav", "a/b/a_b_0_0.normalized.txt"], "libritts"),
        (["readme.txt"], "files"),
    ],
)
def test_detection(tmp_path, names, format):
    for name in names:
        put(tmp_path / name, "")
    assert detect_format(str(tmp_path)) == format


def test_the_docstring_names_all_formats():
    named = set(re.findall(r'`"(\w+)"`', AudioSource.__doc__))
    assert set(READERS) | {"auto"} <= named
    assert {"auto", *READERS} == set(typing.get_args(AudioSource.__annotations__["format"]))
