"""The decoder with an inverse Fourier transform: overlap-add, edges, masks, look-ahead."""

import pytest
import torch

from ditar_hf.modeling.decoder_istft_ditar_vae import InverseSTFT, ISTFTDecoder, overlap_add

HOP = 600


def random_spectrum(rows=2, frames=12, window=600) -> torch.Tensor:
    spectrum = torch.randn(rows, frames, window // 2 + 1, dtype=torch.complex64)
    # the mean and the highest frequency of a real signal are real
    spectrum[..., 0] = spectrum[..., 0].real.to(spectrum.dtype)
    spectrum[..., -1] = spectrum[..., -1].real.to(spectrum.dtype)
    return spectrum


@pytest.fixture
def make_decoder(make_vae_config):
    def make(**overrides) -> ISTFTDecoder:
        torch.manual_seed(0)
        return ISTFTDecoder(make_vae_config(**overrides)).eval()

    return make


class TestInverse:
    def test_overlap_add_sums_shifted_frames(self):
        frames, expected = torch.randn(2, 5, 12), torch.zeros(2, 4 * 3 + 12)
        for index in range(5):
            expected[:, 3 * index : 3 * index + 12] += frames[:, index]
        torch.testing.assert_close(overlap_add(frames, 3), expected)

    def test_it_equals_torch_istft_away_from_the_edges(self):
        spectrum = random_spectrum()
        ours = InverseSTFT(600, 150)(spectrum)
        theirs = torch.istft(spectrum.transpose(1, 2), 600, 150, 600, torch.hann_window(600), center=True)
        # torch centres a frame on the start of its hop, we on the middle: half a hop
        torch.testing.assert_close(ours[:, 225 + 75 : -525 + 75], theirs[:, 225:-375], atol=1e-5, rtol=0)

    def test_it_inverts_the_transform_of_a_signal(self):
        signal, window, hop = torch.randn(2, 1800), 600, 150
        start = (window - hop) // 2
        frames = torch.nn.functional.pad(signal, (start, start)).unfold(1, window, hop)  # (B, T, W)
        spectrum = torch.fft.rfft(frames * torch.hann_window(window))
        assert spectrum.shape[1] == 1800 // hop
        # at the ends fewer windows overlap, but their sum is known
        torch.testing.assert_close(InverseSTFT(window, hop)(spectrum), signal, atol=1e-4, rtol=0)

    def test_a_row_in_a_batch_equals_the_row_alone(self):
        spectrum, mask = random_spectrum(), torch.ones(2, 12)
        mask[1, 8:] = 0
        inverse = InverseSTFT(600, 150)
        torch.testing.assert_close(inverse(spectrum, mask)[1, : 8 * 150], inverse(spectrum[1:, :8])[0])


class TestDecoder:
    def test_a_hop_of_samples_for_each_frame(self, make_decoder):
        assert make_decoder()(torch.randn(2, 5, 8)).shape == (2, 5 * HOP)

    @pytest.mark.parametrize("causal", [False, True])
    def test_a_row_in_a_batch_equals_the_row_alone(self, make_decoder, causal):
        decoder, latents = make_decoder(decoder_causal=causal), torch.randn(2, 6, 8)
        mask = torch.ones(2, 6)
        mask[1, 4:] = 0
        batch = decoder(latents, mask)
        torch.testing.assert_close(batch[1, : 4 * HOP], decoder(latents[1:, :4])[0], atol=1e-6, rtol=0)
        torch.testing.assert_close(batch[0], decoder(latents[:1])[0], atol=1e-6, rtol=0)

    @pytest.mark.parametrize("lookahead", [0, 1, 3])
    def test_a_causal_one_sees_as_far_ahead_as_it_says(self, make_vae_config, make_decoder, lookahead):
        overrides = {"decoder_causal": True, "decoder_lookahead_frames": lookahead}
        decoder, config = make_decoder(**overrides), make_vae_config(**overrides)
        latents = torch.randn(1, 16, 8)
        changed = latents.clone()
        changed[:, 8:] = torch.randn(1, 8, 8)
        difference = (decoder(latents) - decoder(changed))[0].abs()
        first = difference.nonzero()[0].item()
        bound = 8 * HOP - round(config.lookahead_seconds * config.sampling_rate)
        # windows begin with 0 and rise slowly
        assert bound <= first < bound + 20

    def test_others_see_further(self, make_decoder):
        decoder, latents = make_decoder(), torch.randn(1, 16, 8)
        changed = latents.clone()
        changed[:, 8:] = torch.randn(1, 8, 8)
        assert (decoder(latents) - decoder(changed))[0, : 7 * HOP].abs().max() > 1e-6

    def test_magnitudes_are_bounded(self, make_decoder):
        assert make_decoder()(1e4 * torch.randn(1, 5, 8)).isfinite().all()
