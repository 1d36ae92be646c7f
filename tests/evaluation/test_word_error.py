"""Words and their errors."""

import sys

import pytest

from ditar_hf.evaluation.summary import NotMeasuredError
from ditar_hf.evaluation.word_error import ErrorCounts, align_words, count_word_errors, split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Well-known, isn’t it?", ["well", "known", "isn't", "it"]),
        ("  'Quoted' – 5 o'clock…\n", ["quoted", "5", "o'clock"]),
        ("Größe\u0301 नमस्ते ﬁn", ["größé", "नमस्ते", "fin"]),
        ("?! – '", []),
    ],
)
def test_words_are_compared_without_case_and_punctuation(text, words):
    assert split_words(text) == words


@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors"),
    [
        ("a b c", "a b c", 0),
        ("a b c", "a x c", 1),
        ("a b c", "a c d", 2),
        ("a b", "", 2),
        ("", "a b c", 3),
        ("", "", 0),
    ],
)
def test_errors_are_the_least_number_of_edits(reference, hypothesis, errors):
    assert count_word_errors(reference.split(), hypothesis.split()) == errors


@pytest.mark.parametrize(
    ("reference", "hypothesis", "counts"),
    [
        ("a b c", "a x c", ErrorCounts(1, 0, 0, 3)),
        ("a b c", "c", ErrorCounts(0, 2, 0, 3)),
        ("a b", "a x b y", ErrorCounts(0, 0, 2, 2)),
        ("a b", "", ErrorCounts(0, 2, 0, 2)),
        ("", "a", ErrorCounts(0, 0, 1, 0)),
        ("", "", ErrorCounts(0, 0, 0, 0)),
    ],
)
def test_errors_are_told_apart(reference, hypothesis, counts):
    assert align_words(reference.split(), hypothesis.split()) == counts


def test_a_rate_may_exceed_one():
    assert ErrorCounts(1, 0, 2, 2).rate == 1.5


def test_a_missing_package_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(NotMeasuredError, match="jiwer is not installed: pip install"):
        count_word_errors(["a"], ["b"])
