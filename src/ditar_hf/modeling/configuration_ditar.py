"""Configuration of DiTAR (ICML 2025): language model, patch encoder, LocDiT, tokenizer of speech, diffusion."""

import dataclasses
import difflib
import inspect
from typing import Any, Literal

from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_MAPPING, AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .configuration_ditar_vae import DiTARVAEConfig, StrictConfig, check_dtype, strict_config
from .scheduling_ditar import DiTARScheduler

# Table 8 of the paper as (layers, hidden size, heads, FFN size), and the shipped size below it
PRESETS = {
    "tiny": {"encoder": (2, 256, 4, 768), "lm": (6, 256, 4, 768), "locdit": (4, 256, 4, 768)},
    "0.1B": {"encoder": (4, 512, 8, 2048), "lm": (24, 512, 8, 1024), "locdit": (4, 512, 8, 2048)},
    "0.4B": {"encoder": (4, 1024, 16, 4096), "lm": (24, 1024, 16, 4096), "locdit": (4, 1024, 16, 4096)},
    "0.6B": {"encoder": (6, 1024, 16, 4096), "lm": (36, 1024, 16, 4096), "locdit": (6, 1024, 16, 4096)},
    "1B": {"encoder": (8, 1024, 16, 4096), "lm": (24, 1536, 24, 6144), "locdit": (8, 1024, 16, 4096)},
}
# Only the shipped size has a tokenizer of speech other than the default, which is the paper's
PRESET_VAES = {
    "tiny": {
        "encoder_type": "mel",
        "encoder_strides": (300, 2),
        "encoder_hidden_sizes": (192, 256),
        "encoder_num_layers": (2, 3),
        "decoder_type": "istft",
        "decoder_strides": (3, 200),
        "decoder_hidden_sizes": (320, 320),
        "decoder_num_layers": (2, 6),
        "decoder_causal": True,
        "decoder_lookahead_frames": 3,
        "kl_loss_weight": 0.01,
    }
}
SIZE_FIELDS = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
# The one in-tree family with RMSNorm, RoPE, pre-norm and a two-matrix FFN is Arcee; its own defaults name tokens that
# our vocabularies do not have. The size is that of "0.6B", as in the defaults of the other parts.
LM_DEFAULTS = {
    **dict(zip(SIZE_FIELDS, PRESETS["0.6B"]["lm"], strict=True)),
    "vocab_size": 256,
    "hidden_act": "gelu",
    "max_position_embeddings": 8192,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
# What the model passes to its language model, besides a cache
LM_ARGUMENTS = ("inputs_embeds", "attention_mask", "position_ids", "use_cache")


def refuse_misspelt_keys(lm_config: dict[str, Any]):
    """
    Raises where a configuration of the library would keep a misspelt key and use the default in silence.

    Files of pretrained models hold keys of all kinds, so a key is refused only if it is nearly that of a field that
    the file does not have.

    Args:
        lm_config (`dict`): Of the language model; Arcee if it has no `model_type`.

    Raises:
        ValueError: If a key looks like a misspelt field; the message names it.
    """
    model_type = lm_config.get("model_type", "arcee")
    if model_type not in CONFIG_MAPPING:
        return  # which the library refuses in its own words
    config_class = CONFIG_MAPPING[model_type]
    fields = {field.name for field in dataclasses.fields(config_class)}
    known = fields | set(config_class.attribute_map)
    for key in set(lm_config) - known:
        if near := difflib.get_close_matches(key, known - set(lm_config), n=1, cutoff=0.85):
            raise ValueError(f"`lm_config.{key}` is not a field of {config_class.__name__}: did you mean `{near[0]}`?")


def cache_name_of(model_class: type) -> str | None:
    """
    What a language model calls its cache, as an argument and in its output.

    Args:
        model_class (`type`): Of transformers.

    Returns:
        `str`: `"cache"` from transformers 5.24 on, `"past_key_values"` before; `None` if it takes none.
    """
    taken = inspect.signature(model_class.forward).parameters
    return next((name for name in ("cache", "past_key_values") if name in taken), None)


def check_language_model(lm_config: PreTrainedConfig):
    """
    Raises unless this language model reads from left to right, and goes on from a cache, embeddings and positions.

    One that sees what follows would be trained without an error, and then speak noise.

    Args:
        lm_config (`PreTrainedConfig`): Of the language model.

    Raises:
        ValueError: If it will not do; the message says why, and which will.
    """
    mappings = (MODEL_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING)
    model_class, causal_class = (mapping.get(type(lm_config), None) for mapping in mappings)
    taken = inspect.signature(model_class.forward).parameters if model_class and causal_class else {}
    problem = None
    if not taken:
        problem = "transformers has no causal language model of this type"
    elif lm_config.get_text_config() is not lm_config:
        problem = "only its text part is a language model"
    elif missing := [name for name in LM_ARGUMENTS if name not in taken]:
        problem = f"its `forward` does not take {', '.join(f'`{name}`' for name in missing)}"
    elif cache_name_of(model_class) is None:
        problem = "its `forward` does not take a cache"
    elif (
        getattr(lm_config, "is_causal", True) is False
        or getattr(lm_config, "use_bidirectional_attention", None) in (True, "all")
        # encoders that decode on request also attend to another encoder; GPT-NeoX has the field, but always decodes
        or (getattr(lm_config, "is_decoder", True) is False and "encoder_hidden_states" in taken)
    ):
        problem = "its attention sees what follows"
    if problem:
        raise ValueError(
            f"`lm_config` is of type {lm_config.model_type!r}, but {problem}: take a causal decoder, such as 'arcee', "
            "'llama' or 'qwen3'."
        )


@strict_config
class DiTARTransformerConfig(StrictConfig):
    r"""
    Configuration of the lean bidirectional transformer in patch encoder and LocDiT: pre-norm, RMSNorm, RoPE,
    two-matrix FFN.

    Args:
        num_hidden_layers (`int`, *optional*, defaults to 6): Number of blocks.
        hidden_size (`int`, *optional*, defaults to 1024): Width.
        num_attention_heads (`int`, *optional*, defaults to 16): Heads; the width of one must be even, for RoPE.
        intermediate_size (`int`, *optional*, defaults to 4096): Width of the FFN.
        rms_norm_eps (`float`, *optional*, defaults to 1e-5): Epsilon of the norms.
        rope_theta (`float`, *optional*, defaults to 10000.0): Base of the rotary angles.

    Raises:
        ValueError: If a size is not positive or the heads do not divide the width into even parts.
    """

    model_type = "ditar_transformer"

    num_hidden_layers: int = 6
    hidden_size: int = 1024
    num_attention_heads: int = 16
    intermediate_size: int = 4096
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    def validate_architecture(self):
        """Checks that sizes fit one another; called by the constructor and after overrides."""
        for name in SIZE_FIELDS:
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        if self.hidden_size % self.num_attention_heads or self.head_dim % 2:
            raise ValueError(
                f"`hidden_size` ({self.hidden_size}) must be a multiple of twice `num_attention_heads` "
                f"({self.num_attention_heads}): rotary embedding turns pairs of channels in each head."
            )


@strict_config
class DiTARConfig(StrictConfig):
    r"""
    Configuration of [`DiTARForTextToSpeech`].

    Args:
        lm_config (`dict` or `PreTrainedConfig`, *optional*):
            Any causal decoder of transformers, by its `model_type`; see `check_language_model`. Arcee with a GELU FFN
            by default, the paper's architecture; a dict without `model_type` changes fields of that.
        encoder_config ([`DiTARTransformerConfig`] or `dict`, *optional*): The patch encoder.
        locdit_config ([`DiTARTransformerConfig`] or `dict`, *optional*): The diffusion transformer.
        head_type (`str`, *optional*, defaults to `"locdit"`):
            What draws a patch: `"locdit"`, the paper's, or `"mlp"`, an MLP of `locdit_config` as in MAR, for
            comparison; it sees one frame, so it takes `patch_size=1` and `num_history_patches=0`.
        vae_config ([`DiTARVAEConfig`] or `dict`, *optional*): The frozen tokenizer of speech.
        scheduler_config (`dict`, *optional*, defaults to `{}`):
            Arguments of [`DiTARScheduler`], the only home of diffusion settings: what the model predicts, the solver.
        patch_size (`int`, *optional*, defaults to 4): Latent frames in a patch (P); one patch is one LM token.
        latent_dim (`int`, *optional*, defaults to 64): Channels of a latent frame, as in `vae_config`.
        num_history_patches (`int`, *optional*, defaults to 1):
            Clean patches that LocDiT sees before the noisy one: 0, 1, 2.
        sampling_rate (`int`, *optional*, defaults to 24000): Samples a second, as in `vae_config`.
        pad_token_id (`int`, *optional*, defaults to 0): Token of left padding.
        audio_bos_token_id (`int`, *optional*, defaults to 2): Token after the text, whose state draws the first patch.
        audio_patch_token_id (`int`, *optional*, defaults to 3): Placeholder in `input_ids` for a patch.
        initializer_range (`float`, *optional*, defaults to 0.02): Standard deviation of initial weights.
        condition_dropout (`float`, *optional*, defaults to 0.1):
            Probability that LocDiT is trained without the LM's output, for LM guidance (section 3.5.2).
        num_noise_samples (`int`, *optional*, defaults to 1):
            Draws of (time, noise) for each patch and LM forward. The paper's is 1; 4 uses the LM's work better.
        timestep_distribution (`str`, *optional*, defaults to `"uniform"`):
            `"uniform"` (the paper) or `"logit_normal"`, the sigmoid of a normal variable.
        timestep_logit_mean (`float`, *optional*, defaults to 0.4): Mean of that variable.
        timestep_logit_std (`float`, *optional*, defaults to 1.0): Its standard deviation.
        history_noise_std (`float`, *optional*, defaults to 0.0):
            Noise on the latents that patch encoder and history see in training, against exposure bias.
        sample_latents (`bool`, *optional*, defaults to `False`):
            Whether training on waveforms draws latents from the posterior rather than taking its mean.
        stop_loss_weight (`float`, *optional*, defaults to 1.0): Weight of the stop loss.
        stop_positive_weight (`float`, *optional*, defaults to 5.0):
            Weight of the one positive label of an utterance in the stop loss.
        alignment_loss_weight (`float`, *optional*, defaults to 0.0):
            Weight of a training-only loss on which token each patch speaks, for data with known timing. 0, the paper's
            recipe, builds no head for it.

    Raises:
        ValueError: If a value is of a wrong type, sizes contradict one another, a key is unknown (a misspelt one would
            be lost in silence), or the language model is no causal decoder.
    """

    model_type = "ditar"
    keys_to_ignore_at_inference = ["past_key_values", "cache"]
    sub_configs_defaults = {
        "lm_config": SubConfigSpec(AutoConfig, model_type="arcee", init_kwargs=LM_DEFAULTS),
        "encoder_config": DiTARTransformerConfig,
        "locdit_config": DiTARTransformerConfig,
        "vae_config": DiTARVAEConfig,
    }

    lm_config: dict | PreTrainedConfig | None = None
    encoder_config: dict | PreTrainedConfig | None = None
    locdit_config: dict | PreTrainedConfig | None = None
    vae_config: dict | PreTrainedConfig | None = None
    head_type: Literal["locdit", "mlp"] = "locdit"
    scheduler_config: dict | None = None
    patch_size: int = 4
    latent_dim: int = 64
    num_history_patches: int = 1
    sampling_rate: int = 24000
    pad_token_id: int | None = 0
    audio_bos_token_id: int = 2
    audio_patch_token_id: int = 3
    tie_word_embeddings: bool = False
    initializer_range: float = 0.02
    condition_dropout: float = 0.1
    num_noise_samples: int = 1
    timestep_distribution: Literal["uniform", "logit_normal"] = "uniform"
    timestep_logit_mean: float = 0.4
    timestep_logit_std: float = 1.0
    history_noise_std: float = 0.0
    sample_latents: bool = False
    stop_loss_weight: float = 1.0
    stop_positive_weight: float = 5.0
    alignment_loss_weight: float = 0.0

    def __post_init__(self, **kwargs):
        # without the notes that diffusers makes in a scheduler's own config
        scheduler_config = self.scheduler_config or {}
        self.scheduler_config = {key: value for key, value in scheduler_config.items() if not key.startswith("_")}
        if isinstance(self.lm_config, dict):
            refuse_misspelt_keys(self.lm_config)
            check_dtype("lm_config.dtype", self.lm_config.get("dtype"))
            if "model_type" not in self.lm_config:
                self.lm_config = {"model_type": "arcee", **LM_DEFAULTS, **self.lm_config}
        try:
            super().__post_init__(**kwargs)
        except StrictDataclassError as error:  # of the language model: the other parts raise ValueError themselves
            raise ValueError(f"`lm_config` is refused by the library: {error.__cause__}") from error

    @classmethod
    def from_preset(cls, name: str, **kwargs: Any) -> "DiTARConfig":
        """
        Configuration of a size of the paper's Table 8, or of the shipped model ("tiny").

        Args:
            name (`str`): `"0.1B"`, `"0.4B"`, `"0.6B"`, `"1B"` or `"tiny"`.
            **kwargs:
                Further fields. A dict for a part changes fields of the preset's; a configuration, or a dict of another
                `model_type`, takes its place.

        Returns:
            [`DiTARConfig`].

        Raises:
            ValueError: If there is no such preset, or as the constructor.
        """
        if name not in PRESETS:
            raise ValueError(f"`name` is {name!r}, but there are only the presets {', '.join(PRESETS)}.")
        sizes = {part: dict(zip(SIZE_FIELDS, size, strict=True)) for part, size in PRESETS[name].items()}
        parts = {
            "lm_config": {**LM_DEFAULTS, **sizes["lm"]},
            "encoder_config": sizes["encoder"],
            "locdit_config": sizes["locdit"],
            "vae_config": PRESET_VAES.get(name, {}),
        }
        if isinstance(kwargs.get("lm_config"), dict):
            refuse_misspelt_keys(kwargs["lm_config"])  # before the preset's fields stand beside them
        for part, fields in parts.items():
            given, model_type = kwargs.get(part), cls.sub_configs_defaults[part].model_type
            if given is None or (isinstance(given, dict) and given.get("model_type", model_type) == model_type):
                kwargs[part] = {**fields, **(given or {})}
        return cls(**kwargs)

    @property
    def patch_length(self) -> int:
        """Samples in one patch: 2,400, a tenth of a second, by default."""
        return self.patch_size * self.vae_config.hop_length

    def get_text_config(self, *args, **kwargs) -> PreTrainedConfig:
        """The language model's configuration, which caches are built from."""
        return self.lm_config

    def to_diff_dict(self) -> dict[str, Any]:
        """What a file holds: all fields of the parts, without those that every configuration of the library has."""
        # the base class compares with a bare configuration of the LM, and Arcee's warns about its own tokens
        common = PreTrainedConfig().to_dict()
        common.pop("transformers_version")

        def own(values: dict[str, Any]) -> dict[str, Any]:
            kept = {key: value for key, value in values.items() if key not in common or value != common[key]}
            kept.pop("_name_or_path", None)  # where it was loaded from
            return {key: own(value) if key in self.sub_configs else value for key, value in kept.items()}

        values = own(self.to_dict())
        self.dict_dtype_to_str(values)
        return values

    def validate_architecture(self):
        """Checks that the parts fit one another; called by the constructor and after overrides."""
        for name in ("latent_dim", "sampling_rate"):
            if getattr(self, name) != getattr(self.vae_config, name):
                raise ValueError(
                    f"`{name}` ({getattr(self, name)}) differs from `vae_config.{name}` "
                    f"({getattr(self.vae_config, name)}): make them equal."
                )
        if self.num_history_patches not in (0, 1, 2):
            raise ValueError(f"`num_history_patches` must be 0, 1 or 2, got {self.num_history_patches}.")
        if self.head_type == "mlp" and (self.patch_size, self.num_history_patches) != (1, 0):
            raise ValueError(
                f"`head_type` 'mlp' draws single frames: pass `patch_size=1` and `num_history_patches=0`, not "
                f"{self.patch_size} and {self.num_history_patches}."
            )
        for name in ("patch_size", "num_noise_samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if not 0 <= self.condition_dropout < 1:
            raise ValueError(f"`condition_dropout` must lie in [0, 1), got {self.condition_dropout}.")
        for name in ("timestep_logit_std", "history_noise_std", "stop_loss_weight", "alignment_loss_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"`{name}` must not be negative, got {getattr(self, name)}.")
        if not self.stop_positive_weight > 0:
            raise ValueError(f"`stop_positive_weight` must be positive, got {self.stop_positive_weight}.")
        check_language_model(self.lm_config)
        tokens = {name: getattr(self, name) for name in ("pad_token_id", "audio_bos_token_id", "audio_patch_token_id")}
        if len(set(tokens.values())) < 3 or not all(
            token is not None and 0 <= token < self.lm_config.vocab_size for token in tokens.values()
        ):
            raise ValueError(
                f"{tokens} must be three different ids below `lm_config.vocab_size` ({self.lm_config.vocab_size})."
            )
        try:
            DiTARScheduler.from_config(self.scheduler_config)
        except ValueError as error:
            raise ValueError(f"`scheduler_config` is refused by the scheduler: {error}") from error


__all__ = ["DiTARConfig", "DiTARTransformerConfig"]
