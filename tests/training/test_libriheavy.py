"""Laws of manifests of libriheavy: segments of long files with the texts of their books, as table and stream."""

import gzip
import json

import numpy as np
import pyarrow
import pytest
from datasets import Dataset, IterableDataset
from datasets.distributed import split_dataset_by_node

from ditar_hf.training.audio import UnusableAudioError, decode_audio, segment_of
from ditar_hf.training.data import EXAMPLE_FEATURES, AudioSource, describe_rows
from ditar_hf.training.examples import ExampleArguments, LeftOutError
from ditar_hf.training.filters import FilterArguments
from ditar_hf.training.latent_shards import read_waveform
from ditar_hf.training.vae_crops import CropArguments, CropBatches

RATE = 16_000


@pytest.fixture
def corpus(tmp_path, make_librilight, make_cut, put_manifest):
    """Folder with two manifests of a file each, and Libri-light in `librilight`."""
    make_librilight([[0.5, 3.0]])
    make_librilight([[0.5, 3.0]], speaker="200", book="other", stem="x")
    cuts = [make_cut(0, 0.5, 1.25), make_cut(1, 1.75, 2.0), make_cut(2, 7.499, 0.501)]
    put_manifest(tmp_path / "libriheavy_cuts_small.jsonl.gz", cuts)
    cuts = [make_cut(number, number * 1.5, 1.5, source="small/200/other/x.flac") for number in range(5)]
    put_manifest(tmp_path / "libriheavy_cuts_dev.jsonl.gz", cuts)
    return tmp_path


@pytest.fixture
def source(corpus):
    """Factory of the source of a manifest or a pattern of them."""

    def make(name="libriheavy_cuts_small.jsonl.gz", **options):
        return AudioSource(str(corpus / name), audio_dir=str(corpus / "librilight"), **options)

    return make


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_are_segments_with_the_texts_of_the_book(source, corpus, streaming):
    rows = source(streaming=streaming).read()
    assert isinstance(rows, IterableDataset if streaming else Dataset) and rows.features == EXAMPLE_FEATURES
    listed = list(rows)
    assert [row["id"] for row in listed] == [f"small/100/sea_fairies/01_baum_{number}" for number in range(3)]
    assert [row["text"] for row in listed] == [f'"It\'s {number}," she asked.' for number in range(3)]
    assert {(row["speaker"], row["language"], row["dnsmos"]) for row in listed} == {("100", "en", None)}
    assert [(row["start_seconds"], row["duration_seconds"]) for row in listed] == [
        (0.5, 1.25),
        (1.75, 2.0),
        (7.499, 0.501),
    ]
    whole, _ = decode_audio({"path": str(corpus / "librilight/small/100/sea_fairies/01_baum.flac")})
    for row, (first, last) in zip(listed, ((0.5, 1.75), (1.75, 3.75), (7.499, 8.0)), strict=True):
        samples, rate = decode_audio(row["audio"], **segment_of(row))
        assert rate == RATE
        np.testing.assert_array_equal(samples, whole[round(first * RATE) : round(last * RATE)])


def test_a_table_and_a_stream_hold_the_same(source):
    pattern = "libriheavy_cuts_*.jsonl.gz"
    table, stream = source(pattern).read(), source(pattern, streaming=True).read()
    assert list(table) == list(stream) and len(table) == 8
    assert stream.num_shards == 2


def test_a_table_does_not_lie_in_memory(source, corpus, make_cut, put_manifest):
    cuts = (make_cut(number, 0.0, 1.0, texts=["a" * 2000, "A"]) for number in range(1000))
    put_manifest(corpus / "libriheavy_cuts_large.jsonl.gz", cuts)
    before = pyarrow.total_allocated_bytes()
    table = source("libriheavy_cuts_large.jsonl.gz").read()
    assert len(table) == 1000 and table[999]["id"].endswith("_999")
    assert pyarrow.total_allocated_bytes() - before < 500_000
    description = describe_rows(source("libriheavy_cuts_large.jsonl.gz"), table)
    assert description["num_rows"] == 1000 and len(description["rows_hash"]) == 64


def test_a_manifest_that_was_replaced_is_read_anew(source, corpus, make_cut, put_manifest):
    assert len(source().read()) == 3
    description = describe_rows(source(streaming=True), source(streaming=True).read())
    put_manifest(corpus / "libriheavy_cuts_small.jsonl.gz", [make_cut(7, 0.0, 1.0)])
    assert [row["id"][-1] for row in source().read()] == ["7"]
    again = describe_rows(source(streaming=True), source(streaming=True).read())
    assert again["num_manifests"] == 1 and again["manifests_hash"] != description["manifests_hash"]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_processes_together_see_every_row_once_from_any_state(source, world_size):
    def read(rank):
        stream = source("libriheavy_cuts_*.jsonl.gz", streaming=True).read()
        return split_dataset_by_node(stream, rank, world_size)

    seen = []
    for rank in range(world_size):
        whole = list(read(rank))
        seen += [row["id"] for row in whole]
        for count in range(len(whole)):
            rows, again = read(rank), read(rank)
            iterator = iter(rows)
            for _ in range(count):
                next(iterator)
            again.load_state_dict(rows.state_dict())
            assert list(again) == whole[count:]
    assert sorted(seen) == sorted(row["id"] for row in source("libriheavy_cuts_*.jsonl.gz").read())


def test_what_lhotse_prepares_further_and_other_paths(source, corpus, make_cut, put_manifest):
    first, second, third = (make_cut(number, 0.0, 1.0) for number in range(3))
    del first["supervisions"][0]["custom"]
    first["supervisions"][0]["text"] = " One text. "
    second["recording"]["sources"][0]["source"] = "small/100/sea_fairies/01_baum.flac"
    elsewhere = str(corpus / "elsewhere.flac")
    third["recording"]["sources"][0]["source"] = elsewhere
    put_manifest(corpus / "libriheavy_cuts_small.jsonl.gz", [first, second, third])
    rows = list(source().read())
    assert rows[0]["text"] == "One text."
    inside = str(corpus / "librilight/small/100/sea_fairies/01_baum.flac")
    assert [row["audio"]["path"] for row in rows] == [inside, inside, elsewhere]


def test_without_a_folder_paths_stay_as_they_are(corpus):
    rows = AudioSource(str(corpus / "libriheavy_cuts_small.jsonl.gz"), language="en-US").read()
    assert rows[0]["audio"]["path"] == "download/librilight/small/100/sea_fairies/01_baum.flac"
    assert rows[0]["language"] == "en-US"
    with pytest.raises(UnusableAudioError, match="cannot be decoded.*01_baum.flac"):
        decode_audio(rows[0]["audio"], **segment_of(rows[0]))


# What reads segments


def test_latents_and_crops_are_of_the_segment_only(corpus, source, make_cut, put_manifest):
    row = source().read()[1]
    examples = ExampleArguments(trim_margin_seconds=None)
    waveform = read_waveform(row, RATE, FilterArguments(max_seconds=5.0), examples)
    np.testing.assert_array_equal(waveform, decode_audio(row["audio"], **segment_of(row))[0])
    with pytest.raises(LeftOutError, match="too long"):
        read_waveform(row, RATE, FilterArguments(max_seconds=1.5), examples)
    put_manifest(corpus / "libriheavy_cuts_small.jsonl.gz", [make_cut(0, 2.0, 0.25)])
    arguments = CropArguments(crop_seconds=0.1).without_changes()
    batches = CropBatches([source()], arguments, sampling_rate=RATE, hop_length=400, batch_size=8)
    crops = next(iter(batches))["target_waveforms"].numpy()
    row = source().read()[0]
    segment, _ = decode_audio(row["audio"], **segment_of(row))
    places = np.lib.stride_tricks.sliding_window_view(segment, 1600)
    assert all((places == crop).all(axis=1).any() for crop in crops)


# What is refused


def refused(message, source):
    with pytest.raises(ValueError, match=message):
        list(source.read())


@pytest.mark.parametrize("streaming", [False, True])
def test_a_damaged_manifest_is_named_with_the_line(source, corpus, make_cut, streaming):
    file = corpus / "libriheavy_cuts_small.jsonl.gz"
    lines = [json.dumps(make_cut(number, 0.0, 1.0)) for number in range(200)]
    content = gzip.compress("\n".join(lines).encode())

    def written(content):
        file.write_bytes(content)
        return source(streaming=streaming)

    refused("libriheavy_cuts_small.*is damaged near line .*EOFError", written(content[:-100]))
    refused("libriheavy_cuts_small.*is damaged near line 0", written(lines[0].encode()))
    for line, error in (
        ("{", "JSONDecodeError"),
        ("{}", "supervisions"),
        ("[]", "TypeError"),
        ("", "JSONDecodeError"),
    ):
        refused(f"line 2, .*{error}", written(gzip.compress("\n".join([lines[0], line, lines[1]]).encode())))
    cut = make_cut(0, None, 1.0)
    refused("line 1, .*TypeError", written(gzip.compress(json.dumps(cut).encode())))
    damaged = bytearray(content)
    damaged[len(content) // 2] ^= 255
    refused("is damaged near line", written(bytes(damaged)))


def test_what_is_not_there(source, corpus, put_manifest):
    refused("there is no manifest .*missing.jsonl.gz", source("missing.jsonl.gz"))
    refused(
        "no folder .*nowhere. Name that of Libri-light", AudioSource(str(corpus / "x.jsonl.gz"), audio_dir="nowhere")
    )
    refused("name a manifest of libriheavy", AudioSource(str(corpus), format="libriheavy"))
    put_manifest(corpus / "empty.jsonl.gz", [])
    refused("no speech", source("empty.jsonl.gz"))
