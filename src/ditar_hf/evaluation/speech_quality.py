"""Predicted opinion scores, which need no original (the extra `evaluate`)."""

import numpy as np
import soxr

from .summary import require_package

DNSMOS_RATE = 16000


def dnsmos_overall(waveform: np.ndarray, sampling_rate: int) -> float:
    """
    Overall quality as DNSMOS P.835 predicts it (Reddy et al., 2022), by the package speechmos.

    It was made for noise suppression: clean recordings get about 3 to 4, and differences of 0.1 are hardly heard. What
    lies above 8 kHz does not count.

    Args:
        waveform (`np.ndarray` of shape `(num_samples,)`): Samples; what exceeds [-1, 1] is clipped.
        sampling_rate (`int`): Samples a second.

    Returns:
        Mean opinion score from 1 to 5.

    Raises:
        NotMeasuredError: If speechmos or what it needs is not installed.
    """
    dnsmos = require_package("speechmos.dnsmos")
    samples = np.asarray(waveform, np.float32)
    if sampling_rate != DNSMOS_RATE:
        samples = soxr.resample(samples, sampling_rate, DNSMOS_RATE)
    return float(dnsmos.run(np.clip(samples, -1, 1), DNSMOS_RATE)["ovrl_mos"])
