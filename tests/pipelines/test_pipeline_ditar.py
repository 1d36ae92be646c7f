"""Laws of `DiTARTextToSpeechPipeline`: plain arguments are what the library's pipeline takes in dictionaries."""

import io
import shutil

import numpy as np
import pytest
import soundfile
import torch
from datasets import Audio, Dataset
from transformers import TextToAudioPipeline, pipeline
from transformers.pipelines.pt_utils import KeyDataset
from transformers.utils import logging

from ditar_hf import DiTARGenerationConfig, DiTARProcessor, DiTARTokenizer
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


def test_a_random_voice_that_is_always_the_same_is_noted(speak, caplog):
    logging.get_logger().warning_once.cache_clear()
    fixed, warm = {key: value for key, value in FIXED.items() if key != "temperature"}, {"temperature": 1.0}
    speak("Hello!", voice="random", **fixed, **warm)
    speak("Hello!", voice="random", **fixed, forward_params=warm)
    speak("Hello!", voice="random", generation_config=DiTARGenerationConfig(**fixed, **warm))
    speak([{"text": "Hello!", "voice": "ada"}], **FIXED)
    assert "nothing is drawn" not in caplog.text
    speak([{"text": "Hello!", "voice": "ada"}, {"text": "Hello!", "voice": "random"}], batch_size=2, **FIXED)
    assert "At this temperature nothing is drawn" in caplog.text


def test_a_voice_of_the_call_replaces_that_of_the_constructor(folder, speak):
    bob = pipeline("text-to-speech", model=str(folder), pipeline_class=DiTARTextToSpeechPipeline, voice="bob")
    assert same(bob(TEXTS[0], **PROMPT, **FIXED), speak(TEXTS[0], **PROMPT, **FIXED))
    prompted = pipeline(
        "text-to-speech",
        model=str(folder),
        pipeline_class=DiTARTextToSpeechPipeline,
        **{name: PROMPT[name] for name in ("prompt_audio", "prompt_text")},
        preprocess_params={"sampling_rate": RATE},
    )
    assert same(prompted(TEXTS[0], **FIXED), speak(TEXTS[0], **PROMPT, **FIXED))
    assert same(prompted(TEXTS[0], voice="bob", **FIXED), bob(TEXTS[0], **FIXED))


# Items of their own voice, language and seed


def wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


ITEMS = [
    {"text": TEXTS[0], "voice": "bob", "seed": 3},
    {"text": TEXTS[1]},
    {"text": TEXTS[2], **PROMPT, "seed": 4},
    {"text": "Guten Tag!", "voice": "random", "language": "de", "seed": 3},
    {
        "text": TEXTS[0],
        "voice": None,
        "prompt_audio": {"path": "a.wav", "bytes": wav(PROMPT["prompt_audio"])},
        "prompt_text": "The lazy fox.",
        "seed": 5,
    },
]
NOISY = {**FIXED, "temperature": 1.0}


def assert_all_same(outputs, expected, tolerance=1e-4):
    outputs = list(outputs)
    assert [output["audio"].shape for output in outputs] == [output["audio"].shape for output in expected]
    for one, other in zip(outputs, expected, strict=True):
        assert np.abs(one["audio"] - other["audio"]).max() < tolerance


def test_items_are_what_calls_of_their_own_would_be(speak):
    for settings in (FIXED, NOISY):
        arguments = {"seed": 1, "voice": "ada", **settings}
        alone = []
        for item in ITEMS:
            own = {name: value for name, value in item.items() if name != "text" and value is not None}
            base = {**arguments} if "prompt_audio" not in own else {**settings, "seed": 1}
            alone.append(speak(item["text"], **{**base, **own}))
        for batch_size in (1, 2, 5):
            assert_all_same(speak(ITEMS, batch_size=batch_size, **arguments), alone)
        assert_all_same([speak(item, **arguments) for item in ITEMS], alone)


def test_a_seed_sounds_the_same_in_any_batch_and_another_does_not(speak):
    def speech(seed, **kwargs):
        return speak([TEXTS[0]] * 3, seed=seed, voice="random", **NOISY, **kwargs)

    alone = speech(1)
    assert_all_same(alone[1:] + alone[:1], alone)
    assert_all_same(speech(1, batch_size=2), alone)
    assert not same(speech(2)[0], alone[0])
    generator = torch.Generator().manual_seed(1)
    assert same(speak(TEXTS[0], voice="random", generator=generator, **NOISY), alone[0])
    torch.manual_seed(5)
    rows = [{"text": TEXTS[0], "seed": 1}, {"text": TEXTS[0]}]
    first = speak(rows, batch_size=2, voice="random", **NOISY)
    assert_all_same(first[:1], alone[:1])
    assert not same(first[1], speak(rows, batch_size=2, voice="random", **NOISY)[1])


def test_tuples_generators_and_columns_are_what_a_list_is(speak):
    settings = {**FIXED, "seed": 1}
    expected = speak(TEXTS, **settings)
    rows = Dataset.from_dict({"text": TEXTS, "voice": ["ada"] * 3, "id": [1, 2, 3]})
    listed = speak(tuple(TEXTS), batch_size=2, **settings)
    assert isinstance(listed, list)
    assert_all_same(listed, expected)
    lazy = (
        (text for text in TEXTS),
        KeyDataset(rows, "text"),
        rows["text"],
        rows.remove_columns("id"),
        rows.select_columns("text").to_iterable_dataset(),
    )
    for inputs in lazy:
        outputs = speak(inputs, batch_size=2, **settings)
        assert not isinstance(outputs, list)
        assert_all_same(outputs, expected)
    assert speak([]) == []
    with pytest.raises(ValueError, match="the key 'id'.*select_columns"):
        list(speak(rows))


def test_a_dataset_of_recordings(speak):
    rows = {"text": TEXTS[:2], "prompt_text": ["The lazy fox."] * 2, "prompt_audio": [wav(PROMPT["prompt_audio"])] * 2}
    rows = Dataset.from_dict(rows).cast_column("prompt_audio", Audio(decode=False))
    expected = speak(TEXTS[:2], **PROMPT, **FIXED)
    assert_all_same(speak(rows, batch_size=2, **FIXED), expected)


def test_what_is_saved_with_its_processor_is_loaded(speak, tmp_path):
    speak.save_pretrained(tmp_path / "saved")
    loaded = pipeline("text-to-speech", model=str(tmp_path / "saved"), pipeline_class=DiTARTextToSpeechPipeline)
    assert loaded.processor.to_dict() == speak.processor.to_dict()
    arguments = {"voice": "bob", "seed": 1, **NOISY}
    assert same(loaded(TEXTS[0], **arguments), speak(TEXTS[0], **arguments))
    with pytest.raises(ValueError, match="`save_directory` is '.*config.json', a file"):
        speak.save_pretrained(tmp_path / "saved" / "config.json")


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"voice": "ada"}, "an item has no `text`, only .'voice'."),
        ({"text": "Hello!", "speaker": "ada"}, "the key 'speaker', which says nothing"),
        ({"text": "Hello!", "voice": "eve"}, "`voice` is 'eve'"),
        ({"text": "Hello!", "seed": -1}, "`seed` must be a whole number from 0"),
        ({"text": "Hello!", "seed": 1.5}, "`seed` must be"),
        ({"text": "Hello!", "prompt_text": "Hello!"}, "without its recording"),
        ({"text": ["Hello!"]}, "`text` must be a string, got list"),
        (None, "`text_inputs` is a NoneType"),
        (3, "`text_inputs` is a int"),
        (b"Hello!", "`text_inputs` is a bytes"),
        ([None], "`text` must be a string, got NoneType"),
        ([["Hello!"]], "`text` must be a string, got list"),
    ],
    ids=str,
)
def test_bad_items(speak, item, message):
    with pytest.raises(ValueError, match=message):
        speak(item, **FIXED)


def test_a_processor_that_could_not_be_loaded_is_not_called_missing(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / "voices" / "ada.wav").write_bytes(b"")
    speak = pipeline("text-to-speech", model=str(tmp_path / "model"), pipeline_class=DiTARTextToSpeechPipeline)
    with pytest.raises(ValueError, match="no processor came with the model .*: the voice 'ada' of .* cannot be used"):
        speak("Hello!")


def test_without_a_processor_it_says_what_to_pass(folder, speak):
    bare = DiTARTextToSpeechPipeline(model=speak.model, tokenizer=speak.tokenizer)
    with pytest.raises(ValueError, match="no processor came with the model.*processor="):
        bare("Hello!")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": "one"}, "`seed` must be a whole number"),
        ({"seed": 1, "generator": torch.Generator()}, "`seed` and `generator` are both given"),
        ({"generation_config": {"temperature": 0.5}}, "`generation_config` is of type dict"),
        ({"forward_params": {"generation_config": 5}}, "`generation_config` is of type int"),
        ({"generate_kwargs": 5}, "`generate_kwargs` must be a dictionary"),
        ({"preprocess_params": {5: 1, "x": 2}}, "`preprocess_params` has the key '5'"),
        ({"voice": ["ada", "bob"]}, "`voice` is a list, but holds for all texts"),
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
