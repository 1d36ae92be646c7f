"""
What each of two processes does for `test_scale.py`: `scale_run.py FOLDER ddp|fsdp2`.

The folder holds `model`, `batches.pt` with one batch for each process, and `held_out.pt`. Each process leaves its
findings in `<kind>-<rank>.pt`. Sharding is done by `accelerate`, from the environment that its launcher makes.
"""

import os
import signal
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import IterableDataset
from transformers import TrainerCallback

from ditar_hf import DiTARForTextToSpeech, DiTARProcessor
from ditar_hf.training.batches import TokenBudgetBatches
from ditar_hf.training.checkpoints import find_checkpoints
from ditar_hf.training.process_group import leave_process_group
from ditar_hf.training.trainer import DiTARTrainer
from ditar_hf.training.training_arguments import DiTARTrainingArguments

torch.set_num_threads(1)
folder, kind = Path(sys.argv[1]), sys.argv[2]
processor = DiTARProcessor.from_pretrained(folder / "model")
examples = torch.load(folder / "held_out.pt")


class OneBatch(TokenBudgetBatches):
    """The same batch again and again, as if it came from a source."""

    def __init__(self, batch, rank):
        IterableDataset.__init__(self)
        self.batch, self.rank, self.world_size = batch, rank, 2

    def __iter__(self):
        while True:
            yield {
                **self.batch,
                "ids": [f"row-{self.rank}"],
                "position": {},
                "rejected": {},
                "num_left_out": 0,
                "seed": 7,
            }


class TerminateOne(TrainerCallback):
    """Sends SIGTERM to the second process in the first update."""

    def on_step_begin(self, args, state, control, **kwargs):
        if args.process_index == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def make_trainer(name, batch=None, callbacks=None, **options):
    values = {"max_steps": 2, "save_steps": 100, "logging_steps": 1, "warmup_steps": 0, "ema_decay": 0.0, **options}
    args = DiTARTrainingArguments(output_dir=str(folder / f"{kind}-{name}"), use_cpu=True, **values)
    if kind == "fsdp2":
        # `accelerate` shards between accelerators only; told that these are some, it does the same with processes
        PartialState().distributed_type = DistributedType.MULTI_GPU
    model = DiTARForTextToSpeech.from_pretrained(folder / "model")
    batch = torch.load(folder / "batches.pt")[args.process_index] if batch is None else batch
    batches = OneBatch(batch, args.process_index)
    return DiTARTrainer(
        model, args, train_dataset=batches, eval_dataset=examples, processing_class=processor, callbacks=callbacks
    )


def full(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor.clone()


def gradients_of(trainer):
    """Gradients of the first update, before they are clipped."""
    found, clip = {}, trainer._clip_grad_norm

    def clip_and_keep(model):
        parameters = trainer.accelerator.unwrap_model(model).named_parameters()
        found.update((name, full(p.grad)) for name, p in parameters if p.grad is not None and name not in found)
        return clip(model)

    trainer._clip_grad_norm = clip_and_keep
    return found


def losses_of(trainer):
    return [{k: v for k, v in row.items() if "loss" in k or k == "grad_norm"} for row in trainer.state.log_history]


def stops(name, **options):
    """Whether a loss that is no number on the second process stops this one."""
    rank = PartialState().process_index
    batch = torch.load(folder / "batches.pt")[rank]
    broken = {**batch, "latents": batch["latents"] * torch.inf} if rank == 1 else batch
    try:
        make_trainer(name, broken, **options).train()
    except ArithmeticError as error:
        return str(error)


def sharding_of(model):
    """Which modules are gathered by themselves, and what weights are."""
    return {
        "units": [name for name, module in model.named_modules() if isinstance(module, FSDPModule)],
        "whole": [name for name, p in model.named_parameters() if not hasattr(p, "full_tensor")],
        "dtypes": {name: str(p.dtype) for name, p in model.named_parameters()},
        "local": sum(p.to_local().numel() for p in model.parameters() if hasattr(p, "to_local")),
    }


def main():
    trainer = make_trainer("run", save_steps=1)
    gradients = gradients_of(trainer)
    trainer.train()
    found = {"gradients": gradients, "losses": losses_of(trainer)}
    if kind == "fsdp2":
        found["sharding"] = sharding_of(trainer.model)
    trainer.save_model(str(folder / f"{kind}-model"))
    found["evaluation"] = {}
    for size in (1, 2):
        trainer.args.per_device_eval_batch_size = size
        found["evaluation"][size] = {k: v for k, v in trainer.evaluate().items() if "loss" in k}
    found["stopped"] = stops("broken")

    if kind == "ddp":
        stopped = make_trainer("stopped", callbacks=[TerminateOne()])
        stopped.train()
        found["was_stopped"] = stopped.was_stopped
        found["checkpoints"] = [path.name for path in find_checkpoints(stopped.folder)]
    else:
        resumed = make_trainer("resumed")
        resumed.train(resume_from_checkpoint=trainer.folder / "checkpoint-1")
        found["resumed"] = all(
            torch.equal(full(p), full(q))
            for p, q in zip(resumed.model.parameters(), trainer.model.parameters(), strict=True)
        )
        half = make_trainer("half", bf16=True, activation_checkpointing=True)
        half.train()
        found["half_losses"] = losses_of(half)
        found["half_dtypes"] = sharding_of(half.model)["dtypes"]

    torch.save(found, folder / f"{kind}-{trainer.args.process_index}.pt")


if __name__ == "__main__":
    main()
    leave_process_group()
