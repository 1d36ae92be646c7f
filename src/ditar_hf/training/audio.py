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
    *,
    start_seconds: float | None = None,
    duration_seconds: float | None = None,
) -> tuple[np.ndarray, int]:
    """
    Samples of a recording, or of a part of it, as they were recorded: not resampled, the mean of its channels.

    A row that is a segment of a longer file is read by `decode_audio(row["audio"], **segment_of(row))`.

    Args:
        audio (`dict`, *optional*):
            `{"path": …, "bytes": …}`, one of them set; any format of libsndfile (WAV, FLAC, MP3, OGG …). `None`, as
            data sets have it for a row without audio, is refused like one that cannot be decoded.
        start (`float`, *optional*, defaults to 0.0):
            Where the part begins, as a share in [0, 1) of what can be left out before it.
        seconds (`float`, *optional*): Length of the part; all of a shorter recording. By default the whole.
        min_sampling_rate (`int`, *optional*, defaults to 16000): Lowest rate that is taken, in Hz.
        start_seconds (`float`, *optional*):
            Where in the file the recording begins, if it is a segment of it; `start` and `seconds` then cut a part out
            of the segment. By default the file is the recording.
        duration_seconds (`float`, *optional*):
            Length of the segment, by default up to the file's end. It says nothing without `start_seconds`: a whole
            file is as long as it is, whatever is stated of it.

    Returns:
        `np.ndarray` of shape `(num_samples,)`, float32 in [-1, 1], and its sampling rate in Hz.

    Raises:
        UnusableAudioError: If there is none, or it cannot be decoded, ends before the length that it states,
            holds no samples or values that are not finite, is of a lower rate, or the segment is not within the file.
    """
    audio = audio or {}
    try:
        if audio.get("bytes") is None and audio.get("path") is None:
            raise UnusableAudioError("there is no audio")
        with soundfile.SoundFile(audio["path"] if audio.get("bytes") is None else io.BytesIO(audio["bytes"])) as file:
            rate = file.samplerate
            if rate < min_sampling_rate:
                raise UnusableAudioError(f"its sampling rate is {rate} Hz, less than {min_sampling_rate} Hz")
            offset, num_frames = _find_segment(file, start_seconds, duration_seconds)
            wanted = num_frames if seconds is None else min(num_frames, round(seconds * rate))
            first = offset + int(start * (num_frames - wanted + 1))
            # a frame of MP3 needs bits of those before it, and comes out wrong where these were not read
            lead = min(first, rate // 4) if file.format == "MP3" else 0
            file.seek(first - lead)
            samples = file.read(lead + wanted, dtype="float32", always_2d=True)[lead:].mean(axis=1)
            # where an MP3 file is cut off nothing else tells it; the length it states may be a frame or two off
            if len(samples) < wanted - rate // 10:
                raise UnusableAudioError(f"it is cut off: of {wanted} samples there are {len(samples)}")
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


def segment_of(row: Mapping[str, Any]) -> dict[str, float | None]:
    """
    The part of its file that a row is, as `decode_audio` takes it.

    Args:
        row (`Mapping`): In the columns of `EXAMPLE_FEATURES`; those of the segment may be absent.

    Returns:
        `dict` of `start_seconds` and `duration_seconds`.
    """
    return {name: row.get(name) for name in ("start_seconds", "duration_seconds")}


def _find_segment(
    file: soundfile.SoundFile, start_seconds: float | None, duration_seconds: float | None
) -> tuple[int, int]:
    """First frame and number of frames of a segment; those of the whole file without a start."""
    if start_seconds is None:
        return 0, file.frames
    rate = file.samplerate
    file_seconds = file.frames / rate
    if not 0 <= start_seconds < file_seconds:
        raise UnusableAudioError(f"it begins at {start_seconds:g} seconds of a file of {file_seconds:g}")
    first = round(start_seconds * rate)
    if duration_seconds is None:
        return first, file.frames - first
    num_frames = round(duration_seconds * rate)
    # what a manifest states may be rounded, or measured by another decoder
    if not 0 < num_frames <= file.frames - first + rate // 10:
        end_seconds = start_seconds + duration_seconds
        raise UnusableAudioError(
            f"it goes from {start_seconds:g} to {end_seconds:g} seconds of a file of {file_seconds:g}"
        )
    return first, min(num_frames, file.frames - first)


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
