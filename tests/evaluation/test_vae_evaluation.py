"""Evaluation of a speech tokenizer: a perfect one, one that adds what nobody asked for, and a tiny real one."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ditar_hf import DiTARVAE
from ditar_hf.evaluation import vae_metrics
from ditar_hf.evaluation.summary import unavailable
from ditar_hf.evaluation.vae_evaluation import evaluate_vae, measure, reconstruct
from ditar_hf.evaluation.vae_metrics import METRICS, Clip, UnusableClip
from ditar_hf.modeling.loss_ditar_vae import ReconstructionLoss, limit_bandwidth

RATE, HOP = 24000, 600
TIME = np.arange(9600) / RATE
SPEECH = sum(0.2 / k * np.sin(2 * np.pi * k * 150 * TIME) for k in range(1, 6)).astype(np.float32)
ULTRASOUND = (0.1 * np.sin(2 * np.pi * 10_000 * TIME)).astype(np.float32)


class Echo:
    """A tokenizer that says what it heard, plus `surplus`."""

    def __init__(self, surplus: float | np.ndarray = 0.0):
        self.config = SimpleNamespace(sampling_rate=RATE, hop_length=HOP, frame_rate=40.0, latent_dim=4)
        self.device = torch.device("cpu")
        self.latent_mean, self.latent_std = torch.zeros(4), torch.ones(4)
        self.reconstruction_loss = ReconstructionLoss(RATE)
        self.surplus, self.num_decoded = torch.as_tensor(surplus), 0

    def encode(self, waveforms):
        assert waveforms.shape[1] % HOP == 0
        self.heard = waveforms
        ones = torch.ones(1, waveforms.shape[1] // HOP, 4)
        return SimpleNamespace(mean=ones, std=ones, mode=lambda: ones)

    def decode(self, latents):
        self.num_decoded += 1
        return self.heard + self.surplus


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Without the packages that take long, whether they are installed or not."""
    absent = unavailable("left out of the test")
    monkeypatch.setattr(vae_metrics, "track_pitch", absent)
    monkeypatch.setattr(vae_metrics, "dnsmos_overall", absent)


def result_of(vae, clip=None, recognize=None):
    return measure(reconstruct(vae, clip or Clip("one", SPEECH), limit_bandwidth, recognize))


class TestOneClip:
    def test_a_perfect_reconstruction(self):
        values = result_of(Echo()).values
        assert values["mel_distance"] == values["stft_distance"] == 0
        assert values["si_sdr"] == 100 and values["level_difference"] == values["peak_difference"] == 0
        assert values["kl_rate"] == pytest.approx(80 / math.log(2)) and values["decode_real_time_factor"] > 0

    def test_every_metric_is_measured_or_says_why_not(self):
        result = result_of(Echo())
        assert result.values.keys() | result.not_measured.keys() == METRICS.keys()
        assert not result.values.keys() & result.not_measured.keys()
        assert result.not_measured["f0_rmse"] == result.not_measured["dnsmos_original"] == "left out of the test"
        assert result.not_measured["word_error_original"] == "the clip has no text"

    def test_padding_is_taken_off_again(self):
        comparison = reconstruct(Echo(), Clip("one", SPEECH[:1000]), limit_bandwidth)
        np.testing.assert_array_equal(comparison.reconstruction, SPEECH[:1000])

    def test_above_the_bandwidth_of_a_clip_nothing_counts(self):
        wide = result_of(Echo(ULTRASOUND)).values
        narrow = result_of(Echo(ULTRASOUND), Clip("one", SPEECH, bandwidth=8000.0)).values
        assert wide["mel_distance"] > 0.3 and wide["si_sdr"] < 20
        assert narrow["mel_distance"] < 1e-3 and narrow["stft_distance"] < 0.02
        assert narrow["si_sdr"] > 80 and abs(narrow["level_difference"]) < 1e-3

    def test_what_is_heard_and_kept_is_not_limited(self):
        comparison = reconstruct(Echo(ULTRASOUND), Clip("one", SPEECH, bandwidth=8000.0), limit_bandwidth)
        np.testing.assert_allclose(comparison.reconstruction, SPEECH + ULTRASOUND, atol=1e-6)

    def test_a_reconstruction_that_is_not_finite_is_measured_in_nothing(self):
        result = result_of(Echo(float("nan")))
        assert result.values == {} and set(result.not_measured.values()) == {
            "the reconstruction holds values that are not finite"
        }

    def test_pitch_of_an_octave(self, monkeypatch):
        courses = iter([np.full(9, 300.0), np.full(9, 150.0)])
        monkeypatch.setattr(vae_metrics, "track_pitch", lambda waveform, rate: next(courses))
        values = result_of(Echo()).values
        assert values["f0_rmse"] == pytest.approx(1200) and values["voicing_error"] == 0


class TestWords:
    @staticmethod
    def hears(original, reconstruction):
        return lambda waveform, rate: original if np.array_equal(waveform, SPEECH) else reconstruction

    def test_errors_of_both_and_between(self):
        clip = Clip("one", SPEECH, text="One, two; three four!")
        result = result_of(Echo(0.01), clip, self.hears("one two three", "one too three"))
        assert result.values["word_error_original"] == 0.25 and result.values["word_error_reconstruction"] == 0.5
        assert result.values["word_error_between"] == pytest.approx(1 / 3)
        assert result.weights["word_error_original"] == 4 and result.weights["word_error_between"] == 3
        assert result.transcripts == {"original": "one two three", "reconstruction": "one too three"}

    @pytest.mark.parametrize(
        ("clip", "reason"),
        [
            (Clip("one", SPEECH), "no text"),
            (Clip("one", SPEECH, text=" ?! "), "no text"),
            (Clip("one", SPEECH, text="One two.", is_cut=True), "only the beginning"),
        ],
    )
    def test_without_a_text_what_is_heard_is_still_compared(self, clip, reason):
        result = result_of(Echo(0.01), clip, self.hears("one two", "one two"))
        assert reason in result.not_measured["word_error_original"]
        assert reason in result.not_measured["word_error_reconstruction"]
        assert result.values["word_error_between"] == 0

    def test_a_recogniser_that_hears_nothing_is_no_yardstick(self):
        result = result_of(Echo(0.01), Clip("one", SPEECH, text="One."), self.hears("", "one"))
        assert result.values["word_error_original"] == 1 and result.values["word_error_reconstruction"] == 0
        assert "hears no word" in result.not_measured["word_error_between"]

    def test_without_a_recogniser_it_is_left_out(self):
        result = result_of(Echo(), Clip("one", SPEECH, text="One."))
        assert result.not_measured["word_error_between"] == "no recogniser was named"
        assert result.transcripts == {}


class TestManyClips:
    def test_clips_that_cannot_be_used_are_counted_and_named(self):
        clips = [Clip("a", SPEECH), UnusableClip("b", "torn"), Clip("c", SPEECH[:4800])]
        seen = []
        evaluation = evaluate_vae(Echo(), iter(clips), limit_bandwidth, on_comparison=seen.append)
        assert [clip.id for clip in evaluation.clips] == [c.clip.id for c in seen] == ["a", "c"]
        assert evaluation.unusable == [UnusableClip("b", "torn")]
        summary = evaluation.summary()
        assert summary.keys() == METRICS.keys()
        assert (summary["si_sdr"]["mean"], summary["si_sdr"]["clips"]) == (100, 2)
        assert summary["f0_rmse"] == {"clips": 0, "not_measured": {"left out of the test": 2}}

    def test_word_errors_are_weighted_by_words(self):
        clips = [Clip("a", SPEECH, text="one"), Clip("b", SPEECH, text="one one one one one one one")]
        evaluation = evaluate_vae(Echo(), clips, limit_bandwidth, lambda waveform, rate: "one")
        # one of eight words was heard in both, and six of them are missing
        assert evaluation.summary()["word_error_reconstruction"]["mean"] == pytest.approx(6 / 8)

    def test_the_first_pass_is_not_timed(self):
        vae = Echo()
        evaluate_vae(vae, [Clip("a", SPEECH)] * 3, limit_bandwidth)
        assert vae.num_decoded == 4

    @pytest.mark.parametrize("clips", [[], [UnusableClip("b", "torn")]])
    def test_nothing_to_measure_is_refused(self, clips):
        with pytest.raises(ValueError, match=r"`clips`: none can be used of (0|1 \(b: torn\))\."):
            evaluate_vae(Echo(), clips, limit_bandwidth)


def test_a_tiny_tokenizer_agrees_with_its_own_losses(make_vae_config):
    vae = DiTARVAE(make_vae_config()).eval()
    vae.set_latent_statistics(torch.linspace(-1, 1, 8), torch.linspace(0.5, 2, 8))
    values = result_of(vae).values
    with torch.no_grad():
        output = vae(torch.from_numpy(SPEECH)[None])
    assert values["mel_distance"] == pytest.approx(output.mel_loss.item(), rel=1e-4)
    assert values["stft_distance"] == pytest.approx(output.stft_loss.item(), rel=1e-4)
    assert values["kl_rate"] == pytest.approx(output.kl_loss.item() * 8 * 40 / math.log(2), rel=1e-3)
