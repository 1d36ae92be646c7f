"""Laws of the filters: a row is left out for one reason of a fixed list, by what is stated or by its length."""

import pytest

from ditar_hf.training import filters
from ditar_hf.training.data import AudioSource
from ditar_hf.training.filters import FilterArguments

ROW = {
    "id": "a",
    "audio": {"path": "a.wav", "bytes": None},
    "text": "Ten chars.",
    "speaker": None,
    "language": "en",
    "start_seconds": None,
    "duration_seconds": 2.0,
    "dnsmos": 3.0,
}


def fault(arguments: FilterArguments, **fields) -> str | None:
    return arguments.find_fault({**ROW, **fields})


def test_by_default_text_and_audio_are_asked_for():
    arguments = FilterArguments()
    assert fault(arguments) is None
    assert fault(arguments, language=None, dnsmos=None, duration_seconds=None) is None
    for text in (None, "", " "):
        assert fault(arguments, text=text) == filters.NO_TEXT
        assert fault(FilterArguments(require_text=False), text=text) is None
    for audio in (None, {"path": None, "bytes": None}):
        assert fault(arguments, audio=audio, text=None) == filters.NO_AUDIO
    assert fault(arguments, audio={"path": None, "bytes": b""}) is None


def test_languages_are_compared_in_any_case():
    arguments = FilterArguments(languages=["EN", "zh"])
    for language in ("en", "EN", "Zh"):
        assert fault(arguments, language=language) is None
    for language in ("de", "eng", "en-us"):
        assert fault(arguments, language=language) == filters.OTHER_LANGUAGE
    for language in (None, ""):
        assert fault(arguments, language=language) == filters.NO_LANGUAGE


def test_quality():
    arguments = FilterArguments(min_dnsmos=3.0)
    assert fault(arguments, dnsmos=3.0) is None
    assert fault(arguments, dnsmos=2.99) == filters.LOW_DNSMOS
    assert fault(arguments, dnsmos=None) == filters.NO_DNSMOS


def test_lengths_stated_and_found():
    arguments = FilterArguments(min_seconds=1.0, max_seconds=3.0)
    cases = {0.99: filters.TOO_SHORT, 1.0: None, 2.0: None, 3.0: None, 3.01: filters.TOO_LONG}
    for seconds, reason in cases.items():
        assert fault(arguments, duration_seconds=seconds) == reason
        assert arguments.find_fault_of_length(ROW, seconds) == reason
    assert fault(arguments, duration_seconds=None) is None


def test_a_text_that_leaves_out_what_is_said():
    arguments = FilterArguments(min_characters_per_second=1.0)
    assert fault(arguments, text="Three words here.", duration_seconds=17.0) is None
    assert fault(arguments, text="Three words here.", duration_seconds=17.1) == filters.TEXT_TOO_SHORT
    assert fault(FilterArguments(min_characters_per_second=None), text="No.", duration_seconds=1000.0) is None


def test_a_text_that_nobody_can_say_in_that_time():
    arguments = FilterArguments(max_characters_per_second=20.0)
    assert fault(arguments, duration_seconds=0.5) is None
    assert fault(arguments, duration_seconds=0.49) == filters.TEXT_TOO_LONG
    assert arguments.find_fault_of_length(ROW, 0.49) == filters.TEXT_TOO_LONG
    assert fault(FilterArguments(max_characters_per_second=None), duration_seconds=0.01) is None
    assert fault(FilterArguments(require_text=False), text=None, duration_seconds=0.01) is None


def test_rows_of_tar_files_are_judged_as_they_state(tmp_path, put_tar, emilia, yodas):
    members = {
        **emilia(0, duration=1.0, language="EN"),
        **emilia(1, duration=1.0, language="de"),
        **emilia(2, duration=1.0, dnsmos=3.3),  # a little less in the column's precision
        **yodas(3, duration=1.0, dnsmos=None),
        **emilia(4, duration=40.0),
        **yodas(5, duration=1.0, text=" "),
        **emilia(6, duration=1.0, dnsmos=2.0),
        **yodas(7, duration=0.1, dnsmos=4.0),
        **yodas(8, duration=20.0, dnsmos=4.0),
    }
    rows = AudioSource(str(put_tar(tmp_path / "0.tar", members))).read()
    arguments = FilterArguments(languages=["en"], min_dnsmos=3.3, max_seconds=30.0)
    assert [arguments.find_fault(row) for row in rows] == [
        None,
        filters.OTHER_LANGUAGE,
        None,
        filters.NO_DNSMOS,
        filters.TOO_LONG,
        filters.NO_TEXT,
        filters.LOW_DNSMOS,
        filters.TEXT_TOO_LONG,
        filters.TEXT_TOO_SHORT,
    ]


def test_reasons_are_different_words():
    reasons = [value for name, value in vars(filters).items() if name.isupper()]
    assert len(set(reasons)) == len(reasons) == 10


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"languages": "en"}, "languages"),
        ({"languages": []}, "languages"),
        ({"languages": ["en", False]}, "languages"),
        ({"min_dnsmos": 0.0}, "min_dnsmos"),
        ({"min_dnsmos": 6}, "min_dnsmos"),
        ({"min_seconds": 0}, "min_seconds"),
        ({"max_seconds": -1.0}, "max_seconds"),
        ({"max_seconds": float("nan")}, "max_seconds"),
        ({"min_seconds": 3.0, "max_seconds": 2.0}, "min_seconds"),
        ({"max_characters_per_second": 0}, "max_characters_per_second"),
    ],
)
def test_values_out_of_range_are_refused(values, name):
    with pytest.raises(ValueError, match=f"`{name}` is"):
        FilterArguments(**values)
