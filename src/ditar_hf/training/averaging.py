"""An exponential moving average of the trained weights, as a callback of the `Trainer`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback


class AveragedWeights(TrainerCallback):
    """
    Averages the trained weights of a model after each update; frozen ones are left alone.

    It serves the plain `Trainer` as well: `Trainer(..., callbacks=[average])`, and `with average.applied(): ...`
    around what shall be done with the averages.

    Args:
        model (`nn.Module`): The model that is trained, on its device.
        decay (`float`): Of the average; in the first steps it is `(1 + step) / (10 + step)`, if that is less.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.average = EMAModel(self.parameters.values(), decay=decay, foreach=True)

    def on_optimizer_step(self, args, state, control, **kwargs):
        """Takes note of new weights."""
        self.average.step(self.parameters.values())

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights for as long as the block lasts."""
        self.average.store(self.parameters.values())
        self.average.copy_to(self.parameters.values())
        try:
            yield
        finally:
            self.average.restore(self.parameters.values())

    def save_current(self, file: Path):
        """
        Saves the weights that training goes on with, beside a model that was saved with their averages.

        Args:
            file (`Path`): A safetensors file.
        """
        save_file({name: p.detach().contiguous() for name, p in self.parameters.items()}, file)

    @torch.no_grad()
    def load(self, file: Path, step: int):
        """
        Goes on from a model that was just loaded with its averages.

        Args:
            file (`Path`): What `save_current` wrote.
            step (`int`): Updates that the averages are over.

        Raises:
            ValueError: If the file holds other weights.
        """
        self.average.shadow_params = [p.detach().clone() for p in self.parameters.values()]
        self.average.optimization_step = step
        stored = load_file(file)
        if stored.keys() != self.parameters.keys():
            raise ValueError(f"`file`: {file} does not hold the weights that are trained here.")
        for name, parameter in self.parameters.items():
            parameter.copy_(stored[name])
