"""Laws of folders that a long preparation fills: one writer, nobody else's things, and what differs is named."""

import os

import pytest

from ditar_hf.training.data import AudioSource
from ditar_hf.training.stores import (
    describe_source,
    find_differences,
    locked,
    read_description,
    refuse_foreign,
    write_lines,
)


def test_only_one_writes_at_a_time(tmp_path):
    with locked(tmp_path / "store"):
        with pytest.raises(ValueError, match="another process is writing .*store"):
            with locked(tmp_path / "store"):
                pass
    with locked(tmp_path / "store"):
        pass


def test_foreign_folders_are_refused(tmp_path):
    refuse_foreign(tmp_path / "new", "store.json", "tests")
    (tmp_path / "store.json.tmp").write_text("")
    (tmp_path / ".lock").write_text("")
    refuse_foreign(tmp_path, "store.json", "tests")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other things than tests"):
        refuse_foreign(tmp_path, "store.json", "tests")
    with pytest.raises(ValueError, match="is a file"):
        refuse_foreign(tmp_path / "notes.txt", "store.json", "tests")
    write_lines(tmp_path / "store.json", [{}])
    refuse_foreign(tmp_path, "store.json", "tests")


def test_what_is_written_is_read(tmp_path):
    description = {"format_version": 1, "name": "Zürich", "settings": {"a": None}}
    write_lines(tmp_path / "store.json", [description], indent=2)
    assert read_description(tmp_path / "store.json", 1) == description
    assert read_description(tmp_path / "missing.json", 1) is None
    with pytest.raises(ValueError, match="is of format 1, not 2"):
        read_description(tmp_path / "store.json", 2)
    for content in ("{", "[]", "{}"):
        (tmp_path / "store.json").write_text(content)
        with pytest.raises(ValueError, match="is damaged"):
            read_description(tmp_path / "store.json", 1)


def test_lines_that_cannot_be_written_leave_what_was_there(tmp_path):
    write_lines(tmp_path / "a.jsonl", [1])
    with pytest.raises(TypeError):
        write_lines(tmp_path / "a.jsonl", [2, object()])
    assert (tmp_path / "a.jsonl").read_text() == "1\n"


def test_differences_are_named():
    stored = {"a": 1, "b": {"c": 2, "d": [3]}, "more": 4}
    assert find_differences(stored, {"a": 1, "b": {"c": 2}}) == ""
    found = find_differences(stored, {"a": 2, "b": {"c": None, "d": [3], "e": 0}})
    assert found == "`a` is 1 there and 2 here, `b.c` is 2 there and None here, `b.e` is None there and 0 here"


def test_a_source_is_described_wherever_one_stands(recordings, monkeypatch):
    source = AudioSource(str(recordings), weight=2.0)
    described = describe_source(source, source.read())
    assert described["num_rows"] == 6 and "weight" not in described
    monkeypatch.chdir(recordings.parent)
    relative = AudioSource(os.path.basename(recordings))
    assert describe_source(relative, relative.read()) == described
