"""Laws of audio files: what is read is what was written, as mono, and what cannot be read says why."""

import numpy as np
import pytest
import soundfile

from ditar_hf.modeling.audio_files_ditar import read_audio, write_audio

RATE = 24_000


def tone(seconds: float, rate: int = RATE) -> np.ndarray:
    return np.sin(2 * np.pi * 180 * np.arange(round(seconds * rate)) / rate).astype(np.float32) / 2


@pytest.mark.parametrize(("suffix", "tolerance"), [(".wav", 1e-4), (".flac", 1e-4), (".ogg", 0.1), (".mp3", 0.1)])
def test_what_is_written_is_read(tmp_path, suffix, tolerance):
    path = tmp_path / f"tone{suffix}"
    write_audio(tone(1), path, RATE)
    for source in (path, str(path), path.read_bytes()):
        samples, rate = read_audio(source)
        assert rate == RATE and samples.dtype == np.float32 and samples.shape == (RATE,)
        assert np.abs(samples - tone(1))[1200:-1200].max() < tolerance


@pytest.mark.parametrize("rate", [8_000, 44_100, 96_000])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_any_rate_and_precision(tmp_path, rate, subtype):
    soundfile.write(tmp_path / "tone.wav", tone(0.5, rate), rate, subtype=subtype)
    samples, own_rate = read_audio(tmp_path / "tone.wav")
    assert own_rate == rate
    np.testing.assert_allclose(samples, tone(0.5, rate), atol=1e-2)


def test_channels_become_their_mean(tmp_path):
    soundfile.write(tmp_path / "stereo.wav", np.stack([tone(1), tone(1) / 2], axis=1), RATE)
    np.testing.assert_allclose(read_audio(tmp_path / "stereo.wav")[0], 0.75 * tone(1), atol=1e-4)


def test_what_cannot_be_read_says_why(tmp_path):
    soundfile.write(tmp_path / "empty.wav", np.zeros(0, np.float32), RATE)
    soundfile.write(tmp_path / "whole.flac", tone(1), RATE)
    (tmp_path / "torn.flac").write_bytes((tmp_path / "whole.flac").read_bytes()[:20])
    (tmp_path / "letter.wav").write_text("Dear Sir")
    (tmp_path / "headless.raw").write_bytes(bytes(1000))
    cases = {
        tmp_path / "missing.wav": "`voice` is '.*missing.wav', but there is no such file",
        tmp_path: "but there is no such file",
        "https://example.org/voice.wav": "but there is no such file",
        tmp_path / "empty.wav": "empty.wav', which holds no samples",
        tmp_path / "torn.flac": "torn.flac', which cannot be read as audio",
        tmp_path / "letter.wav": "letter.wav', which cannot be read as audio.*Pass a WAV, FLAC, OGG or MP3",
        tmp_path / "headless.raw": "headless.raw', which cannot be read as audio: samplerate must be specified",
        b"": "`voice` is 0 bytes, which cannot be read as audio",
        b"Dear Sir": "`voice` is 8 bytes, which cannot be read as audio",
    }
    for source, message in cases.items():
        with pytest.raises(ValueError, match=message):
            read_audio(source, "voice")


def test_what_a_pipeline_gives_is_no_waveform(tmp_path):
    with pytest.raises(ValueError, match=r"dictionary of .'audio', 'sampling_rate'.. Pass its samples: `speech"):
        write_audio({"audio": tone(1), "sampling_rate": RATE}, tmp_path / "tone.wav", RATE)
    assert not list(tmp_path.iterdir())


def test_without_soundfile_it_is_named(monkeypatch):
    monkeypatch.setattr("ditar_hf.modeling.audio_files_ditar.soundfile", None)
    with pytest.raises(ImportError, match="pip install soundfile"):
        read_audio("voice.wav")
