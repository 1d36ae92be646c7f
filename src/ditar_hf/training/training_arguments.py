"""The arguments of a run of [`DiTARTrainer`]: those of the `Trainer`, with defaults of the paper, and a few more."""

from dataclasses import dataclass, field
from typing import Any

from transformers import TrainingArguments


@dataclass
class DiTARTrainingArguments(TrainingArguments):
    """
    Arguments of [`DiTARTrainer`].

    Every field of `transformers.TrainingArguments` is one of these too. Other defaults than there: `max_steps` 500000,
    `learning_rate` 1e-4, constant after `warmup_steps` 1000, `adam_beta2` 0.99 (all but the warm-up: paper, appendix
    A.1), `save_total_limit` 2, `disable_tqdm`, no tracker. Rows of a batch are counted in positions of the language
    model, so `per_device_train_batch_size` means nothing here.

    Args:
        ema_decay (`float`, *optional*, defaults to 0.999):
            Of the averaged weights, which are evaluated, heard in samples and saved at the end; 0 keeps no average.
        compile_blocks (`bool`, *optional*, defaults to `False`):
            Compile the transformers of LocDiT and patch encoder, whose calls are small and many. `torch_compile` is
            for the whole model.
        num_loader_workers (`int`, *optional*, defaults to 0): 1 reads, decodes and packs in a process beside.
        sample_steps (`int`, *optional*): Steps between two times that samples are spoken; never by default.
        sample_texts (`list[str]`, *optional*): What is spoken.
        sample_seed (`int`, *optional*, defaults to 0): Of their noise.

    Raises:
        ValueError: If a value is out of its range, or is an argument of the `Trainer` that [`DiTARTrainer`] has no
            use for.
    """

    max_steps: int = 500_000
    learning_rate: float = 1e-4
    lr_scheduler_type: str = "constant_with_warmup"
    warmup_steps: float = 1000
    adam_beta2: float = 0.99
    save_total_limit: int | None = 2
    logging_steps: float = 50
    save_steps: float = 1000
    disable_tqdm: bool | None = True
    report_to: None | str | list[str] = field(default_factory=list)
    remove_unused_columns: bool = False
    logging_nan_inf_filter: bool = False
    ema_decay: float = 0.999
    compile_blocks: bool = False
    num_loader_workers: int = 0
    sample_steps: int | None = None
    sample_texts: list[str] = field(default_factory=list)
    sample_seed: int = 0

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"`ema_decay` is {self.ema_decay}: it must lie in [0, 1); 0 keeps no average.")
        if self.num_loader_workers not in (0, 1):
            raise ValueError(f"`num_loader_workers` is {self.num_loader_workers}: it can be 0 or 1.")
        if self.sample_steps is not None and (self.sample_steps < 1 or not self.sample_texts):
            raise ValueError(
                f"`sample_steps` is {self.sample_steps} with {len(self.sample_texts)} `sample_texts`: give at least "
                "one step and one text."
            )
        if self.max_steps < 1:
            raise ValueError(f"`max_steps` is {self.max_steps}: batches have no end, so it must be at least 1.")
        if self.max_grad_norm is None:
            raise ValueError("`max_grad_norm` is None: give 0 for gradients that are not clipped.")
        self.ignore_data_skip = True  # batches begin where the run stands
        # all that is trained is used in each batch, and no buffer changes
        for name in ("ddp_find_unused_parameters", "ddp_broadcast_buffers"):
            setattr(self, name, bool(getattr(self, name)))
        self._refuse_what_has_no_effect()
        if self.n_gpu > 1:
            raise ValueError(
                f"One process sees {self.n_gpu} GPUs: start one for each, `torchrun --nproc_per_node {self.n_gpu} -m "
                "ditar_hf.cli train …`, or let it see one with CUDA_VISIBLE_DEVICES=0."
            )

    def _refuse_what_has_no_effect(self):
        """Fields of the `Trainer` that do not go with batches without end, or with an exact resume."""
        needed = {
            "save_strategy": "steps",
            "logging_strategy": "steps",
            "save_only_model": False,
            "load_best_model_at_end": False,
            "auto_find_batch_size": False,
            "push_to_hub": False,
            "enable_jit_checkpoint": False,  # a checkpoint is saved on SIGTERM anyway, between two updates
            "dataloader_num_workers": 0,  # `num_loader_workers` counts them
            "fp16": False,  # its gradients overflow on purpose; `bf16` does not
        }
        for name, value in needed.items():
            if getattr(self, name) != value:
                raise ValueError(f"`{name}` is {getattr(self, name)!r}: DiTARTrainer needs {value!r}.")
        if self.eval_strategy == "epoch":
            raise ValueError("`eval_strategy` is 'epoch', and batches have no end: use 'steps'.")

    def run_fields(self) -> dict[str, Any]:
        """The fields that decide what is learnt; a checkpoint is only resumed where they are the same."""
        names = (
            "max_steps learning_rate lr_scheduler_type lr_scheduler_kwargs warmup_steps weight_decay adam_beta1 "
            "adam_beta2 adam_epsilon optim optim_args max_grad_norm gradient_accumulation_steps bf16 seed "
            "ema_decay neftune_noise_alpha"
        )
        values = self.to_dict()
        return {name: values[name] for name in names.split()}
