"""Laws of a store of latents: what the model would compute, whole after any interruption, of one tokenizer only."""

import json
import os
import shutil
import tarfile
from dataclasses import asdict, replace

import numpy as np
import pytest
import soundfile
import torch
from datasets import Audio, Dataset, load_dataset

from ditar_hf import DiTARFeatureExtractor, DiTARProcessor, DiTARTokenizer, DiTARVAE
from ditar_hf.training import latent_shards, stores
from ditar_hf.training.collator import DiTARDataCollator
from ditar_hf.training.data import AudioSource
from ditar_hf.training.examples import ExampleArguments, ExampleMaker
from ditar_hf.training.filters import FilterArguments
from ditar_hf.training.latents import describe_latents, encode_source, hash_vae, load_latents

RATE, PATCH_LENGTH = 24_000, 2400
LENGTHS = [5000, 2400, 12_345, 1, 7200, 2401, 30_000, 600]
TEXTS = ["One.", "Two.", "Three.", "Four.", "Five.", "Six.", "Seven.", "Eight."]


@pytest.fixture
def vae(make_vae) -> DiTARVAE:
    return make_vae()


def speech(place: int, num_samples: int, rate: int = RATE) -> np.ndarray:
    noise = np.random.default_rng(place).standard_normal(num_samples)
    return (0.2 * np.sin(2 * np.pi * (150 + 50 * place) * np.arange(num_samples) / rate) + 0.05 * noise).astype("f4")


@pytest.fixture
def folder(tmp_path):
    """A data set with speech of several lengths, among it a damaged, an empty, a too long and a missing file."""
    path = tmp_path / "data"
    path.mkdir()
    lines = ["file_name,text,speaker,language"]
    for place, (length, text) in enumerate(zip(LENGTHS, TEXTS, strict=True)):
        soundfile.write(path / f"{place}.wav", speech(place, length), RATE, subtype="FLOAT")
        lines.append(f"{place}.wav,{text},eva,en")
    soundfile.write(path / "long.wav", speech(0, 2 * RATE), RATE)
    soundfile.write(path / "empty.wav", speech(0, 0), RATE)
    (path / "damaged.wav").write_bytes(b"no audio")
    lines[2:2] = ["damaged.wav,A,,", "long.wav,B,,"]
    lines[6:6] = ["empty.wav,C,,", "missing.wav,D,,"]
    (path / "metadata.csv").write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def source(folder) -> AudioSource:
    return AudioSource(str(folder))


SETTINGS = {"rows_per_shard": 3, "batch_seconds": 0.6}
# recordings shorter than any text, and without
FILTERS = FilterArguments(max_seconds=1.5, require_text=False, max_characters_per_second=None)
REJECTED = ["damaged.wav", "long.wav", "empty.wav", "missing.wav"]


def contents(store) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in store.iterdir() if file.name != ".lock"}


# What is stored


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_come_back_in_the_order_of_the_source(vae, source, tmp_path, streaming):
    description = encode_source(vae, source, tmp_path / "store", FILTERS, **SETTINGS)
    assert description["totals"] == {
        "num_rows": 8,
        "num_rejected": 4,
        "reasons": {"it cannot be decoded": 2, "too long": 1, "it holds no samples": 1},
        "num_shards": 4,
        "hours": pytest.approx(sum(LENGTHS) / RATE / 3600),
    }
    rows = load_latents(tmp_path / "store", vae, streaming)
    listed = list(rows)
    assert [row["id"] for row in listed] == [f"{place}.wav" for place in range(8)]
    assert [row["text"] for row in listed] == TEXTS and {type(row["text"]) for row in listed} == {str}
    assert {(row["speaker"], row["language"]) for row in listed} == {("eva", "en")}
    assert [int(row["num_samples"]) for row in listed] == LENGTHS
    for row, length in zip(listed, LENGTHS, strict=True):
        assert row["latents"].dtype == torch.float32
        assert row["latents"].shape == (row["num_frames"], 8) == (-(-length // PATCH_LENGTH) * 4, 8)
    on_disk = next(iter(load_dataset("parquet", data_files=f"{tmp_path}/store/*.parquet", split="train")))
    assert np.array_equal(np.array(on_disk["latents"], np.float16), listed[0]["latents"].numpy().astype(np.float16))
    with_numpy = next(iter(rows.with_format("numpy")))["latents"]
    assert with_numpy.shape == (12, 8) and with_numpy.dtype == np.float32
    if streaming:
        assert rows.num_shards == 4


def test_a_store_is_told_from_another_without_a_copy_of_it(make_vae, vae, source, tmp_path, monkeypatch):
    encode_source(vae, source, tmp_path / "store", FILTERS, **SETTINGS)
    encode_source(make_vae(seed=1), source, tmp_path / "other", FILTERS, **SETTINGS)
    monkeypatch.setattr("ditar_hf.training.latents.load_dataset", None)
    description = describe_latents(tmp_path / "store")
    shutil.copytree(tmp_path / "store", tmp_path / "moved")
    assert describe_latents(tmp_path / "moved") == description != describe_latents(tmp_path / "other")


def test_what_was_rejected_is_named(vae, source, tmp_path):
    encode_source(vae, source, tmp_path / "store", FILTERS, **SETTINGS)
    rejected = [json.loads(line) for line in (tmp_path / "store" / "rejected.jsonl").read_text().splitlines()]
    assert [entry["id"] for entry in rejected] == REJECTED
    reasons = [entry["reason"] for entry in rejected]
    for reason, words in zip(
        reasons,
        ["it cannot be decoded: Format not recognised", "too long", "no samples", "missing.wav"],
        strict=True,
    ):
        assert words in reason


@pytest.mark.parametrize("streaming", [False, True])
def test_shards_without_a_usable_row(vae, folder, tmp_path, streaming):
    (folder / "metadata.csv").unlink()
    (folder / "0.wav").write_bytes(b"the first row is rejected, too")
    source = AudioSource(str(folder))
    totals = encode_source(vae, source, tmp_path / "store", FILTERS, rows_per_shard=1)["totals"]
    assert (totals["num_rows"], totals["num_rejected"], totals["num_shards"]) == (7, 4, 11)
    assert [row["id"] for row in load_latents(tmp_path / "store", vae, streaming)] == [f"{i}.wav" for i in range(1, 8)]


def test_a_store_made_anew_is_read_anew(make_vae, vae, source, tmp_path):
    stores = []
    for tokenizer in (vae, make_vae(seed=1)):
        encode_source(tokenizer, source, tmp_path / "store", FILTERS, **SETTINGS)
        stores.append(load_latents(tmp_path / "store", tokenizer)[0]["latents"])
        shutil.rmtree(tmp_path / "store")
    assert not torch.equal(*stores)


@pytest.mark.parametrize(
    ("overrides", "trim_margin_seconds"), [({}, 0.1), ({}, None), ({"encoder_causal": True}, 0.05)]
)
def test_latents_are_what_the_model_computes_of_waveforms(
    make_model, make_vae_config, folder, source, tmp_path, overrides, trim_margin_seconds
):
    for place in (2, 4):  # of which the silence at the end is trimmed
        samples = np.concatenate([speech(place, LENGTHS[place]), np.zeros(9000, "f4")])
        soundfile.write(folder / f"{place}.wav", samples, RATE, subtype="FLOAT")
    vae_config = make_vae_config(**overrides).to_dict()
    model = make_model(vae_config=vae_config)
    how = ExampleArguments(trim_margin_seconds=trim_margin_seconds)
    encode_source(model.vae, source, tmp_path / "store", FILTERS, how, **SETTINGS)
    stored = load_latents(tmp_path / "store", model.vae)
    processor = DiTARProcessor(DiTARFeatureExtractor(), DiTARTokenizer.from_texts({"en": TEXTS}))
    maker, collator = ExampleMaker(processor, how, FILTERS), DiTARDataCollator(processor)
    examples = [maker.complete(maker.outline(row)) for row in source.read() if row["id"] not in REJECTED]
    kept = 9000 if trim_margin_seconds is None else round(trim_margin_seconds * RATE)
    lengths = [len(example["audio"]["array"]) for example in examples]
    assert [int(row["num_samples"]) for row in stored] == lengths
    assert 0 <= lengths[2] - LENGTHS[2] - kept < RATE // 100  # rounded up to a frame of 10 ms
    of_waveforms, of_latents = collator(examples), collator(list(stored))
    expected, mask = model.encode_waveforms(of_waveforms["waveforms"], of_waveforms["waveforms_mask"])
    assert torch.equal(of_latents["latents_mask"], mask)
    for name in ("input_ids", "labels", "attention_mask"):
        assert torch.equal(of_latents[name], of_waveforms[name])
    # float16 keeps 11 bits; a batch is the row alone within 1e-4
    difference = (of_latents["latents"] - expected)[mask.bool()].abs()
    assert (difference <= 1e-4 + expected[mask.bool()].abs() * 2**-11).all()


def test_what_the_filters_leave_out_is_counted_and_not_encoded(vae, folder, source, tmp_path, monkeypatch):
    table = (folder / "metadata.csv").read_text().replace("Two.,eva,en", "Two.,eva,de")
    (folder / "metadata.csv").write_text(table.replace("3.wav,Four.", "3.wav,"))
    decoded, decode = [], latent_shards.decode_audio
    monkeypatch.setattr(
        latent_shards, "decode_audio", lambda audio, **options: decoded.append(audio) or decode(audio, **options)
    )
    filters = replace(FILTERS, languages=["EN"], min_seconds=0.2, require_text=True)
    description = encode_source(vae, source, tmp_path / "store", filters)
    assert description["totals"]["reasons"] == {
        "no language stated": 4,
        "too short": 2,
        "another language": 1,
        "no text": 1,
    }
    rows = load_latents(tmp_path / "store")
    assert [row["text"] for row in rows] == ["One.", "Three.", "Five.", "Seven."] and len(decoded) == 6
    # those of training, but for the longest
    expected = {**asdict(FilterArguments()), "max_seconds": 40.0}
    with pytest.raises(ValueError, match="no row can be used"):
        encode_source(vae, AudioSource(str(folder), format="files"), tmp_path / "other")
    assert json.loads((tmp_path / "other" / "latents.json").read_text())["filters"] == expected


def test_other_rates_are_resampled(vae, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    low = 0.3 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    same = 0.3 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    for name, samples, rate in (("a.flac", low, 16_000), ("b.flac", same, RATE)):
        soundfile.write(data / name, samples, rate, subtype="PCM_24")
    encode_source(vae, AudioSource(str(data)), tmp_path / "store", FILTERS)
    first, second = load_latents(tmp_path / "store")
    assert abs(int(first["num_samples"]) - RATE) <= 1 and int(second["num_samples"]) == RATE
    # the same tone but for the ring of the resampler at the ends
    assert (first["latents"][4:-8] - second["latents"][4 : len(first["latents"]) - 8]).abs().max() < 0.1


def test_latents_beyond_float16_are_rejected(vae, source, tmp_path, monkeypatch):
    encode = vae.encode
    monkeypatch.setattr(vae, "encode", lambda *inputs: scaled(encode(*inputs), 1e6))
    with pytest.raises(ValueError, match="no row can be used"):
        encode_source(vae, source, tmp_path / "store", FILTERS, **SETTINGS)
    assert "not finite" in (tmp_path / "store" / "rejected.jsonl").read_text()


def scaled(posterior, factor):
    posterior.mean = posterior.mean * factor
    return posterior


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


@pytest.fixture
def whole(vae, source, tmp_path):
    encode_source(vae, source, tmp_path / "whole", FILTERS, **SETTINGS)
    return contents(tmp_path / "whole")


def test_a_store_is_complete_after_any_interruption(vae, source, tmp_path, whole, monkeypatch):
    assert set(whole) == {"latents.json", "rejected.jsonl", *(f"latents-{index:05d}.parquet" for index in range(4))}
    moments = [(vae, "encode", count) for count in range(6)] + [(os, "replace", count) for count in range(7)]
    for number, (owner, name, count) in enumerate(moments):
        store = tmp_path / str(number)
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(owner, name, killed_at(getattr(owner, name), count))
            encode_source(vae, source, store, FILTERS, **SETTINGS)
        for message in ("not complete", "no store"):
            if (store / "latents.json").exists() == (message == "not complete"):
                with pytest.raises(ValueError, match=f"{message}.*`?ditar encode`?"):
                    load_latents(store)
        encode_source(vae, source, store, FILTERS, **SETTINGS)
        assert contents(store) == whole, (name, count)


def test_interrupted_again_and_again_it_still_completes(vae, source, tmp_path, whole, monkeypatch):
    for _ in range(20):
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", killed_at(os.replace, 2))
            try:
                encode_source(vae, source, tmp_path / "store", FILTERS, **SETTINGS)
                break
            except Killed:
                pass
    assert contents(tmp_path / "store") == whole


def test_half_a_file_is_written_anew(vae, source, tmp_path, whole):
    store = tmp_path / "store"
    store.mkdir()
    (store / "latents.json.tmp").write_bytes(b"{")
    encode_source(vae, source, store, FILTERS, **SETTINGS)
    (store / "latents-00001.parquet").rename(store / "latents-00001.parquet.tmp")
    os.truncate(store / "latents-00001.parquet.tmp", 100)
    with pytest.raises(ValueError, match="not complete"):
        load_latents(store)
    encode_source(vae, source, store, FILTERS, **SETTINGS)
    assert contents(store) == whole


def test_finished_shards_are_not_decoded_again(vae, source, tmp_path, whole, monkeypatch):
    store = tmp_path / "whole"
    (store / "latents-00002.parquet").unlink()
    decoded, decode = [], latent_shards.decode_audio

    def noted(audio, **options):
        decoded.append(audio["path"])
        return decode(audio, **options)

    monkeypatch.setattr(latent_shards, "decode_audio", noted)
    encode_source(vae, source, store, FILTERS, **SETTINGS)
    names = [os.path.basename(path) for path in decoded]
    assert names == [row["id"] for row in list(source.read())[6:9]] and contents(store) == whole
    encode_source(vae, source, store, FILTERS, **SETTINGS)  # complete: nothing to do
    assert len(decoded) == 3 and contents(store) == whole


def test_a_streamed_source_goes_on_where_it_was(vae, folder, tmp_path, monkeypatch):
    audio = [{"bytes": (folder / f"{place}.wav").read_bytes(), "path": None} for place in range(8)]
    rows = Dataset.from_dict({"audio": audio, "text": TEXTS}).cast_column("audio", Audio())
    (tmp_path / "parquet").mkdir()
    rows.to_parquet(tmp_path / "parquet" / "train.parquet")
    source = AudioSource(str(tmp_path / "parquet"), streaming=True)
    encode_source(vae, source, tmp_path / "whole", FILTERS, rows_per_shard=4)
    for count in range(5):
        store = tmp_path / f"store{count}"
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(os, "replace", killed_at(os.replace, count))
            encode_source(vae, source, store, FILTERS, rows_per_shard=4)
        encode_source(vae, source, store, FILTERS, rows_per_shard=4)
        assert contents(store) == contents(tmp_path / "whole")
    assert [row["text"] for row in load_latents(tmp_path / "whole", vae, streaming=True)] == TEXTS


# What is refused


def refused(message, function, *arguments, **options):
    with pytest.raises(ValueError, match=message):
        function(*arguments, **options)


def test_latents_of_another_tokenizer(make_vae, vae, source, tmp_path):
    store = tmp_path / "store"
    encode_source(vae, source, store, FILTERS, **SETTINGS)
    other = make_vae(seed=1)
    refused(f"`vae_hash` is '{hash_vae(vae)}' there and '{hash_vae(other)}' here", load_latents, store, other)
    # weights of the same names and shapes
    causal = make_vae(encoder_causal=True)
    causal.load_state_dict(vae.state_dict())
    refused("`vae_config.encoder_causal` is False there and True here", load_latents, store, causal)
    vae.set_latent_statistics(torch.zeros(8), torch.ones(8))
    refused("`vae_hash`", load_latents, store, vae)
    assert len(load_latents(store)) == 8


@pytest.mark.parametrize("complete", [True, False])
def test_a_store_that_was_begun_otherwise_is_left_alone(
    make_vae, vae, source, folder, tmp_path, monkeypatch, complete
):
    store = tmp_path / "store"
    with monkeypatch.context() as patch:
        if not complete:
            patch.setattr(os, "replace", killed_at(os.replace, 2))
        try:
            encode_source(vae, source, store, FILTERS, **SETTINGS)
        except Killed:
            pass
    before = contents(store)
    other = tmp_path / "other"
    other.mkdir()
    soundfile.write(other / "0.wav", speech(0, 5000), RATE)
    refused("`vae_hash`", encode_source, make_vae(seed=1), source, store, FILTERS, **SETTINGS)
    refused("`source.path` is .*data.* there and .*other", encode_source, vae, AudioSource(str(other)), store)
    refused(
        "`source.language`", encode_source, vae, AudioSource(str(folder), language="en"), store, FILTERS, **SETTINGS
    )
    for name, value in {"rows_per_shard": 4, "patch_size": 2}.items():
        refused(f"`settings.{name}` is", encode_source, vae, source, store, FILTERS, **{**SETTINGS, name: value})
    for name, value in {
        "min_sampling_rate": 8000,
        "trim_margin_seconds": None,
        "trim_threshold_decibels": -9.0,
    }.items():
        examples = ExampleArguments(**{name: value})
        refused(f"`settings.{name}` is", encode_source, vae, source, store, FILTERS, examples, **SETTINGS)
    for name, value in {"max_seconds": 3.0, "languages": ["en"], "min_seconds": 0.1}.items():
        filters = replace(FILTERS, **{name: value})
        refused(f"`filters.{name}` is", encode_source, vae, source, store, filters, **SETTINGS)
    with open(folder / "metadata.csv", "a") as file:
        file.write("0.wav,Again.,,\n")
    refused("`source.num_rows` is 12 there and 13 here", encode_source, vae, source, store, FILTERS, **SETTINGS)
    assert contents(store) == before


def test_tar_files_that_came_or_grew_are_noticed(vae, folder, tmp_path):
    def pack(name, *members):
        with tarfile.open(tmp_path / name, "w") as archive:
            for member in members:
                archive.add(folder / member, member)

    source, store = AudioSource(str(tmp_path / "*.tar")), tmp_path / "store"
    pack("0.tar", "0.wav")
    first = encode_source(vae, source, store, FILTERS, **SETTINGS)
    assert encode_source(vae, source, store, FILTERS, **SETTINGS) == first
    pack("1.tar", "1.wav")
    refused("`source.num_tars` is 1 there and 2 here", encode_source, vae, source, store, FILTERS, **SETTINGS)
    (tmp_path / "1.tar").unlink()
    pack("0.tar", "0.wav", "2.wav")
    refused("`source.tars_hash`", encode_source, vae, source, store, FILTERS, **SETTINGS)


def test_the_weight_in_a_mixture_and_the_size_of_batches_may_change(vae, source, folder, tmp_path):
    first = encode_source(vae, source, tmp_path / "store", FILTERS, **SETTINGS)
    again = {**SETTINGS, "batch_seconds": 5}
    assert encode_source(vae, AudioSource(str(folder), weight=3.0), tmp_path / "store", FILTERS, **again) == first


def test_no_usable_row(vae, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.wav").write_bytes(b"no audio")
    source = AudioSource(str(tmp_path / "data"))
    refused("no row can be used.*cannot be decoded", encode_source, vae, source, tmp_path / "store", FILTERS)
    tarfile.open(tmp_path / "empty.tar", "w").close()
    refused("there is no row", encode_source, vae, AudioSource(str(tmp_path / "empty.tar")), tmp_path / "other")


def test_a_folder_with_other_things(vae, source, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    refused("holds other things", encode_source, vae, source, tmp_path)
    refused("is a file", encode_source, vae, source, tmp_path / "notes.txt")
    assert {file.name for file in tmp_path.iterdir()} == {"notes.txt", "data"}


def test_a_store_that_is_being_written(vae, source, tmp_path):
    (tmp_path / "store").mkdir()
    with stores.FileLock(tmp_path / "store" / ".lock"):
        refused("another process", encode_source, vae, source, tmp_path / "store")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("patch_size", 0),
        ("examples", ExampleArguments(min_sampling_rate=0)),
        ("rows_per_shard", 0),
        ("batch_seconds", float("nan")),
        ("dtype", "int8"),
        ("dtype", "bfloat16"),  # on a CPU
    ],
)
def test_settings_out_of_range(vae, source, tmp_path, name, value):
    named = "min_sampling_rate" if name == "examples" else name
    refused(f"`{named}` is", encode_source, vae, source, tmp_path / "store", **{name: value})
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("text", "message"), [("{", "damaged"), ("[]", "damaged"), ('{"format_version": 1}', "format 1")]
)
def test_a_description_that_cannot_be_read(vae, source, tmp_path, text, message):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "latents.json").write_text(text)
    refused(message, load_latents, tmp_path / "store")
    refused(message, encode_source, vae, source, tmp_path / "store")
