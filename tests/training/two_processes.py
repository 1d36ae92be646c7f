"""What each of two processes does for `test_vae_trainer.py`: a run, one that is interrupted, one that must stop."""

import dataclasses
import sys
from pathlib import Path

import torch

from ditar_hf.training.process_group import leave_process_group
from ditar_hf.training.vae_arguments import VAETrainingArguments
from ditar_hf.training.vae_trainer import VAETrainer

torch.set_num_threads(1)
arguments = VAETrainingArguments.from_yaml(sys.argv[1])
folder = Path(sys.argv[1]).parent


def trainer(name: str) -> VAETrainer:
    return VAETrainer(dataclasses.replace(arguments, output_dir=str(folder / name)))


def whole():
    returned = trainer("two").train()
    # statistics are measured by the first process, and known to all
    if returned.latent_std.std() == 0:
        raise SystemExit("no statistics")


def resumed():
    learn = VAETrainer._learn

    def learn_until_killed(self, batch):
        if self.progress.step == 4:
            raise KeyboardInterrupt
        return learn(self, batch)

    VAETrainer._learn = learn_until_killed
    try:
        trainer("resumed").train()
    except KeyboardInterrupt:
        VAETrainer._learn = learn
    trainer("resumed").train(resume=True)


def stopped():
    """A recording makes a loss of the second process no number, in the second step."""
    broken = trainer("broken")
    forward, rank = broken.model.forward, broken.accelerator.process_index

    def forward_of_a_broken_batch(*args, **kwargs):
        output = forward(*args, **kwargs)
        if rank == 1 and broken.progress.step == 1:
            output.loss = output.loss * float("nan")
        return output

    broken.model.forward = forward_of_a_broken_batch
    try:
        broken.train()
    except ArithmeticError:
        (folder / f"stopped-{rank}").touch()


if __name__ == "__main__":
    whole()
    resumed()
    stopped()
    leave_process_group()
