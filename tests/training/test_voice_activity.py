"""Laws of the cutting of long files: all speech is in one segment, none too long that has a pause."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ditar_hf.training.audio import UnusableAudioError
from ditar_hf.training.data import AudioSource
from ditar_hf.training.voice_activity import cut_row, join_intervals, read_voice_activity


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 50)), max_size=30),
    st.integers(1, 60),
    st.integers(0, 20),
)
def test_segments_hold_all_speech_once(steps, max_seconds, max_gap_seconds):
    intervals, position = [], 0
    for gap, length in steps:
        intervals.append((position + gap, position + gap + length))
        position += gap + length
    segments = join_intervals(intervals, max_seconds, max_gap_seconds)
    for begin, end in intervals:
        assert sum(first <= begin and end <= last for first, last in segments) == 1
    inside = [[i for i in intervals if first <= i[0] and i[1] <= last] for first, last in segments]
    for (first, last), parts in zip(segments, inside, strict=True):
        assert (first, last) == (parts[0][0], parts[-1][1])
        assert last - first <= max_seconds or len(parts) == 1
        assert all(b[0] - a[1] <= max_gap_seconds for a, b in zip(parts, parts[1:], strict=False))
    # and no two neighbours could be one
    for (first, last), (second, end), parts in zip(segments, segments[1:], inside[1:], strict=False):
        assert second - last > max_gap_seconds or parts[0][1] - first > max_seconds, (end, parts)


def test_what_overlaps_is_one():
    assert join_intervals([(0, 2), (1, 3), (1, 2)], max_seconds=1, max_gap_seconds=0) == [(0, 3)]
    assert join_intervals([], max_seconds=1, max_gap_seconds=0) == []


def test_rows_are_cut_into_segments_with_ids_of_their_own(make_librilight):
    # given out of order, which is put right
    file = make_librilight([[4.0, 7.5], [0.5, 1.0], [1.5, 2.0]])
    (row,) = AudioSource(str(file.parents[3]), language="en").read()
    assert read_voice_activity(str(file)) == [(0.5, 1.0), (1.5, 2.0), (4.0, 7.5)]
    (first, no_reason), (second, reason) = cut_row(row, max_seconds=3.0, max_gap_seconds=0.5)
    assert no_reason is None and reason == "there is no pause in 3.5 seconds"
    assert first == {**row, "id": "100/sea_fairies/01_baum/0000", "start_seconds": 0.5, "duration_seconds": 1.5}
    assert (second["id"][-4:], second["start_seconds"], second["duration_seconds"]) == ("0001", 4.0, 3.5)
    assert row["start_seconds"] is None


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        (None, "cannot be read: FileNotFoundError"),
        ("{", "cannot be read: JSONDecodeError"),
        ("{}", "cannot be read: KeyError"),
        ("[]", "cannot be read: TypeError"),
        ({"voice_activity": None}, "cannot be read: TypeError"),
        ({"voice_activity": [[0.0]]}, "cannot be read: ValueError"),
        ({"voice_activity": [["a", "b"]]}, "cannot be read: ValueError"),
        ({"voice_activity": [[0.0, 1.0], [3.0, 2.0]]}, "goes from 3 to 2 seconds"),
        ({"voice_activity": [[-1.0, 1.0]]}, "goes from -1 to 1 seconds"),
        ({"voice_activity": [[1.0, 1.0]]}, "goes from 1 to 1 seconds"),
    ],
)
def test_what_is_not_stated_is_a_reason(make_librilight, stated, reason):
    file = make_librilight([])
    row = AudioSource(str(file.parents[3]), format="librilight").read()[0]
    if stated is None:
        file.with_suffix(".json").unlink()
    else:
        file.with_suffix(".json").write_text(stated if isinstance(stated, str) else json.dumps(stated))
    with pytest.raises(UnusableAudioError, match=reason):
        read_voice_activity(str(file))
    ((same, found),) = cut_row(row, 30.0, 1.0)
    assert same == row and reason in found


def test_a_file_in_which_nobody_speaks(make_librilight):
    file = make_librilight([])
    row = AudioSource(str(file.parents[3])).read()[0]
    assert list(cut_row(row, 30.0, 1.0)) == [(row, "nobody speaks in it")]
