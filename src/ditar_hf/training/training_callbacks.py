"""What [`DiTARTrainer`] does between updates: it stops on SIGTERM, and speaks samples."""

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
import torch
from transformers import TrainerCallback
from transformers.utils import is_matplotlib_available, logging

from ..modeling.processing_ditar import DiTARProcessor
from ..plotting import save_spectrogram

if TYPE_CHECKING:
    from .trainer import DiTARTrainer

logger = logging.get_logger(__name__)


class StopOnSignal(TrainerCallback):
    """
    Saves a checkpoint after the update in which SIGTERM came, to any process, and ends the run.

    Args:
        trainer ([`DiTARTrainer`]): Its `was_stopped` says afterwards that the run was ended so.
    """

    def __init__(self, trainer: "DiTARTrainer"):
        self.trainer, self.is_asked, self.former = trainer, False, None

    def _ask(self, number, frame):
        self.is_asked = True

    def on_train_begin(self, args, state, control, **kwargs):
        """Listens from now on; threads other than the main one cannot."""
        if threading.current_thread() is threading.main_thread():
            self.former = signal.signal(signal.SIGTERM, self._ask)

    def on_step_end(self, args, state, control, **kwargs):
        """All processes stop after the same update."""
        asked = torch.tensor(float(self.is_asked), device=args.device)
        if args.world_size > 1:
            asked = self.trainer.accelerator.reduce(asked, "sum")
        if asked and state.global_step < state.max_steps:  # after the last update there is nothing to stop
            logger.warning(f"SIGTERM: the run stops after step {state.global_step}.")
            self.trainer.was_stopped = control.should_save = control.should_training_stop = True

    def restore(self):
        """Leaves the signal as it was; called however training ends."""
        if self.former is not None:
            signal.signal(signal.SIGTERM, self.former)
            self.former = None


class SpeakSamples(TrainerCallback):
    """
    Speaks the sample texts with the averaged weights: WAV files and spectrograms, and audio in TensorBoard.

    Args:
        trainer ([`DiTARTrainer`]): Has the model; its arguments say which texts, and when.
        processor ([`DiTARProcessor`]): Makes inputs of the texts.
    """

    def __init__(self, trainer: "DiTARTrainer", processor: DiTARProcessor):
        self.trainer, self.processor = trainer, processor
        self.processor(trainer.args.sample_texts)  # a text that cannot be spoken is refused now, not in the run

    def on_step_end(self, args, state, control, **kwargs):
        """Speaks after each `sample_steps` updates."""
        if state.global_step % args.sample_steps:
            return
        if state.is_world_process_zero:
            for number, samples in enumerate(self._speak(args)):
                self._show(samples, number, Path(args.output_dir, "samples", f"step-{state.global_step}"), state)
        self.trainer.accelerator.wait_for_everyone()

    def _speak(self, args) -> list[np.ndarray]:
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        inputs = self.processor(args.sample_texts).to(args.device)
        generator = torch.Generator(args.device).manual_seed(args.sample_seed)
        was_training = model.training
        model.eval()
        with self.trainer.averaged():
            output = model.generate(**inputs, generator=generator)
        model.train(was_training)
        return [row.float().cpu().numpy() for row in output.audio]

    def _show(self, samples: np.ndarray, number: int, folder: Path, state):
        folder.mkdir(parents=True, exist_ok=True)
        rate = self.processor.feature_extractor.sampling_rate
        soundfile.write(folder / f"{number}.wav", np.clip(samples, -1, 1), rate)
        if is_matplotlib_available():
            save_spectrogram(samples, rate, folder / f"{number}.png", self.trainer.args.sample_texts[number])
        for callback in self.trainer.callback_handler.callbacks:
            writer = getattr(callback, "tb_writer", None)
            if writer is not None:
                clipped = torch.from_numpy(samples).clamp(-1, 1)[None]
                writer.add_audio(f"samples/{number}", clipped, state.global_step, sample_rate=rate)
                if is_matplotlib_available():
                    picture = _read_picture(folder / f"{number}.png")
                    writer.add_image(f"samples/{number}", picture, state.global_step, dataformats="HWC")


def _read_picture(file: Path) -> np.ndarray:
    """Pixels `(height, width, channels)`, uint8."""
    from matplotlib.image import imread

    return np.round(imread(file) * 255).astype(np.uint8)
