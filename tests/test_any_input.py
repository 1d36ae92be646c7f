"""Whatever text and audio come: there is a result, or a `ValueError` that says something, and nothing else."""

import io

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from transformers import pipeline

from ditar_hf import DiTARProcessor, DiTARTextToSpeechPipeline, DiTARTokenizer

RATE, PATCH = 24_000, 2_400
TEXTS = {"en": ["The quick brown fox jumps over the lazy dog."], "de": ["Guten Tag!"], "cmn": ["你好。"]}
# fixtures are made once and not changed
EACH = {"suppress_health_check": list(HealthCheck)}

words = st.sampled_from(
    "the quick, brown fox! 42 $5.20 3rd don't 你好。 Größe naïve ‮abc x² ½ 🦊 \u0301 ﬁ\u200d \x00".split(" ")
)
texts = st.one_of(
    st.text(max_size=60),
    st.text(st.characters(categories=["L", "M", "N", "P"]), max_size=40),
    st.text(st.characters(codec="ascii"), max_size=80),
    st.lists(words, max_size=12).map(" ".join),
    st.lists(words, min_size=200, max_size=300).map(" ".join),
    st.text(st.characters(categories=["Cs", "Cc", "Cf", "Co", "Cn"]), max_size=10),
)
languages = st.sampled_from([None, "en", "en-us", "de", "cmn", "fr", "tlh", "", "zz"])
rates = st.one_of(
    st.sampled_from([8_000, 16_000, 22_050, 24_000, 44_100, 48_000, 96_000]), st.integers(-5, 200_000), st.none()
)


@st.composite
def waveforms(draw):
    """Samples of any type, shape and content."""
    dtype = np.dtype(draw(st.sampled_from(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "?", "c8"])))
    length = draw(st.one_of(st.integers(0, 3), st.sampled_from([PATCH, RATE // 2, RATE, 31 * RATE])))
    shape = draw(st.sampled_from([(length,), (1, length), (length, 1), (2, length), (length, 2), (1, 1, length), ()]))
    kind = draw(st.sampled_from(["noise", "zeros", "loud", "nan", "inf", "odd"]))
    generator = np.random.default_rng(draw(st.integers(0, 9)))
    samples = generator.uniform(-1, 1, shape)
    if kind == "odd" and length < 4:
        return draw(arrays.arrays(dtype, shape))
    scale = {"zeros": 0, "loud": 1e4}.get(kind, 0.3 if dtype.kind in "fc" else 100)
    samples = np.asarray(samples * scale)
    if kind in ("nan", "inf") and samples.size:
        samples.flat[draw(st.integers(0, samples.size - 1))] = {"nan": np.nan, "inf": -np.inf}[kind]
    with np.errstate(all="ignore"):
        return samples.astype(dtype)


def as_file(samples, rate, container):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container)
    return file.getvalue()


files = st.builds(
    as_file,
    st.sampled_from([0.3 * np.random.default_rng(0).uniform(-1, 1, (count, 2)) for count in (PATCH, RATE)]),
    st.sampled_from([8_000, 24_000, 48_000]),
    st.sampled_from(["WAV", "FLAC", "OGG"]),
)


@st.composite
def torn_files(draw):
    """Files cut off, or with bytes changed."""
    content = bytearray(draw(files))
    for _ in range(draw(st.integers(0, 4))):
        content[draw(st.integers(0, 200))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.sampled_from([None, 0, 10, 60, len(content) // 2]))])


recordings = st.one_of(
    st.none(),
    waveforms(),
    waveforms().filter(lambda samples: samples.dtype.kind == "f").map(torch.from_numpy),
    st.lists(st.one_of(st.none(), st.floats(), st.integers(-9, 9)), max_size=5),
    st.builds(lambda samples, rate: {"array": samples, "sampling_rate": rate}, waveforms(), rates),
    st.builds(lambda content: {"path": None, "bytes": content}, torn_files()),
    st.dictionaries(st.sampled_from(["array", "path", "bytes", "sampling_rate", "x"]), st.none(), max_size=3),
    torn_files(),
    st.binary(max_size=64),
    st.sampled_from(
        ["", "voice.wav", "/", "\0", ".", "https://example.org/a.wav", 5, True, {}, [], object(), io.BytesIO()]
    ),
)


@pytest.fixture(autouse=True)
def quiet(caplog):
    """Most speech here runs into its limit of two patches, and says so."""
    caplog.set_level("ERROR", "ditar_hf")
    caplog.set_level("ERROR", "ditar_hf.modeling.generation_ditar")


@pytest.fixture(scope="module")
def known() -> dict:
    return {}


@pytest.fixture
def speak(save_tiny, tmp_path_factory, known) -> DiTARTextToSpeechPipeline:
    """A pipeline around a tiny model with one voice; made once, since no test changes it."""
    if not known:
        folder = save_tiny(tmp_path_factory.mktemp("tiny"), DiTARTokenizer.from_texts(TEXTS))
        processor = DiTARProcessor.from_pretrained(folder)
        processor.add_voice("ada", np.sin(np.arange(RATE) / 20) / 2, RATE, "The fox.")
        processor.save_pretrained(folder)
        known["speak"] = pipeline("text-to-speech", model=str(folder), pipeline_class=DiTARTextToSpeechPipeline)
    return known["speak"]


def result_of(call, *arguments, **keywords):
    """What a call gives, or `None` after a `ValueError` with a sentence."""
    try:
        return call(*arguments, **keywords)
    except ValueError as error:
        assert len(str(error)) > 15, repr(error)
        return None


def assert_inputs(inputs, processor):
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    assert ids.shape == mask.shape and ids.dtype == torch.int64
    assert 0 <= ids.min() and ids.max() < len(processor.tokenizer)
    assert ((ids == processor.tokenizer.audio_bos_token_id).sum(1) == 1).all()
    placeholders = (ids == processor.tokenizer.audio_patch_token_id).sum(1)
    if "prompt_values" in inputs:
        assert torch.isfinite(inputs["prompt_values"]).all()
        assert torch.equal(placeholders * PATCH, inputs["prompt_mask"].sum(1))
    else:
        assert not placeholders.any()


def assert_speech(outputs, num_items):
    assert len(outputs) == num_items
    for output in outputs:
        audio = output["audio"]
        assert audio.ndim == 1 and PATCH <= len(audio) <= 2 * PATCH
        assert np.isfinite(audio).all() and np.abs(audio).max() <= 1


@given(text=texts, language=languages, phonemize=st.sampled_from([None, True, False]))
@settings(max_examples=1_000, **EACH)
def test_any_text(speak, text, language, phonemize):
    if (inputs := result_of(speak.processor, text, language=language, phonemize=phonemize)) is not None:
        assert_inputs(inputs, speak.processor)


@given(audio=recordings, rate=rates, transcript=st.one_of(st.none(), st.just("The fox."), texts))
@settings(max_examples=800, **EACH)
def test_any_recording(speak, audio, rate, transcript):
    arguments = {"prompt_audio": audio, "prompt_text": transcript, "sampling_rate": rate}
    if (inputs := result_of(speak.processor, "Hello.", **arguments)) is not None:
        assert_inputs(inputs, speak.processor)


items = st.fixed_dictionaries(
    {"text": st.one_of(st.just("The fox."), texts)},
    optional={
        "voice": st.sampled_from([None, "ada", "random", "eve", 3]),
        "prompt_audio": recordings,
        "prompt_text": st.one_of(st.none(), st.just("The fox."), texts),
        "sampling_rate": rates,
        "language": languages,
        "seed": st.one_of(st.none(), st.integers(-1, 2**64), st.floats()),
    },
)
numbers = st.one_of(st.floats(), st.integers(-2, 5), st.none())


@given(
    items=st.lists(items, min_size=1, max_size=3),
    batch_size=st.integers(1, 3),
    temperature=st.one_of(st.sampled_from([0, 0.3, 1]), numbers),
    guidance_scale=st.one_of(st.sampled_from([1, 2.5]), numbers),
    num_inference_steps=st.one_of(st.sampled_from([1, 2]), st.integers(-1, 3), st.floats(), st.none()),
)
@settings(max_examples=400, **EACH)
def test_any_items_and_settings(speak, items, batch_size, temperature, guidance_scale, num_inference_steps):
    settings = {
        "temperature": temperature,
        "guidance_scale": guidance_scale,
        "num_inference_steps": num_inference_steps,
    }
    settings = {name: value for name, value in settings.items() if value is not None}
    outputs = result_of(speak, items, batch_size=batch_size, max_new_tokens=2, min_new_tokens=1, **settings)
    if outputs is not None:
        assert_speech(outputs, len(items))


good_items = st.one_of(
    st.fixed_dictionaries({"text": st.just("The fox.")}, optional={"voice": st.sampled_from(["ada", "random"])}),
    st.fixed_dictionaries(
        {
            "text": st.sampled_from(["The fox.", "The quick brown fox jumps over the lazy dog."]),
            "prompt_text": st.just("The fox."),
            "prompt_audio": st.builds(
                as_file,
                st.sampled_from([0.3 * np.sin(np.arange(count) / 20) for count in (50_000, 90_000)]),
                st.sampled_from([8_000, 24_000, 48_000]),
                st.sampled_from(["WAV", "FLAC", "OGG"]),
            ),
        },
        optional={"seed": st.integers(0, 9), "language": st.sampled_from(["en-us", "de"])},
    ),
)


@given(items=st.lists(good_items, min_size=1, max_size=3), batch_size=st.integers(1, 3))
@settings(max_examples=100, **EACH)
def test_good_input_is_not_refused(speak, items, batch_size):
    settings = {"max_new_tokens": 2, "min_new_tokens": 1, "num_inference_steps": 1}
    assert_speech(speak(items, batch_size=batch_size, **settings), len(items))
