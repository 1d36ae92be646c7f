"""Reading and resampling, and what is too short to be judged."""

import numpy as np
import pytest
import soundfile

from ditar_hf.evaluation.summary import NotMeasuredError
from ditar_hf.evaluation.waveforms import judged_samples, read_waveform, resampled


def test_channels_become_their_mean(tmp_path):
    left, right = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 100)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 8000, subtype="FLOAT")
    samples, rate = read_waveform(tmp_path / "a.wav")
    assert rate == 8000 and samples.dtype == np.float32
    np.testing.assert_allclose(samples, (left + right) / 2, atol=1e-7)


def test_what_is_no_audio_is_refused_by_name(tmp_path):
    (tmp_path / "text.wav").write_text("hello")
    for name in ("text.wav", "missing.wav"):
        with pytest.raises(ValueError, match=f"{name}' cannot be read as audio"):
            read_waveform(tmp_path / name)


def test_resampling_keeps_duration_and_the_same_rate_keeps_all():
    samples = np.random.default_rng(0).normal(size=24000)
    assert resampled(samples, 24000, 16000).shape == (16000,)
    np.testing.assert_array_equal(resampled(samples, 24000, 24000), samples.astype(np.float32))


def test_what_is_too_short_is_not_judged():
    assert judged_samples(np.zeros(1200), 24000, 16000).shape == (800,)
    with pytest.raises(NotMeasuredError, match="shorter than 0.05 s"):
        judged_samples(np.zeros(1199), 24000, 16000)
