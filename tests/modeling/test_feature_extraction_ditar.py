"""Laws of `DiTARFeatureExtractor`: what a voice prompt becomes, and which ones are refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoFeatureExtractor

from ditar_hf.modeling import feature_extraction_ditar
from ditar_hf.modeling.configuration_ditar import DiTARConfig
from ditar_hf.modeling.feature_extraction_ditar import DiTARFeatureExtractor

RATE = 24_000
PATCH = 2_400


def sine(seconds: float, rate: int = RATE, peak: float = 0.5) -> np.ndarray:
    return (peak * np.sin(2 * np.pi * 220 * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.fixture(scope="module")
def extractor() -> DiTARFeatureExtractor:
    return DiTARFeatureExtractor()


@given(num_samples=st.integers(12_000, 40_000))
@settings(max_examples=25, deadline=None)
def test_a_prompt_loses_less_than_a_patch_at_its_end_and_nothing_else(extractor, num_samples):
    audio = sine(num_samples / RATE)
    inputs = extractor(audio, sampling_rate=RATE, return_tensors="np")
    values = inputs["prompt_values"][0]
    assert values.dtype == np.float32 and len(values) % PATCH == 0 and 0 <= num_samples - len(values) < PATCH
    assert np.array_equal(values, audio[: len(values)])
    assert inputs["prompt_mask"].all()


def test_keys_shapes_and_types(extractor):
    inputs = extractor(sine(1.0), sampling_rate=RATE, return_tensors="pt")
    assert list(inputs) == extractor.model_input_names == ["prompt_values", "prompt_mask"]
    assert inputs["prompt_values"].shape == inputs["prompt_mask"].shape == (1, RATE)
    assert (inputs["prompt_values"].dtype, inputs["prompt_mask"].dtype) == (torch.float32, torch.int64)


def test_a_batch_equals_its_rows_and_is_padded_on_the_left(extractor):
    rows = [sine(0.73), None, sine(1.21), sine(0.5)]
    batch = extractor(rows, sampling_rate=RATE, return_tensors="np")
    assert batch["prompt_values"].shape == (4, 12 * PATCH)
    for row, values, mask in zip(rows, batch["prompt_values"], batch["prompt_mask"], strict=True):
        alone = np.zeros(0) if row is None else extractor(row, sampling_rate=RATE)["prompt_values"][0]
        assert np.array_equal(values[mask == 1], alone)
        assert mask.tolist() == [0] * (len(mask) - len(alone)) + [1] * len(alone)
        assert not values[mask == 0].any()


def test_padding_can_stand_on_the_right_or_be_left_out():
    rows = [sine(0.5), sine(1.0)]
    right = DiTARFeatureExtractor(padding_side="right")(rows, sampling_rate=RATE, return_tensors="np")
    assert right["prompt_mask"][0].tolist() == [1] * 5 * PATCH + [0] * 5 * PATCH
    ragged = DiTARFeatureExtractor()(rows, sampling_rate=RATE, padding=False)
    assert [len(row) for row in ragged["prompt_values"]] == [5 * PATCH, 10 * PATCH]


@pytest.mark.parametrize(
    "convert",
    [
        np.float64,
        lambda audio: audio.tolist(),
        torch.from_numpy,
        lambda audio: torch.from_numpy(audio).requires_grad_(),
        lambda audio: audio[None],
        lambda audio: audio[:, None],
        lambda audio: [audio],
        lambda audio: (audio,),
    ],
)
def test_forms_of_one_waveform(extractor, convert):
    audio = sine(0.6)
    inputs = extractor(convert(audio), sampling_rate=RATE, return_tensors="np")
    assert np.array_equal(inputs["prompt_values"], audio[None])


@pytest.mark.parametrize(("dtype", "scale"), [(np.int16, 2**15), (np.int32, 2**31)])
def test_integers_are_divided_by_full_scale(extractor, dtype, scale):
    audio = sine(0.6)
    integers = np.round(audio.astype(np.float64) * scale).astype(dtype)
    for raw_audio in (integers, torch.from_numpy(integers)):
        values = extractor(raw_audio, sampling_rate=RATE, return_tensors="np")["prompt_values"][0]
        assert np.allclose(values, audio, atol=1 / scale + 1e-7)


def test_half_precision_is_taken(extractor):
    values = extractor(torch.from_numpy(sine(0.6)).bfloat16(), sampling_rate=RATE, return_tensors="np")
    assert np.allclose(values["prompt_values"][0], sine(0.6), atol=2e-3)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, np.int64(48_000), 48_000.0])
def test_another_rate_is_resampled(extractor, rate):
    values = extractor(sine(1.0, int(rate)), sampling_rate=rate, return_tensors="np")["prompt_values"][0]
    assert abs(len(values) - RATE) <= PATCH
    middle = slice(2_000, 20_000)
    assert np.allclose(values[middle], sine(1.0)[middle], atol=2e-3)


def test_prompts_of_every_level_become_one(extractor):
    scaled = DiTARFeatureExtractor(prompt_peak=0.7)
    expected = scaled(sine(1.0), sampling_rate=RATE)["prompt_values"][0]
    assert expected.dtype == np.float32 and abs(np.abs(expected).max() - 0.7) < 1e-6
    for peak in (0.01, 0.2, 1.0):
        assert np.allclose(scaled(sine(1.0, peak=peak), sampling_rate=RATE)["prompt_values"][0], expected, atol=1e-5)
    # without it, a prompt keeps its level
    assert np.array_equal(extractor(sine(1.0, peak=0.2), sampling_rate=RATE)["prompt_values"][0], sine(1.0, peak=0.2))
    for peak in (0, -1, 1.5):
        with pytest.raises(ValueError, match="`prompt_peak` must lie in"):
            DiTARFeatureExtractor(prompt_peak=peak)


def test_input_is_not_changed(extractor):
    audio = sine(0.51)
    before = audio.copy()
    extractor(audio, sampling_rate=RATE)["prompt_values"][0][:] = 0
    assert np.array_equal(audio, before)


def with_sample(value: float) -> np.ndarray:
    audio = sine(1.0)
    audio[500] = value
    return audio


@pytest.mark.parametrize(
    ("audio", "rate", "message"),
    [
        (sine(1.0), None, "`sampling_rate` of `raw_audio.0.` is missing"),
        (sine(1.0), 0, "positive whole number"),
        (sine(1.0), 24_000.5, "positive whole number"),
        (sine(1.0), "24000", "positive whole number"),
        (sine(1.0), True, "positive whole number"),
        (sine(1.0), 96_000, "lasts 0.25 seconds at 96000 Hz"),
        (with_sample(np.nan), RATE, "NaN or infinite"),
        (with_sample(np.inf), RATE, "NaN or infinite"),
        (np.zeros(RATE, np.float32), RATE, "silent"),
        (np.full(RATE, 0.3, np.float32), RATE, "silent"),
        (sine(1.0, peak=5e-4), RATE, "silent"),
        (sine(0.02), RATE, "lasts 0.02 seconds.*Pass a longer recording"),
        (np.zeros(0, np.float32), RATE, "lasts 0.00 seconds"),
        (np.zeros(600 * RATE, np.float32), RATE, "lasts 600.00 seconds.*Cut it"),
        (np.stack([sine(1.0)] * 2), RATE, r"mono.*\(2, 24000\).*Average"),
        (np.stack([sine(1.0)] * 2, axis=1), RATE, r"mono.*\(24000, 2\)"),
        (np.float32(1.0), RATE, "is a float32, no waveform"),
        (sine(1.0) * 32768, RATE, r"reaches 16384.*\[-1, 1\].*32768"),
        (np.ones(RATE, np.int64), RATE, "type int64"),
        ([1] * RATE, RATE, "type int64"),
        (np.ones(RATE, np.uint8), RATE, "type uint8"),
        (np.ones(RATE, complex), RATE, "type complex128"),
        ([[0.1, 0.2], [0.3]], RATE, "lasts 0.00 seconds"),
        ("voice.wav", RATE, "is a str, no waveform"),
        ([], RATE, "empty list"),
    ],
)
def test_bad_prompts(extractor, audio, rate, message):
    with pytest.raises(ValueError, match=message):
        extractor(audio, sampling_rate=rate)


def test_messages_name_the_row(extractor):
    with pytest.raises(ValueError, match="`raw_audio.2.` is silent"):
        extractor([sine(1.0), None, np.zeros(RATE)], sampling_rate=RATE)


@pytest.mark.parametrize(
    "arguments",
    [{"feature_size": 2}, {"padding_side": "up"}, {"min_seconds": 3, "max_seconds": 2}, {"min_seconds": 0}],
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}`"):
        DiTARFeatureExtractor(**arguments)


def test_a_prompt_shorter_than_a_patch_is_refused():
    with pytest.raises(ValueError, match="shorter than one patch of 2400"):
        DiTARFeatureExtractor(min_seconds=0.01)(sine(0.05), sampling_rate=RATE)


def test_resampling_needs_soxr(extractor, monkeypatch):
    monkeypatch.setattr(feature_extraction_ditar, "soxr", None)
    extractor(sine(1.0), sampling_rate=RATE)
    with pytest.raises(ImportError, match="pip install soxr"):
        extractor(sine(1.0), sampling_rate=16_000)


def test_saved_equals_loaded(tmp_path):
    extractor = DiTARFeatureExtractor(
        sampling_rate=16_000, hop_length=320, patch_size=2, min_seconds=0.25, max_seconds=10, padding_side="right"
    )
    extractor.save_pretrained(tmp_path)
    AutoFeatureExtractor.register(DiTARConfig, DiTARFeatureExtractor, exist_ok=True)
    for loaded in (DiTARFeatureExtractor.from_pretrained(tmp_path), AutoFeatureExtractor.from_pretrained(tmp_path)):
        assert type(loaded) is DiTARFeatureExtractor
        assert loaded.to_dict() == extractor.to_dict()
        assert loaded.patch_length == 640
        audio = [sine(0.4, 16_000), sine(0.3, 16_000)]
        one, other = (each(audio, sampling_rate=16_000, return_tensors="np") for each in (extractor, loaded))
        assert all(np.array_equal(one[key], other[key]) for key in one)
