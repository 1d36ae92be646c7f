"""Laws of examples: what is known before decoding bounds what comes of it, silence goes, and faults are named."""

import numpy as np
import pytest
import soundfile

from ditar_hf import DiTARFeatureExtractor, DiTARProcessor, DiTARTokenizer
from ditar_hf.training.audio import UnusableAudioError
from ditar_hf.training.examples import ExampleArguments, ExampleMaker, UnusableRowError, trim_end
from ditar_hf.training.filters import FilterArguments
from ditar_hf.training.schema import make_example

TEXT = "A cat sat on the mat."
PROCESSOR = DiTARProcessor(DiTARFeatureExtractor(), DiTARTokenizer.from_texts([TEXT], "en-us"))


@pytest.fixture
def make_row(tmp_path, encode_speech):
    """A row of a second and a half of speech and a second of silence."""

    def make(silence_seconds=1.0, **fields):
        file = tmp_path / "speech.wav"
        file.write_bytes(encode_speech(1.5, rate=16_000))
        samples, rate = soundfile.read(file, dtype="float32")
        soundfile.write(file, np.concatenate([samples, np.zeros(round(silence_seconds * rate), "float32")]), rate)
        return make_example("speech", **{"path": file, "text": TEXT, "language": "en-us", **fields})

    return make


def test_the_outline_bounds_the_example(make_row):
    maker = ExampleMaker(PROCESSOR)
    outline = maker.outline(make_row())
    example = maker.complete(outline)
    num_patches = -(-len(example["audio"]["array"]) // 2400)
    assert example["input_ids"] == outline.input_ids == PROCESSOR.tokenize_text(TEXT)
    assert num_patches == 16  # a tenth of a second of silence is left
    # 25 patches are stated, and one is for rounding
    assert len(outline.input_ids) + 1 + num_patches <= outline.num_positions == len(outline.input_ids) + 1 + 25 + 1


def test_silence_is_left_where_it_is_wanted(make_row):
    maker = ExampleMaker(PROCESSOR, ExampleArguments(trim_margin_seconds=None))
    assert len(maker.complete(maker.outline(make_row()))["audio"]["array"]) == 60_000


def test_trimming_takes_nothing_but_the_end():
    rng = np.random.default_rng(0)
    for _ in range(20):
        speech = rng.standard_normal(rng.integers(2000, 9000)).astype(np.float32)
        quiet = 1e-4 * rng.standard_normal(rng.integers(0, 9000)).astype(np.float32)
        trimmed = trim_end(np.concatenate([speech, quiet]), 16_000, 0.1, -40.0)
        assert np.array_equal(trimmed[: len(speech)], speech)
        assert len(trimmed) <= len(speech) + 1600 + 160  # the margin, and a frame of 10 ms
    assert len(trim_end(np.zeros(5000, np.float32), 16_000, 0.1, -40.0)) == 5000


@pytest.mark.parametrize(
    "fields, reason",
    [
        ({"text": None}, "no text"),
        ({"text": "  "}, "no text"),
        ({"text": "......"}, "its text has no phones"),
        ({"text": TEXT * 20}, "text too long for its audio"),
        ({"text": "Sat.", "silence_seconds": 8.0}, "text too short for its audio"),
        ({"text": "Zoologie über Fjorde."}, "outside the vocabulary"),
        ({"language": "xx"}, "cannot be made into phones"),
        ({"path": None}, "no audio"),
    ],
)
def test_rows_that_cannot_be_used_are_refused_before_decoding(make_row, fields, reason):
    with pytest.raises(UnusableRowError, match=reason):
        ExampleMaker(PROCESSOR).outline(make_row(**fields))


def test_filters_hold_for_the_speech_without_its_silence(make_row):
    maker = ExampleMaker(PROCESSOR, filters=FilterArguments(min_seconds=2.0))
    outline = maker.outline(make_row())
    with pytest.raises(UnusableRowError, match="too short"):
        maker.complete(outline)


@pytest.mark.parametrize("damage", ["no file", "no sound file", "nan"])
def test_audio_that_cannot_be_decoded_is_refused(make_row, damage, tmp_path):
    row = make_row(duration_seconds=2.5)
    if damage == "no file":
        (tmp_path / "speech.wav").unlink()
    elif damage == "no sound file":
        (tmp_path / "speech.wav").write_bytes(b"nothing")
    else:
        soundfile.write(tmp_path / "speech.wav", np.full(40_000, np.nan, np.float32), 16_000, subtype="FLOAT")
    maker = ExampleMaker(PROCESSOR)
    with pytest.raises(UnusableAudioError):
        maker.complete(maker.outline(row))


def test_speech_that_is_longer_than_stated_would_break_the_budget(make_row):
    maker = ExampleMaker(PROCESSOR)
    with pytest.raises(UnusableAudioError, match="longer than its source states"):
        maker.complete(maker.outline(make_row(duration_seconds=1.0)))


@pytest.mark.parametrize("latents", [np.zeros((6, 8)), np.zeros(8), np.full((8, 8), np.nan)])
def test_latents_that_are_not_whole_finite_patches_are_refused(latents):
    maker = ExampleMaker(PROCESSOR)
    with pytest.raises(UnusableRowError, match="its latents are not"):
        maker.complete(maker.outline({"id": "a", "text": TEXT, "latents": latents.astype(np.float32)}))


def test_a_control_token_in_a_text_is_refused():
    row = {"id": "a", "input_ids": [5, PROCESSOR.tokenizer.pad_token_id], "latents": np.zeros((8, 8), np.float32)}
    with pytest.raises(UnusableRowError, match="control token"):
        ExampleMaker(PROCESSOR).outline(row)


def test_rows_of_a_store_keep_their_latents():
    latents = np.zeros((20, 8), np.float32)
    row = {"id": "a", "text": TEXT, "latents": latents, "alignment": [0] * 5}
    maker = ExampleMaker(PROCESSOR)
    outline = maker.outline(row)
    assert outline.num_positions == len(outline.input_ids) + 1 + 5
    assert maker.complete(outline) == {
        "id": "a",
        "input_ids": outline.input_ids,
        "latents": latents,
        "alignment": [0] * 5,
    }


@pytest.mark.parametrize(
    "values, name",
    [
        ({"trim_margin_seconds": -0.1}, "trim_margin_seconds"),
        ({"trim_threshold_decibels": 3.0}, "trim_threshold_decibels"),
        ({"max_unknown_tokens": -1}, "max_unknown_tokens"),
    ],
)
def test_bad_arguments_are_refused(values, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        ExampleArguments(**values)
