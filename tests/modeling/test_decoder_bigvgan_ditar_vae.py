"""The paper's decoder: anti-aliased activations, masks, causality."""

import math

import pytest
import torch

from ditar_hf.modeling.decoder_bigvgan_ditar_vae import AntiAliasedSnake, BigVGANDecoder, lowpass_filter

HOP = 600
SIZES = {
    "decoder_type": "bigvgan",
    "decoder_strides": [10, 10, 6],
    "decoder_hidden_sizes": [8, 8, 4, 4],
    "decoder_num_layers": [0, 1, 1, 1],
    "decoder_kernel_sizes": [3, 5],
}


@pytest.fixture
def make_decoder(make_vae_config):
    def make(**overrides) -> BigVGANDecoder:
        torch.manual_seed(0)
        return BigVGANDecoder(make_vae_config(**SIZES, **overrides)).eval()

    return make


class TestSnake:
    def test_filter_is_symmetric_and_halves_the_band(self):
        taps = lowpass_filter()
        torch.testing.assert_close(taps, taps.flip(0))
        torch.testing.assert_close(taps.sum(), torch.tensor(1.0))
        response = torch.fft.rfft(taps, 512).abs()
        # frequencies in cycles a sample are index / 512
        assert response[: int(0.1 * 512)].min() > 0.9 and response[int(0.45 * 512) :].max() < 0.05

    def test_slow_signals_go_through_snake(self):
        snake = AntiAliasedSnake(1, causal=False)
        signal = torch.sin(2 * math.pi * torch.arange(400) / 100)[None, None]
        expected = signal + signal.sin().square()
        torch.testing.assert_close(snake(signal)[..., 50:-50], expected[..., 50:-50], atol=0.02, rtol=0)

    def test_a_causal_one_is_the_same_with_a_delay(self):
        signal = torch.randn(1, 3, 200)
        centred, causal = (AntiAliasedSnake(3, causal)(signal) for causal in (False, True))
        torch.testing.assert_close(causal[..., 30:-5], centred[..., 25:-10], atol=1e-5, rtol=0)

    def test_harmonics_beyond_the_band_fold_over_less(self):
        # the second harmonic of 0.4 cycles a sample would appear at 0.2
        signal = torch.sin(2 * math.pi * 0.4 * torch.arange(1000))[None, None]
        plain, anti_aliased = (
            torch.fft.rfft(x[0, 0, 100:900]).abs()[160]
            for x in (signal.sin().square(), AntiAliasedSnake(1, False)(signal))
        )
        assert anti_aliased < 0.5 * plain

    def test_padding_is_not_heard(self):
        states, mask = torch.randn(1, 2, 60), torch.ones(1, 60)
        mask[:, 40:] = 0
        for causal in (False, True):
            snake = AntiAliasedSnake(2, causal)
            masked = snake(states, mask)
            torch.testing.assert_close(masked[..., :40], snake(states[..., :40]), atol=1e-6, rtol=0)
            assert not masked[..., 40:].any()


class TestDecoder:
    def test_a_hop_of_samples_for_each_frame(self, make_decoder):
        assert make_decoder()(torch.randn(2, 5, 8)).shape == (2, 5 * HOP)

    def test_samples_are_bounded(self, make_decoder):
        assert make_decoder()(100 * torch.randn(1, 4, 8)).abs().max() <= 1

    @pytest.mark.parametrize("causal", [False, True])
    def test_a_row_in_a_batch_equals_the_row_alone(self, make_decoder, causal):
        decoder, latents = make_decoder(decoder_causal=causal), torch.randn(2, 5, 8)
        mask = torch.ones(2, 5)
        mask[1, 3:] = 0
        batch = decoder(latents, mask)
        torch.testing.assert_close(batch[1, : 3 * HOP], decoder(latents[1:, :3])[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(batch[0], decoder(latents[:1])[0], atol=1e-5, rtol=0)

    @pytest.mark.parametrize("lookahead", [0, 1, 3])
    def test_a_causal_one_sees_as_far_ahead_as_it_says(self, make_vae_config, make_decoder, lookahead):
        overrides = {"decoder_causal": True, "decoder_lookahead_frames": lookahead}
        decoder, config = make_decoder(**overrides), make_vae_config(**SIZES, **overrides)
        latents = torch.randn(1, 10, 8)
        changed = latents.clone()
        changed[:, 6:] = torch.randn(1, 4, 8)
        difference = (decoder(latents) - decoder(changed))[0].abs()
        first = difference.nonzero()[0].item()
        bound = 6 * HOP - round(config.lookahead_seconds * config.sampling_rate)
        assert bound <= first < bound + 20

    def test_others_see_further(self, make_decoder):
        decoder, latents = make_decoder(), torch.randn(1, 10, 8)
        changed = latents.clone()
        changed[:, 6:] = torch.randn(1, 4, 8)
        assert (decoder(latents) - decoder(changed))[0, : 5 * HOP].abs().max() > 1e-6
