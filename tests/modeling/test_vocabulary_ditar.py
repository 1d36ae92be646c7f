"""Laws of the vocabulary: what is built can be read, and what is not whole is refused."""

import json

import pytest
from transformers import AddedToken

from ditar_hf.modeling.vocabulary_ditar import check_control_tokens, read_vocabulary, symbols_of

CONTROL = {"pad_token": "<pad>", "unk_token": "<unk>", "audio_bos_token": "<bos>", "audio_patch_token": "<patch>"}


def vocabulary_of(*tokens):
    return {token: index for index, token in enumerate([*CONTROL.values(), *tokens])}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "vocab.json"


def test_what_is_written_is_read(file):
    vocabulary = vocabulary_of(*sorted(symbols_of(["ˈɑː", "tʃ"])))
    file.write_text(json.dumps(vocabulary))
    assert read_vocabulary(file, check_control_tokens(**CONTROL)) == vocabulary


def test_symbols_are_phones_and_their_characters_composed():
    assert symbols_of(["tʃ", "c\u0327"]) == {"tʃ", "t", "ʃ", "ç"}
    with pytest.raises(ValueError, match="no phones were found"):
        symbols_of([])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON file"),
        ("[1]", r"holds \[1\]"),
        ("{}", "holds no phone"),
        (json.dumps(vocabulary_of()), "holds no phone"),
        (json.dumps({**vocabulary_of("a"), "b": 4}), "gives one id to several tokens"),
        (json.dumps({**vocabulary_of("a"), "b": "5"}), "gives the id '5'"),
        (json.dumps({**vocabulary_of("a"), "b": -1}), "gives the id -1"),
        (json.dumps({**vocabulary_of("a"), "b": True}), "gives the id True"),
        (json.dumps({**vocabulary_of("a"), "b": 5.0}), "gives the id 5.0"),
    ],
)
def test_a_vocabulary_that_is_not_whole_is_refused(file, content, message):
    file.write_text(content)
    with pytest.raises(ValueError, match=f"vocab.json' {message}"):
        read_vocabulary(file, check_control_tokens(**CONTROL))


def test_control_tokens_are_tokens():
    assert check_control_tokens(**{**CONTROL, "pad_token": AddedToken("<pad>")}) == set(CONTROL.values())
    for wrong in (5, None, "", b"<pad>"):
        with pytest.raises(ValueError, match="`pad_token` must be a token, such as '<pad>', got"):
            check_control_tokens(**{**CONTROL, "pad_token": wrong})
