"""Laws of `decode_audio` and `resample_audio`: a format gives the samples recorded, what is unusable says why."""

import io

import numpy as np
import pytest
import soundfile

from ditar_hf.training.audio import UnusableAudioError, decode_audio, resample_audio, segment_of

RATE = 24_000
RAMP = np.linspace(-0.5, 0.5, RATE).astype(np.float32)


def encoded(samples: np.ndarray, rate: int = RATE, format: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=format, subtype=subtype)
    return file.getvalue()


def audio(*arguments, **options) -> dict:
    return {"path": None, "bytes": encoded(*arguments, **options)}


def tone(rate: int, frequency: float, seconds: float = 1.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize(
    ("format", "subtype", "tolerance"),
    [
        ("WAV", "PCM_U8", 1e-2),
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "PCM_32", 1e-7),
        ("WAV", "FLOAT", 0),
        ("WAV", "DOUBLE", 1e-7),
        ("FLAC", "PCM_16", 1e-4),
        ("FLAC", "PCM_24", 1e-6),
    ],
)
def test_lossless_formats_give_the_samples(format, subtype, tolerance):
    samples, rate = decode_audio(audio(RAMP, format=format, subtype=subtype))
    assert rate == RATE and samples.dtype == np.float32 and samples.shape == RAMP.shape
    np.testing.assert_allclose(samples, RAMP, atol=tolerance, rtol=0)


@pytest.mark.parametrize(("format", "subtype"), [("MP3", None), ("OGG", "VORBIS"), ("OGG", "OPUS")])
def test_lossy_formats_keep_length_and_level(format, subtype):
    samples, rate = decode_audio(audio(tone(RATE, 300), format=format, subtype=subtype))
    assert rate == RATE and len(samples) == RATE
    assert np.sqrt((samples**2).mean()) == pytest.approx(0.5**1.5, rel=0.05)


def test_a_path_gives_what_its_bytes_give(tmp_path):
    (tmp_path / "clip.flac").write_bytes(encoded(RAMP, format="FLAC"))
    samples, _ = decode_audio({"path": str(tmp_path / "clip.flac"), "bytes": None})
    np.testing.assert_array_equal(samples, decode_audio(audio(RAMP, format="FLAC"))[0])


def test_channels_are_averaged():
    samples, _ = decode_audio(audio(np.stack([RAMP, 0 * RAMP, -RAMP / 2], axis=1), subtype="FLOAT"))
    np.testing.assert_allclose(samples, RAMP / 6, atol=1e-7)


@pytest.mark.parametrize("format", ["WAV", "FLAC"])
@pytest.mark.parametrize("start", [0.0, 0.3, 0.999999])
@pytest.mark.parametrize("seconds", [0.25, 1.0, 2.0])
def test_a_part_is_cut_out_of_the_whole(format, start, seconds):
    recording = audio(RAMP, format=format)
    whole, part = decode_audio(recording)[0], decode_audio(recording, start, seconds)[0]
    length = min(RATE, round(seconds * RATE))
    first = int(start * (RATE - length + 1))
    np.testing.assert_array_equal(part, whole[first : first + length])


@pytest.mark.parametrize("format", ["WAV", "FLAC", "MP3", "OGG"])
@pytest.mark.parametrize(("start", "seconds"), [(0.0, None), (0.5, 0.1), (0.999999, 0.1), (0.3, 5.0)])
def test_a_part_of_a_segment_is_cut_out_of_the_whole(format, start, seconds):
    # noise, of which no two places are alike; long enough for several frames of every format
    recording = audio(np.random.default_rng(0).uniform(-0.4, 0.4, 2 * RATE).astype(np.float32), format=format)
    segment = {"start_seconds": 0.75, "duration_seconds": 0.5}
    whole, part = decode_audio(recording)[0], decode_audio(recording, start, seconds, **segment)[0]
    length = min(RATE // 2, RATE // 2 if seconds is None else round(seconds * RATE))
    first = 3 * RATE // 4 + int(start * (RATE // 2 - length + 1))
    # lossy formats decode a place a little otherwise where they begin near it
    atol = 0 if format in ("WAV", "FLAC") else 1e-4
    np.testing.assert_allclose(part, whole[first : first + length], atol=atol, rtol=0)


def test_a_segment_may_go_to_the_end():
    recording = audio(RAMP, format="FLAC")
    whole = decode_audio(recording)[0]
    for segment in ({"start_seconds": 0.75}, {"start_seconds": 0.75, "duration_seconds": 0.26}):
        np.testing.assert_array_equal(decode_audio(recording, **segment)[0], whole[3 * RATE // 4 :])
    # a length alone is what a source states of a whole file
    np.testing.assert_array_equal(decode_audio(recording, start_seconds=None, duration_seconds=0.5)[0], whole)


@pytest.mark.parametrize(
    ("start_seconds", "duration_seconds", "message"),
    [
        (1.0, 0.5, "begins at 1 seconds of a file of 1"),
        (-0.5, 0.1, "begins at -0.5 seconds"),
        (float("nan"), 0.1, "begins at nan"),
        (0.75, 0.5, "from 0.75 to 1.25 seconds of a file of 1"),
        (0.5, 0.0, "from 0.5 to 0.5 seconds"),
        (0.5, -0.1, "from 0.5 to 0.4 seconds"),
    ],
)
def test_a_segment_must_lie_within_its_file(start_seconds, duration_seconds, message):
    with pytest.raises(UnusableAudioError, match=message):
        decode_audio(audio(RAMP), start_seconds=start_seconds, duration_seconds=duration_seconds)


def test_the_segment_of_a_row():
    row = {"id": "a", "start_seconds": 1.5, "duration_seconds": 2.0}
    assert segment_of(row) == {"start_seconds": 1.5, "duration_seconds": 2.0}
    assert segment_of({"id": "a"}) == {"start_seconds": None, "duration_seconds": None}


@pytest.mark.parametrize("share", [0.2, 0.6])
def test_a_segment_of_a_file_that_is_cut_off(share):
    content = encoded(np.random.default_rng(0).uniform(-0.4, 0.4, 4 * RATE), format="FLAC")
    recording = {"path": None, "bytes": content[: int(share * len(content))]}
    with pytest.raises(UnusableAudioError):
        decode_audio(recording, start_seconds=2.0, duration_seconds=1.0)


def test_every_part_can_be_drawn():
    recording = audio(RAMP[:10], subtype="FLOAT")
    starts = {float(decode_audio(recording, start, 8 / RATE)[0][0]) for start in (0.0, 0.4, 0.9)}
    assert starts == {float(value) for value in RAMP[:3]}


@pytest.mark.parametrize(
    ("recording", "message"),
    [
        ({"path": None, "bytes": None}, "there is no audio"),
        ({"path": None, "bytes": b""}, "cannot be decoded: Format not recognised"),
        ({"path": None, "bytes": b"RIFF no audio at all"}, "cannot be decoded"),
        ({"path": "missing.wav", "bytes": None}, r"missing\.wav"),
        (audio(RAMP[:0]), "holds no samples"),
        (audio(tone(8000, 300), rate=8000), "sampling rate is 8000 Hz, less than 16000 Hz"),
        (audio(np.array([0, np.nan, 0], np.float32), subtype="FLOAT"), "not finite"),
        (audio(np.array([0, np.inf, 0], np.float32), subtype="FLOAT"), "not finite"),
    ],
)
def test_what_is_unusable_says_why(recording, message):
    with pytest.raises(UnusableAudioError, match=message) as first:
        decode_audio(recording)
    with pytest.raises(UnusableAudioError) as second:
        decode_audio(dict(recording))
    # no address in memory or the like: a run's list of what was left out can be compared with another's
    assert str(first.value) == str(second.value) and "object at" not in str(first.value)


@pytest.mark.parametrize("format", ["FLAC", "MP3"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_recording_that_is_cut_off_is_not_taken_for_a_short_one(format, share):
    speech = np.concatenate([tone(RATE, frequency) for frequency in (200, 300, 500, 800)])
    content = encoded(speech, format=format)
    with pytest.raises(UnusableAudioError):
        decode_audio({"path": None, "bytes": content[: int(share * len(content))]})


def test_none_is_no_recording():
    with pytest.raises(UnusableAudioError, match="no audio"):
        decode_audio(None)


def test_a_directory_is_no_recording(tmp_path):
    with pytest.raises(UnusableAudioError, match="cannot be decoded"):
        decode_audio({"path": str(tmp_path), "bytes": None})


def test_a_lower_rate_is_taken_when_allowed():
    assert decode_audio(audio(tone(8000, 300), rate=8000), min_sampling_rate=8000)[1] == 8000


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 44_100, 48_000])
def test_resampling_keeps_a_tone(rate):
    resampled = resample_audio(tone(rate, 440), rate, RATE)
    assert resampled.dtype == np.float32 and abs(len(resampled) - RATE) <= 1
    inner = slice(1000, 20_000)  # away from the ends, which ring
    np.testing.assert_allclose(resampled[inner], tone(RATE, 440)[inner], atol=1e-3)


@pytest.mark.parametrize("rate", [RATE, 1000 * RATE])
def test_nothing_left_is_unusable(rate):
    with pytest.raises(UnusableAudioError, match="no samples at 24000 Hz"):
        resample_audio(RAMP[: rate != RATE], rate, RATE)


def test_the_same_rate_changes_nothing():
    assert resample_audio(RAMP, RATE, RATE) is RAMP
