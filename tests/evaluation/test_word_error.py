"""Words and their errors, and recognisers by name."""

import json
import sys

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

from ditar_hf.evaluation.summary import NotMeasuredError
from ditar_hf.evaluation.word_error import count_word_errors, load_recognizer, split_words

RATE = 24000
NOISE = np.random.default_rng(0).normal(0, 0.05, RATE // 2).astype(np.float32)


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


@pytest.mark.parametrize("package", ["jiwer", "pocketsphinx"])
def test_a_missing_package_is_named_with_the_remedy(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(NotMeasuredError, match=f"{package} is not installed: pip install"):
        count_word_errors(["a"], ["b"]) if package == "jiwer" else load_recognizer("pocketsphinx")


@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="there is no wheel of pocketsphinx for Python 3.12")
def test_pocketsphinx_does_not_depend_on_what_it_heard_before():
    recognize = load_recognizer("pocketsphinx")
    time = np.arange(RATE // 2) / RATE
    hum = (0.3 * np.sin(2 * np.pi * 150 * time) * np.sin(2 * np.pi * 4 * time)).astype(np.float32)
    first = recognize(NOISE, RATE)
    recognize(hum, 16000)
    assert isinstance(first, str) and recognize(NOISE, RATE) == first


@pytest.fixture(scope="module")
def recognizer_folder(tmp_path_factory):
    """A tiny wav2vec 2.0 that has learnt nothing."""
    folder = tmp_path_factory.mktemp("recognizer")
    vocabulary = {name: index for index, name in enumerate(["<pad>", "<unk>", "|", *"abcdefgh"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = Wav2Vec2CTCTokenizer(
        str(folder / "vocab.json"), pad_token="<pad>", unk_token="<unk>", bos_token=None, eos_token=None
    )
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_stride=(20, 20),
        conv_kernel=(20, 20),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        pad_token_id=0,
    )
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(sampling_rate=16000).save_pretrained(folder)
    return str(folder)


def test_a_folder_of_a_model_is_a_recognizer(recognizer_folder):
    recognize = load_recognizer(recognizer_folder)
    heard = recognize(NOISE, RATE)
    assert isinstance(heard, str) and set(heard) <= set("ABCDEFGHabcdefgh <unk>")
    assert recognize(np.tile(NOISE, 62), RATE) != "" or heard == ""  # 31 s


def test_a_recognizer_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="recogniser 'nobody/nothing' cannot be loaded"):
        load_recognizer("nobody/nothing")
