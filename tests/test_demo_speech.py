"""What the demo's button does: the speech of `generate`, and a sentence for whoever left something out."""

import re

import numpy as np
import pytest
import soundfile
import torch

from ditar_hf import DiTARForTextToSpeech, DiTARProcessor, DiTARTokenizer
from ditar_hf.demo_speech import RECORDING, DemoSpeaker
from ditar_hf.modeling.voices_ditar import VOICE_NAME

RATE = 24_000
TEXT = "Good morning."
NOISE = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
SETTINGS = {"temperature": 1.0, "guidance_scale": 2.0, "num_inference_steps": 2}


@pytest.fixture
def speaker(save_tiny, tmp_path):
    """A tiny model that reads two languages, with a voice called `ada`."""
    path = save_tiny(tmp_path / "model", DiTARTokenizer.from_texts({"en": [TEXT], "de": ["Guten Tag!"]}))
    processor = DiTARProcessor.from_pretrained(path)
    processor.add_voice("ada", NOISE, RATE, TEXT)
    return DemoSpeaker(DiTARForTextToSpeech.from_pretrained(path), processor)


@pytest.fixture
def recording(tmp_path):
    soundfile.write(tmp_path / "voice.wav", NOISE, RATE, subtype="FLOAT")
    return tmp_path / "voice.wav"


def generated(speaker, **inputs):
    generator = torch.Generator().manual_seed(7)
    output = speaker.model.generate(**speaker.processor(TEXT, **inputs), generator=generator, **SETTINGS)
    return output.audio[0].numpy()


def test_it_is_the_speech_of_generate(speaker, recording):
    named = speaker(f" {TEXT}\n", "ada", seed=7, **SETTINGS)
    np.testing.assert_array_equal(named.waveform, generated(speaker, voice="ada"))
    made_up = speaker(TEXT, "random", seed=7, **SETTINGS)
    np.testing.assert_array_equal(made_up.waveform, generated(speaker, voice="random"))
    cloned = speaker(TEXT, RECORDING, recording, "Good.", True, seed=7, **SETTINGS)
    prompt = {"prompt_audio": NOISE, "prompt_text": "Good.", "sampling_rate": RATE}
    np.testing.assert_array_equal(cloned.waveform, generated(speaker, **prompt))
    assert named.sampling_rate == RATE and not np.array_equal(named.waveform, made_up.waveform)


def test_a_seed_that_was_drawn_repeats_the_speech(speaker):
    drawn = [speaker(TEXT, "random", **SETTINGS) for _ in range(2)]
    assert drawn[0].seed != drawn[1].seed
    again = speaker(TEXT, "random", seed=drawn[0].seed, **SETTINGS)
    np.testing.assert_array_equal(again.waveform, drawn[0].waveform)
    assert f"seed {drawn[0].seed}" in drawn[0].summary


def test_the_language_reaches_the_processor(speaker):
    english, german = (speaker("Guten", "random", language=code, seed=0, **SETTINGS) for code in ("en-us", "de"))
    assert not np.array_equal(english.waveform, german.waveform)


@pytest.mark.parametrize(("rate", "channels", "subtype"), [(8_000, 1, "PCM_16"), (96_000, 2, "DOUBLE")])
def test_recordings_may_be_of_any_rate_and_stereo(speaker, tmp_path, rate, channels, subtype):
    samples = np.random.default_rng(0).normal(0, 0.1, (rate, channels))
    soundfile.write(tmp_path / "other.wav", samples, rate, subtype=subtype)
    speech = speaker(TEXT, RECORDING, tmp_path / "other.wav", "Good.", True, seed=7, **SETTINGS)
    prompt = {"prompt_audio": soundfile.read(tmp_path / "other.wav", dtype="float32", always_2d=True)[0].mean(1)}
    np.testing.assert_array_equal(
        speech.waveform, generated(speaker, **prompt, prompt_text="Good.", sampling_rate=rate)
    )


def test_where_no_seed_matters_none_is_told(speaker):
    settings = {**SETTINGS, "temperature": 0.0}
    one, other = (speaker(TEXT, "random", seed=seed, **settings) for seed in (1, 2))
    np.testing.assert_array_equal(one.waveform, other.waveform)
    assert not one.is_drawn and one.summary.endswith("the same for every seed at this temperature")


def test_speech_that_ran_into_its_limit_is_called_so(speaker):
    speaker.model.generation_config.update(max_patches_per_token=0.0, min_patches_per_token=0.0, spare_patches=1)
    speaker.model.stop_head.bias.data.fill_(-1e4)
    assert speaker(TEXT, "random", **SETTINGS).reached_limit
    assert "ran into the limit" in speaker(TEXT, "random", **SETTINGS).summary
    speaker.model.stop_head.bias.data.fill_(1e4)
    assert "limit" not in speaker(TEXT, "random", **SETTINGS).summary


def test_no_voice_can_have_the_name_of_a_recording():
    assert not VOICE_NAME.fullmatch(RECORDING)


class TestBadInput:
    @pytest.mark.parametrize("text", ["", " \n", None])
    def test_no_text(self, speaker, text):
        with pytest.raises(ValueError, match="There is no text"):
            speaker(text, "ada")

    def test_text_without_words(self, speaker):
        with pytest.raises(ValueError, match="nothing to speak"):
            speaker("?!", "ada")

    def test_no_voice(self, speaker):
        with pytest.raises(ValueError, match="Choose one"):
            speaker(TEXT, None)

    def test_a_voice_that_is_not_there(self, speaker):
        with pytest.raises(ValueError, match="`voice` is 'bob', but the voices are ada"):
            speaker(TEXT, "bob")

    def test_no_recording(self, speaker):
        with pytest.raises(ValueError, match="There is no recording"):
            speaker(TEXT, RECORDING, None, "Good.", True)

    @pytest.mark.parametrize("transcript", [None, "", "  "])
    def test_no_transcript(self, speaker, recording, transcript):
        with pytest.raises(ValueError, match="needs its transcript"):
            speaker(TEXT, RECORDING, recording, transcript, True)

    @pytest.mark.parametrize("has_consent", [False, None, "no", 1])
    def test_without_consent_no_voice_is_imitated(self, speaker, recording, has_consent, monkeypatch):
        monkeypatch.setattr(speaker.model, "generate", None)
        with pytest.raises(ValueError, match="consent of the person"):
            speaker(TEXT, RECORDING, recording, "Good.", has_consent)

    @pytest.mark.parametrize("seed", [-1, 1.5, 1.0, float("nan"), "3", True, 2**63])
    def test_a_seed_that_is_none(self, speaker, seed):
        with pytest.raises(ValueError, match=f"The seed must be a whole number .* got {re.escape(repr(seed))}"):
            speaker(TEXT, "ada", seed=seed)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((5, "ada"), "The text is of type int"),
            ((TEXT, ["ada"]), "The voice is of type list"),
            ((TEXT, RECORDING, "voice.wav", 5, True), "The transcript is of type int"),
            ((TEXT, RECORDING, 5, "Good.", True), "The recording is of type int"),
            ((TEXT, RECORDING, "folder/nowhere.wav", "Good.", True), "There is no file 'nowhere.wav'"),
        ],
    )
    def test_what_is_of_another_type_or_not_there(self, speaker, arguments, message):
        with pytest.raises(ValueError, match=message):
            speaker(*arguments)

    def test_a_file_that_is_no_audio(self, speaker, tmp_path):
        (tmp_path / "letter.wav").write_text("Dear Sir")
        with pytest.raises(ValueError, match="8 bytes, which cannot be read as audio"):
            speaker(TEXT, RECORDING, tmp_path / "letter.wav", "Good.", True)

    @pytest.mark.parametrize(
        ("samples", "message"),
        [(NOISE[:0], "holds no samples"), (NOISE[:100], "lasts 0.00 seconds"), (0 * NOISE, "is silent")]
        + [(np.tile(NOISE, 31), "lasts 31.00 seconds"), (NOISE * np.nan, "NaN")],
        ids=["empty", "short", "silent", "long", "nan"],
    )
    def test_a_recording_that_will_not_do(self, speaker, tmp_path, samples, message):
        soundfile.write(tmp_path / "bad.wav", samples, RATE, subtype="FLOAT")
        with pytest.raises(ValueError, match=message):
            speaker(TEXT, RECORDING, tmp_path / "bad.wav", "Good.", True)

    @pytest.mark.parametrize("seed", [-1, 2**63])
    def test_a_seed_out_of_range(self, speaker, seed):
        with pytest.raises(ValueError, match="The seed"):
            speaker(TEXT, "ada", seed=seed)

    @pytest.mark.parametrize(
        "settings", [{"temperature": 2}, {"guidance_scale": 0}, {"num_inference_steps": 0}, {"num_beams": 2}]
    )
    def test_settings_out_of_range(self, speaker, settings):
        with pytest.raises(ValueError, match=next(iter(settings))):
            speaker(TEXT, "ada", **settings)
