"""Length bounds of `generate`, measured on speech: how many patches a text of so many tokens may take."""

from collections.abc import Sequence

import numpy as np

from ..modeling.generation_config_ditar import DiTARGenerationConfig

# the share of utterances on either side that may be mistakes, such as a text with words that are not spoken
OUTLIERS = 0.001
MARGIN = 1.2


def fit_length_bounds(
    generation_config: DiTARGenerationConfig,
    num_tokens: Sequence[int],
    num_patches: Sequence[int],
    keep: bool = False,
):
    """
    Sets `min_patches_per_token` and `max_patches_per_token` to what utterances took, with a margin of a fifth.

    Args:
        generation_config ([`DiTARGenerationConfig`]): That of a model, changed in place.
        num_tokens (`Sequence[int]`): Text tokens of each utterance, without control tokens.
        num_patches (`Sequence[int]`): Its patches of speech.
        keep (`bool`, *optional*, defaults to `False`):
            Whether bounds are only widened. For a language or voice that is added to others: `generate` does not
            know which one it speaks, so the bounds must hold for all.

    Raises:
        ValueError: If there are no utterances, the numbers of entries differ, or one is not positive.
    """
    if not len(num_tokens) or len(num_tokens) != len(num_patches):
        raise ValueError(
            f"`num_tokens` has {len(num_tokens)} entries and `num_patches` {len(num_patches)}: give one of each for "
            "every utterance, and at least one."
        )
    if min(num_tokens) < 1 or min(num_patches) < 1:
        raise ValueError(
            f"`num_tokens` and `num_patches` must be positive, got {min(num_tokens)} and {min(num_patches)}: leave "
            "out utterances without text or speech."
        )
    rates = np.asarray(num_patches) / np.asarray(num_tokens)
    lower = round(float(np.quantile(rates, OUTLIERS)) / MARGIN, 3)
    upper = round(float(np.quantile(rates, 1 - OUTLIERS)) * MARGIN, 3)
    if keep:
        lower = min(lower, generation_config.min_patches_per_token)
        upper = max(upper, generation_config.max_patches_per_token)
    generation_config.min_patches_per_token, generation_config.max_patches_per_token = lower, upper


__all__ = ["fit_length_bounds"]
