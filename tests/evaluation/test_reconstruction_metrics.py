"""Laws of the distances of two waveforms, and the rate of a posterior."""

import math

import numpy as np
import pytest
import torch

from ditar_hf.evaluation.reconstruction_metrics import (
    LIMIT_DB,
    kl_bits_per_second,
    level_difference,
    peak_difference,
    si_sdr,
)
from ditar_hf.evaluation.summary import NotMeasuredError

ORIGINAL = np.random.default_rng(0).normal(size=4800).astype(np.float32)
NOISE = np.random.default_rng(1).normal(size=4800).astype(np.float32)
pairwise = pytest.mark.parametrize("metric", [si_sdr, level_difference, peak_difference])


class TestSISDR:
    def test_what_is_identical_has_the_limit(self):
        assert si_sdr(ORIGINAL, ORIGINAL) == LIMIT_DB

    @pytest.mark.parametrize("scale", [1e-3, 0.5, 7.0, -1.0])
    def test_scale_does_not_matter(self, scale):
        reconstruction = ORIGINAL + 0.1 * NOISE
        assert si_sdr(scale * reconstruction, ORIGINAL) == pytest.approx(si_sdr(reconstruction, ORIGINAL), abs=1e-3)
        assert si_sdr(reconstruction, scale * ORIGINAL) == pytest.approx(si_sdr(reconstruction, ORIGINAL), abs=1e-3)

    def test_an_offset_does_not_matter(self):
        assert si_sdr(ORIGINAL + 0.1 * NOISE + 0.3, ORIGINAL - 0.2) == pytest.approx(
            si_sdr(ORIGINAL + 0.1 * NOISE, ORIGINAL), abs=1e-3
        )

    @pytest.mark.parametrize("ratio", [-10.0, 0.0, 20.0])
    def test_orthogonal_noise_gives_its_ratio(self, ratio):
        target, noise = ORIGINAL.astype(np.float64), NOISE.astype(np.float64)
        target, noise = target - target.mean(), noise - noise.mean()
        noise -= (noise @ target) / (target @ target) * target
        noise *= math.sqrt((target @ target) / (noise @ noise) / 10 ** (ratio / 10))
        assert si_sdr(target + noise, target) == pytest.approx(ratio)

    def test_silence_has_the_lowest(self):
        assert si_sdr(np.zeros_like(ORIGINAL), ORIGINAL) == -LIMIT_DB


@pytest.mark.parametrize("metric", [level_difference, peak_difference])
class TestLevels:
    def test_twice_the_amplitude_is_six_decibels(self, metric):
        assert metric(ORIGINAL, ORIGINAL) == 0
        assert metric(-2 * ORIGINAL, ORIGINAL) == pytest.approx(20 * math.log10(2))
        assert metric(ORIGINAL, 2 * ORIGINAL) == pytest.approx(-20 * math.log10(2))

    def test_silence_has_the_lowest(self, metric):
        assert metric(np.zeros_like(ORIGINAL), ORIGINAL) == -LIMIT_DB


@pairwise
def test_a_silent_original_cannot_be_measured(metric):
    with pytest.raises(NotMeasuredError, match="silent"):
        metric(ORIGINAL, np.zeros_like(ORIGINAL))


@pairwise
@pytest.mark.parametrize("original", [ORIGINAL[:-1], ORIGINAL[None]])
def test_shapes_must_agree(metric, original):
    with pytest.raises(ValueError, match="`reconstruction` .* and `original`"):
        metric(ORIGINAL, original)


class TestRate:
    def test_the_prior_costs_nothing(self):
        assert kl_bits_per_second(torch.zeros(1, 5, 3), torch.ones(1, 5, 3), 40.0) == 0

    def test_a_posterior_made_by_hand(self):
        # half a nat in each of four channels, 40 times a second
        assert kl_bits_per_second(torch.ones(1, 5, 4), torch.ones(1, 5, 4), 40.0) == pytest.approx(80 / math.log(2))
        std = torch.full((1, 5, 2), math.exp(-3))
        expected = 2 * (0.5 * (math.exp(-6) - 1) + 3) * 25 / math.log(2)
        assert kl_bits_per_second(torch.zeros(1, 5, 2), std, 25.0) == pytest.approx(expected)

    def test_it_is_the_divergence_of_torch(self):
        mean, std = torch.randn(1, 6, 3), torch.rand(1, 6, 3) + 0.1
        normal = torch.distributions.Normal
        nats = torch.distributions.kl_divergence(normal(mean, std), normal(0.0, 1.0)).sum(-1).mean()
        assert kl_bits_per_second(mean, std, 40.0) == pytest.approx(nats.item() * 40 / math.log(2), rel=1e-5)
