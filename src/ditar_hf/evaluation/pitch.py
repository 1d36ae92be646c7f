"""Fundamental frequency and voicing, by librosa's pYIN (the extra `evaluate`)."""

import math
from dataclasses import dataclass

import numpy as np

from .summary import NotMeasuredError, require_package

# adults speak between 75 and 400 Hz, children and lively speech reach higher
LOWEST_HZ, HIGHEST_HZ = 60.0, 600.0
FRAMES_PER_SECOND = 100


@dataclass
class PitchErrors:
    """
    How two courses of pitch differ.

    Args:
        f0_rmse_cents (`float`, *optional*):
            Root mean square of `1200 log2(f0 / f0 of the original)` over the frames that are voiced in both; `None` if
            there are none.
        voicing_error (`float`): Share of frames in [0, 1] that are voiced in one and not in the other.
    """

    f0_rmse_cents: float | None
    voicing_error: float


def track_pitch(waveform: np.ndarray, sampling_rate: int) -> np.ndarray:
    """
    Fundamental frequency by pYIN (Mauch and Dixon, 2014), in frames of 10 ms.

    Args:
        waveform (`np.ndarray` of shape `(num_samples,)`): Finite samples.
        sampling_rate (`int`): Samples a second.

    Returns:
        `np.ndarray` of shape `(num_frames,)`: Hz between `LOWEST_HZ` and `HIGHEST_HZ`, NaN where unvoiced.

    Raises:
        NotMeasuredError: If librosa is not installed.
    """
    librosa = require_package("librosa")
    # four periods of the lowest pitch, of which pYIN compares the two halves
    frame_length = 2 ** math.ceil(math.log2(4 * sampling_rate / LOWEST_HZ))
    f0, voiced, _ = librosa.pyin(
        np.asarray(waveform, np.float32),
        fmin=LOWEST_HZ,
        fmax=HIGHEST_HZ,
        sr=sampling_rate,
        frame_length=frame_length,
        hop_length=sampling_rate // FRAMES_PER_SECOND,
    )
    return np.where(voiced, f0, np.nan)


def compare_pitch(reconstruction: np.ndarray, original: np.ndarray) -> PitchErrors:
    """
    Errors of pitch and voicing.

    Args:
        reconstruction (`np.ndarray` of shape `(num_frames,)`): Of [`track_pitch`].
        original (`np.ndarray` of shape `(num_frames,)`): What it should be.

    Returns:
        [`PitchErrors`].

    Raises:
        ValueError: If the shapes differ.
    """
    ours, theirs = np.asarray(reconstruction, np.float64), np.asarray(original, np.float64)
    if ours.shape != theirs.shape or not ours.size:
        raise ValueError(
            f"`reconstruction` {ours.shape} and `original` {theirs.shape} must have one shape: track waveforms of one "
            "length."
        )
    voiced = np.isfinite(ours), np.isfinite(theirs)
    both = voiced[0] & voiced[1]
    cents = 1200 * np.log2(ours[both] / theirs[both])
    rmse = float(np.sqrt(np.mean(cents**2))) if cents.size else None
    return PitchErrors(rmse, float(np.mean(voiced[0] != voiced[1])))


def f0_rmse_cents(errors: PitchErrors) -> float:
    """The error of pitch in cents; raises [`NotMeasuredError`] where no frame is voiced in both."""
    if errors.f0_rmse_cents is None:
        raise NotMeasuredError("no frame is voiced in original and reconstruction")
    return errors.f0_rmse_cents
