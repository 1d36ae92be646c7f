"""Pictures of reconstructions; needs matplotlib (the extra `plot`)."""

from pathlib import Path

import numpy as np

from ..plotting import draw_comparison
from .summary import require_package


def save_comparison(
    original: np.ndarray, reconstruction: np.ndarray, sampling_rate: int, path: str | Path, title: str = ""
) -> None:
    """
    Draws waveforms and spectrograms of an original and its reconstruction side by side.

    The waveforms share their scale, which shows a difference of levels; each spectrogram has its loudest bin at 0 dB.

    Args:
        original (`np.ndarray` of shape `(num_samples,)`): The samples.
        reconstruction (`np.ndarray` of shape `(num_samples,)`): What became of them.
        sampling_rate (`int`): Samples a second.
        path (`str` or `Path`): Where to write; the suffix decides the format.
        title (`str`, *optional*, defaults to `""`): Stands above; a long one is shortened.

    Raises:
        NotMeasuredError: If matplotlib is not installed.
        OSError: If the file cannot be written.
    """
    require_package("matplotlib.figure", '-e ".[plot]"')
    draw_comparison(original, reconstruction, sampling_rate, title).savefig(path, dpi=100)
