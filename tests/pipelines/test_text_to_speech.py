"""Laws of the library's own text-to-speech pipeline on a folder of ours, after `import ditar_hf`."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, TextToAudioPipeline, pipeline

from ditar_hf import DiTARForTextToSpeech, DiTARProcessor, DiTARScheduler, DiTARTokenizer

TEXTS = ["The quick brown fox.", "Hello!", "Who jumps over the lazy dog, please?"]
RATE, PATCH_LENGTH = 24_000, 2400
FIXED = {"temperature": 0, "num_inference_steps": 2, "max_new_tokens": 3, "min_new_tokens": 3}


def voice(seconds: float, rate: int = RATE) -> np.ndarray:
    return np.sin(2 * np.pi * 180 * np.arange(round(seconds * rate)) / rate).astype(np.float32) / 2


PROMPT = {"prompt_audio": voice(0.75), "prompt_text": "The lazy fox.", "sampling_rate": RATE}


@pytest.fixture(scope="module")
def known() -> dict:
    return {}


@pytest.fixture
def folder(save_tiny, tmp_path_factory, known):
    """A tiny model and its processor, saved together; made once, since no test changes it."""
    if not known:
        tokenizer = DiTARTokenizer.from_texts({"en": TEXTS, "de": ["Guten Tag!"]})
        known["path"] = save_tiny(tmp_path_factory.mktemp("tiny"), tokenizer)
    return known["path"]


@pytest.fixture
def speak(folder) -> TextToAudioPipeline:
    return pipeline("text-to-speech", model=str(folder))


@pytest.fixture
def expected(folder):
    """What processor and model say to a text by themselves."""
    model, processor = DiTARForTextToSpeech.from_pretrained(folder), DiTARProcessor.from_pretrained(folder)

    def say(text, generate_kwargs=FIXED, **inputs) -> np.ndarray:
        return model.generate(**processor(text, **inputs), **generate_kwargs).audio[0].numpy()

    return say


def assert_audio(output: dict, samples: np.ndarray, tolerance: float = 1e-5):
    assert output.keys() == {"audio", "sampling_rate"} and output["sampling_rate"] == RATE
    assert type(output["audio"]) is np.ndarray and output["audio"].dtype == np.float32
    assert output["audio"].shape == samples.shape and samples.ndim == 1
    assert np.abs(output["audio"] - samples).max() < tolerance


def test_the_librarys_own_class_with_all_of_ours_inside(speak):
    assert type(speak) is TextToAudioPipeline
    assert (type(speak.model), type(speak.processor), type(speak.tokenizer)) == (
        DiTARForTextToSpeech,
        DiTARProcessor,
        DiTARTokenizer,
    )
    assert speak.sampling_rate == RATE
    assert "DiTARForTextToSpeech" in repr(speak) and "audio" in repr(speak)


# Forms of input


def test_a_string(speak, expected):
    assert_audio(speak(TEXTS[0], generate_kwargs=FIXED), expected(TEXTS[0]))
    assert len(expected(TEXTS[0])) == 3 * PATCH_LENGTH


@pytest.mark.parametrize("batch_size", [1, 2, 3])
@pytest.mark.parametrize("prompt", [{}, PROMPT], ids=["no prompt", "prompt"])
def test_a_list_in_batches_equals_its_texts(speak, expected, batch_size, prompt):
    outputs = speak(TEXTS, batch_size=batch_size, preprocess_params=prompt, generate_kwargs=FIXED)
    assert len(outputs) == 3
    for text, output in zip(TEXTS, outputs, strict=True):
        assert_audio(output, expected(text, **prompt), 1e-4)


def test_rows_of_a_batch_have_lengths_of_their_own(speak):
    settings = {"temperature": 0, "stop_threshold": 1, "max_patches_per_token": 0.5, "spare_patches": 0}
    outputs = speak(TEXTS, batch_size=3, generate_kwargs=settings)
    lengths = [len(speak.tokenizer(text)["input_ids"]) // 2 * PATCH_LENGTH for text in TEXTS]
    assert [len(output["audio"]) for output in outputs] == lengths and len(set(lengths)) == 3


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_generator_of_texts(speak, expected, batch_size):
    outputs = speak((text for text in TEXTS), batch_size=batch_size, generate_kwargs=FIXED)
    for text, output in zip(TEXTS, outputs, strict=True):
        assert_audio(output, expected(text), 1e-4)


def test_a_tuple_is_one_batch(speak, expected):
    params = {key: [value, None, value] for key, value in PROMPT.items() if key != "sampling_rate"}
    output = speak(tuple(TEXTS), preprocess_params={**params, "sampling_rate": RATE}, generate_kwargs=FIXED)
    for row, text in enumerate(TEXTS):
        alone = expected(text, **(PROMPT if row != 1 else {}))
        assert_audio({**output, "audio": output["audio"][row]}, alone, 1e-4)


# Parameters


def test_a_prompt_changes_the_voice_and_is_not_repeated(speak, expected):
    output = speak(TEXTS[0], preprocess_params=PROMPT, generate_kwargs=FIXED)
    assert_audio(output, expected(TEXTS[0], **PROMPT))
    assert len(output["audio"]) == 3 * PATCH_LENGTH
    assert np.abs(output["audio"] - expected(TEXTS[0])).max() > 1e-3


def test_a_prompt_of_another_rate_is_resampled(speak, expected):
    slow = {**PROMPT, "prompt_audio": voice(0.75, 16_000), "sampling_rate": 16_000}
    output = speak(TEXTS[0], preprocess_params=slow, generate_kwargs=FIXED)
    assert_audio(output, expected(TEXTS[0], **slow))
    entry = {"array": slow["prompt_audio"], "sampling_rate": 16_000}
    as_in_datasets = {"prompt_audio": entry, "prompt_text": PROMPT["prompt_text"]}
    assert_audio(speak(TEXTS[0], preprocess_params=as_in_datasets, generate_kwargs=FIXED), output["audio"])


def test_language_and_phonemes_reach_the_processor(speak, expected):
    german = speak("Guten Tag!", preprocess_params={"language": "de"}, generate_kwargs=FIXED)
    assert_audio(german, expected("Guten Tag!", language="de"))
    phonemes = speak.tokenizer.phonemize("Guten Tag!", language="de")
    assert_audio(speak(phonemes, preprocess_params={"phonemize": False}, generate_kwargs=FIXED), german["audio"])


def test_settings_at_each_level(folder, speak, expected):
    samples = expected(TEXTS[0], {**FIXED, "guidance_scale": 1.0})
    settings = {**FIXED, "guidance_scale": 1.0}
    assert_audio(speak(TEXTS[0], generate_kwargs=settings), samples)
    assert_audio(speak(TEXTS[0], forward_params=settings), samples)
    # the pipeline copies and completes a configuration that is passed to it
    plain = GenerationConfig(guidance_scale=1.0, max_new_tokens=3)
    rest = {"temperature": 0, "min_new_tokens": 3}
    assert_audio(speak(TEXTS[0], generate_kwargs={"generation_config": plain, **rest}), samples)
    at_init = pipeline("text-to-speech", model=str(folder), guidance_scale=1.0, max_new_tokens=3, temperature=0.0)
    assert_audio(at_init(TEXTS[0], generate_kwargs={"min_new_tokens": 3}), samples)
    longer = at_init(TEXTS[0], generate_kwargs={"max_new_tokens": 4, "min_new_tokens": 4})
    assert len(longer["audio"]) == 4 * PATCH_LENGTH


def test_the_pipelines_default_length_does_not_replace_ours(speak, monkeypatch):
    merged, original = [], speak.model._merge_generation_config

    def keep(*arguments):
        merged.append(original(*arguments))
        return merged[-1].merged({"max_new_tokens": 1})

    monkeypatch.setattr(speak.model, "_merge_generation_config", keep)
    speak(TEXTS[0])
    assert merged[0].max_new_tokens == speak.model.generation_config.max_new_tokens == 600
    assert merged[0].num_inference_steps == 2


def test_another_scheduler_at_each_level(folder, speak, expected):
    settings = {**FIXED, "num_inference_steps": 4}
    samples = expected(TEXTS[0], settings)
    solver = DiTARScheduler(algorithm_type="dpmsolver++")
    other = expected(TEXTS[0], {**settings, "noise_scheduler": solver})
    assert np.abs(samples - other).max() > 1e-3
    at_init = pipeline("text-to-speech", model=str(folder), noise_scheduler=solver)
    assert_audio(at_init(TEXTS[0], generate_kwargs=settings), other)
    assert_audio(speak(TEXTS[0], generate_kwargs={**settings, "noise_scheduler": solver}), other)
    back = {**settings, "noise_scheduler": DiTARScheduler()}
    assert_audio(at_init(TEXTS[0], generate_kwargs=back), samples)


def test_seeds(speak):
    def samples(seed, **settings):
        settings |= {**FIXED, "temperature": 1, "generator": torch.Generator().manual_seed(seed)}
        return speak(TEXTS[0], generate_kwargs=settings)["audio"]

    assert np.array_equal(samples(1), samples(1))
    assert np.abs(samples(1) - samples(2)).max() > 1e-3


def test_a_bfloat16_model_hears_its_prompt_in_float32(folder, monkeypatch):
    speak = pipeline("text-to-speech", model=str(folder), dtype=torch.bfloat16)
    assert speak.model.dtype == torch.bfloat16
    heard, original = [], speak.model.generate
    monkeypatch.setattr(speak.model, "generate", lambda **inputs: heard.append(inputs) or original(**inputs))
    for output in speak(TEXTS, batch_size=2, preprocess_params=PROMPT, generate_kwargs=FIXED):
        assert output["audio"].dtype == np.float32 and output["audio"].shape == (3 * PATCH_LENGTH,)
        assert np.isfinite(output["audio"]).all() and output["audio"].std() > 0
    length = 7 * PATCH_LENGTH
    assert torch.equal(heard[0]["prompt_values"][0], torch.from_numpy(PROMPT["prompt_audio"][:length]))


# Bad input


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "nothing to speak"),
        ("  \n\t", "nothing to speak"),
        ("?!… ,.", "nothing to speak"),
        ("😀🎉👍🏽", "nothing to speak"),
        ("\x00\x07\x1b\u200b", "nothing to speak"),
        ("word " * 4_000, r"has \d+ tokens, more than the 1000 of `max_text_length`. Split it"),
        ("a" * 20_000, "more than the 1000"),
        ("hi \ud800", "lone surrogate"),
    ],
    ids=["empty", "blank", "punctuation", "emoji", "control", "20,000 characters", "one word of them", "surrogate"],
)
def test_texts_that_cannot_be_spoken(speak, text, message, batch_size):
    with pytest.raises(ValueError, match=message):
        speak(text)
    with pytest.raises(ValueError, match=message):
        speak([TEXTS[0], text], batch_size=batch_size, generate_kwargs=FIXED)


def test_emoji_and_control_characters_among_words_are_left_out(speak, expected):
    output = speak("\x00The quick 🦊 brown\u200b fox.\x07", generate_kwargs=FIXED)
    assert_audio(output, expected(TEXTS[0]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"language": "tlh"}, "`language` is 'tlh'"),
        ({"language": "fr"}, "this vocabulary was built for"),
        ({"prompt_audio": voice(1.0), "sampling_rate": RATE}, "without its transcript.*`prompt_text`"),
        ({"prompt_text": "The fox."}, "without its recording"),
        ({**PROMPT, "sampling_rate": None}, "`sampling_rate` of `prompt_audio.0.` is missing"),
        ({**PROMPT, "sampling_rate": 96_000}, "lasts 0.19 seconds at 96000 Hz"),
        ({**PROMPT, "sampling_rate": 0}, "positive whole number of hertz"),
        ({**PROMPT, "prompt_audio": np.full(RATE, np.nan, np.float32)}, "NaN or infinite"),
        ({**PROMPT, "prompt_audio": np.zeros(RATE, np.float32)}, "is silent"),
        ({**PROMPT, "prompt_audio": voice(0.02)}, "lasts 0.02 seconds.*Pass a longer recording"),
        ({**PROMPT, "prompt_audio": np.zeros(600 * RATE, np.float32)}, "lasts 600.00 seconds.*Cut it"),
        ({**PROMPT, "prompt_audio": np.stack([voice(1.0)] * 2)}, "must be mono"),
        ({**PROMPT, "prompt_audio": "voice.wav"}, "there is no such file"),
        ({**PROMPT, "prompt_text": "…"}, r"`prompt_text\[0\]` has nothing to speak"),
    ],
)
def test_prompts_and_languages_that_will_not_do(speak, arguments, message):
    with pytest.raises(ValueError, match=message):
        speak(TEXTS[0], preprocess_params=arguments, generate_kwargs=FIXED)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("temperature", 1.01, "`temperature` must be a finite number in .0, 1."),
        ("temperature", -0.5, "`temperature` must be"),
        ("temperature", float("nan"), "`temperature` must be.*got nan"),
        ("num_inference_steps", 0, "`num_inference_steps` must be a whole number from 1 to 1000"),
        ("guidance_scale", 0.9, "`guidance_scale` must be a finite number in .1, inf."),
        ("max_new_tokens", 0, "`max_new_tokens` must be"),
        ("num_beams", 4, "`num_beams` is not an argument"),
        ("noise_scheduler", DiTARScheduler(prediction_type="sample"), "prediction_type 'sample'"),
    ],
)
@pytest.mark.parametrize("door", ["generate_kwargs", "forward_params"])
def test_settings_out_of_range(speak, door, name, value, message):
    with pytest.raises(ValueError, match=message):
        speak(TEXTS[0], **{door: {name: value}})


def without_locdit(path):
    weights = {name: value for name, value in load_file(path).items() if not name.startswith("locdit")}
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "model.safetensors").unlink(), "no file named model.safetensors"),
        (
            lambda path: (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:5000]),
            "cannot be read",
        ),
        (
            lambda path: (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:-5000]),
            "cannot be read",
        ),
        (lambda path: without_locdit(path / "model.safetensors"), "locdit"),
        (lambda path: (path / "config.json").write_text(json.dumps({"model_type": "bert"})), "Unrecognized.*Bert"),
        (lambda path: (path / "config.json").unlink(), "model_type"),
    ],
    ids=["no weights", "header only", "cut off", "without LocDiT", "another model", "no config"],
)
def test_damaged_folders(folder, tmp_path, damage, message):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    damage(copy)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        pipeline("text-to-speech", model=str(copy))


def test_a_folder_without_a_processor_says_what_is_missing(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "processor_config.json").unlink()
    with pytest.raises(ValueError, match="use the processor, not the tokenizer alone"):
        pipeline("text-to-speech", model=str(copy))(TEXTS[0])
