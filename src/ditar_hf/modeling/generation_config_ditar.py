"""How DiTAR samples: the one home of its defaults."""

import math
from numbers import Integral, Real
from typing import Any

from transformers import GenerationConfig, PreTrainedConfig

DEFAULTS = {
    "temperature": 1.0,
    "guidance_scale": 2.0,
    "num_inference_steps": 10,
    "max_new_tokens": 600,
    "min_new_tokens": 1,
    "stop_threshold": 0.5,
    "max_patches_per_token": 1.5,
    "min_patches_per_token": 0.2,
    "spare_patches": 10,
    "compile_patch_step": False,
}
# More is a slip of the keyboard, whose grid of times might fill the memory.
MOST_STEPS = 1000
# What the library and its pipelines may set besides; all else would be ignored, so it is refused.
SHARED_ARGUMENTS = {"cache_implementation", "pad_token_id", "return_dict_in_generate", "use_cache"}
# What the library notes in any generation config without being asked, and nobody reads here
LIBRARY_NOTES = {"bos_token_id", "eos_token_id", "transformers_version"}


class DiTARGenerationConfig(GenerationConfig):
    """
    Settings of [`DiTARForTextToSpeech.generate`].

    Args:
        temperature (`float`, *optional*, defaults to 1.0):
            The paper's τ in [0, 1] (section 3.4): 0 is deterministic, 1 solves the plain ODE from noise.
        guidance_scale (`float`, *optional*, defaults to 2.0):
            Strength of LM guidance, 1 + w of Eq. 2: 1 is none, and then LocDiT runs on half as many rows.
        num_inference_steps (`int`, *optional*, defaults to 10): Solver steps a patch (NFE), at most 1000.
        max_new_tokens (`int`, *optional*, defaults to 600): Most patches of a row; 10 are a second.
        min_new_tokens (`int`, *optional*, defaults to 1): Fewest patches of a row.
        stop_threshold (`float`, *optional*, defaults to 0.5): Probability above which a row stops.
        max_patches_per_token (`float`, *optional*, defaults to 1.5):
            Bounds a row's patches, prompt included, by the number of its text tokens; measured on the training data.
        min_patches_per_token (`float`, *optional*, defaults to 0.2): The same from below.
        spare_patches (`int`, *optional*, defaults to 10): Added to the upper bound, for pauses.
        compile_patch_step (`bool`, *optional*, defaults to `False`):
            Whether to compile the work of one patch; needs `cache_implementation="static"`.
        cache_implementation (`str`, *optional*): `"dynamic"` (default) or `"static"`, whose memory is taken at once.
        **kwargs:
            What the library sets in any generation config: ids of special tokens, `use_cache=True`,
            `return_dict_in_generate=True`.

    Raises:
        ValueError: If a value is out of range, see `validate`, or a setting is none of these, such as `num_beams`.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**{**DEFAULTS, **kwargs})

    @classmethod
    def from_model_config(cls, model_config: PreTrainedConfig) -> "DiTARGenerationConfig":
        """
        The defaults: a model's configuration holds nothing about sampling.

        Args:
            model_config ([`DiTARConfig`]): Its padding token is taken over.

        Returns:
            [`DiTARGenerationConfig`].
        """
        return cls(pad_token_id=model_config.pad_token_id)

    def validate(self, strict: bool = False, user_set_attributes: set[str] | None = None):
        """
        Checks names and ranges; called by the constructor, `update` and `save_pretrained`.

        Args:
            strict (`bool`, *optional*, defaults to `False`): The library's; all checks are strict here.
            user_set_attributes (`set[str]`, *optional*): The library's, for its warnings.

        Raises:
            ValueError: With the setting's name, its value and what it may be.
        """
        self._check_names()
        for name, low, high in (
            ("num_inference_steps", 1, MOST_STEPS),
            ("max_new_tokens", 1, None),
            ("min_new_tokens", 1, None),
            ("spare_patches", 0, None),
        ):
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool) or value < low or value > (high or value):
                bounds = f"of at least {low}" if high is None else f"from {low} to {high}"
                raise ValueError(f"`{name}` must be a whole number {bounds}, got {value!r}.")
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"`min_new_tokens` ({self.min_new_tokens}) must not exceed `max_new_tokens` ({self.max_new_tokens})."
            )
        for name, low, high, meaning in (
            ("temperature", 0, 1, "0 is deterministic, 1 the plain ODE"),
            ("guidance_scale", 1, float("inf"), "1 is no guidance"),
            ("stop_threshold", 0, 1, "a probability"),
            ("min_patches_per_token", 0, float("inf"), "0 is no bound"),
            ("max_patches_per_token", 0, float("inf"), "from measured speech"),
        ):
            value = getattr(self, name)
            is_number = isinstance(value, Real) and not isinstance(value, bool)
            if not is_number or not _is_finite(value) or not low <= value <= high:
                raise ValueError(f"`{name}` must be a finite number in [{low}, {high}] ({meaning}), got {value!r}.")
        if self.cache_implementation not in (None, "dynamic", "static"):
            raise ValueError(
                f"`cache_implementation` must be 'dynamic' or 'static', got {self.cache_implementation!r}."
            )
        if not isinstance(self.compile_patch_step, bool):
            raise ValueError(f"`compile_patch_step` must be True or False, got {self.compile_patch_step!r}.")
        if self.compile_patch_step and self.cache_implementation != "static":
            raise ValueError(
                "`compile_patch_step=True` needs `cache_implementation='static'`, whose shapes do not grow."
            )

    def _check_names(self):
        """Raises for settings that would have no effect."""
        effective = {*DEFAULTS, *SHARED_ARGUMENTS, *LIBRARY_NOTES}
        for name in self.to_diff_dict():
            if name not in effective and not name.startswith("_"):
                raise ValueError(
                    f"`{name}` is not a setting of {type(self).__name__}; it has "
                    f"{', '.join(f'`{name}`' for name in DEFAULTS)}."
                )
        for name in ("use_cache", "return_dict_in_generate"):
            if getattr(self, name) not in (None, True):
                raise ValueError(
                    f"`{name}` must be True, got {getattr(self, name)!r}: patches are always drawn with a cache, and "
                    "come in an output with names. Leave it out."
                )

    def merged(self, overrides: dict[str, Any]) -> "DiTARGenerationConfig":
        """
        A copy with other values.

        Args:
            overrides (`dict`): Names and values.

        Returns:
            [`DiTARGenerationConfig`].

        Raises:
            ValueError: If an argument is not one that speech is generated with, or out of range.
        """
        if unknown := sorted(set(overrides) - set(DEFAULTS) - SHARED_ARGUMENTS):
            names = ", ".join(f"`{name}`" for name in DEFAULTS)
            if unknown[0] == "seed":
                names = f"`generator`, such as `torch.Generator().manual_seed({overrides['seed']!r})`, {names}"
            raise ValueError(
                f"`{unknown[0]}` is not an argument of DiTAR's `generate`, which draws patches, not tokens; it takes "
                f"{names}."
            )
        return type(self)(**{**self.to_diff_dict(), **overrides})


def _is_finite(value: Real) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # of a whole number that no float is as large as
        return False


__all__ = ["DiTARGenerationConfig"]
