"""Laws of `DiTARVoice`: it survives its file bit for bit, and which ones are refused."""

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from ditar_hf.modeling.voices_ditar import DiTARVoice, check_voice_name, check_voices, names_of

RATE = 24_000
TONE = (np.sin(2 * np.pi * 180 * np.arange(RATE) / RATE) / 2).astype(np.float32)


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=50))
@settings(max_examples=50, deadline=None)
def test_a_file_gives_the_voice_back(samples):
    voice = DiTARVoice(np.array(samples, np.float32), RATE, "What is said.", "wɒt ɪz sˈɛd")
    assert np.abs(voice.audio - samples).max() <= 2**-15 and voice.audio.dtype == np.float32
    loaded = DiTARVoice.from_wav(voice.to_wav(), voice.text, voice.phonemes)
    assert np.array_equal(loaded.audio, voice.audio) and loaded.to_wav() == voice.to_wav()
    assert (loaded.sampling_rate, loaded.to_dict()) == (RATE, voice.to_dict())


def test_other_programs_read_the_file():
    voice = DiTARVoice(TONE, 16_000, "A tone.")
    samples, rate = soundfile.read(io.BytesIO(voice.to_wav()), dtype="float32")
    assert rate == 16_000 and np.array_equal(samples, voice.audio)
    written = io.BytesIO()
    soundfile.write(written, TONE, RATE, format="WAV", subtype="PCM_16")
    other = DiTARVoice.from_wav(written.getvalue(), "A tone.")
    assert np.abs(other.audio - voice.audio).max() <= 2**-15


def test_what_is_said_of_a_voice_tells_it_from_others():
    voice = DiTARVoice(TONE, RATE, "A tone.")
    assert voice.to_dict().keys() == {"sha256", "text"}
    assert DiTARVoice(TONE, RATE, "A tone.", "ɐ tˈoʊn").to_dict() == {**voice.to_dict(), "phonemes": "ɐ tˈoʊn"}
    others = [DiTARVoice(-TONE, RATE, "A tone."), DiTARVoice(TONE, 16_000, "A tone.")]
    assert len({other.to_dict()["sha256"] for other in [voice, *others]}) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"audio": np.stack([TONE, TONE])}, r"`audio` must have shape \(num_samples,\)"),
        ({"audio": TONE[:0]}, "hold a sample"),
        ({"audio": np.full(9, np.nan)}, "`audio` holds NaN"),
        ({"audio": 4 * TONE}, r"`audio` must lie in \[-1, 1\], but peaks at 2"),
        ({"sampling_rate": 0}, "`sampling_rate` must be a positive whole number of hertz, got 0"),
        ({"sampling_rate": 24_000.0}, "`sampling_rate` must be"),
        ({"text": " "}, "`text` must be what is said in `audio`, got ' '"),
        ({"text": None}, "`text` must be"),
        ({"phonemes": ["ɐ"]}, "`phonemes` must be a phoneme string or None"),
    ],
)
def test_voices_that_are_none(arguments, message):
    with pytest.raises(ValueError, match=message):
        DiTARVoice(**{"audio": TONE, "sampling_rate": RATE, "text": "A tone.", **arguments})


def wav(samples, **options) -> bytes:
    written = io.BytesIO()
    soundfile.write(written, samples, RATE, **{"format": "WAV", "subtype": "PCM_16", **options})
    return written.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is no WAV file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is no WAV file"),
        (wav(TONE)[:30], "it is no WAV file"),
        (wav(TONE, format="FLAC"), "it is no WAV file"),
        (wav(TONE, subtype="PCM_24"), "it has 1 channels of 24 bits, not one of 16"),
        (wav(np.stack([TONE, TONE], axis=1)), "it has 2 channels"),
    ],
    ids=["empty", "a pointer", "cut off", "FLAC", "24 bits", "stereo"],
)
def test_files_that_are_none(content, message):
    with pytest.raises(ValueError, match=message):
        DiTARVoice.from_wav(content, "A tone.")


@pytest.mark.parametrize("name", ["ada", "a", "7", "eve-2", "old_man"])
def test_names(name):
    check_voice_name(name)


@pytest.mark.parametrize(
    "name", ["", "Ada", "adä", "a b", "../ada", "a/b", "a\\b", ".ada", "-ada", "_a", "ada.wav", "ada\n", "ａ", None, 7]
)
def test_names_that_cannot_be(name):
    with pytest.raises(ValueError, match="a voice cannot be called .*lower-case letters"):
        check_voice_name(name)


def test_voices_together():
    voices = {"eve": DiTARVoice(TONE, RATE, "A tone."), "ada": DiTARVoice(TONE, RATE, "A tone.")}
    check_voices(voices, "ada")
    check_voices({}, None)
    assert (names_of(voices), names_of({})) == ("the voices are ada, eve", "there are no named voices")
    for arguments, message in (
        (([], None), "`voices` must map names to voices, got list"),
        (({"ada": TONE}, None), r"`voices\['ada'\]` must be a DiTARVoice, got ndarray"),
        (({"random": voices["ada"]}, None), "cannot be called 'random': the word stands for"),
        ((voices, "bob"), "`default_voice` is 'bob', but the voices are ada, eve"),
        (({}, "random"), "`default_voice` is 'random', but there are no named voices"),
    ):
        with pytest.raises(ValueError, match=message):
            check_voices(*arguments)
