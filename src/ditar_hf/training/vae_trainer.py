"""Training of the speech tokenizer: one loop, two optimizers, generator and discriminators (section 3.5.1)."""

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast
from diffusers.training_utils import EMAModel
from torch import nn
from torch.utils.data import DataLoader

from ..modeling.loss_ditar_vae import limit_bandwidth
from ..modeling.modeling_ditar_vae import DiTARVAE
from .audio import UnusableAudioError
from .checkpoints import RunError, find_checkpoints
from .vae_arguments import VAETrainingArguments
from .vae_checkpoint import Progress, load_checkpoint, save_checkpoint, save_model
from .vae_crops import CropBatches
from .vae_discriminators import Discriminators
from .vae_losses import adversarial_loss, discriminator_loss, feature_matching_loss
from .vae_tracking import RunLog, make_accelerator, track_reconstructions
from .vae_validation import evaluate_clips, load_clips, measure_latent_statistics


class VAETrainer:
    """
    Trains a [`DiTARVAE`].

    Args:
        arguments ([`VAETrainingArguments`]): The run.

    Raises:
        ValueError: If a folder of recordings is empty, the tokenizer to start from does not fit `vae`, or a tracker is
            not installed.
    """

    def __init__(self, arguments: VAETrainingArguments):
        self.arguments, self.folder = arguments, Path(arguments.output_dir)
        self.accelerator = make_accelerator(arguments)
        with torch.random.fork_rng():
            torch.manual_seed(arguments.seed)
            vae = arguments.make_vae()
            has_discriminators = arguments.adversarial_start_step is not None
            discriminators = Discriminators(arguments.discriminators) if has_discriminators else None
        self.vae, self.optimizer = self._prepare(vae.train())
        self.model: DiTARVAE = self.accelerator.unwrap_model(self.vae)
        self.discriminators = None
        if discriminators is not None:
            self.discriminators, self.discriminator_optimizer = self._prepare(discriminators.train())
        # not prepared: accelerate would step it once for each process
        self.scheduler = arguments.make_scheduler(self.optimizer)
        # the average holds a frozen encoder too, so it is made before anything is frozen
        self.average = EMAModel(self.model.parameters(), decay=arguments.ema_decay, foreach=True)
        self.accelerator.register_for_checkpointing(self.scheduler, self.average)
        self.progress = Progress()
        self.crops = self._make_crops(
            seed=arguments.seed, rank=self.accelerator.process_index, world_size=self.accelerator.num_processes
        )
        self.crops.check_workers(arguments.num_workers)
        self.clips = load_clips(
            arguments.eval_data, arguments.num_eval_clips, self.model.config, arguments.crops.min_sampling_rate
        )
        self.recent_ids: list[str] = []

    def _prepare(self, module: nn.Module) -> tuple[nn.Module, Any]:
        arguments = self.arguments
        optimizer = torch.optim.AdamW(
            module.parameters(),
            arguments.learning_rate,
            arguments.adam_betas,
            weight_decay=arguments.weight_decay,
            fused=True,
        )
        return self.accelerator.prepare(module, optimizer)

    def _make_crops(self, **options: Any) -> CropBatches:
        arguments, config = self.arguments, self.model.config
        values = {
            "arguments": arguments.crops,
            "sampling_rate": config.sampling_rate,
            "hop_length": config.hop_length,
            "batch_size": arguments.batch_size,
        }
        return CropBatches(arguments.data, **{**values, **options})

    def train(self, resume: bool = False) -> DiTARVAE:
        """
        Trains to the last step and saves the averaged tokenizer into the output folder.

        Args:
            resume (`bool`, *optional*, defaults to `False`):
                Go on from the last checkpoint in the output folder, exactly as if the run had not been interrupted.

        Returns:
            The trained [`DiTARVAE`].

        Raises:
            RunError: If there is nothing to resume, the checkpoint is of a run with another configuration or other
                recordings, or a fresh run would overwrite checkpoints.
            UnusableAudioError: If a thousand recordings in a row cannot be used.
            ArithmeticError: If a loss or gradient is not finite; the ids of the batch lie in the output folder.
            OSError: If a checkpoint cannot be written; earlier ones stay as they are.
        """
        self._begin(resume)
        updates = self._updates()
        while self.progress.step < self.arguments.max_steps:
            self._freeze_encoder()
            started = time.perf_counter()
            losses = next(updates)
            self.progress.step += 1
            self.log.add(losses, time.perf_counter() - started)
            step, is_last = self.progress.step, self.progress.step == self.arguments.max_steps
            if step % self.arguments.logging_steps == 0 or is_last:
                self.log.write(step, self.scheduler.get_last_lr()[0])
            if self.clips and (step % self.arguments.eval_steps == 0 or is_last):
                self._evaluate()
            if step % self.arguments.save_steps == 0 or is_last:
                self._save()
        return self._finish()

    def _begin(self, resume: bool):
        checkpoints = find_checkpoints(self.folder)
        if resume and not checkpoints:
            raise RunError(f"`resume`: there is no checkpoint in {self.folder}.")
        if checkpoints and not resume:
            raise RunError(f"`output_dir` ({self.folder}) holds {checkpoints[-1].name}: resume, or take another one.")
        # once, and not for each checkpoint: to describe recordings is to list them
        self.description = {
            **self.arguments.to_dict(),
            "num_processes": self.accelerator.num_processes,
            "recordings": self.crops.describe_rows(),
        }
        if resume:
            self.progress = load_checkpoint(self.accelerator, checkpoints[-1], self.description)
            self.average.to(self.accelerator.device)  # accelerate loads it onto the CPU
        self.folder.mkdir(parents=True, exist_ok=True)
        crops = self.arguments.gradient_accumulation_steps * self.arguments.batch_size * self.accelerator.num_processes
        seconds = crops * self.crops.num_samples / self.model.config.sampling_rate
        self.log = RunLog(self.accelerator, self.folder, self.arguments, seconds)

    def _updates(self) -> Iterator[dict[str, torch.Tensor]]:
        """The steps of each optimizer from where the run stands; losses, detached, are means of a step's batches."""
        num_batches = self.arguments.gradient_accumulation_steps
        models = [self.vae] if self.discriminators is None else [self.vae, self.discriminators]
        batches = self._batches()
        while True:
            sums, self.recent_ids = {}, []
            self._set_discriminator_rate()
            for _ in range(num_batches):
                batch = next(batches)
                self.recent_ids += batch["ids"]
                with self.accelerator.accumulate(*models):
                    for name, value in self._learn(batch).items():
                        sums[name] = sums.get(name, 0) + value.detach() / num_batches
                self.progress.positions = batch["positions"]
            self.scheduler.step()
            self.average.step(self.model.parameters())
            yield sums

    def _batches(self) -> Iterator[dict[str, Any]]:
        self.crops.first_batch = self.progress.step * self.arguments.gradient_accumulation_steps
        self.crops.positions = self.progress.positions
        # a generator of its own: the loader would draw its seed from the global one
        workers = self.arguments.num_workers
        for batch in DataLoader(self.crops, batch_size=None, num_workers=workers, generator=torch.Generator()):
            if "error" in batch:
                raise UnusableAudioError(batch["error"])
            self.log.reject(batch["rejected"])
            yield batch

    def _set_discriminator_rate(self):
        """One schedule for both, on the generator's clock: discriminators that begin late begin at its rate."""
        if self.discriminators is not None:
            arguments, rate = self.arguments, self.scheduler.get_last_lr()[0]
            scale = (arguments.discriminator_learning_rate or arguments.learning_rate) / arguments.learning_rate
            for group in self.discriminator_optimizer.param_groups:
                group["lr"] = rate * scale

    def _learn(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Gradients of a batch, and the optimizers' steps after the last batch of an update; returns the losses."""
        target, heard, bandwidths = (
            batch[name].to(self.accelerator.device) for name in ("target_waveforms", "waveforms", "bandwidths")
        )
        # noise is a matter of the crop: the same on any number of processes, and after a resume
        generators = [torch.Generator().manual_seed(seed) for seed in batch["seeds"]]
        with self._autocast():
            output = self.vae(heard, target_waveforms=target, bandwidths=bandwidths, generator=generators)
        # before the discriminators learn from it; what comes of them shows in the gradients
        self._refuse_nonfinite(output.loss, "loss")
        losses, total = {name: output[name] for name in ("mel_loss", "stft_loss", "kl_loss")}, output.loss
        if self.discriminators is not None and self.progress.step >= self.arguments.adversarial_start_step:
            made, recorded = (
                self._shorten(limit_bandwidth(x, bandwidths, self.model.config.sampling_rate), batch["seeds"])
                for x in (output.waveforms, target)
            )
            losses |= self._discriminate(recorded, made)
            losses["adversarial_loss"], losses["feature_loss"] = self._judge(recorded, made)
            total = (
                total
                + self.arguments.adversarial_loss_weight * losses["adversarial_loss"]
                + self.arguments.feature_loss_weight * losses["feature_loss"]
            )
        self.accelerator.backward(total)
        grad_norm = self._step(self.optimizer, self.vae.parameters(), "gradients")
        return {"loss": total, **losses, "grad_norm": grad_norm}

    def _shorten(self, waveforms: torch.Tensor, seeds: list[int]) -> torch.Tensor:
        """The part of each row `(B, S)` that the discriminators hear, drawn with its seed."""
        seconds = self.arguments.discriminators.crop_seconds
        length = waveforms.shape[1] if seconds is None else round(seconds * self.model.config.sampling_rate)
        latest = max(1, waveforms.shape[1] - length + 1)
        return torch.stack([row[seed % latest :][:length] for row, seed in zip(waveforms, seeds, strict=True)])

    def _discriminate(self, recorded: torch.Tensor, made: torch.Tensor) -> dict[str, torch.Tensor]:
        """The discriminators' loss and gradient norm, after their step."""
        with self._autocast():
            # one call for both: processes exchange the gradients of one call
            features = self.discriminators(torch.cat([recorded, made.detach()]))
        real, fake = ([[x.chunk(2)[half] for x in layers] for layers in features] for half in (0, 1))
        loss = discriminator_loss(real, fake)
        self.accelerator.backward(loss)
        parameters = self.discriminators.parameters()
        grad_norm = self._step(self.discriminator_optimizer, parameters, "gradients of the discriminators")
        return {"discriminator_loss": loss, "discriminator_grad_norm": grad_norm}

    def _judge(self, recorded: torch.Tensor, made: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the discriminators make of reconstructions: adversarial and feature loss, no gradients of their own."""
        judges = self.accelerator.unwrap_model(self.discriminators).requires_grad_(False)
        with self._autocast():
            with torch.no_grad():
                expected = judges(recorded)
            features = judges(made)
        judges.requires_grad_(True)
        return adversarial_loss(features), feature_matching_loss(expected, features)

    def _step(self, optimizer: Any, parameters: Iterable[nn.Parameter], name: str) -> torch.Tensor:
        """Steps after the last batch of an update; the norm counts once, whatever the number of batches."""
        norm = torch.zeros((), device=self.accelerator.device)
        if self.accelerator.sync_gradients:
            norm = self.accelerator.clip_grad_norm_(parameters, self.arguments.max_grad_norm)
            self._refuse_nonfinite(norm, f"norm of the {name}")
        optimizer.step()
        optimizer.zero_grad()
        return norm * self.arguments.gradient_accumulation_steps

    def _refuse_nonfinite(self, value: torch.Tensor, name: str):
        """Stops all processes before anything is learnt from what is not a number."""
        if torch.isfinite(self.accelerator.gather(value.detach().float().reshape(1))).all():
            return
        step, rank = self.progress.step, self.accelerator.process_index
        if not torch.isfinite(value):
            report = {"step": step, "what": name, "value": str(value.item()), "ids": self.recent_ids}
            path = self.folder / f"nonfinite-{step}-{rank}.json"
            path.write_text(json.dumps(report, indent=2), encoding="utf-8")
        raise ArithmeticError(
            f"The {name} of step {step} is not finite. The ids of its recordings are in {self.folder}, "
            f"nonfinite-{step}-<rank>.json; the last checkpoint is as it was."
        )

    def _autocast(self) -> torch.autocast:
        is_enabled = self.arguments.mixed_precision == "bf16"
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=is_enabled)

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

    @contextmanager
    def _averaged(self) -> Iterator[DiTARVAE]:
        """The model with the averaged weights, for as long as the block lasts."""
        self.average.store(self.model.parameters())
        self.average.copy_to(self.model.parameters())
        try:
            yield self.model
        finally:
            self.average.restore(self.model.parameters())
            self.model.train()

    def _evaluate(self):
        """Losses of the averaged model on the held-out clips, and what it makes of them, to the trackers."""
        if self.accelerator.is_main_process:
            with self._averaged() as model:
                values, pairs = evaluate_clips(model, self.clips)
            self.log.note(self.progress.step, values)
            track_reconstructions(self.accelerator, pairs, self.model.config.sampling_rate, self.progress.step)
        self.accelerator.wait_for_everyone()

    def _save(self):
        def save_averaged(folder: Path):
            with self._averaged() as model:
                model.save_pretrained(folder / "averaged")

        limit = self.arguments.save_total_limit
        save_checkpoint(self.accelerator, self.folder, self.progress, self.description, limit, save_averaged)

    def _finish(self) -> DiTARVAE:
        """Puts the average in, measures the latents and saves."""
        self.average.copy_to(self.model.parameters())
        self.model.eval().requires_grad_(True)
        # where the encoder has stood still from the start, latents stay what they were, statistics included
        if not (self.arguments.start_from and self.arguments.freeze_encoder_step == 0):
            if self.accelerator.is_main_process:
                crops = self._make_crops(
                    arguments=self.arguments.crops.without_changes(), seed=self.arguments.seed + 1
                )
                batches = DataLoader(crops, batch_size=None)
                measure_latent_statistics(self.model, batches, self.arguments.num_statistics_batches)
            for statistics in (self.model.latent_mean, self.model.latent_std):
                statistics.copy_(broadcast(statistics.clone()))
        if self.accelerator.is_main_process:
            save_model(self.model, self.folder)
        self.accelerator.wait_for_everyone()
        for tracker in self.accelerator.trackers:  # not end_training: the processes may have more to do together
            tracker.finish()
        return self.model
