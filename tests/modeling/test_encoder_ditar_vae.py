"""Encoders of the speech tokenizer: spectrogram, lengths, masks, what a causal one sees."""

import math

import pytest
import torch

from ditar_hf.modeling.encoder_ditar_vae import LogMelSpectrogram, MelEncoder, WaveformEncoder

CONV = {
    "encoder_type": "conv",
    "encoder_strides": [6, 10, 10],
    "encoder_hidden_sizes": [4, 6, 6, 8],
    "encoder_num_layers": [1, 1, 1, 1],
}
HOP = 600


@pytest.fixture
def make_encoder(make_vae_config):
    def make(kind: str, **overrides):
        torch.manual_seed(0)
        if kind == "conv":
            return WaveformEncoder(make_vae_config(**CONV, **overrides)).eval()
        return MelEncoder(make_vae_config(**overrides)).eval()

    return make


class TestSpectrogram:
    spectrogram = LogMelSpectrogram(24000, 1200, 300, 80)

    @pytest.mark.parametrize(("window", "hop"), [(1200, 300), (240, 60), (512, 128), (600, 600)])
    def test_one_frame_for_each_hop(self, window, hop):
        assert LogMelSpectrogram(24000, window, hop, 10)(torch.randn(2, 7 * hop)).shape == (2, 7, 10)

    @pytest.mark.parametrize("hertz", [200, 1000, 4000, 9000])
    def test_a_tone_is_loudest_in_the_band_around_it(self, hertz):
        tone = torch.sin(2 * math.pi * hertz * torch.arange(24000) / 24000)
        band = self.spectrogram(tone[None])[0, 20:60].mean(0).argmax()
        weights = self.spectrogram.filters[:, band]
        low, high = (weights.nonzero()[[0, -1], 0] / (len(weights) - 1) * 12000).tolist()
        assert low - 20 < hertz < high + 20

    def test_loudness_is_logarithmic(self):
        waveform = torch.randn(1, 6000)
        difference = self.spectrogram(10 * waveform) - self.spectrogram(waveform)
        torch.testing.assert_close(difference, torch.full_like(difference, math.log(10)), atol=1e-2, rtol=0)

    def test_frames_are_centred_on_their_hops(self):
        # a click in the middle of hop 10 is loudest in frame 10
        waveform = torch.zeros(1, 6000)
        waveform[0, 10 * 300 + 150] = 1.0
        assert self.spectrogram.magnitudes(waveform)[0].sum(-1).argmax() == 10

    def test_silence_is_finite_and_so_is_its_gradient(self):
        waveform = torch.zeros(1, 6000, requires_grad=True)
        mel = self.spectrogram(waveform)
        mel.sum().backward()
        assert mel.isfinite().all() and waveform.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["mel", "conv"])
class TestEncoders:
    def test_one_frame_of_mean_and_variance_for_each_hop(self, make_encoder, kind):
        assert make_encoder(kind)(torch.randn(2, 5 * HOP)).shape == (2, 5, 16)

    @pytest.mark.parametrize("causal", [False, True])
    def test_a_row_in_a_batch_equals_the_row_alone(self, make_encoder, kind, causal):
        encoder, waveforms = make_encoder(kind, encoder_causal=causal), torch.randn(2, 6 * HOP)
        mask = torch.ones(2, 6 * HOP)
        mask[1, 4 * HOP :] = 0
        batch = encoder(waveforms * mask, mask)
        torch.testing.assert_close(batch[1, :4], encoder(waveforms[1:, : 4 * HOP])[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(batch[0], encoder(waveforms[:1])[0], atol=1e-5, rtol=0)

    def test_louder_is_heard(self, make_encoder, kind):
        encoder, waveforms = make_encoder(kind), torch.randn(1, 5 * HOP)
        assert (encoder(waveforms) - encoder(0.1 * waveforms)).abs().max() > 1e-2


def first_changed_frame(encoder, start: int) -> int:
    """First frame of the output that changes with the samples from `start` on."""
    waveforms = torch.randn(1, 12 * HOP)
    changed = waveforms.clone()
    changed[:, start:] = torch.randn(1, 12 * HOP - start)
    difference = (encoder(waveforms) - encoder(changed))[0].abs().amax(-1)
    return (difference > 1e-7).nonzero()[0].item()


class TestCausality:
    def test_waveform_encoder_sees_its_own_frame_and_earlier_ones(self, make_encoder):
        encoder = make_encoder("conv", encoder_causal=True)
        for start in (6 * HOP, 6 * HOP + 1, 7 * HOP - 1):
            assert first_changed_frame(encoder, start) == 6

    def test_mel_encoder_sees_half_a_window_more(self, make_encoder):
        # windows of 300 samples every 150 reach 75 samples beyond their hop
        encoder = make_encoder("mel", encoder_causal=True)
        assert first_changed_frame(encoder, 6 * HOP + 75) == 6
        assert first_changed_frame(encoder, 6 * HOP + 70) == 5

    @pytest.mark.parametrize("kind", ["mel", "conv"])
    def test_others_see_the_future(self, make_encoder, kind):
        assert first_changed_frame(make_encoder(kind), 6 * HOP + 80) < 6


@pytest.mark.parametrize(("window", "hop"), [(240, 60), (512, 128), (1200, 300), (300, 150)])
def test_magnitudes_are_those_of_torchs_transform(window, hop):
    spectrogram = LogMelSpectrogram(24000, window, hop, 20)
    waveforms = torch.randn(2, 20 * hop)
    padding = spectrogram.num_fft - hop
    padded = torch.nn.functional.pad(waveforms, (padding // 2, padding - padding // 2))
    expected = torch.stft(
        padded, spectrogram.num_fft, hop, window, torch.hann_window(window), center=False, return_complex=True
    ).abs()
    torch.testing.assert_close(spectrogram.magnitudes(waveforms), expected.transpose(1, 2), atol=1e-4, rtol=1e-4)
