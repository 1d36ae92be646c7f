"""Laws of an inspection: figures are those of the files, all rows are accounted for, and the source is as it was."""

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from datasets import IterableDataset

from ditar_hf import DiTARFeatureExtractor, DiTARProcessor, DiTARTokenizer
from ditar_hf.training import filters
from ditar_hf.training.audio import decode_audio, segment_of
from ditar_hf.training.data import AudioSource, spread_rows
from ditar_hf.training.examples import ExampleArguments, ExampleMaker
from ditar_hf.training.filters import FilterArguments
from ditar_hf.training.inspection import QUANTILES, group_reason, inspect_source
from ditar_hf.training.schema import EXAMPLE_FEATURES, make_example

# recordings of the fixtures are short, and their texts long for them
ANY = {
    "min_seconds": 0.05,
    "max_seconds": 100.0,
    "max_characters_per_second": 1000.0,
    "min_characters_per_second": 0.1,
}


def find(source, processor=None, examples=None, *, decode=False, limit=None, **fields):
    return inspect_source(
        source, FilterArguments(**{**ANY, **fields}), processor, examples, decode=decode, limit=limit
    )


def summarize(*arguments, **options):
    return find(*arguments, **options).summarize()


def rejects(summary) -> dict[str, int]:
    return {entry["reason"]: entry["num_rows"] for entry in summary["rejected"]}


@pytest.fixture
def mixed(tmp_path, put_tar, emilia, yodas):
    """Two tar files as of Emilia and Emilia-YODAS, three of whose rows are unusable."""
    members = {**emilia(0), **emilia(1, language="EN"), **yodas(2), **yodas(3, dnsmos=1.5)}
    put_tar(tmp_path / "data" / "0.tar", members)
    members = {**emilia(4, speaker=None), **yodas(5, text=" "), **emilia(6, language="de", speaker="EN_B00001")}
    damaged = {name: b"no audio" if name.endswith("mp3") else content for name, content in emilia(7).items()}
    put_tar(tmp_path / "data" / "1.tar", {**members, **damaged})
    return AudioSource(str(tmp_path / "data"))


# What is counted


@pytest.mark.parametrize("decode", [False, True])
def test_figures_are_those_of_the_files(mixed, decode):
    summary = summarize(mixed, decode=decode, min_dnsmos=2)
    usable = [row for row in mixed.read() if row["id"][-1] in "01246"]
    lengths = [len(decode_audio(row["audio"])[0]) / 24_000 for row in usable]
    assert summary["num_rows"] == 8 and summary["num_source_rows"] is None
    assert summary["num_usable_rows"] == len(usable) == 5
    assert summary["hours"] == pytest.approx(sum(lengths) / 3600)
    assert summary["lengths"] == ("decoded" if decode else "headers")
    assert summary["speakers"] == {
        "num_speakers": 3,
        "largest": "EN_B00000",
        "largest_share": pytest.approx((lengths[0] + lengths[1]) / sum(lengths)),
        "num_rows_without": 1,
    }
    assert {entry["language"]: entry["num_rows"] for entry in summary["languages"]} == {"en": 3, "EN": 1, "de": 1}
    assert summary["sampling_rates"] == [{"sampling_rate": 24_000, "num_rows": 5}]
    speeds = [len(row["text"]) / seconds for row, seconds in zip(usable, lengths, strict=True)]
    for name, values in (("seconds", lengths), ("characters_per_second", speeds)):
        expected = dict(zip(QUANTILES, np.quantile(values, list(QUANTILES.values())), strict=True))
        assert summary[name] == pytest.approx(expected) and summary[name]["max"] == pytest.approx(max(values))
    assert summary["tokens_per_second"] is None and summary["num_tokens"] is None
    assert rejects(summary) == {filters.LOW_DNSMOS: 1, filters.NO_TEXT: 1, "it cannot be decoded": 1}


@pytest.mark.parametrize(
    "fields", [{}, {"languages": ["de"]}, {"min_dnsmos": 3.2}, {"min_seconds": 0.15}, {"languages": ["fr"]}]
)
def test_all_rows_are_accounted_for(mixed, fields):
    summary = summarize(mixed, **fields)
    assert summary["num_rows"] == 8 == summary["num_usable_rows"] + summary["num_rejected"]
    assert summary["num_rejected"] == sum(rejects(summary).values())
    for name in ("languages", "sampling_rates"):
        assert sum(entry["num_rows"] for entry in summary[name]) == summary["num_usable_rows"]
    assert math.fsum(entry["hours"] for entry in summary["languages"]) == pytest.approx(summary["hours"])
    counts = [entry["num_rows"] for entry in summary["rejected"]]
    assert counts == sorted(counts, reverse=True)


def test_no_usable_row_has_no_quantiles(mixed):
    summary = summarize(mixed, languages=["fr"])
    assert summary["hours"] == 0 and summary["seconds"] is None and summary["speakers"]["largest_share"] is None
    assert rejects(summary)[filters.OTHER_LANGUAGE] == 7


def test_headers_and_samples_agree_for_all_formats_and_for_segments(
    tmp_path, encode_speech, make_librilight, make_cut, put_manifest
):
    folder = tmp_path / "files"
    folder.mkdir()
    for number, (suffix, rate) in enumerate((("wav", 16_000), ("flac", 44_100), ("mp3", 24_000), ("ogg", 48_000))):
        content = encode_speech(0.3 + 0.1 * number, rate, suffix.upper())
        (folder / f"{number}.{suffix}").write_bytes(content)
    make_librilight([])
    # the last one is stated to go on for a moment after the end of its file
    put_manifest(tmp_path / "cuts.jsonl.gz", [make_cut(0, 0.5, 1.25), make_cut(1, 2.0, 3.5), make_cut(2, 7.0, 1.05)])
    cuts = AudioSource(str(tmp_path / "cuts.jsonl.gz"), audio_dir=str(tmp_path / "librilight"), streaming=True)
    for source, rates in ((AudioSource(str(folder)), 4), (cuts, 1)):
        headers, decoded = (find(source, decode=decode, require_text=False) for decode in (False, True))
        expected = [decode_audio(row["audio"], **segment_of(row)) for row in source.read()]
        assert list(decoded.seconds) == [len(samples) / rate for samples, rate in expected]
        assert list(headers.seconds) == pytest.approx(list(decoded.seconds), abs=1e-4)
        assert headers.sampling_rates == decoded.sampling_rates and len(headers.sampling_rates) == rates


def test_what_a_source_states_of_lengths_is_not_believed(tmp_path, put_tar, emilia):
    source = AudioSource(str(put_tar(tmp_path / "0.tar", {**emilia(0, duration=9.0), **emilia(1, duration=None)})))
    seconds = find(source).seconds
    assert seconds[0] == seconds[1] < 0.2
    # both by what is stated and by what is there
    assert rejects(summarize(source, max_seconds=5.0)) == {filters.TOO_LONG: 1}
    assert rejects(summarize(source, min_seconds=5.0)) == {filters.TOO_SHORT: 2}


def test_only_decoding_finds_what_is_cut_off(tmp_path, encode_speech):
    (tmp_path / "data").mkdir()
    content = encode_speech(2.0, format="MP3")
    (tmp_path / "data" / "a.mp3").write_bytes(content)
    (tmp_path / "data" / "b.mp3").write_bytes(content[: len(content) // 2])
    source = AudioSource(str(tmp_path / "data"))
    assert rejects(summarize(source, require_text=False)) == {}
    summary = summarize(source, require_text=False, decode=True)
    assert rejects(summary) == {"it is cut off": 1} and summary["hours"] == pytest.approx(2 / 3600, rel=0.1)
    assert summary["rejected"][0]["example_id"] == "b.mp3"


# Why rows are left out


@pytest.mark.parametrize(
    ("reasons", "kind"),
    [
        (["no text"], "no text"),
        (["it cannot be decoded: no such file (a.wav)", "it cannot be decoded (b.wav)"], "it cannot be decoded"),
        ([f"its sampling rate is {r} Hz, less than 16000 Hz" for r in (8000, 11025)], "its sampling rate is … Hz"),
        (["it begins at 5.25 seconds of a file of 4", "it begins at 1 seconds of a file of 0.5"], "it begins at …"),
        (["1 phones of its text are outside the vocabulary"], "… phones of its text"),
    ],
)
def test_reasons_of_one_kind_are_one(reasons, kind):
    (group,) = {group_reason(reason) for reason in reasons}
    assert group.startswith(kind) and group_reason(group) == group


def test_kinds_are_counted_and_the_first_row_is_named(tmp_path):
    (tmp_path / "data").mkdir()
    for name, rate in (("a", 24_000), ("b", 8000), ("c", 11_025)):
        soundfile.write(tmp_path / "data" / f"{name}.wav", np.full(rate, 0.1), rate)
    source = AudioSource(str(tmp_path / "data"))
    summary = summarize(source, require_text=False)
    assert summary["rejected"] == [
        {
            "reason": "its sampling rate is … Hz, less than … Hz",
            "num_rows": 2,
            "example_id": "b.wav",
            "example_reason": "its sampling rate is 8000 Hz, less than 16000 Hz",
        }
    ]
    examples = ExampleArguments(min_sampling_rate=8000)
    assert summarize(source, examples=examples, require_text=False)["num_usable_rows"] == 3


# With the processor of a model


def make_processor(*texts):
    return DiTARProcessor(DiTARFeatureExtractor(), DiTARTokenizer.from_texts(texts, "en-us"))


@pytest.fixture
def spoken(tmp_path):
    """A folder of three recordings, each with a second of silence behind it."""
    folder = tmp_path / "spoken"
    folder.mkdir()
    lines = ["file_name,text,language"]
    for number, text in enumerate(["The rain has stopped.", "A cat.", "The cat sat in the rain."]):
        speech = 0.2 * np.random.default_rng(number).standard_normal(24_000 * (number + 1))
        soundfile.write(folder / f"{number}.wav", np.concatenate([speech, np.zeros(24_000)]), 24_000)
        lines.append(f"{number}.wav,{text},en-us")
    (folder / "metadata.csv").write_text("\n".join(lines))
    return AudioSource(str(folder))


@pytest.mark.parametrize("decode", [False, True])
def test_tokens_are_those_of_training(spoken, decode):
    processor, examples = make_processor(*spoken.read()["text"]), ExampleArguments()
    inspection = find(spoken, processor, examples, decode=decode)
    maker = ExampleMaker(processor, examples, FilterArguments(**ANY))
    made = [maker.complete(maker.outline(row)) for row in spoken.read()]
    lengths = [len(example["audio"]["array"]) / 24_000 for example in made]
    if not decode:
        assert [seconds - 1 for seconds in inspection.seconds] == pytest.approx([1, 2, 3])
        lengths = inspection.seconds
    assert list(inspection.seconds) == list(lengths)
    counts = [len(example["input_ids"]) for example in made]
    speeds = [count / seconds for count, seconds in zip(counts, lengths, strict=True)]
    assert list(inspection.tokens_per_second) == speeds and inspection.num_tokens == sum(counts)
    summary = inspection.summarize()
    assert summary["lengths"] == ("trimmed" if decode else "headers")
    assert summary["num_tokens"] == sum(counts) and summary["unknown_phones"] == {}
    examples = ExampleArguments(trim_margin_seconds=None)
    assert summarize(spoken, processor, examples, decode=decode)["lengths"] == ("decoded" if decode else "headers")


def test_unknown_phones_are_named_and_counted(spoken):
    processor, examples = make_processor("A cat."), ExampleArguments()
    for _ in range(2):  # what was counted before does not count
        summary = summarize(spoken, processor, examples)
        assert rejects(summary) == {"… phones of its text are outside the vocabulary": 2}
        assert summary["num_usable_rows"] == 1
        # "rain" and "stopped"
        assert {"ɹ", "p"} <= summary["unknown_phones"].keys() and summary["unknown_phones"]["ɹ"] == 2
    with_unknown = summarize(spoken, processor, ExampleArguments(max_unknown_tokens=99))
    assert with_unknown["num_usable_rows"] == 3 and with_unknown["unknown_phones"] == summary["unknown_phones"]


def test_a_language_that_the_vocabulary_lacks_is_one_reason(spoken):
    table = Path(spoken.path, "metadata.csv")
    table.write_text(table.read_text().replace("0.wav,The rain has stopped.,en-us", "0.wav,Guten Tag.,de"))
    summary = summarize(spoken, make_processor("A cat."), ExampleArguments())
    (entry,) = [entry for entry in summary["rejected"] if "made into phones" in entry["reason"]]
    assert (entry["reason"], entry["num_rows"]) == ("its text cannot be made into phones", 1)
    assert entry["example_id"] == "0.wav" and "'de'" in entry["example_reason"]


# How a source is read


def test_a_stream_is_read_once_and_no_further_than_asked(monkeypatch, encode_speech):
    content, read = encode_speech(0.2), []

    def rows():
        for number in range(6):
            read.append(number)
            yield make_example(str(number), content=content, text="Words.", speaker=str(number))

    stream = IterableDataset.from_generator(rows, features=EXAMPLE_FEATURES)
    monkeypatch.setattr(AudioSource, "read", lambda source: stream)
    assert summarize(AudioSource("x"))["num_usable_rows"] == 6 and read == [0, 1, 2, 3, 4, 5]
    read.clear()
    inspection = find(AudioSource("x"), limit=2)
    assert list(inspection.speaker_seconds) == ["0", "1"] and read[:2] == [0, 1] and len(read) <= 3


def test_a_table_is_read_here_and_there(recordings):
    source = AudioSource(str(recordings))
    for limit, expected in {1: [0], 2: [0, 3], 4: [0, 1, 3, 4], 6: range(6), 99: range(6)}.items():
        names = spread_rows(source.read(), limit)["id"]
        assert list(names) == [f"{number}.wav" for number in expected]
        summary = summarize(source, limit=limit, require_text=False)
        assert (summary["num_rows"], summary["num_source_rows"]) == (len(names), 6)


@pytest.mark.parametrize("decode", [False, True])
def test_nothing_is_changed(mixed, decode, tmp_path):
    def state():
        files = sorted(tmp_path.rglob("*"))
        return [(file, file.stat().st_mtime_ns, file.read_bytes() if file.is_file() else None) for file in files]

    before = state()
    find(mixed, decode=decode)
    assert state() == before


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_reads_nothing_is_refused(recordings, limit):
    with pytest.raises(ValueError, match=f"`limit` is {limit}"):
        find(AudioSource(str(recordings)), limit=limit)


def test_a_source_without_rows_is_refused(tmp_path, put_tar):
    with pytest.raises(ValueError, match="there is no row"):
        find(AudioSource(str(put_tar(tmp_path / "0.tar", {"readme.txt": b"words"}))))
    with pytest.raises(ValueError, match="there is no folder"):
        find(AudioSource(str(tmp_path / "missing")))
