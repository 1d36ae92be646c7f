"""Floating-point operations of an utterance by the paper's formulas (appendix A.4), and what `generate` does besides.

The formulas count matrix products of transformers alone, an addition and a multiplication each. Two slips in print
are corrected here: Eq. 23 counts the layers twice, and in Eq. 25 and 26 one new position attends to t others, which is
2tC operations and not 2t²C.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ditar_hf import DiTARConfig

FREQUENCIES_OF_TIME = 256  # sinusoids that LocDiT's time embedding reads


@dataclass(frozen=True)
class CostSetting:
    """
    What is spoken; the defaults are those of appendix A.4.

    Args:
        prompt_seconds (`float`, *optional*, defaults to 3.0): Length of the voice prompt.
        target_seconds (`float`, *optional*, defaults to 10.0): Length of the speech.
        num_text_tokens (`int`, *optional*, defaults to 91): Phonemes of prompt and target.
        num_inference_steps (`int`, *optional*, defaults to 10): Solver steps for each patch (NFE).
        has_guidance (`bool`, *optional*, defaults to `True`): Whether LocDiT runs with and without its condition.

    Raises:
        ValueError: If a number makes no sense.
    """

    prompt_seconds: float = 3.0
    target_seconds: float = 10.0
    num_text_tokens: int = 91
    num_inference_steps: int = 10
    has_guidance: bool = True

    def __post_init__(self):
        for name in ("target_seconds", "num_text_tokens", "num_inference_steps"):
            value = getattr(self, name)
            if not math.isfinite(value) or value <= 0:
                raise ValueError(f"`{name}` is {value}: pass more than 0.")
        if not math.isfinite(self.prompt_seconds) or self.prompt_seconds < 0:
            raise ValueError(f"`prompt_seconds` is {self.prompt_seconds}: pass 0 or more.")

    @property
    def num_branches(self) -> int:
        """Rows of LocDiT for each row of the batch."""
        return 2 if self.has_guidance else 1


def transformer_flops(num_layers: int, hidden_size: int, intermediate_size: int, length: float) -> float:
    """
    Operations of a transformer that reads a sequence at once (Eq. 15 to 22).

    Args:
        num_layers (`int`): Layers (N).
        hidden_size (`int`): Width (C).
        intermediate_size (`int`): Width of the two-matrix FFN.
        length (`float`): Positions (T).

    Returns:
        `float`: Multiplications and additions.
    """
    projections = 8 * hidden_size**2  # queries, keys, values and output
    ffn = 4 * hidden_size * intermediate_size
    attention = 4 * length * hidden_size  # weights and values
    return num_layers * length * (projections + ffn + attention)


def causal_flops(num_layers: int, hidden_size: int, intermediate_size: int, prefix: float, length: float) -> float:
    """
    Operations of a causal transformer with a cache: a prefix at once, then position by position (Eq. 23 to 31).

    Args:
        num_layers, hidden_size, intermediate_size (`int`): As of [`transformer_flops`].
        prefix (`float`): Positions of the prefix.
        length (`float`): Positions after it.

    Returns:
        `float`: Multiplications and additions.
    """
    attended = length * prefix + length * (length + 1) / 2  # sum of t from 1 + prefix to length + prefix
    steps = length * (8 * hidden_size**2 + 4 * hidden_size * intermediate_size) + 4 * hidden_size * attended
    return transformer_flops(num_layers, hidden_size, intermediate_size, prefix) + num_layers * steps


def paper_flops(config: DiTARConfig, setting: CostSetting) -> dict[str, float]:
    """
    Operations of DiTAR as the paper counts them: LocDiT reads history and noisy frames, without its condition.

    Args:
        config ([`DiTARConfig`]): Sizes; an LM with a two-matrix FFN and LocDiT as its head.
        setting ([`CostSetting`]): What is spoken.

    Returns:
        `dict[str, float]`: Of `encoder`, `language_model` and `locdit`.

    Raises:
        ValueError: If the formulas do not know such a model.
    """
    _check(config)
    num_prompt, num_new = _patches(config, setting)
    lm, frames = config.lm_config, (1 + config.num_history_patches) * config.patch_size
    calls = num_new * setting.num_inference_steps * setting.num_branches
    return {
        "encoder": (num_prompt + num_new) * _lean(config.encoder_config, 1 + config.patch_size),
        "language_model": causal_flops(
            lm.num_hidden_layers,
            lm.hidden_size,
            lm.intermediate_size,
            setting.num_text_tokens + num_prompt,
            num_new,
        ),
        "locdit": calls * _lean(config.locdit_config, frames),
    }


def further_flops(config: DiTARConfig, setting: CostSetting) -> dict[str, float]:
    """
    Operations of `generate` that the paper's formulas leave out, each by its own formula.

    Args:
        config ([`DiTARConfig`]): As of [`paper_flops`].
        setting ([`CostSetting`]): What is spoken, in one row.

    Returns:
        `dict[str, float]`: By name; with [`paper_flops`] they add up to what `generate` computes before the vocoder.

    Raises:
        ValueError: If the formulas do not know such a model.
    """
    _check(config)
    num_prompt, num_new = _patches(config, setting)
    lm, locdit, encoder = config.lm_config, config.locdit_config, config.encoder_config
    sizes = (lm.num_hidden_layers, lm.hidden_size, lm.intermediate_size)
    prefix, history = setting.num_text_tokens + num_prompt, config.num_history_patches * config.patch_size
    patch, steps = config.patch_size * config.latent_dim, num_new * setting.num_inference_steps
    frames = history + config.patch_size
    patches = num_prompt + num_new
    return {
        "condition as a token of LocDiT": steps
        * setting.num_branches
        * (_lean(locdit, 1 + frames) - _lean(locdit, frames)),
        "audio_bos in the LM": causal_flops(*sizes, prefix + 1, num_new) - causal_flops(*sizes, prefix, num_new),
        "input of the encoder": 2 * patches * patch * encoder.hidden_size,
        "output of the encoder": 2 * patches * encoder.hidden_size * lm.hidden_size,
        "condition of LocDiT": 2 * num_new * lm.hidden_size * locdit.hidden_size,
        "history of LocDiT": 2 * num_new * history * config.latent_dim * locdit.hidden_size,
        "noisy frames of LocDiT": 2 * steps * patch * locdit.hidden_size,
        "output of LocDiT": 2 * steps * setting.num_branches * patch * locdit.hidden_size,
        "embedding of times": 2
        * setting.num_inference_steps
        * locdit.hidden_size
        * (FREQUENCIES_OF_TIME + locdit.hidden_size),
        "stop head": 2 * num_new * lm.hidden_size,
    }


def _lean(part: Any, length: float) -> float:
    return transformer_flops(part.num_hidden_layers, part.hidden_size, part.intermediate_size, length)


def _patches(config: DiTARConfig, setting: CostSetting) -> tuple[int, int]:
    rate = config.sampling_rate / config.patch_length
    return round(setting.prompt_seconds * rate), max(1, round(setting.target_seconds * rate))


def _check(config: DiTARConfig):
    if config.lm_config.model_type != "arcee":
        raise ValueError(
            f"`lm_config` is of type {config.lm_config.model_type!r}: the formulas know the paper's, 'arcee'. Count "
            "what the model does with `measure_flops`."
        )
    heads = {"num_key_value_heads": config.lm_config.num_attention_heads}
    heads["head_dim"] = config.lm_config.hidden_size // config.lm_config.num_attention_heads
    for name, expected in heads.items():
        if getattr(config.lm_config, name) != expected:
            raise ValueError(
                f"`lm_config.{name}` is {getattr(config.lm_config, name)}: the formulas know {expected}, the paper's."
            )
    if config.head_type != "locdit":
        raise ValueError(f"`head_type` is {config.head_type!r}: the formulas know 'locdit', the paper's.")


# (layers, width, width of the FFN, frames a second, NFE): as the systems' own papers say
NON_AUTOREGRESSIVE = {
    "Voicebox (NFE=32)": (24, 1024, 4096, 100, 32),
    "E2TTS (NFE=32)": (24, 1024, 4096, 24000 / 256, 32),
    "F5TTS (NFE=32)": (22, 1024, 2048, 24000 / 256, 32),
}
VALL_E = {"num_layers": 12, "hidden_size": 1024, "intermediate_size": 4096}
VALL_E_FRAME_RATE, VALL_E_NUM_CODEBOOKS = 75, 8


def baseline_flops(setting: CostSetting) -> Mapping[str, float]:
    """
    Operations of those systems of Table 1 whose published sizes and these formulas suffice for.

    The diffusion transformers read prompt and target frames in each step, with and without condition; text is added
    to the frames. VALL-E draws the first code frame by frame, and each of the other seven for all frames at once.
    MegaTTS 2, NaturalSpeech 2 and 3 and MaskGCT are not here: these formulas alone do not tell their cost.

    Args:
        setting ([`CostSetting`]): What is spoken; the number of steps is each system's own.

    Returns:
        `dict[str, float]`: By the name in Table 1.
    """
    seconds = setting.prompt_seconds + setting.target_seconds
    flops = {
        name: 2 * num_steps * transformer_flops(*sizes, rate * seconds)
        for name, (*sizes, rate, num_steps) in NON_AUTOREGRESSIVE.items()
    }
    prefix = setting.num_text_tokens + VALL_E_FRAME_RATE * setting.prompt_seconds
    length = VALL_E_FRAME_RATE * setting.target_seconds
    others = (VALL_E_NUM_CODEBOOKS - 1) * transformer_flops(**VALL_E, length=prefix + length)
    return {"VALL-E": causal_flops(**VALL_E, prefix=prefix, length=length) + others, **flops}
