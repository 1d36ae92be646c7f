"""Losses of the speech tokenizer: zero where nothing differs, masks, and the closed form of the divergence."""

import pytest
import torch

from ditar_hf.modeling.loss_ditar_vae import ReconstructionLoss, kl_divergence, limit_bandwidth, masked_mean


@pytest.fixture(scope="module")
def loss() -> ReconstructionLoss:
    return ReconstructionLoss(24000)


def test_masked_mean_is_the_mean_of_what_is_real():
    values, mask = torch.randn(2, 5, 3), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    real = torch.cat((values[0], values[1, :2]))
    torch.testing.assert_close(masked_mean(values, mask), real.mean())
    torch.testing.assert_close(masked_mean(values, None), values.mean())
    assert masked_mean(values, torch.zeros(2, 5)) == 0


class TestReconstruction:
    def test_a_perfect_one_costs_nothing(self, loss):
        waveforms = torch.randn(2, 4800)
        assert [part.item() for part in loss(waveforms, waveforms)] == [0, 0]

    def test_it_grows_with_the_difference(self, loss):
        waveforms, noise = torch.randn(1, 4800), torch.randn(1, 4800)
        for part in range(2):
            costs = [loss(waveforms + scale * noise, waveforms)[part].item() for scale in (0.01, 0.1, 1.0)]
            assert 0 < costs[0] < costs[1] < costs[2]

    def test_signs_cost_nothing(self, loss):
        waveforms = torch.randn(1, 4800)
        assert max(part.item() for part in loss(-waveforms, waveforms)) < 1e-5

    @pytest.mark.parametrize("length", [4800, 5000, 2401])
    def test_padding_costs_nothing(self, loss, length):
        ours, theirs = torch.randn(1, length), torch.randn(1, length)
        padded = [torch.nn.functional.pad(x, (0, 3000)) for x in (ours, theirs, torch.ones(1, length))]
        for alone, together in zip(loss(ours, theirs), loss(*padded), strict=True):
            torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)

    def test_gradients_of_silence_are_finite(self, loss):
        ours = torch.zeros(1, 4800, requires_grad=True)
        sum(loss(ours, torch.randn(1, 4800))).backward()
        assert ours.grad.isfinite().all()


class TestDivergence:
    def test_it_equals_that_of_torch(self):
        mean, logvar = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
        normal = torch.distributions.Normal
        expected = torch.distributions.kl_divergence(normal(mean, (0.5 * logvar).exp()), normal(0.0, 1.0)).mean()
        torch.testing.assert_close(kl_divergence(mean, logvar), expected)

    def test_the_prior_costs_nothing(self):
        assert kl_divergence(torch.zeros(1, 4, 3), torch.zeros(1, 4, 3)) == 0

    def test_masked_frames_count_for_nothing(self):
        mean, logvar = torch.randn(1, 5, 3), torch.randn(1, 5, 3)
        mask = torch.tensor([[1, 1, 1, 0, 0]])
        torch.testing.assert_close(kl_divergence(mean, logvar, mask), kl_divergence(mean[:, :3], logvar[:, :3]))


def test_a_batch_has_the_mean_loss_of_its_rows():
    loss = ReconstructionLoss(24000)
    ours, theirs = torch.randn(2, 2, 4800)
    theirs = theirs * torch.tensor([[1.0], [0.05]])
    rows = [torch.stack(loss(ours[i : i + 1], theirs[i : i + 1])) for i in (0, 1)]
    torch.testing.assert_close(torch.stack(loss(ours, theirs)), torch.stack(rows).mean(0))


def test_limited_bandwidth_keeps_what_is_below_and_nothing_above():
    time = torch.arange(2400) / 24000
    low, high = (torch.sin(2 * torch.pi * frequency * time).expand(2, -1) for frequency in (1000, 9000))
    limited = limit_bandwidth(low + high, torch.tensor([8000.0, 12000.0]), 24000)
    torch.testing.assert_close(limited[0], low[0], atol=1e-3, rtol=0)
    torch.testing.assert_close(limited[1], low[1] + high[1], atol=1e-3, rtol=0)


def test_gradients_are_finite_in_silence():
    waveforms = torch.zeros(1, 4800, requires_grad=True)
    sum(ReconstructionLoss(24000)(waveforms, torch.zeros(1, 4800))).backward()
    assert torch.isfinite(waveforms.grad).all()
