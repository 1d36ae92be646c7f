"""Laws of `DiTARTextToSpeechPipeline`: plain arguments are what the library's pipeline takes in dictionaries."""

import numpy as np
import pytest
import torch
from transformers import TextToAudioPipeline, pipeline

from ditar_hf import DiTARProcessor, DiTARTokenizer
from ditar_hf.pipelines.pipeline_ditar import DiTARTextToSpeechPipeline

TEXTS = ["The quick brown fox.", "Hello!", "Who jumps over the lazy dog, please?"]
RATE, PATCH_LENGTH = 24_000, 2400
FIXED = {"temperature": 0, "num_inference_steps": 2, "max_new_tokens": 3, "min_new_tokens": 3}


def tone(seconds: float, pitch: float) -> np.ndarray:
    return np.sin(2 * np.pi * pitch * np.arange(round(seconds * RATE)) / RATE).astype(np.float32) / 2


PROMPT = {"prompt_audio": tone(0.75, 180), "prompt_text": "The lazy fox.", "sampling_rate": RATE}


@pytest.fixture(scope="module")
def known() -> dict:
    return {}


@pytest.fixture
def folder(save_tiny, tmp_path_factory, known):
    """A tiny model with two voices; made once, since no test changes it."""
    if not known:
        tokenizer = DiTARTokenizer.from_texts({"en": TEXTS, "de": ["Guten Tag!"]})
        known["path"] = save_tiny(tmp_path_factory.mktemp("tiny"), tokenizer)
        processor = DiTARProcessor.from_pretrained(known["path"])
        processor.add_voice("ada", tone(0.8, 220), RATE, "Hello!")
        processor.add_voice("bob", tone(0.6, 110), RATE, "The fox.")
        processor.default_voice = "ada"
        processor.save_pretrained(known["path"])
    return known["path"]


@pytest.fixture
def stock(folder) -> TextToAudioPipeline:
    return pipeline("text-to-speech", model=str(folder))


@pytest.fixture
def speak(folder) -> DiTARTextToSpeechPipeline:
    return pipeline("text-to-speech", model=str(folder), pipeline_class=DiTARTextToSpeechPipeline)


def same(one, other) -> bool:
    return one["audio"].shape == other["audio"].shape and np.abs(one["audio"] - other["audio"]).max() < 1e-5


def test_named_voices_of_the_librarys_own_pipeline(stock):
    inputs = {"ada": {}, "bob": {"voice": "bob"}, "random": {"voice": "random"}}  # "ada" is the default
    speech = {name: stock(TEXTS[0], preprocess_params=inputs[name], generate_kwargs=FIXED) for name in inputs}
    assert same(stock(TEXTS[0], preprocess_params={"voice": "ada"}, generate_kwargs=FIXED), speech["ada"])
    assert not same(speech["ada"], speech["bob"]) and not same(speech["ada"], speech["random"])
    voice = stock.processor.voices["bob"]
    prompt = {"prompt_audio": voice.audio, "prompt_text": voice.text, "sampling_rate": voice.sampling_rate}
    assert same(stock(TEXTS[0], preprocess_params=prompt, generate_kwargs=FIXED), speech["bob"])
    batch = stock(TEXTS, batch_size=3, preprocess_params={"voice": "bob"}, generate_kwargs=FIXED)
    assert np.abs(batch[0]["audio"] - speech["bob"]["audio"]).max() < 1e-4
    with pytest.raises(ValueError, match="`voice` is 'eve', but the voices are ada, bob"):
        stock(TEXTS[0], preprocess_params={"voice": "eve"})


@pytest.mark.parametrize(
    "inputs", [{}, {"voice": "bob"}, {"voice": "random"}, PROMPT, {"language": "de"}, {"phonemize": False}], ids=str
)
def test_plain_arguments_are_those_of_the_dictionaries(stock, speak, inputs):
    text = "hˈɛloʊ" if "phonemize" in inputs else "Guten Tag!" if "language" in inputs else TEXTS[0]
    expected = stock(text, preprocess_params=inputs, generate_kwargs=FIXED)
    assert same(speak(text, **inputs, **FIXED), expected)
    assert same(speak(text, preprocess_params=inputs, generate_kwargs=FIXED), expected)
    for output in speak([text] * 3, batch_size=2, **inputs, **FIXED):
        assert np.abs(output["audio"] - expected["audio"]).max() < 1e-4


def test_arguments_of_the_constructor_hold_until_a_call_says_otherwise(folder, stock):
    settings = {"temperature": 0.0, "num_inference_steps": 2, "max_new_tokens": 3, "min_new_tokens": 3}
    speak = pipeline(
        "text-to-speech", model=str(folder), pipeline_class=DiTARTextToSpeechPipeline, voice="bob", **settings
    )
    bob = stock(TEXTS[0], preprocess_params={"voice": "bob"}, generate_kwargs=settings)
    assert same(speak(TEXTS[0]), bob)
    longer = speak(TEXTS[0], max_new_tokens=5, min_new_tokens=5)
    assert len(longer["audio"]) == 5 * PATCH_LENGTH
    exact = stock(TEXTS[0], preprocess_params={"voice": "ada"}, generate_kwargs={**settings, "num_inference_steps": 4})
    assert same(speak(TEXTS[0], voice="ada", num_inference_steps=4), exact)
    assert same(speak(TEXTS[0]), bob)


def test_a_random_voice_is_another_for_each_seed_where_noise_is_drawn(speak):
    def speech(seed, temperature):
        generator = torch.Generator().manual_seed(seed)
        return speak(TEXTS[0], voice="random", generator=generator, **{**FIXED, "temperature": temperature})

    assert same(speech(1, 0), speech(2, 0))
    assert same(speech(1, 1), speech(1, 1)) and not same(speech(1, 1), speech(2, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"voice": "eve"}, "`voice` is 'eve'"),
        ({"voice": "ada", **PROMPT}, "Pass one of them"),
        ({"prompt_text": "Hello!"}, "without its recording"),
        ({"temperature": 2}, "`temperature` must be"),
        ({"voices": "ada"}, "`voices` is not an argument"),
    ],
)
def test_bad_input(speak, arguments, message):
    with pytest.raises(ValueError, match=message):
        speak(TEXTS[0], **arguments)
