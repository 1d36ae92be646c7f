"""Pitch of tones that are known, and how courses of pitch differ."""

import sys

import numpy as np
import pytest

from ditar_hf.evaluation.pitch import PitchErrors, compare_pitch, f0_rmse_cents, track_pitch
from ditar_hf.evaluation.summary import NotMeasuredError

RATE = 24000


def tone(frequency: float, rate: int = RATE, num_samples: int = 7200) -> np.ndarray:
    time = np.arange(num_samples) / rate
    return sum(0.3 / k * np.sin(2 * np.pi * k * frequency * time) for k in range(1, 6)).astype(np.float32)


@pytest.mark.parametrize(("frequency", "rate"), [(90.0, RATE), (220.0, RATE), (440.0, 16000)])
def test_the_pitch_of_a_tone_is_its_fundamental(frequency, rate):
    f0 = track_pitch(tone(frequency, rate), rate)
    assert np.isfinite(f0).mean() > 0.9
    # the grid of pYIN is a tenth of a semitone
    assert abs(1200 * np.log2(np.nanmedian(f0) / frequency)) < 10


def test_an_octave_is_1200_cents():
    errors = compare_pitch(track_pitch(tone(300.0), RATE), track_pitch(tone(150.0), RATE))
    assert errors.f0_rmse_cents == pytest.approx(1200, abs=10) and errors.voicing_error < 0.1


def test_what_is_identical_has_no_error():
    f0 = track_pitch(tone(150.0), RATE)
    assert compare_pitch(f0, f0) == PitchErrors(0.0, 0.0)


def test_noise_is_unvoiced():
    noise = track_pitch(np.random.default_rng(0).normal(0, 0.1, 7200).astype(np.float32), RATE)
    errors = compare_pitch(noise, track_pitch(tone(150.0), RATE))
    assert errors.voicing_error > 0.8


@pytest.mark.parametrize("num_samples", [1, 100, 2400])
def test_silence_and_short_clips_are_tracked(num_samples):
    assert np.isnan(track_pitch(np.zeros(num_samples, np.float32), RATE)).all()


class TestComparison:
    def test_only_frames_that_are_voiced_in_both_have_a_pitch_error(self):
        ours, theirs = np.array([100.0, 200.0, np.nan, np.nan]), np.array([100.0, np.nan, 300.0, np.nan])
        assert compare_pitch(ours, theirs) == PitchErrors(0.0, 0.5)

    def test_without_such_frames_there_is_none(self):
        errors = compare_pitch(np.array([100.0, np.nan]), np.array([np.nan, 100.0]))
        assert errors == PitchErrors(None, 1.0)
        with pytest.raises(NotMeasuredError, match="no frame is voiced"):
            f0_rmse_cents(errors)

    def test_shapes_must_agree(self):
        with pytest.raises(ValueError, match="`reconstruction` .* and `original`"):
            compare_pitch(np.ones(3), np.ones(4))


def test_without_librosa_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "librosa", None)
    with pytest.raises(NotMeasuredError, match=r'librosa is not installed: pip install -e "\.\[evaluate\]"'):
        track_pitch(tone(150.0), RATE)
