"""Predicted opinion scores, which need no original (the extras `evaluate` and `evaluate-papers`)."""

from collections.abc import Callable

import numpy as np

from .summary import PAPERS_EXTRA, NotMeasuredError, one_line, require_package
from .waveforms import judged_samples

DNSMOS_MODEL = "DNSMOS P.835 (speechmos)"
DNSMOS_RATE = 16000
UTMOS_MODEL = "UTMOS22 strong learner (Blinorot/UTMOS-PyTorch)"
UTMOS_RATE = 16000


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
        NotMeasuredError: If speechmos or what it needs is not installed, or if the recording is too short.
    """
    dnsmos = require_package("speechmos.dnsmos")
    samples = judged_samples(waveform, sampling_rate, DNSMOS_RATE)
    return float(dnsmos.run(np.clip(samples, -1, 1), DNSMOS_RATE)["ovrl_mos"])


def load_utmos(device: str = "cpu") -> Callable[[np.ndarray, int], float]:
    """
    Naturalness as UTMOS predicts it (Saeki et al., 2022), by the package utmos-pytorch.

    Its weights are those of the authors' strong learner under other names; they come from the Hub the first time and
    are read without running anything that is in them. What lies above 8 kHz does not count.

    Args:
        device (`str`, *optional*, defaults to `"cpu"`): Where the model computes.

    Returns:
        A function from samples `(num_samples,)` and their rate in Hz to a mean opinion score, about 1 to 5. It raises
        [`NotMeasuredError`] if the recording is too short.

    Raises:
        NotMeasuredError: If the package or the weights cannot be had.
    """
    import torch

    try:
        model = require_package("utmos_pytorch", PAPERS_EXTRA).UTMOSScoreTorch(device=device)
    except (NotMeasuredError, OSError, ValueError) as error:
        raise NotMeasuredError(
            f"{UTMOS_MODEL}, for predicted naturalness (UTMOS), cannot be had: {one_line(error)}"
        ) from error

    def score(waveform: np.ndarray, sampling_rate: int) -> float:
        samples = torch.from_numpy(judged_samples(waveform, sampling_rate, UTMOS_RATE))
        # not in a batch: padding would change the scores
        return model.score(samples.to(device)).item()

    return score
