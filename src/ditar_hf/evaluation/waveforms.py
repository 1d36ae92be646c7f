"""What all models that judge recordings need first: the samples at their own rate."""

import numpy as np
import soxr


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
