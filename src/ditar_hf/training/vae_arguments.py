"""The description of a training of the speech tokenizer, and its YAML file."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import SchedulerType, get_scheduler

from ..modeling.configuration_ditar_vae import DiTARVAEConfig, refuse_unknown_keys
from ..modeling.modeling_ditar_vae import DiTARVAE
from .data import AudioSource
from .vae_crops import CropArguments
from .vae_discriminators import DiscriminatorArguments
from .yaml_fields import build, read_yaml

# they follow a metric, which this loop does not give them
UNFIT_SCHEDULES = (SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY)
VAE_FIELDS = {entry.name for entry in dataclasses.fields(DiTARVAEConfig)}


@dataclass
class VAETrainingArguments:
    """
    A training of a [`DiTARVAE`].

    The weights of reconstruction and divergence (`mel_loss_weight`, `stft_loss_weight`, `kl_loss_weight`) stand in the
    model's configuration, `vae`.

    Args:
        output_dir (`str`): Folder of checkpoints, logs and the trained model.
        data (`list[AudioSource]`): Where recordings come from.
        vae (`dict`, *optional*): Fields of [`DiTARVAEConfig`]; with `start_from` only those that differ from it.
        start_from (`str`, *optional*): Folder or Hub id of a trained tokenizer to begin with.
        crops ([`CropArguments`], *optional*): How crops are cut.
        discriminators ([`DiscriminatorArguments`], *optional*): Their sizes.
        max_steps (`int`, *optional*, defaults to 500000): Updates of the generator.
        batch_size (`int`, *optional*, defaults to 16): Crops on each process before an update of gradients.
        gradient_accumulation_steps (`int`, *optional*, defaults to 1): Batches in an update.
        learning_rate (`float`, *optional*, defaults to 1e-4): Of the generator.
        discriminator_learning_rate (`float`, *optional*): Of the discriminators; by default the generator's.
        adam_betas (`tuple[float, float]`, *optional*, defaults to `(0.8, 0.99)`): Of both AdamW optimizers.
        weight_decay (`float`, *optional*, defaults to 0.01): Of both.
        lr_scheduler_type (`str`, *optional*, defaults to `"cosine"`): A schedule of transformers, for both.
        lr_scheduler_kwargs (`dict`, *optional*): Its further arguments.
        warmup_steps (`int`, *optional*, defaults to 1000): Steps in which the rates rise from zero.
        max_grad_norm (`float`, *optional*, defaults to 1.0): Norm to which gradients are clipped, of each optimizer.
        ema_decay (`float`, *optional*, defaults to 0.999): Of the averaged generator, which is what is saved.
        mixed_precision (`str`, *optional*, defaults to `"no"`): `"bf16"` for products in bfloat16, or `"no"`.
        adversarial_start_step (`int`, *optional*):
            Step from which the discriminators learn and are heeded; `None` for never.
        adversarial_loss_weight (`float`, *optional*, defaults to 0.2):
            Of the scores, for the generator; with the next one near HiFi-GAN's proportions to a mel loss of weight 1.
        feature_loss_weight (`float`, *optional*, defaults to 2.0): Of the distance of features, for the generator.
        freeze_encoder_step (`int`, *optional*):
            Step from which the encoder stands still, as its average then is, so that latents stay what they are and
            only the decoder learns; `None` for never.
        eval_data (`list[AudioSource]`, *optional*): Recordings held out; the first seconds of the first ones are used.
        eval_steps (`int`, *optional*, defaults to 1000): Steps between two evaluations.
        num_eval_clips (`int`, *optional*, defaults to 8): Recordings evaluated, and shown by the trackers.
        num_statistics_batches (`int`, *optional*, defaults to 64):
            Batches over which mean and deviation of the latents are measured after training.
        logging_steps (`int`, *optional*, defaults to 50): Steps between two lines of the log.
        save_steps (`int`, *optional*, defaults to 1000): Steps between two checkpoints.
        save_total_limit (`int`, *optional*, defaults to 2): Checkpoints kept.
        report_to (`list[str]`, *optional*): Trackers of accelerate, such as `tensorboard`.
        num_workers (`int`, *optional*, defaults to 0): Processes that decode audio, beside each training process.
        seed (`int`, *optional*, defaults to 0): Of initial weights, crops and noise.
        cpu (`bool`, *optional*, defaults to `False`): Leave accelerators alone.

    Raises:
        ValueError: If a value is out of its range.
    """

    output_dir: str
    data: list[AudioSource]
    vae: dict[str, Any] = field(default_factory=dict)
    start_from: str | None = None
    crops: CropArguments = field(default_factory=CropArguments)
    discriminators: DiscriminatorArguments = field(default_factory=DiscriminatorArguments)
    max_steps: int = 500_000
    batch_size: int = 16
    gradient_accumulation_steps: int = 1
    learning_rate: float = 1e-4
    discriminator_learning_rate: float | None = None
    adam_betas: tuple[float, float] = (0.8, 0.99)
    weight_decay: float = 0.01
    lr_scheduler_type: str = "cosine"
    lr_scheduler_kwargs: dict[str, Any] = field(default_factory=dict)
    warmup_steps: int = 1000
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999
    mixed_precision: str = "no"
    adversarial_start_step: int | None = None
    adversarial_loss_weight: float = 0.2
    feature_loss_weight: float = 2.0
    freeze_encoder_step: int | None = None
    eval_data: list[AudioSource] = field(default_factory=list)
    eval_steps: int = 1000
    num_eval_clips: int = 8
    num_statistics_batches: int = 64
    logging_steps: int = 50
    save_steps: int = 1000
    save_total_limit: int = 2
    report_to: list[str] = field(default_factory=list)
    num_workers: int = 0
    seed: int = 0
    cpu: bool = False

    def __post_init__(self):
        if not self.data:
            raise ValueError("`data` is empty: name at least one source of recordings.")
        for name in (
            "max_steps",
            "batch_size",
            "gradient_accumulation_steps",
            "num_eval_clips",
            "num_statistics_batches",
            "eval_steps",
            "logging_steps",
            "save_steps",
            "save_total_limit",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}: it must be at least 1.")
        for name in ("adversarial_start_step", "freeze_encoder_step"):
            if getattr(self, name) is not None and getattr(self, name) < 0:
                raise ValueError(f"`{name}` is {getattr(self, name)}: give a step from 0 on, or leave it out.")
        for name in ("learning_rate", "discriminator_learning_rate", "max_grad_norm"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"`{name}` is {getattr(self, name)}: it must be positive.")
        for name in ("weight_decay", "adversarial_loss_weight", "feature_loss_weight", "warmup_steps", "num_workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` is {getattr(self, name)}: it must not be negative.")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"`ema_decay` is {self.ema_decay}: it must lie in [0, 1); 0 keeps no average.")
        if self.mixed_precision not in ("no", "bf16"):
            raise ValueError(f"`mixed_precision` is {self.mixed_precision!r}: use 'no' or 'bf16'.")
        self._check_schedule()
        refuse_unknown_keys(DiTARVAEConfig(), {key: value for key, value in self.vae.items() if key not in VAE_FIELDS})
        if self.start_from is None:
            DiTARVAEConfig(**self.vae)

    def _check_schedule(self):
        schedules = [kind.value for kind in SchedulerType if kind not in UNFIT_SCHEDULES]
        if self.lr_scheduler_type not in schedules:
            raise ValueError(f"`lr_scheduler_type` is {self.lr_scheduler_type!r}: use one of {', '.join(schedules)}.")
        try:
            self.make_scheduler(torch.optim.SGD([torch.zeros(1)], self.learning_rate))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"`lr_scheduler_kwargs` ({self.lr_scheduler_kwargs}) do not fit {self.lr_scheduler_type!r}: {error}"
            ) from error

    def make_scheduler(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """The schedule of this run for an optimizer."""
        return get_scheduler(
            self.lr_scheduler_type,
            optimizer,
            self.warmup_steps,
            self.max_steps,
            scheduler_specific_kwargs=self.lr_scheduler_kwargs or None,
        )

    @classmethod
    def from_yaml(cls, path: str | Path) -> "VAETrainingArguments":
        """
        Reads a YAML file of these fields.

        Args:
            path (`str` or `Path`): The file.

        Returns:
            [`VAETrainingArguments`].

        Raises:
            ValueError: If it is no YAML mapping, a key is unknown (the message names the nearest), missing or of a
                wrong type.
        """
        return build(cls, read_yaml(path), str(path))

    def make_vae(self) -> DiTARVAE:
        """
        The tokenizer that a run begins with.

        Returns:
            [`DiTARVAE`], of fresh weights from the global generator, or from `start_from`; the fields in `vae` replace
            those of its file.

        Raises:
            ValueError: If `vae` asks for other sizes than the weights have.
        """
        if self.start_from is None:
            return DiTARVAE(DiTARVAEConfig(**self.vae))
        return DiTARVAE.from_pretrained(self.start_from, dtype=torch.float32, **self.vae)

    def to_dict(self) -> dict[str, Any]:
        """All fields in plain types, as a YAML or JSON file holds them."""
        return dataclasses.asdict(self)
