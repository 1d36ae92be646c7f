"""
A tiny run of `DiTARTrainer` in a process of its own, or in several: `train_run.py OPTIONS.json`.

Options: `model`, `data`, `output_dir`, `max_positions`, `resume`, `kill_at_step`, and any argument of the run.
"""

import json
import os
import signal
import sys

import torch
from transformers import TrainerCallback

from ditar_hf import DiTARForTextToSpeech, DiTARProcessor
from ditar_hf.training.batches import BatchArguments, TokenBudgetBatches, WeightedRows
from ditar_hf.training.data import AudioSource
from ditar_hf.training.examples import ExampleMaker
from ditar_hf.training.process_group import leave_process_group
from ditar_hf.training.trainer import DiTARTrainer
from ditar_hf.training.training_arguments import DiTARTrainingArguments


class KillAtStep(TrainerCallback):
    """Dies at a step as a machine does that loses its power."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    torch.set_num_threads(1)
    with open(sys.argv[1]) as file:
        options = json.load(file)
    data, resume, kill_at_step = options.pop("data"), options.pop("resume", None), options.pop("kill_at_step", None)
    folder, max_positions = options.pop("model"), options.pop("max_positions", 60)
    args = DiTARTrainingArguments(use_cpu=True, **options)
    processor, model = DiTARProcessor.from_pretrained(folder), DiTARForTextToSpeech.from_pretrained(folder)
    batches = TokenBudgetBatches(
        [WeightedRows(path, AudioSource(path).read()) for path in data],
        ExampleMaker(processor),
        BatchArguments(max_positions=max_positions, window_rows=5),
        seed=args.seed,
        rank=args.process_index,
        world_size=args.world_size,
    )
    callbacks = [KillAtStep(kill_at_step)] if kill_at_step else []
    trainer = DiTARTrainer(model, args, train_dataset=batches, processing_class=processor, callbacks=callbacks)
    trainer.train(resume_from_checkpoint=resume)
    if trainer.was_stopped:
        return 143
    trainer.save_model()
    return 0


if __name__ == "__main__":
    code = main()
    leave_process_group()
    sys.exit(code)
