"""Recognisers by name, of a folder, and those that cannot be had."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

from ditar_hf.evaluation.recognizers import RECOGNIZERS, load_recognizer
from ditar_hf.evaluation.summary import NotMeasuredError

RATE = 24000
NOISE = np.random.default_rng(0).normal(0, 0.05, RATE // 2).astype(np.float32)


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


def test_in_next_to_nothing_nothing_is_heard(recognizer_folder):
    recognize = load_recognizer(recognizer_folder)
    assert recognize(NOISE[:0], RATE) == recognize(NOISE[: RATE // 25], RATE) == ""


def test_a_recognizer_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="recogniser 'nobody/nothing' cannot be loaded"):
        load_recognizer("nobody/nothing")


@pytest.mark.parametrize(
    ("name", "package"),
    [("pocketsphinx", "pocketsphinx"), ("faster-whisper-large-v3", "faster_whisper"), ("paraformer-zh", "funasr")],
)
def test_a_missing_package_is_named_with_the_remedy(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(NotMeasuredError, match=f"{name} .* error of protocol .*{package} is not installed: pip inst"):
        load_recognizer(name)


@pytest.mark.parametrize("name", ["hubert-large-ls960-ft", "whisper-large-v3"])
def test_a_model_that_cannot_be_had_is_named_with_what_it_measures(name):
    with pytest.raises(NotMeasuredError, match=f"{name} .{RECOGNIZERS[name].model}.* error of protocol .*be had: "):
        load_recognizer(name)


def test_the_folder_s_model_does_for_a_name(monkeypatch, recognizer_folder):
    """What is behind a name is asked for by transformers, and it hears as the folder does."""
    import transformers

    of_folder, pipeline, asked = load_recognizer(recognizer_folder)(NOISE, RATE), transformers.pipeline, []

    def local(task, model, device):
        asked.append(model)
        return pipeline(task, model=recognizer_folder, device=device)

    monkeypatch.setattr(transformers, "pipeline", local)
    assert load_recognizer("hubert-large-ls960-ft")(NOISE, RATE) == of_folder
    assert asked == ["facebook/hubert-large-ls960-ft"]


def test_whisper_is_told_the_language(monkeypatch):
    calls = []

    def whisper(task, model, device):
        calls.append((task, model, device))
        return recognize

    def recognize(audio, **options):
        calls.append((len(audio["raw"]), audio["sampling_rate"], options))
        return {"text": " Hello."}

    recognize.feature_extractor = SimpleNamespace(sampling_rate=16000)
    monkeypatch.setattr("transformers.pipeline", whisper)
    assert load_recognizer("whisper-large-v3", "cuda:1")(NOISE, RATE) == " Hello."
    assert calls == [
        ("automatic-speech-recognition", "openai/whisper-large-v3", "cuda:1"),
        (8000, 16000, {"generate_kwargs": {"language": "english", "task": "transcribe"}}),
    ]


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("cpu", {"device": "cpu", "device_index": 0, "compute_type": "default"}),
        ("cuda", {"device": "cuda", "device_index": 0, "compute_type": "float16"}),
        ("cuda:1", {"device": "cuda", "device_index": 1, "compute_type": "float16"}),
    ],
)
def test_faster_whisper_is_called_as_f5_does(monkeypatch, device, expected):
    calls = []

    class WhisperModel:
        def __init__(self, model, **options):
            calls.append((model, options))

        def transcribe(self, samples, **options):
            calls.append((samples.dtype, len(samples), options))
            return (SimpleNamespace(text=text) for text in (" Hello", " there.")), None

    monkeypatch.setitem(sys.modules, "faster_whisper", SimpleNamespace(WhisperModel=WhisperModel))
    assert load_recognizer("faster-whisper-large-v3", device)(NOISE, RATE) == "Hello there."
    assert calls == [
        ("Systran/faster-whisper-large-v3", expected),
        (np.float32, 8000, {"beam_size": 5, "language": "en"}),
    ]


def test_paraformer_is_called_as_seed_tts_eval_does(monkeypatch):
    class AutoModel:
        def __init__(self, **options):
            if options["device"] == "cuda":
                raise RuntimeError("no network")
            assert options["model"] == "paraformer-zh" and options["ncpu"] == torch.get_num_threads()

        def generate(self, input, batch_size_s):
            assert input.dtype == np.float32 and input.shape == (8000,) and batch_size_s == 300
            return [{"text": "你好"}]

    monkeypatch.setitem(sys.modules, "funasr", SimpleNamespace(AutoModel=AutoModel))
    assert load_recognizer("paraformer-zh")(NOISE, RATE) == "你好"
    with pytest.raises(NotMeasuredError, match="paraformer-zh.*character error of protocol seed-zh.*no network"):
        load_recognizer("paraformer-zh", "cuda")
