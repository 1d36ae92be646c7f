"""Laws of tar files: Emilia's layouts, damage costs itself only, any process and any state gives its share."""

import contextlib
import io

import pytest
from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader

from ditar_hf.training import tars
from ditar_hf.training.audio import UnusableAudioError, decode_audio
from ditar_hf.training.data import EXAMPLE_FEATURES, AudioSource


def rows_of(path, **options) -> list[dict]:
    """All rows, after a check that they have the schema and that skipping rows leaves the rest."""
    rows = AudioSource(str(path), **options).read()
    assert isinstance(rows, IterableDataset) and rows.features == EXAMPLE_FEATURES
    listed = list(rows)
    assert all(list(row) == list(EXAMPLE_FEATURES) for row in listed)
    assert len({row["id"] for row in listed}) == len(listed)
    assert list(rows.skip(1)) == listed[1:]
    return listed


def fields_of(rows: list[dict]) -> list[tuple]:
    return [(row["id"], row["text"], row["speaker"], row["language"]) for row in rows]


def lengths_of(rows: list[dict]) -> list[int]:
    return [len(decode_audio(row["audio"])[0]) for row in rows]


def test_both_schemas_of_emilia_also_mixed(tmp_path, put_tar, emilia, yodas):
    first, second = {**emilia(0), **yodas(0), "README.md": b"no clip"}, {**yodas(1), **emilia(1)}
    put_tar(tmp_path / "EN" / "EN-B000000.tar", first)
    put_tar(tmp_path / "EN" / "EN-B000001.tar", second)
    put_tar(tmp_path / "DE" / "DE-B000000.tar", emilia(2))
    expected = [
        ("EN_B00000_S00000_W000000", "Sentence 0.", "EN_B00000", "en"),
        ("EN_-abc_W000000", "Words 0", "EN_-abc", "en"),
        ("EN_-abc_W000001", "Words 1", "EN_-abc", "en"),
        ("EN_B00000_S00000_W000001", "Sentence 1.", "EN_B00000", "en"),
    ]
    for path in (tmp_path / "EN", tmp_path / "EN" / "*.tar", f"{tmp_path}/EN/EN-B00000?.tar"):
        rows = rows_of(path)
        assert fields_of(rows) == expected and lengths_of(rows) == [2400, 4800, 4800, 2400]
        assert [row["start_seconds"] for row in rows] == [None] * 4
        assert [row["duration_seconds"] for row in rows] == [0.1, 0.2, 0.2, 0.1]
        assert [row["dnsmos"] for row in rows] == pytest.approx([3.3, 3.1, 3.1, 3.3])
    assert len(rows_of(tmp_path)) == 5


def test_what_is_stated_oddly_is_not_known(tmp_path, put_tar, emilia):
    odd = {"duration": "long", "dnsmos": float("nan"), "speaker": None, "language": None, "text": None}
    (row,) = rows_of(put_tar(tmp_path / "0.tar", emilia(0, **odd)))
    assert [row[name] for name in ("duration_seconds", "dnsmos", *odd.keys() - {"duration", "dnsmos"})] == [None] * 5


def test_recordings_without_or_with_odd_json(tmp_path, put_tar, encode_speech):
    members = {
        "a/one.wav": encode_speech(0.1),
        "a/one.txt": b" As text. ",
        "b/one.flac": encode_speech(0.1, format="FLAC"),
        "b/one.json": b"{damaged",
        "c.wav": encode_speech(0.1),
        "c.json": b"[1]",
        "d.wav": encode_speech(0.2),
        "d.json": {"id": 7, "text": None, "speaker": 12},
    }
    first, *damaged, last = rows_of(put_tar(tmp_path / "x.tar", members), language="en")
    assert fields_of([first, last]) == [("a/one", "As text.", None, "en"), ("7", None, "12", "en")]
    assert lengths_of([first, last]) == [2400, 4800]
    for name, row in zip(("b/one", "c"), damaged, strict=True):
        assert row["id"].startswith(f"{name} (its json cannot be read")
        with pytest.raises(UnusableAudioError, match="no audio"):
            decode_audio(row["audio"])


# What is damaged


@pytest.mark.parametrize("mp3", [b"", b"no audio at all", b"\xff\xfb\x90\x00" + bytes(2000)])
def test_an_mp3_that_does_not_decode_is_left_to_the_decoder(tmp_path, put_tar, emilia, mp3):
    members = {**emilia(0), **emilia(1), **emilia(2)}
    members["EN_B00000_S00000_W000001.mp3"] = mp3
    rows = rows_of(put_tar(tmp_path / "0.tar", members))
    assert [row["text"] for row in rows] == ["Sentence 0.", "Sentence 1.", "Sentence 2."]
    assert lengths_of([rows[0], rows[2]]) == [2400, 2400]
    with pytest.raises(UnusableAudioError):
        decode_audio(rows[1]["audio"])


def test_a_damaged_header_is_named(tmp_path, put_tar, emilia):
    file = put_tar(tmp_path / "0.tar", {**emilia(0), **emilia(1)})
    content = bytearray(file.read_bytes())
    name = content.index(b"EN_B00000_S00000_W000001.mp3")
    content[name : name + 5] = b"XXXXX"  # its checksum is wrong now
    file.write_bytes(content)
    rows = rows_of(file)
    assert [row["audio"]["bytes"] is not None for row in rows] == [False, True]
    assert "bad checksum" in rows[0]["id"] and rows[1]["text"] == "Sentence 0."


@pytest.mark.parametrize("missing", [1, 600, 1200, 2000])
def test_a_tar_that_is_cut_off_costs_its_end_only(tmp_path, put_tar, emilia, yodas, missing):
    file = put_tar(tmp_path / "0.tar", {**emilia(0), **emilia(1), **emilia(2)})
    content = file.read_bytes().rstrip(b"\0")  # to the end of the last member
    file.write_bytes(content[:-missing])
    put_tar(tmp_path / "1.tar", yodas(0))
    rows = rows_of(tmp_path)
    whole = [row for row in rows if row["audio"]["bytes"]]
    assert [row["id"][-2:] for row in whole] == ["00", "01", "00"]
    assert all(row["text"] for row in whole)
    (broken,) = [row for row in rows if not row["audio"]["bytes"]]
    assert "0.tar" in broken["id"]
    with pytest.raises(UnusableAudioError):
        decode_audio(broken["audio"])


def test_a_connection_that_breaks_is_no_damaged_tar(tmp_path, put_tar, emilia, monkeypatch):
    path = put_tar(tmp_path / "0.tar", {name: value for number in range(9) for name, value in emilia(number).items()})
    rows = AudioSource(str(path)).read()

    class Broken(io.BytesIO):
        def read(self, size=-1):
            if self.tell():
                raise ConnectionResetError("by peer")
            return super().read(size)

    monkeypatch.setattr(tars.fsspec, "open", lambda *args: contextlib.closing(Broken(path.read_bytes())))
    with pytest.raises(ConnectionResetError):
        list(rows)


# Processes and states


@pytest.fixture(params=[1, 2, 3, 4])
def corpus(request, tmp_path, put_tar, emilia, yodas):
    """A folder of so many tar files of unequal lengths, one of them cut off in its middle."""
    for index in range(request.param):
        kinds = [emilia, yodas] * (1 + index)
        members = {}
        for place, kind in enumerate(kinds):
            members |= kind(100 * index + place)
        put_tar(tmp_path / f"EN-B{index:06d}.tar", members)
    last = tmp_path / f"EN-B{request.param - 1:06d}.tar"
    last.write_bytes(last.read_bytes().rstrip(b"\0")[:-1000])
    return tmp_path, request.param


def ids_of(rows) -> list[str]:
    return [row["id"] for row in rows]


def test_every_tar_is_a_shard(corpus):
    folder, num_tars = corpus
    assert AudioSource(str(folder)).read().num_shards == num_tars


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_together_see_every_row_once(corpus, world_size):
    folder, num_tars = corpus
    shares = [
        ids_of(split_dataset_by_node(AudioSource(str(folder)).read(), rank, world_size)) for rank in range(world_size)
    ]
    assert sorted(sum(shares, [])) == sorted(ids_of(AudioSource(str(folder)).read()))
    # by whole files where these can be shared out, so that no process reads what it does not use
    if num_tars % world_size == 0:
        assert (
            split_dataset_by_node(AudioSource(str(folder)).read(), 0, world_size).num_shards == num_tars // world_size
        )


def test_workers_of_a_process_see_each_row_of_its_share_once(corpus):
    folder, _ = corpus
    share = split_dataset_by_node(AudioSource(str(folder)).read(), 1, 2)
    loader = DataLoader(share, batch_size=None, num_workers=2)
    assert sorted(ids_of(loader)) == sorted(ids_of(share))


@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (1, 2)])
def test_a_stream_goes_on_from_any_state(corpus, rank, world_size):
    folder, _ = corpus

    def read():
        return split_dataset_by_node(AudioSource(str(folder)).read(), rank, world_size)

    whole = list(read())
    for count in range(len(whole) + 1):
        rows = read()
        iterator = iter(rows)
        assert [next(iterator) for _ in range(count)] == whole[:count]
        state, again = rows.state_dict(), read()
        again.load_state_dict(state)
        assert list(again) == whole[count:]
