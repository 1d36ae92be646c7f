"""The description of a run of [`DiTARTrainer`], and its YAML file."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .batches import BatchArguments
from .data import AudioSource
from .examples import ExampleArguments
from .filters import FilterArguments
from .training_arguments import DiTARTrainingArguments
from .yaml_fields import build, read_yaml, refuse_unknown_fields

# Fields of [`DiTARConfig`] that change how a trained model learns, and nothing of what it is
TRAINING_FIELDS = {
    *("alignment_loss_weight", "condition_dropout", "history_noise_std", "num_noise_samples", "sample_latents"),
    *("stop_loss_weight", "stop_positive_weight"),
    *("timestep_distribution", "timestep_logit_mean", "timestep_logit_std"),
}
# Arguments of the `Trainer` that mean nothing here, whatever they are
UNUSED_ARGUMENTS = {
    *("num_train_epochs", "per_device_train_batch_size", "dataloader_drop_last", "label_smoothing_factor"),
    *("resume_from_checkpoint", "ignore_data_skip"),
}


@dataclass
class LatentSource:
    """
    A store of latents, made by `ditar encode`.

    Args:
        path (`str`): Its folder.
        weight (`float`, *optional*, defaults to 1.0): Share of draws, in proportion to the other weights.
        streaming (`bool`, *optional*, defaults to `False`): Read the files as they are needed, without a copy.

    Raises:
        ValueError: If `weight` is not positive.
    """

    path: str
    weight: float = 1.0
    streaming: bool = False

    def __post_init__(self):
        if not self.weight > 0:
            raise ValueError(f"`weight` of {self.path} is {self.weight}: it must be positive.")


@dataclass
class LoraArguments:
    """
    Sizes of LoRA; see [`add_lora`].

    Args:
        r (`int`, *optional*, defaults to 16): Rank of the matrices.
        alpha (`float`, *optional*, defaults to 32.0): What LoRA adds is scaled by `alpha / r`.
        dropout (`float`, *optional*, defaults to 0.0): Dropout in front of LoRA.
    """

    r: int = 16
    alpha: float = 32.0
    dropout: float = 0.0


@dataclass
class TrainingRun:
    """
    A training of DiTAR, from scratch, from a text language model, or from a trained DiTAR.

    Args:
        training (`dict`): Arguments of [`DiTARTrainingArguments`]; `output_dir` must be among them.
        data (`list[AudioSource]`, *optional*): Where speech and text come from; or else `latents`.
        latents (`list[LatentSource]`, *optional*): Speech that was encoded before.
        model (`str`, *optional*): Folder or Hub id of a trained DiTAR, to go on from.
        config (`dict`, *optional*):
            Fields of [`DiTARConfig`], and `preset`, a size of it. With `model` only those that training reads.
        attn_implementation (`str`, *optional*):
            How attention is computed, in training and in what is spoken by the way: `"sdpa"`, `"eager"`,
            `"flash_attention_2"` … The library decides by default.
        vae (`str`, *optional*): Folder or Hub id of a tokenizer of speech, for a model that is not trained yet.
        lm (`str`, *optional*): Folder or Hub id of a causal language model, whose weights are taken.
        text (`str`, *optional*, defaults to `"phonemes"`):
            What the language model reads: `"phonemes"`, or with `lm` also `"bpe"`, text as it was pretrained on.
        languages (`list[str]`, *optional*, defaults to `["en-us"]`): Languages of a fresh vocabulary of phonemes.
        new_language (`str`, *optional*): Language whose phones are added to the vocabulary of `model`.
        num_vocabulary_rows (`int`, *optional*, defaults to 20000):
            Rows whose texts a vocabulary is made from, and length bounds of generation.
        keep_voices (`bool`, *optional*, defaults to `True`):
            Whether the named voices of `model` stay, its default voice too. After a training on one new voice they
            would speak in a voice between the two.
        lora ([`LoraArguments`], *optional*): Train an adapter rather than the whole `model`.
        filters ([`FilterArguments`], *optional*): Which rows are used, by what their source states.
        examples ([`ExampleArguments`], *optional*): How rows become examples, and which do not.
        batches ([`BatchArguments`], *optional*): Sizes of batches.
        eval_data (`list[AudioSource]`, *optional*): Speech that is held out.
        num_eval_examples (`int`, *optional*, defaults to 64): Examples of it that are used, the first ones.

    Raises:
        ValueError: If these do not go together.
    """

    training: dict[str, Any]
    data: list[AudioSource] = field(default_factory=list)
    latents: list[LatentSource] = field(default_factory=list)
    model: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    attn_implementation: str | None = None
    vae: str | None = None
    lm: str | None = None
    text: Literal["phonemes", "bpe"] = "phonemes"
    languages: list[str] = field(default_factory=lambda: ["en-us"])
    new_language: str | None = None
    num_vocabulary_rows: int = 20_000
    keep_voices: bool = True
    lora: LoraArguments | None = None
    filters: FilterArguments = field(default_factory=FilterArguments)
    examples: ExampleArguments = field(default_factory=ExampleArguments)
    batches: BatchArguments = field(default_factory=BatchArguments)
    eval_data: list[AudioSource] = field(default_factory=list)
    num_eval_examples: int = 64

    def __post_init__(self):
        fresh = {"vae": self.vae, "lm": self.lm, "config: preset": self.config.get("preset")}
        if self.model is not None and (given := [name for name, value in fresh.items() if value is not None]):
            raise ValueError(f"`{given[0]}` is given with `model`, which has its own: leave one of them out.")
        if self.model is not None and (sizes := sorted(self.config.keys() - TRAINING_FIELDS)):
            raise ValueError(
                f"`config: {sizes[0]}` is given with `model`, which has its own: only what training reads may be "
                f"changed ({', '.join(sorted(TRAINING_FIELDS))})."
            )
        if "attn_implementation" in self.config:
            raise ValueError("`attn_implementation` is no field of a model: take it out of `config`, to its level.")
        if self.latents and self.filters != FilterArguments():
            raise ValueError("`filters` are for `data`: of `latents`, rows were left out when they were encoded.")
        if self.data and self.latents:
            raise ValueError("`data` and `latents` are both given: encode the rest too, or leave the latents out.")
        if self.num_eval_examples < 1 or self.num_vocabulary_rows < 1:
            raise ValueError("`num_eval_examples` and `num_vocabulary_rows` must be at least 1.")

    def check_complete(self):
        """
        Raises where something is missing, which a file may leave to the command line.

        Raises:
            ValueError: If data, a model or a tokenizer of speech is not named; the message says what.
        """
        if not self.data and not self.latents:
            raise ValueError("`data` is missing: name at least one source of speech, or `latents`.")
        if self.model is None and (self.lora is not None or self.new_language is not None):
            raise ValueError("`lora` and `new_language` are for a trained `model`: name it.")
        if self.text == "bpe" and self.lm is None:
            raise ValueError("`text: bpe` reads as a language model was pretrained to: name it as `lm`.")
        if self.model is None and self.vae is None:
            raise ValueError(
                "`model` is missing: name a trained DiTAR, or `vae`, the tokenizer of speech of a fresh one."
            )
        if not self.training.get("output_dir"):
            raise ValueError("`training: output_dir` is missing: name the run's folder.")

    @classmethod
    def from_yaml(cls, path: str | Path, **overrides: Any) -> "TrainingRun":
        """
        Reads a YAML file of these fields.

        Args:
            path (`str` or `Path`): The file.
            **overrides: Fields that replace those of the file; of `training`, those that are given.

        Returns:
            [`TrainingRun`].

        Raises:
            ValueError: If it is no YAML mapping, a key is unknown (the message names the nearest), missing or of a
                wrong type.
        """
        values = read_yaml(path)
        if not isinstance(values.get("training") or {}, dict):
            raise ValueError(f"`training` in {path} is {values['training']!r}: it must hold fields and values.")
        training = {**(values.get("training") or {}), **overrides.pop("training", {})}
        return build(cls, {**values, **overrides, "training": training}, str(path))

    def make_arguments(self) -> DiTARTrainingArguments:
        """
        The arguments of the trainer.

        Returns:
            [`DiTARTrainingArguments`].

        Raises:
            ValueError: If a key is unknown, or a value out of its range.
        """
        refuse_unknown_fields(DiTARTrainingArguments, self.training, "training")
        if unused := sorted(UNUSED_ARGUMENTS & self.training.keys()):
            raise ValueError(
                f"`training`: `{unused[0]}` has no effect: batches have no end and are packed by `batches: "
                "max_positions`, and `--resume` goes on. Leave it out."
            )
        kinds = {entry.name: str(entry.type) for entry in dataclasses.fields(DiTARTrainingArguments)}
        try:
            values = {name: _to_number(value, kinds[name]) for name, value in self.training.items()}
            return DiTARTrainingArguments(**values)
        except (TypeError, ValueError) as error:
            raise ValueError(f"`training`: {error}") from error


def _to_number(value: Any, kind: str) -> Any:
    """YAML 1.1 takes 1e-4 and 1e5, which have no point, for strings."""
    if not isinstance(value, str) or "str" in kind or not ("float" in kind or "int" in kind):
        return value
    number = float(value)
    return int(number) if "float" not in kind and number.is_integer() else number
