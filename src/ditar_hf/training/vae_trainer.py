"""Training of the speech tokenizer: one loop, two optimizers, generator and discriminators (section 3.5.1)."""

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from diffusers.training_utils import EMAModel
from torch import nn
from torch.utils.data import DataLoader
from transformers import get_scheduler

from ..modeling.loss_ditar_vae import limit_bandwidth
from ..modeling.modeling_ditar_vae import DiTARVAE
from .vae_arguments import VAETrainingArguments
from .vae_checkpoint import Progress, find_checkpoints, load_checkpoint, save_checkpoint, save_model
from .vae_crops import CropBatches
from .vae_discriminators import Discriminators
from .vae_evaluation import evaluate_clips, load_clips, measure_latent_statistics
from .vae_losses import adversarial_loss, discriminator_loss, feature_matching_loss
from .vae_tracking import track_reconstructions


class VAETrainer:
    """
    Trains a [`DiTARVAE`].

    Args:
        arguments ([`VAETrainingArguments`]): The run.

    Raises:
        ValueError: If a source of recordings is empty, or the tokenizer to start from does not fit `vae`.
    """

    def __init__(self, arguments: VAETrainingArguments):
        self.arguments, self.folder = arguments, Path(arguments.output_dir)
        self.accelerator = Accelerator(
            cpu=arguments.cpu,
            gradient_accumulation_steps=arguments.gradient_accumulation_steps,
            log_with=arguments.report_to or None,
            project_dir=arguments.output_dir,
            # a frozen encoder takes no part in the gradients that processes exchange
            kwargs_handlers=[
                DistributedDataParallelKwargs(find_unused_parameters=arguments.freeze_encoder_step is not None)
            ],
        )
        with torch.random.fork_rng():
            torch.manual_seed(arguments.seed)
            vae = arguments.make_vae()
            has_discriminators = arguments.adversarial_start_step is not None
            discriminators = Discriminators(arguments.discriminators) if has_discriminators else None
        self.vae, self.optimizer = self._prepare(vae.train(), arguments.learning_rate)
        # not prepared: accelerate would step it once for each process
        self.scheduler = get_scheduler(
            arguments.lr_scheduler_type,
            self.optimizer,
            arguments.warmup_steps,
            arguments.max_steps,
            scheduler_specific_kwargs=arguments.lr_scheduler_kwargs or None,
        )
        self.accelerator.register_for_checkpointing(self.scheduler)
        self.discriminators = None
        if discriminators is not None:
            self.discriminators, self.discriminator_optimizer = self._prepare(
                discriminators.train(), arguments.learning_rate
            )
        self.model: DiTARVAE = self.accelerator.unwrap_model(self.vae)
        # the average holds a frozen encoder too, so it is made before anything is frozen
        self.average = EMAModel(self.model.parameters(), decay=arguments.ema_decay, foreach=True)
        self.accelerator.register_for_checkpointing(self.average)
        self.progress = Progress.start(arguments.num_workers)
        rank, world_size = self.accelerator.process_index, self.accelerator.num_processes
        self.crops = self._make_crops(arguments.seed, rank, world_size)
        self.crops.check_workers(arguments.num_workers)
        self.clips = load_clips(arguments.eval_data, arguments.num_eval_clips, self.model.config)
        self.recent_ids: list[str] = []
        self.rejected: dict[str, str] = {}

    def _prepare(self, module: nn.Module, learning_rate: float) -> tuple[nn.Module, Any]:
        arguments = self.arguments
        optimizer = torch.optim.AdamW(
            module.parameters(), learning_rate, arguments.adam_betas, weight_decay=arguments.weight_decay, fused=True
        )
        return self.accelerator.prepare(module, optimizer)

    def _make_crops(self, seed: int, rank: int = 0, world_size: int = 1) -> CropBatches:
        arguments, config = self.arguments, self.model.config
        return CropBatches(
            arguments.data,
            arguments.crops,
            config.sampling_rate,
            config.hop_length,
            arguments.batch_size,
            seed,
            rank,
            world_size,
        )

    def train(self, resume: bool = False) -> DiTARVAE:
        """
        Trains to the last step and saves the averaged tokenizer into the output folder.

        Args:
            resume (`bool`, *optional*, defaults to `False`):
                Go on from the last checkpoint in the output folder, exactly as if the run had not been interrupted.

        Returns:
            The trained [`DiTARVAE`].

        Raises:
            ValueError: If there is nothing to resume, the checkpoint is of a run with another configuration, or a
                fresh run would overwrite checkpoints.
            ArithmeticError: If a loss or gradient is not finite; the ids of the batch lie in the output folder.
        """
        checkpoints = find_checkpoints(self.folder)
        if resume and not checkpoints:
            raise ValueError(f"`resume`: there is no checkpoint in {self.folder}.")
        if checkpoints and not resume:
            raise ValueError(
                f"`output_dir` ({self.folder}) holds {checkpoints[-1].name}: resume, or take another one."
            )
        if resume:
            self.progress = load_checkpoint(self.accelerator, checkpoints[-1], self.arguments.to_dict())
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.arguments.report_to:
            self.accelerator.init_trackers("logs")
        self._freeze_encoder()
        self._loop()
        return self._finish()

    def _loop(self):
        arguments, window, started = self.arguments, [], time.perf_counter()
        batches = self._iterate_crops()
        while self.progress.step < arguments.max_steps:
            window.append(self._update(batches))
            self.progress.step += 1
            step, is_last = self.progress.step, self.progress.step == arguments.max_steps
            if step % arguments.logging_steps == 0 or is_last:
                self._log(window, time.perf_counter() - started)
                window, started = [], time.perf_counter()
            if self.clips and (step % arguments.eval_steps == 0 or is_last):
                self._evaluate()
            self._freeze_encoder()
            if step % arguments.save_steps == 0 or is_last:
                settings = arguments.to_dict()
                save_checkpoint(self.accelerator, self.folder, self.progress, settings, arguments.save_total_limit)

    def _iterate_crops(self) -> Iterator[dict[str, Any]]:
        """Batches from where the run stands, each noted in `progress` when it is taken."""
        self.crops.states = self.progress.states_from_here()
        first_worker, workers = self.progress.next_worker, self.arguments.num_workers
        # a generator of its own: the loader would draw its seed from the global one
        loader = DataLoader(self.crops, batch_size=None, num_workers=workers, generator=torch.Generator())
        for batch in loader:
            self.progress.consume(batch, first_worker)
            self._note_rejected(batch["rejected"])
            yield batch

    def _update(self, batches: Iterator[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """One step of each optimizer; the losses, detached, are means over the accumulated batches."""
        accelerator, sums, self.recent_ids = self.accelerator, {}, []
        models = [self.vae] if self.discriminators is None else [self.vae, self.discriminators]
        self._set_discriminator_rate()
        for _ in range(self.arguments.gradient_accumulation_steps):
            batch = next(batches)
            self.recent_ids += batch["ids"]
            with accelerator.accumulate(*models):
                for name, value in self._backward(batch).items():
                    sums[name] = sums.get(name, 0) + value.detach() / self.arguments.gradient_accumulation_steps
        self.scheduler.step()
        self.average.step(self.model.parameters())
        return sums

    def _set_discriminator_rate(self):
        """One schedule for both, on the generator's clock: discriminators that begin late begin at its rate."""
        if self.discriminators is not None:
            arguments, rate = self.arguments, self.scheduler.get_last_lr()[0]
            scale = (arguments.discriminator_learning_rate or arguments.learning_rate) / arguments.learning_rate
            for group in self.discriminator_optimizer.param_groups:
                group["lr"] = rate * scale

    def _backward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        device = self.accelerator.device
        target, heard, bandwidths = (
            batch[name].to(device, non_blocking=True) for name in ("target_waveforms", "waveforms", "bandwidths")
        )
        # noise is a matter of the crop: the same on any number of processes, and after a resume
        generators = [torch.Generator().manual_seed(seed) for seed in batch["seeds"]]
        with self._autocast():
            output = self.vae(heard, target_waveforms=target, bandwidths=bandwidths, generator=generators)
        losses = {name: output[name] for name in ("mel_loss", "stft_loss", "kl_loss")}
        total = output.loss
        if self.discriminators is not None and self.progress.step >= self.arguments.adversarial_start_step:
            made, recorded = (
                limit_bandwidth(x, bandwidths, self.model.config.sampling_rate) for x in (output.waveforms, target)
            )
            recorded, made = self._shorten(recorded, batch["seeds"]), self._shorten(made, batch["seeds"])
            losses["discriminator_loss"] = self._discriminate(recorded, made)
            losses["adversarial_loss"], losses["feature_loss"] = self._judge(recorded, made)
            total = (
                total
                + self.arguments.adversarial_loss_weight * losses["adversarial_loss"]
                + self.arguments.feature_loss_weight * losses["feature_loss"]
            )
        self._refuse_nonfinite(total, "loss")
        self.accelerator.backward(total)
        losses["grad_norm"] = self._step(self.optimizer, self.vae.parameters())
        return {"loss": total, **losses}

    def _shorten(self, waveforms: torch.Tensor, seeds: list[int]) -> torch.Tensor:
        """The part of each row `(B, S)` that the discriminators hear, drawn with its seed."""
        seconds = self.arguments.discriminators.crop_seconds
        length = waveforms.shape[1] if seconds is None else round(seconds * self.model.config.sampling_rate)
        latest = max(1, waveforms.shape[1] - length + 1)
        return torch.stack([row[seed % latest :][:length] for row, seed in zip(waveforms, seeds, strict=True)])

    def _discriminate(self, recorded: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
        """The discriminators' loss, and their step."""
        with self._autocast():
            # one call for both: processes exchange the gradients of one call
            features = self.discriminators(torch.cat([recorded, made.detach()]))
        real, fake = ([[x.chunk(2)[half] for x in layers] for layers in features] for half in (0, 1))
        loss = discriminator_loss(real, fake)
        self._refuse_nonfinite(loss, "discriminator_loss")
        self.accelerator.backward(loss)
        self._step(self.discriminator_optimizer, self.discriminators.parameters())
        return loss

    def _judge(self, recorded: torch.Tensor, made: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the discriminators make of reconstructions: adversarial and feature loss, no gradients of their own."""
        judges = self.accelerator.unwrap_model(self.discriminators).requires_grad_(False)
        with self._autocast():
            with torch.no_grad():
                expected = judges(recorded)
            features = judges(made)
        judges.requires_grad_(True)
        return adversarial_loss(features), feature_matching_loss(expected, features)

    def _step(self, optimizer: Any, parameters: Iterable[nn.Parameter]) -> torch.Tensor:
        norm = torch.zeros((), device=self.accelerator.device)
        if self.accelerator.sync_gradients:
            norm = self.accelerator.clip_grad_norm_(parameters, self.arguments.max_grad_norm)
            self._refuse_nonfinite(norm, "norm of the gradients")
        optimizer.step()
        optimizer.zero_grad()
        return norm * self.arguments.gradient_accumulation_steps  # it is averaged over them, and zero but once

    def _refuse_nonfinite(self, value: torch.Tensor, name: str):
        """Stops all processes before anything is learnt from a loss that is not a number."""
        if torch.isfinite(self.accelerator.gather(value.detach().float().reshape(1))).all():
            return
        step, rank = self.progress.step, self.accelerator.process_index
        path = self.folder / f"nonfinite-{step}-{rank}.json"
        path.write_text(json.dumps({"step": step, "what": name, "ids": self.recent_ids}, indent=2), encoding="utf-8")
        raise ArithmeticError(
            f"The {name} of step {step} is not finite. The ids of its recordings are in {path}; the last checkpoint "
            "is as it was."
        )

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.accelerator.device.type, torch.bfloat16, enabled=self.arguments.mixed_precision == "bf16"
        )

    @torch.no_grad()
    def _freeze_encoder(self):
        """From `freeze_encoder_step` on the encoder is its average, and learns no more."""
        freeze_step = self.arguments.freeze_encoder_step
        if freeze_step is None or self.progress.step < freeze_step:
            return
        if self.progress.step == freeze_step:
            averages = dict(zip(self.model.parameters(), self.average.shadow_params, strict=True))
            for parameter in self.model.encoder.parameters():
                parameter.copy_(averages[parameter])
        self.model.encoder.requires_grad_(False)

    def _log(self, window: list[dict[str, torch.Tensor]], seconds: float):
        arguments = self.arguments
        names = list(window[-1])  # of the steps since the adversarial phase began, if it has
        rows = [torch.stack([losses[name] for name in names]) for losses in window if list(losses) == names]
        values = self.accelerator.reduce(torch.stack(rows).float().mean(0), "mean").tolist()
        crops = len(window) * arguments.gradient_accumulation_steps * arguments.batch_size
        heard = crops * self.accelerator.num_processes * self.crops.num_samples / self.crops.sampling_rate
        entry = {
            **dict(zip(names, values, strict=True)),
            "learning_rate": self.scheduler.get_last_lr()[0],
            "audio_seconds_per_second": heard / seconds,
            "rejected": len(self.rejected),
        }
        self.accelerator.log(entry, step=self.progress.step)
        line = " ".join(f"{name} {value:.4g}" for name, value in entry.items())
        self.accelerator.print(f"step {self.progress.step}/{arguments.max_steps} {line}", flush=True)

    def _note_rejected(self, rejected: dict[str, str]):
        for identifier, reason in rejected.items():
            if identifier not in self.rejected:
                print(f"not used: {identifier}: {reason}", flush=True)
        self.rejected.update(rejected)

    def _evaluate(self):
        """Losses of the averaged model on the held-out clips, and what it makes of them, to the trackers."""
        if self.accelerator.is_main_process:
            self.average.store(self.model.parameters())
            self.average.copy_to(self.model.parameters())
            values, pairs = evaluate_clips(self.model, self.clips)
            self.average.restore(self.model.parameters())
            self.model.train()
            self.accelerator.log(values, step=self.progress.step)
            line = " ".join(f"{name} {value:.4g}" for name, value in values.items())
            self.accelerator.print(f"step {self.progress.step}/{self.arguments.max_steps} {line}", flush=True)
            track_reconstructions(self.accelerator, pairs, self.model.config.sampling_rate, self.progress.step)
        self.accelerator.wait_for_everyone()

    def _finish(self) -> DiTARVAE:
        """Puts the average in, measures the latents and saves."""
        self.average.copy_to(self.model.parameters())
        self.model.eval().requires_grad_(True)
        if self.accelerator.is_main_process:
            # where the encoder has stood still from the start, latents stay what they were, statistics included
            if not (self.arguments.start_from and self.arguments.freeze_encoder_step == 0):
                batches = DataLoader(self._make_crops(self.arguments.seed + 1), batch_size=None)
                measure_latent_statistics(self.model, batches, self.arguments.num_statistics_batches)
            save_model(self.model, self.folder)
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        return self.model
