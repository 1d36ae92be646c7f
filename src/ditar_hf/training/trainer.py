"""[`DiTARTrainer`]: the `Trainer` with token budgets, averaged weights, right sums of losses and an exact resume."""

import json
import math
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer, TrainerCallback
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from ..modeling.loss_ditar import IGNORE_INDEX
from ..modeling.processing_ditar import DiTARProcessor
from .audio import UnusableAudioError
from .averaging import AveragedWeights
from .batches import TokenBudgetBatches
from .checkpoints import RunError, move_files, removed_if_not_written
from .collator import DiTARDataCollator
from .run_folder import RunFolder, step_of
from .sharding import configure_sharding
from .training_arguments import DiTARTrainingArguments
from .training_callbacks import SpeakSamples, StopOnSignal

LOSSES = ("diffusion_loss", "stop_loss", "alignment_loss")
CURRENT_WEIGHTS_FILE = "current_weights.safetensors"  # beside a model that has their averages


class DiTARTrainer(Trainer):
    """
    Trains a [`DiTARForTextToSpeech`] on batches of a [`TokenBudgetBatches`].

    Beside what the `Trainer` does: a run that is killed goes on from its last checkpoint bit for bit as if it had not
    been, also on streams; each loss is a mean over all that it applies to in all batches of an update, on all
    processes; noise is a function of the batch; the average of the weights is what is evaluated, heard and saved; a
    checkpoint is whole or not there; SIGTERM saves one; gradients that are not finite stop the run and name the rows.

    Args:
        model ([`DiTARForTextToSpeech`]): What is trained, or a `peft` model around it.
        args ([`DiTARTrainingArguments`]): The run.
        train_dataset ([`TokenBudgetBatches`]): Its batches; made for this process's rank.
        eval_dataset (`Dataset` or `dict[str, Dataset]`, *optional*): Examples for [`DiTARDataCollator`], held out.
        processing_class ([`DiTARProcessor`]): Saved beside the model, and used to collate and to speak.
        callbacks (`list[TrainerCallback]`, *optional*): More of them.
        optimizers (`tuple`, *optional*): An optimizer and a schedule, each in place of that of `args`.
        description (`dict`, *optional*):
            What else decides what is learnt, such as the data; a checkpoint is refused where it differs.

    Raises:
        ValueError: If the batches are not those of this process, or the average of the weights is asked for where
            the weights are sharded.
    """

    def __init__(
        self,
        model: PreTrainedModel | nn.Module,
        args: DiTARTrainingArguments,
        *,  # the `Trainer` has them in another order
        train_dataset: TokenBudgetBatches | None = None,
        eval_dataset: Any = None,
        processing_class: DiTARProcessor | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        description: Mapping[str, Any] | None = None,
    ):
        if processing_class is None:
            raise ValueError("`processing_class` is missing: pass the DiTARProcessor that made the batches.")
        super().__init__(
            model,
            args,
            data_collator=DiTARDataCollator(processing_class),
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        self._check_batches(train_dataset)
        if self.is_fsdp_enabled:
            configure_sharding(self.accelerator.state.fsdp_plugin, self.model)
        self.loss_is_scaled_for_ga = True
        self.position: dict[str, Any] | None = None  # of the last batch that was learnt from
        self.recent_ids: list[str] = []  # of this update
        self.num_left_out = 0  # rows that the filters left out, since training began
        self.was_stopped = self._is_saving = False
        self._loss_sums: dict[str, torch.Tensor] = {}
        self._num_summed = self._initial_global_step = 0
        self.average = AveragedWeights(self.model, args.ema_decay) if args.ema_decay else None
        self.folder = Path(args.output_dir)
        run = {**args.run_fields(), "num_processes": args.world_size, **(description or {})}
        self.run_folder = RunFolder(self.folder, run, args.process_index)
        self._stop = StopOnSignal(self)
        self.add_callback(self._stop)
        if self.average is not None:
            self.add_callback(self.average)
        if args.sample_steps:
            self.add_callback(SpeakSamples(self, processing_class))
        if args.compile_blocks:
            self._compile_blocks()

    def _check_batches(self, batches: Any):
        if batches is None:
            return
        if not isinstance(batches, TokenBudgetBatches):
            raise ValueError(
                f"`train_dataset` is a {type(batches).__name__}: pass TokenBudgetBatches, or use the plain `Trainer`."
            )
        own, given = (self.args.process_index, self.args.world_size), (batches.rank, batches.world_size)
        if own != given:
            raise ValueError(f"`train_dataset` is for (rank, world_size) {given}, but this process is {own}.")
        if self.is_fsdp_enabled and (self.args.ema_decay or self.args.sample_steps):
            raise ValueError(
                "With FSDP, whose weights are in pieces, set `ema_decay` to 0 and leave out `sample_steps`."
            )

    def _compile_blocks(self):
        model = self.accelerator.unwrap_model(self.model)
        model = model.get_base_model() if hasattr(model, "get_base_model") else model
        for part in (model.locdit, model.model.patch_encoder):
            part.transformer.compile(dynamic=True)

    # ---- data ----

    def get_train_dataloader(self) -> DataLoader:
        """The batches from where the run stands, as they are: neither `accelerate` nor the loader changes them."""
        if self.position is not None:
            self.train_dataset.position = self.position
        # a generator of its own: the loader would draw its seed from the global one, and shift all noise
        return DataLoader(
            self.train_dataset,
            batch_size=None,
            num_workers=self.args.num_loader_workers,
            worker_init_fn=_ignore_sigterm,
            generator=torch.Generator(),
            pin_memory=self.args.dataloader_pin_memory and torch.accelerator.is_available(),
        )

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device):
        """The batches of an update, and what its losses are means over: patches, states and aligned states."""
        batches, self.recent_ids = [], []
        for _ in range(num_batches):
            batch = next(epoch_iterator)
            if "error" in batch:
                raise UnusableAudioError(batch["error"])
            self.run_folder.note_rejected(batch.pop("rejected"))
            self.num_left_out += batch.pop("num_left_out")
            self.recent_ids += batch.pop("ids")
            self.position = batch.pop("position")
            batches.append(batch)
        counts = sum(_count_targets(batch) for batch in batches).to(device)
        return batches, self.accelerator.reduce(counts, "sum")

    # ---- losses ----

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """This batch's share of the update's loss; see [`DiTARForTextToSpeech`] for its parts."""
        seed = inputs.pop("seed", None)
        if seed is not None:
            inputs["generator"] = torch.Generator(self.args.device).manual_seed(seed)
        own = _count_targets(inputs).to(self.args.device)
        outputs = model(**inputs)
        total = own if num_items_in_batch is None else num_items_in_batch
        # processes average their gradients
        shares = own / total.clamp_min(1) * (1 if num_items_in_batch is None else self.args.world_size)
        weights, loss = self._loss_weights(), 0.0
        for name, share in zip(LOSSES, shares, strict=True):
            if outputs.get(name) is not None:
                part = outputs[name] * share
                loss = loss + weights[name] * part
                if self.model.training:
                    self._loss_sums[name] = self._loss_sums.get(name, 0.0) + part.detach()
        return (loss, outputs) if return_outputs else loss

    def _loss_weights(self) -> dict[str, float]:
        config = self.accelerator.unwrap_model(self.model).config
        return dict(zip(LOSSES, (1.0, config.stop_loss_weight, config.alignment_loss_weight), strict=True))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the parts of the training loss, means over the updates since the last time and over all processes."""
        num_updates = self.state.global_step - max(self._num_summed, self._initial_global_step)
        if "loss" in logs and self._loss_sums and num_updates:
            names = list(self._loss_sums)
            sums = torch.stack([self._loss_sums[name].float() for name in names])
            values = self.accelerator.reduce(sums, "mean") / num_updates
            logs.update(zip(names, values.tolist(), strict=True))
            self._loss_sums, self._num_summed = {}, self.state.global_step
            counts = torch.tensor([float(self.run_folder.num_rejected), float(self.num_left_out)])
            counts = self.accelerator.reduce(counts.to(self.args.device), "sum").tolist()
            logs.update(zip(("rejected", "left_out"), counts, strict=True))
        epoch, self.state.epoch = self.state.epoch, None  # a stream has none to be logged
        super().log(logs, start_time)
        self.state.epoch = epoch

    # ---- evaluation ----

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """This process's share of the held-out examples, in batches that are the same for any number of processes."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        dataset = self.eval_dataset[dataset] if isinstance(dataset, str) else dataset
        if dataset is None:
            raise ValueError("`eval_dataset` is missing: there is nothing to evaluate on.")
        if not hasattr(dataset, "__len__"):
            raise ValueError("`eval_dataset` is a stream: take its first examples, `list(stream.take(64))`.")
        indices = list(range(len(dataset)))
        size = self.args.per_device_eval_batch_size
        batches = [indices[first : first + size] for first in range(0, len(indices), size)]
        own = batches[self.args.process_index :: self.args.world_size]
        # a generator of its own here too: evaluating must not shift the noise of what is learnt after it
        generator = torch.Generator()
        return DataLoader(dataset, batch_sampler=own, collate_fn=self.data_collator, generator=generator)

    def _evaluation_batches(self, loader: DataLoader) -> Iterator[tuple[Mapping[str, torch.Tensor], bool]]:
        """Batches of this process, and whether they count."""
        most = len(loader)
        if self.is_fsdp_enabled:
            # all processes take part in each forward, so those with fewer batches do some more
            most = int(self.accelerator.gather(torch.tensor([most], device=self.args.device)).max())
        yield from ((batch, True) for batch in loader)
        for _ in range(len(loader), most):
            yield self.data_collator([loader.dataset[0]]), False

    @torch.no_grad()
    def evaluation_loop(
        self, dataloader, description, prediction_loss_only=None, ignore_keys=None, metric_key_prefix="eval"
    ) -> EvalLoopOutput:
        """Losses of the averaged weights, means over all that they apply to, at the same draws every time."""
        # without the wrapper of DDP, which would wait for as many batches on every process
        model = self.accelerator.unwrap_model(self.model)
        was_training = model.training
        model.eval()
        sums, counts, number = torch.zeros(len(LOSSES)), torch.zeros(len(LOSSES)), torch.zeros(())
        with self.averaged():
            for batch, is_counted in self._evaluation_batches(dataloader):
                own, outputs = _count_targets(batch), model(**self._prepare_inputs(batch))
                if is_counted:
                    values = [outputs.get(name) for name in LOSSES]
                    sums += own * torch.tensor([0.0 if value is None else float(value) for value in values])
                    counts += own
                    number += len(batch["input_ids"])
        model.train(was_training)
        sums, counts, number = self._sum_over_processes(sums, counts, number)
        means = dict(zip(LOSSES, (sums / counts.clamp_min(1)).tolist(), strict=True))
        weights = self._loss_weights()
        metrics = {f"{metric_key_prefix}_loss": sum(weights[name] * value for name, value in means.items())}
        metrics |= {f"{metric_key_prefix}_{name}": means[name] for name, n in zip(LOSSES, counts, strict=True) if n}
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=int(number))

    def _sum_over_processes(self, *values: torch.Tensor) -> list[torch.Tensor]:
        return [self.accelerator.reduce(value.to(self.args.device), "sum").cpu() for value in values]

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model has the averaged weights for as long as the block lasts, if an average is kept."""
        with nullcontext() if self.average is None else self.average.applied():
            yield

    # ---- the run and its checkpoints ----

    def train(self, resume_from_checkpoint: str | Path | bool | None = None, **kwargs: Any) -> TrainOutput:
        """
        Trains to the last step.

        Args:
            resume_from_checkpoint (`str`, `Path` or `bool`, *optional*):
                A checkpoint, or `True` for the last one of the output folder: goes on exactly as if the run had not
                been interrupted.
            **kwargs: As for the `Trainer`.

        Returns:
            `TrainOutput`; `was_stopped` says whether SIGTERM ended it.

        Raises:
            RunError: If there is nothing to resume, the checkpoint is not whole or of another run, a fresh run would
                overwrite checkpoints, or another run is writing the folder.
            UnusableAudioError: If a thousand rows in a row cannot be used.
            ArithmeticError: If a gradient is not finite; the ids of the rows lie in the output folder.
            OSError: If a checkpoint cannot be written; earlier ones stay as they are.
        """
        if self.train_dataset is None:
            raise ValueError("`train_dataset` is missing: there is nothing to train on.")
        with self.run_folder.claimed():
            checkpoint = self.run_folder.choose(resume_from_checkpoint)
            if checkpoint is not None:
                if step_of(checkpoint) >= self.args.max_steps:
                    return self._finished(checkpoint)
                self.position = self.run_folder.load_position(checkpoint)
            try:
                path = None if checkpoint is None else str(checkpoint)
                return super().train(resume_from_checkpoint=path, **kwargs)
            finally:
                self._stop.restore()

    def _finished(self, checkpoint: Path) -> TrainOutput:
        """The end of a run that was stopped after its last checkpoint: there is only the model left to be saved."""
        if self.is_fsdp_enabled:
            raise RunError(f"`resume`: the run is finished, its model lies in {checkpoint}.")
        self._load_from_checkpoint(str(checkpoint))
        return TrainOutput(step_of(checkpoint), float("nan"), {})

    def _init_training_state(self, max_steps: int, *args: Any) -> tuple[int, int]:
        begun = super()._init_training_state(max_steps, *args)
        self.state.compute_steps(self.args, max_steps)  # how often to log, save and evaluate may change on resume
        return begun

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.average is not None:
            self.average.load(Path(resume_from_checkpoint, CURRENT_WEIGHTS_FILE), step_of(resume_from_checkpoint))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """
        Saves the model with the averaged weights, and the processor.

        Args:
            output_dir (`str`, *optional*): Folder; the run's by default. It is written when all is there, and weights
                first: where there is a configuration, all is there.
        """
        folder = Path(output_dir or self.args.output_dir)
        if _internal_call:  # as a part of a checkpoint
            with self.averaged():
                return super().save_model(str(folder), _internal_call=True)
        partial = folder / ".partial-model"
        with removed_if_not_written(partial, folder), self.averaged():
            super().save_model(str(partial), _internal_call=True)
        if self.args.should_save:
            move_files(partial, folder)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.run_folder.partial) if self._is_saving else super()._get_output_dir(trial)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        step, folder = self.state.global_step, self.run_folder
        if self.args.should_save:
            shutil.rmtree(folder.partial, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self._is_saving = True
        try:
            with folder.writing(step):
                super()._save_checkpoint(model, trial)
                written = folder.partial / f"checkpoint-{step}"
                folder.save_position(written, self.position)
                if self.average is not None and self.args.should_save:
                    self.average.save_current(written / CURRENT_WEIGHTS_FILE)
                self.accelerator.wait_for_everyone()
                if self.args.should_save:
                    folder.publish(step, self.args.save_total_limit)
        finally:
            self._is_saving = False
        self.accelerator.wait_for_everyone()

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Stops all processes before anything is learnt from what is not a number: they share their gradients."""
        norm = super()._get_grad_norm(model, grad_norm)
        if not math.isfinite(norm):
            step, rank = self.state.global_step, self.args.process_index
            report = {"step": step, "grad_norm": str(float(norm)), "ids": self.recent_ids}
            file = self.folder / f"nonfinite-{step}-{rank}.json"
            file.write_text(json.dumps(report, indent=2), encoding="utf-8")
            raise ArithmeticError(
                f"The gradients of step {step} are not finite. The ids of its rows are in {self.folder}, "
                f"nonfinite-{step}-<rank>.json; the last checkpoint is as it was."
            )
        return norm


def _ignore_sigterm(worker: int):
    """A loader's worker leaves it to the training process to stop: a signal to all would end it in mid-update."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _count_targets(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """What each of the losses is a mean over: patches drawn, labelled and aligned states; float of shape `(3,)`."""
    labels, alignment = batch["labels"], batch.get("alignment_targets")
    counts = [(labels == 0).sum(), (labels != IGNORE_INDEX).sum()]
    counts.append((alignment != IGNORE_INDEX).sum() if alignment is not None else torch.zeros_like(counts[0]))
    return torch.stack(counts).float()
