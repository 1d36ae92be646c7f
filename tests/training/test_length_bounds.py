"""Laws of `fit_length_bounds`: all that was measured is within the bounds, and what was within them may stay so."""

import numpy as np
import pytest

from ditar_hf import DiTARGenerationConfig
from ditar_hf.training.length_bounds import fit_length_bounds

TOKENS = [10, 20, 40, 25]
PATCHES = [12, 10, 30, 25]


def bounds_of(config):
    return config.min_patches_per_token, config.max_patches_per_token


def test_bounds_lie_a_fifth_outside_of_what_was_measured():
    config = DiTARGenerationConfig()
    fit_length_bounds(config, TOKENS, PATCHES)
    rates = np.divide(PATCHES, TOKENS)
    assert bounds_of(config) == pytest.approx((rates.min() / 1.2, rates.max() * 1.2), rel=0.01)
    config.validate()


def test_a_mistake_among_thousands_counts_for_nothing():
    config = DiTARGenerationConfig()
    fit_length_bounds(config, [20] * 4000 + [20, 20], [20] * 4000 + [1, 400])
    assert bounds_of(config) == pytest.approx((1 / 1.2, 1.2), abs=0.001)


def test_kept_bounds_are_only_widened():
    config = DiTARGenerationConfig(min_patches_per_token=0.6, max_patches_per_token=1.0)
    fit_length_bounds(config, TOKENS, PATCHES, keep=True)
    assert bounds_of(config) == pytest.approx((0.5 / 1.2, 1.2 * 1.2), abs=0.001)
    wide = DiTARGenerationConfig(min_patches_per_token=0.1, max_patches_per_token=9.0)
    fit_length_bounds(wide, TOKENS, PATCHES, keep=True)
    assert bounds_of(wide) == (0.1, 9.0)


@pytest.mark.parametrize(
    ("num_tokens", "num_patches", "message"),
    [
        ([], [], "`num_tokens` has 0 entries"),
        ([1, 2], [1], "`num_tokens` has 2 entries and `num_patches` 1"),
        ([1, 0], [1, 1], "must be positive, got 0 and 1"),
        ([1, 1], [1, -3], "must be positive, got 1 and -3"),
    ],
)
def test_bad_measurements(num_tokens, num_patches, message):
    config = DiTARGenerationConfig()
    before = bounds_of(config)
    with pytest.raises(ValueError, match=message):
        fit_length_bounds(config, num_tokens, num_patches)
    assert bounds_of(config) == before
