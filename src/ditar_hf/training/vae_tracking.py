"""Curves, pictures and audio of a training for accelerate's trackers."""

from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from transformers.utils import is_matplotlib_available

from ..plotting import draw_comparison


def track_reconstructions(
    accelerator: Accelerator, pairs: dict[str, tuple[torch.Tensor, torch.Tensor]], sampling_rate: int, step: int
):
    """
    Shows recordings and their reconstructions in each tracker that can: pictures, and in TensorBoard also audio.

    Args:
        accelerator (`Accelerator`): Holds the trackers.
        pairs (`dict[str, tuple]`): Names, with the recording and the reconstruction, each `(num_samples,)`.
        sampling_rate (`int`): Samples a second.
        step (`int`): Of the run.
    """
    for tracker in accelerator.trackers:
        for name, (original, reconstruction) in pairs.items():
            if is_matplotlib_available() and hasattr(tracker, "log_images"):
                picture = _picture(original.numpy(), reconstruction.numpy(), sampling_rate)
                options: dict[str, Any] = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                tracker.log_images({f"spectrogram/{name}": picture[None]}, step=step, **options)
            if tracker.name == "tensorboard":
                for kind, waveform in (("recording", original), ("reconstruction", reconstruction)):
                    samples = waveform.clamp(-1, 1)[None]
                    tracker.writer.add_audio(f"{kind}/{name}", samples, step, sample_rate=sampling_rate)


def _picture(original: np.ndarray, reconstruction: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Pixels `(height, width, 3)`, uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(draw_comparison(original, reconstruction, sampling_rate))
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
