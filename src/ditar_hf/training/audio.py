"""Samples of undecoded audio: soundfile decodes, soxr resamples, and what cannot be used says why."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import soundfile
import soxr

MIN_SAMPLING_RATE = 16000  # Hz; what telephones sent teaches a voice nothing above 4 kHz


class UnusableAudioError(ValueError):
    """A recording that cannot be used; a run counts and names it and goes on."""


def decode_audio(
    audio: Mapping[str, Any] | None,
    start: float = 0.0,
    seconds: float | None = None,
    min_sampling_rate: int = MIN_SAMPLING_RATE,
) -> tuple[np.ndarray, int]:
    """
    Samples of a recording, or of a part of it, as they were recorded: not resampled, the mean of its channels.

    Args:
        audio (`dict`, *optional*):
            `{"path": …, "bytes": …}`, one of them set; any format of libsndfile (WAV, FLAC, MP3, OGG …). `None`, as
            data sets have it for a row without audio, is refused like one that cannot be decoded.
        start (`float`, *optional*, defaults to 0.0):
            Where the part begins, as a share in [0, 1) of what can be left out before it.
        seconds (`float`, *optional*): Length of the part; all of a shorter recording. By default the whole.
        min_sampling_rate (`int`, *optional*, defaults to 16000): Lowest rate that is taken, in Hz.

    Returns:
        `np.ndarray` of shape `(num_samples,)`, float32 in [-1, 1], and its sampling rate in Hz.

    Raises:
        UnusableAudioError: If there is none, or it cannot be decoded, ends before the length that it states,
            holds no samples or values that are not finite, or is of a lower rate.
    """
    audio = audio or {}
    try:
        if audio.get("bytes") is None and audio.get("path") is None:
            raise UnusableAudioError("there is no audio")
        with soundfile.SoundFile(audio["path"] if audio.get("bytes") is None else io.BytesIO(audio["bytes"])) as file:
            rate = file.samplerate
            if rate < min_sampling_rate:
                raise UnusableAudioError(f"its sampling rate is {rate} Hz, less than {min_sampling_rate} Hz")
            wanted = file.frames if seconds is None else round(seconds * rate)
            first = file.seek(int(start * (max(0, file.frames - wanted) + 1)))
            samples = file.read(wanted, dtype="float32", always_2d=True).mean(axis=1)
            expected = min(wanted, file.frames - first)
            # where an MP3 file is cut off nothing else tells it; the length it states may be a frame or two off
            if len(samples) < expected - rate // 10:
                raise UnusableAudioError(f"it is cut off: of {expected} samples there are {len(samples)}")
    except (OSError, soundfile.LibsndfileError) as error:
        # the library's own message has an address in memory, by which two runs would differ
        reason = str(getattr(error, "error_string", error)).rstrip(".")
        where = f" ({audio['path']})" if audio.get("bytes") is None else ""
        raise UnusableAudioError(f"it cannot be decoded: {reason}{where}") from error
    if not samples.size:
        raise UnusableAudioError("it holds no samples")
    if not np.isfinite(samples).all():
        raise UnusableAudioError("it holds samples that are not finite")
    return samples, rate


def resample_audio(samples: np.ndarray, rate: float, sampling_rate: int) -> np.ndarray:
    """
    Samples at another rate.

    Args:
        samples (`np.ndarray` of shape `(num_samples,)`): Float32 samples.
        rate (`float`): Their rate in Hz.
        sampling_rate (`int`): The rate wanted, in Hz.

    Returns:
        `np.ndarray` of shape `(num_samples * sampling_rate / rate,)`, float32.

    Raises:
        UnusableAudioError: If it is so short that there is no sample at the rate wanted.
    """
    if rate != sampling_rate:
        samples = soxr.resample(samples, rate, sampling_rate).astype(np.float32)
    if not len(samples):
        raise UnusableAudioError(f"it holds no samples at {sampling_rate} Hz")
    return samples
