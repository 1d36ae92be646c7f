"""Exponential moving average of weights for the plain `Trainer`."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback


class AveragedWeights(TrainerCallback):
    """Exponential moving average of the trained weights, in every checkpoint."""

    file_name = "average.safetensors"

    def __init__(self, model, decay: float):
        self.decay = decay
        self.average = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        decay = min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in self.average:
                    self.average[name].lerp_(parameter, 1 - decay)

    def on_save(self, args, state, control, model=None, **kwargs):
        save_file(self.average, Path(args.output_dir) / f"checkpoint-{state.global_step}" / self.file_name)

    def resume(self, checkpoint: str):
        """Goes on from the average that a checkpoint holds."""
        self.average = load_file(Path(checkpoint) / self.file_name)
