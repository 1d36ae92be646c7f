"""Every protocol of word error against cases made by hand."""

import sys

import pytest

from ditar_hf.evaluation.protocols import HANZI_PUNCTUATION, WORD_ERROR_PROTOCOLS, find_protocol
from ditar_hf.evaluation.recognizers import RECOGNIZERS
from ditar_hf.evaluation.summary import NotMeasuredError, mean_with_interval
from ditar_hf.evaluation.word_error import ErrorCounts


@pytest.mark.parametrize(
    ("protocol", "text", "units"),
    [
        # hyphens and dashes go without leaving a space, straight apostrophes stay, typographic ones go
        ("seed-en", "Well-known, isn't IT?  Yes — “it’s” $5.", ["wellknown", "isn't", "it", "yes", "its", "5"]),
        ("seed-en", "'Quoted' rock 'n' roll", ["'quoted'", "rock", "'n'", "roll"]),
        ("librispeech-pc", "Well-known, isn't IT?  Yes — “it’s” $5.", ["wellknown", "isnt", "it", "yes", "its", "5"]),
        # all but letters, digits and apostrophes separates, and typographic apostrophes are apostrophes
        ("librispeech-a", "WELL-KNOWN, ISN’T it? 5", ["well", "known", "isn't", "it", "5"]),
        ("librispeech-a", "Café 你好", ["caf"]),
        ("offline-en", "Well-known, isn’t it? 'Quoted'", ["well", "known", "isn't", "it", "quoted"]),
        # characters, without spaces (also the wide one) and punctuation; case is kept
        ("seed-zh", "你好，\u3000世界！ AI's 3.5", ["你", "好", "世", "界", "A", "I", "'", "s", "3", "5"]),
    ],
)
def test_units_are_what_the_protocol_compares(protocol, text, units):
    assert find_protocol(protocol).split(text) == units


def test_mandarin_transcripts_are_simplified_and_texts_are_not():
    pytest.importorskip("zhconv")
    protocol = find_protocol("seed-zh")
    assert protocol.count("我干什么不干你事。", "我幹什麼不干你事") == ErrorCounts(0, 0, 0, 8)
    assert protocol.count("我幹什麼", "我干什么").substitutions == 2


def test_without_zhconv_mandarin_is_not_measured(monkeypatch):
    monkeypatch.setitem(sys.modules, "zhconv", None)
    with pytest.raises(NotMeasuredError, match=r'zhconv is not installed: pip install -e "\.\[evaluate-papers\]"'):
        find_protocol("seed-zh").count("你好", "你好")


# (text, transcript) of three utterances, and what each protocol makes of all: rates 1/4, 1 and 3/2
UTTERANCES = [
    ("One two, three four!", "one two three for"),
    ("Gone.", ""),
    ("Now then", "no then one two"),
]


@pytest.mark.parametrize("name", ["seed-en", "librispeech-pc", "librispeech-a", "offline-en"])
def test_english_protocols_from_end_to_end(name):
    protocol = find_protocol(name)
    counts = [protocol.count(text, transcript) for text, transcript in UTTERANCES]
    assert counts == [ErrorCounts(1, 0, 0, 4), ErrorCounts(0, 1, 0, 1), ErrorCounts(1, 0, 2, 2)]
    expected = (1 / 4 + 1 + 3 / 2) / 3 if name == "seed-en" else 5 / 7
    assert protocol.rate(counts) == pytest.approx(expected)


def test_mandarin_from_end_to_end():
    pytest.importorskip("zhconv")
    protocol = find_protocol("seed-zh")
    counts = [protocol.count("你好，世界。", "你好世姐"), protocol.count("再见", "")]
    assert counts == [ErrorCounts(1, 0, 0, 4), ErrorCounts(0, 2, 0, 2)]
    assert protocol.rate(counts) == pytest.approx((1 / 4 + 1) / 2)


@pytest.mark.parametrize("protocol", WORD_ERROR_PROTOCOLS.values(), ids=WORD_ERROR_PROTOCOLS)
class TestEachProtocol:
    def test_its_recognizer_has_a_name(self, protocol):
        assert protocol.recognizer in RECOGNIZERS and protocol.name in RECOGNIZERS[protocol.recognizer].measures
        assert protocol.about and protocol.language in ("en", "zh")

    def test_of_an_empty_transcript_everything_is_missing(self, protocol):
        pytest.importorskip("zhconv")
        for silence in ("", " ", "…", "。"):
            count = protocol.count("a b c", silence)
            assert count == ErrorCounts(0, 3, 0, 3) and count.rate == 1

    def test_a_text_with_nothing_to_compare_is_refused(self, protocol):
        for text in ("", " ", "?!", "。"):
            with pytest.raises(ValueError, match=f"has no {protocol.unit} in protocol {protocol.name}"):
                protocol.count(text, "a")

    def test_no_utterance_has_no_rate(self, protocol):
        with pytest.raises(ValueError, match="must not be empty"):
            protocol.rate([])

    def test_weights_give_the_rate(self, protocol):
        counts = [ErrorCounts(1, 0, 0, 4), ErrorCounts(0, 1, 3, 1)]
        mean, _ = mean_with_interval([count.rate for count in counts], protocol.weights(counts))
        assert mean == pytest.approx(protocol.rate(counts))
        assert mean == pytest.approx({"corpus": 5 / 5, "utterance": (1 / 4 + 4) / 2}[protocol.average])


def test_the_punctuation_is_that_of_zhon():
    assert HANZI_PUNCTUATION == pytest.importorskip("zhon.hanzi").punctuation


def test_an_unknown_protocol_is_refused():
    with pytest.raises(ValueError, match="`protocol` 'seed' is not known. Name one of seed-en, seed-zh"):
        find_protocol("seed")
