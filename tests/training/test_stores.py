"""Laws of folders that a long preparation fills: one writer, nobody else's things, and what differs is named."""

import os

import pytest
from datasets import Dataset

from ditar_hf.training.data import AudioSource
from ditar_hf.training.stores import Store, describe_source, find_differences, locked, rows_from, write_lines


def test_only_one_writes_at_a_time(tmp_path):
    with locked(tmp_path / "store"):
        with pytest.raises(ValueError, match="another process is writing .*store"):
            with locked(tmp_path / "store"):
                pass
    with locked(tmp_path / "store"):
        pass


def make_store(folder, version=1) -> Store:
    return Store(folder, "tests", "store.json", version, "{:05d}.txt")


def test_foreign_folders_are_refused(tmp_path):
    make_store(tmp_path / "new").refuse_foreign()
    (tmp_path / "store.json.tmp").write_text("")
    (tmp_path / ".lock").write_text("")
    make_store(tmp_path).refuse_foreign()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other things than tests"):
        make_store(tmp_path).refuse_foreign()
    with pytest.raises(ValueError, match="is a file"):
        make_store(tmp_path / "notes.txt").refuse_foreign()
    write_lines(tmp_path / "store.json", [{}])
    make_store(tmp_path).refuse_foreign()


def test_what_is_written_is_read(tmp_path):
    description = {"format_version": 1, "name": "Zürich", "settings": {"a": None}}
    write_lines(tmp_path / "store.json", [description], indent=2)
    assert make_store(tmp_path).read_description() == description
    assert make_store(tmp_path / "missing").read_description() is None
    with pytest.raises(ValueError, match="is of format 1, not 2"):
        make_store(tmp_path, 2).read_description()
    for content in ("{", "[]", "{}"):
        (tmp_path / "store.json").write_text(content)
        with pytest.raises(ValueError, match="is damaged"):
            make_store(tmp_path).read_description()


NUMBERS = [2, 3, 5, 7, 9, 11, 15]


def complete(store, numbers=NUMBERS, **description):
    """Keeps prime numbers, three to a shard; returns the description and what was asked for and written."""
    asked, written = [], []

    def items(first):
        asked.append(first)
        return iter(numbers[first:])

    def write(file, some):
        written.append(some)
        write_lines(file, some)

    def summarize(file):
        found = [int(line) for line in file.read_text().splitlines()]
        rejected = [
            {"id": str(number), "reason": f"{number} is 3 times {number // 3}"}
            for number in found
            if number in (9, 15)
        ]
        return {"num_rows": len(found) - len(rejected), "seconds": 3600.0 * len(found), "rejected": rejected}

    description = {"source": {"path": "numbers"}, "settings": {"size": (3,)}, **description}
    return store.complete(description, items, 3, write, summarize), asked, written


def test_a_store_is_filled_and_counted(tmp_path):
    store = make_store(tmp_path / "store")
    description, asked, written = complete(store)
    assert (asked, written) == ([0], [[2, 3, 5], [7, 9, 11], [15]])
    assert description["totals"] == {
        "num_rows": 5,
        "num_rejected": 2,
        "reasons": {"… is … times …": 2},
        "num_shards": 3,
        "hours": 7.0,
    }
    assert store.read_description() == description and store.is_whole(description)
    assert (store.folder / "rejected.jsonl").read_text().count("\n") == 2
    assert complete(store) == (description, [], [])


def test_only_what_is_missing_is_written(tmp_path):
    store = make_store(tmp_path / "store")
    description, _, _ = complete(store)
    store.shard(1).unlink()
    assert not store.is_whole(description) and store.leading_shards() == [store.shard(0)]
    assert complete(store) == (description, [3], [[7, 9, 11]])


def test_a_store_of_something_else_is_left_alone(tmp_path):
    store = make_store(tmp_path / "store")
    complete(store)
    with pytest.raises(
        ValueError, match="begun with something else: `source.path` is 'numbers' there and 'more' here"
    ):
        complete(store, source={"path": "more"})
    with pytest.raises(ValueError, match="no row can be used .*'9 is 3 times 3'.*Check path, format and filters"):
        complete(make_store(tmp_path / "other"), [9, 15])
    with pytest.raises(ValueError, match="of numbers there is no row"):
        complete(make_store(tmp_path / "empty"), [])


def test_rows_from_a_number_on():
    rows = Dataset.from_dict({"a": range(5)})
    for kind in (rows, rows.to_iterable_dataset()):
        assert [[row["a"] for row in rows_from(kind, first)] for first in (0, 3, 9)] == [[0, 1, 2, 3, 4], [3, 4], []]


def test_lines_that_cannot_be_written_leave_what_was_there(tmp_path):
    write_lines(tmp_path / "a.jsonl", [1])
    with pytest.raises(TypeError):
        write_lines(tmp_path / "a.jsonl", [2, object()])
    assert (tmp_path / "a.jsonl").read_text() == "1\n"


def test_differences_are_named():
    stored = {"a": 1, "b": {"c": 2, "d": [3]}, "more": 4}
    assert find_differences(stored, {"a": 1, "b": {"c": 2, "d": (3,)}}) == ""
    found = find_differences(stored, {"a": 2, "b": {"c": None, "d": [4], "e": 0}})
    parts = ["`a` is 1 there and 2 here", "`b.c` is 2 there and None here", "`b.d[0]` is 3 there and 4 here"]
    assert found == ", ".join([*parts, "`b.e` is None there and 0 here"])


def test_a_source_is_described_wherever_one_stands(recordings, monkeypatch):
    source = AudioSource(str(recordings), weight=2.0)
    described = describe_source(source, source.read())
    assert described["num_rows"] == 6 and "weight" not in described
    monkeypatch.chdir(recordings.parent)
    relative = AudioSource(os.path.basename(recordings))
    assert describe_source(relative, relative.read()) == described
