"""What all models that judge recordings need first: samples, and at their own rate."""

from pathlib import Path

import numpy as np
import soundfile
import soxr

from .summary import NotMeasuredError

# models see windows of 25 ms; what is hardly longer holds no speech
SHORTEST_SECONDS = 0.05


def read_waveform(path: str | Path) -> tuple[np.ndarray, int]:
    """
    A recording of a file; several channels become their mean.

    Args:
        path (`str` or `Path`): An audio file that libsndfile reads.

    Returns:
        `np.ndarray` of shape `(num_samples,)`, in float32, and their rate in Hz.

    Raises:
        ValueError: If the file is missing or no audio.
    """
    if not Path(path).is_file():
        raise ValueError(f"{str(path)!r} cannot be read as audio: there is no such file.")
    try:
        samples, sampling_rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as audio: {error}") from error
    return samples.mean(axis=1), sampling_rate


def resampled(waveform: np.ndarray, sampling_rate: int, wanted: int) -> np.ndarray:
    """
    A recording at another rate, by soxr.

    Args:
        waveform (`np.ndarray` of shape `(num_samples,)`): Samples.
        sampling_rate (`int`): Their rate in Hz.
        wanted (`int`): The rate to give, in Hz.

    Returns:
        `np.ndarray` of shape `(num_samples,)`, in float32.
    """
    waveform = np.asarray(waveform, np.float32)
    return waveform if sampling_rate == wanted else soxr.resample(waveform, sampling_rate, wanted)


def is_too_short(waveform: np.ndarray, sampling_rate: int) -> bool:
    """
    Whether a recording is shorter than `SHORTEST_SECONDS`.

    Args:
        waveform (`np.ndarray` of shape `(num_samples,)`): Samples.
        sampling_rate (`int`): Their rate in Hz.

    Returns:
        `bool`.
    """
    return len(waveform) < SHORTEST_SECONDS * sampling_rate


def judged_samples(waveform: np.ndarray, sampling_rate: int, wanted: int) -> np.ndarray:
    """
    A recording at another rate, if there is enough of it to be judged.

    Args:
        waveform (`np.ndarray` of shape `(num_samples,)`): Samples.
        sampling_rate (`int`): Their rate in Hz.
        wanted (`int`): The rate to give, in Hz.

    Returns:
        `np.ndarray` of shape `(num_samples,)`, in float32.

    Raises:
        NotMeasuredError: If the recording is shorter than `SHORTEST_SECONDS`.
    """
    if is_too_short(waveform, sampling_rate):
        raise NotMeasuredError(f"the recording is shorter than {SHORTEST_SECONDS:g} s")
    return resampled(waveform, sampling_rate, wanted)
