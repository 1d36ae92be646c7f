"""What a training of the speech tokenizer says: lines, curves, pictures and audio."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from transformers.utils import is_matplotlib_available

from ..plotting import draw_comparison
from .vae_arguments import VAETrainingArguments


def make_accelerator(arguments: VAETrainingArguments) -> Accelerator:
    """
    The accelerator of a run.

    Args:
        arguments ([`VAETrainingArguments`]): The run.

    Returns:
        `Accelerator`, without mixed precision of its own: only some of the arithmetic is in low precision.

    Raises:
        ValueError: If a tracker is not installed.
    """
    accelerator = Accelerator(
        cpu=arguments.cpu,
        mixed_precision="no",
        gradient_accumulation_steps=arguments.gradient_accumulation_steps,
        log_with=arguments.report_to or None,
        project_dir=arguments.output_dir,
        # a frozen encoder takes no part in the gradients that processes exchange
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=arguments.freeze_encoder_step is not None)
        ],
    )
    installed = {str(getattr(tracker, "value", tracker)) for tracker in accelerator.log_with}
    missing = [name for name in arguments.report_to if name not in installed]
    if missing:
        raise ValueError(f"`report_to`: {', '.join(missing)} cannot be used. Install it, or leave it out.")
    return accelerator


class RunLog:
    """
    Lines, curves and lists of a run.

    Args:
        accelerator (`Accelerator`): Holds the trackers, which it begins.
        folder (`Path`): The run's folder; `rejected-<rank>.jsonl` names the recordings that could not be used.
        arguments ([`VAETrainingArguments`]): The run.
        update_seconds (`float`): Seconds of audio that all processes learn from in an update.
    """

    def __init__(self, accelerator: Accelerator, folder: Path, arguments: VAETrainingArguments, update_seconds: float):
        self.accelerator, self.arguments, self.update_seconds = accelerator, arguments, update_seconds
        self.window: list[dict[str, torch.Tensor]] = []
        self.seconds = 0.0
        self.rejected_file = folder / f"rejected-{accelerator.process_index}.jsonl"
        self.rejected: set[str] = set()
        if self.rejected_file.is_file():
            lines = self.rejected_file.read_text(encoding="utf-8").splitlines()
            self.rejected = {json.loads(line)["id"] for line in lines}
        if arguments.report_to:
            scalars = {k: v for k, v in arguments.to_dict().items() if isinstance(v, int | float | str)}
            accelerator.init_trackers("logs", config=scalars)

    def add(self, losses: dict[str, torch.Tensor], seconds: float):
        """Takes note of an update and the time that it took."""
        self.window.append(losses)
        self.seconds += seconds

    def reject(self, rejected: dict[str, str]):
        """Takes note of recordings that cannot be used, and why, once each."""
        new = {identifier: reason for identifier, reason in rejected.items() if identifier not in self.rejected}
        self.rejected.update(new)
        if new:
            with open(self.rejected_file, "a", encoding="utf-8") as file:
                file.writelines(f"{json.dumps({'id': i, 'reason': r}, ensure_ascii=False)}\n" for i, r in new.items())
        for identifier, reason in new.items():
            print(f"not used: {identifier}: {reason}", flush=True)

    def write(self, step: int, learning_rate: float):
        """Means over the updates since the last time, over all processes."""
        names = list(self.window[-1])  # of the steps since the adversarial phase began, if it has
        rows = [torch.stack([losses[name] for name in names]) for losses in self.window if list(losses) == names]
        values = self.accelerator.reduce(torch.stack(rows).float().mean(0), "mean").tolist()
        rejected = torch.tensor(float(len(self.rejected)), device=self.accelerator.device)
        values = {
            **dict(zip(names, values, strict=True)),
            "learning_rate": learning_rate,
            "audio_seconds_per_second": len(self.window) * self.update_seconds / self.seconds,
            "rejected": self.accelerator.reduce(rejected, "sum").item(),
        }
        self.window, self.seconds = [], 0.0
        self.note(step, values)

    def note(self, step: int, values: dict[str, float]):
        """A line on standard output, and a point of each curve."""
        self.accelerator.log(values, step=step)
        line = " ".join(f"{name} {value:.4g}" for name, value in values.items())
        self.accelerator.print(f"step {step}/{self.arguments.max_steps} {line}", flush=True)


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
