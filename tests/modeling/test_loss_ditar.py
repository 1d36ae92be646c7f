"""Losses of the model as pure functions: formulas, masks, precision, and how training times are drawn."""

import math

import pytest
import torch
from torch.nn import functional as F

from ditar_hf.modeling.loss_ditar import IGNORE_INDEX, diffusion_loss, sample_timesteps, stop_loss

CPU = torch.device("cpu")


class TestDiffusionLoss:
    def test_it_is_the_mean_square_over_frames_and_channels(self):
        prediction, target = torch.randn(3, 4, 8), torch.randn(3, 4, 8)
        expected = F.mse_loss(prediction, target)
        torch.testing.assert_close(diffusion_loss(prediction, target, torch.ones(3, 4)), expected)

    def test_masked_frames_count_for_nothing(self):
        prediction, target = torch.randn(3, 4, 8), torch.randn(3, 4, 8)
        mask = torch.ones(3, 4)
        mask[2, 1:] = 0
        real = (
            torch.cat((prediction[:2].flatten(0, 1), prediction[2, :1])),
            torch.cat((target[:2].flatten(0, 1), target[2, :1])),
        )
        torch.testing.assert_close(diffusion_loss(prediction, target, mask), F.mse_loss(*real))
        prediction[2, 1:] = 1e6
        torch.testing.assert_close(diffusion_loss(prediction, target, mask), F.mse_loss(*real))

    def test_no_frames_give_zero(self):
        assert diffusion_loss(torch.randn(1, 4, 8), torch.randn(1, 4, 8), torch.zeros(1, 4)) == 0

    def test_half_precision_is_summed_in_single(self):
        # in float16 these squares overflow
        loss = diffusion_loss(
            torch.full((1, 4, 8), 300.0, dtype=torch.float16), torch.zeros(1, 4, 8), torch.ones(1, 4)
        )
        assert loss.dtype == torch.float32 and loss == 90000


class TestStopLoss:
    labels = torch.tensor([[IGNORE_INDEX, 0, 0, 1], [IGNORE_INDEX, IGNORE_INDEX, 0, 1]])

    def test_it_is_the_mean_cross_entropy_of_labelled_states(self):
        logits = torch.randn(2, 4)
        terms = [-F.logsigmoid(-logits[0, 1]), -F.logsigmoid(-logits[0, 2]), -F.logsigmoid(-logits[1, 2])]
        terms += [-3 * F.logsigmoid(logits[0, 3]), -3 * F.logsigmoid(logits[1, 3])]
        torch.testing.assert_close(stop_loss(logits, self.labels, 3.0), sum(terms) / 5)

    def test_ignored_states_have_no_gradient(self):
        logits = torch.randn(2, 4, requires_grad=True)
        stop_loss(logits, self.labels, 5.0).backward()
        assert torch.equal(logits.grad != 0, self.labels != IGNORE_INDEX)

    def test_it_falls_towards_the_labels(self):
        right = torch.where(self.labels == 1, 20.0, -20.0)
        assert stop_loss(right, self.labels, 5.0) < 1e-6 < 10 < stop_loss(-right, self.labels, 5.0)

    def test_without_labels_it_is_zero_with_a_gradient(self):
        logits = torch.randn(2, 4, requires_grad=True)
        loss = stop_loss(logits, torch.full((2, 4), IGNORE_INDEX), 5.0)
        loss.backward()
        assert loss == 0 and not logits.grad.any()

    def test_half_precision_is_summed_in_single(self):
        loss = stop_loss(torch.randn(2, 4, dtype=torch.bfloat16), self.labels, 5.0)
        assert loss.dtype == torch.float32


class TestTimes:
    # 20,000 draws: means within 5 standard errors, so an alarm is false less than once in a million runs
    count = 20000

    def draw(self, distribution, mean=0.0, std=1.0, **options):
        return sample_timesteps((self.count,), distribution, mean, std, CPU, **options)

    def test_uniform_times_are_uniform(self):
        times = self.draw("uniform")
        assert times.min() >= 0 and times.max() < 1 and times.dtype == torch.float32
        assert abs(times.mean() - 0.5) < 5 / math.sqrt(12 * self.count)
        assert abs((times < 0.1).float().mean() - 0.1) < 5 * 0.3 / math.sqrt(self.count)

    @pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.4, 1.0), (-1.0, 0.5)])
    def test_logits_of_logit_normal_times_are_normal(self, mean, std):
        times = self.draw("logit_normal", mean, std)
        assert times.min() > 0 and times.max() < 1
        logits = times.double().logit()
        assert abs(logits.mean() - mean) < 5 * std / math.sqrt(self.count)
        assert abs(logits.std() - std) < 5 * std / math.sqrt(2 * self.count)

    @pytest.mark.parametrize("distribution", ["uniform", "logit_normal"])
    def test_generator_decides_and_the_global_source_rests(self, distribution):
        state = torch.get_rng_state()
        first, again, other = (
            self.draw(distribution, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
        )
        assert torch.equal(first, again) and not torch.equal(first, other)
        assert torch.equal(torch.get_rng_state(), state)

    def test_every_place_has_a_time_of_its_own(self):
        times = sample_timesteps((8, 16), "uniform", 0.0, 1.0, CPU)
        assert times.shape == (8, 16) and len(times.unique()) == 128
