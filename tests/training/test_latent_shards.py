"""Laws of the files of a store: what is read, and that a batch is its rows alone and keeps to its budget."""

import numpy as np
import pytest
import soundfile
import torch

from ditar_hf import DiTARVAE
from ditar_hf.training import latent_shards
from ditar_hf.training.audio import UnusableAudioError
from ditar_hf.training.examples import ExampleArguments, LeftOutError, trim_end
from ditar_hf.training.filters import FilterArguments
from ditar_hf.training.latent_shards import encode_waveforms, plan_batches, read_waveform
from ditar_hf.training.schema import make_example

LENGTHS = [5000, 2400, 12_345, 1, 7200, 2401]


@pytest.fixture
def vae(make_vae) -> DiTARVAE:
    return make_vae()


ANY = FilterArguments(require_text=False)
AS_RECORDED = ExampleArguments(trim_margin_seconds=None)


@pytest.fixture
def row(tmp_path):
    """A second of noise and a second of silence, at 16 kHz."""
    noise = 0.2 * np.random.default_rng(0).standard_normal(16_000)
    soundfile.write(tmp_path / "x.wav", np.concatenate([noise, np.zeros(16_000)]), 16_000)
    return make_example("x", path=tmp_path / "x.wav", text="A cat.", language="en")


def test_a_recording_of_a_low_rate_is_read_if_that_is_allowed(row):
    assert len(read_waveform(row, 24_000, ANY, AS_RECORDED)) == 48_000
    with pytest.raises(UnusableAudioError, match="sampling rate is 16000 Hz, less than 16001 Hz"):
        read_waveform(row, 24_000, ANY, ExampleArguments(min_sampling_rate=16_001))


def test_it_ends_where_training_on_audio_ends_it(row):
    whole, trimmed = (read_waveform(row, 16_000, ANY, how) for how in (AS_RECORDED, ExampleArguments()))
    expected = trim_end(whole, 16_000, ExampleArguments.trim_margin_seconds, ExampleArguments.trim_threshold_decibels)
    assert np.array_equal(trimmed, expected) and len(whole) == 32_000 and len(trimmed) < 18_000


@pytest.mark.parametrize(
    ("filters", "reason"),
    [
        ({"languages": ["de"]}, "another language"),
        ({"min_dnsmos": 3.0}, "no DNSMOS stated"),
        ({"max_seconds": 1.5}, "too long"),  # with its silence
        ({"min_seconds": 1.5}, "too short"),  # without
        ({"min_seconds": 2.5}, "too short"),
        ({"max_characters_per_second": 5.0}, "text too long for its audio"),  # without its silence
    ],
)
def test_filters_hold_before_and_after_the_silence_is_off(row, filters, reason):
    with pytest.raises(LeftOutError, match=reason):
        read_waveform(row, 16_000, FilterArguments(**filters), ExampleArguments())


def test_no_more_is_decoded_than_tells_that_it_is_too_long(row, monkeypatch):
    decoded, decode = [], latent_shards.decode_audio

    def noted(*arguments, **options):
        decoded.append(decode(*arguments, **options))
        return decoded[-1]

    monkeypatch.setattr(latent_shards, "decode_audio", noted)
    with pytest.raises(LeftOutError, match="too long"):
        read_waveform(row, 16_000, FilterArguments(max_seconds=0.25), AS_RECORDED)
    assert len(decoded[0][0]) == 20_000


def test_a_batch_is_the_rows_alone(vae):
    waveforms = [0.2 * torch.randn(length).numpy() for length in LENGTHS]
    for alone, together in zip(waveforms, encode_waveforms(vae, waveforms, 4, "float32"), strict=True):
        alone = encode_waveforms(vae, [alone], 4, "float32")[0].astype(np.float32)
        np.testing.assert_allclose(together.astype(np.float32), alone, atol=1e-4, rtol=2**-10)


def test_low_precision_is_close(vae):
    waveforms = [0.2 * torch.randn(length).numpy() for length in LENGTHS]
    expected = np.concatenate(encode_waveforms(vae, waveforms, 4, "float32")).astype(np.float32)
    rough = np.concatenate(encode_waveforms(vae, waveforms, 4, "float16")).astype(np.float32)
    assert 0 < np.abs(rough - expected).max() < 0.02


def test_batches_keep_to_the_budget():
    lengths = dict(enumerate([3, 9, 1, 4, 50, 4, 2]))
    batches = plan_batches(lengths, 12)
    assert sorted(place for batch in batches for place in batch) == list(lengths)
    assert batches[0] == [4]  # longer than the budget: alone
    assert all(len(batch) * max(lengths[place] for place in batch) <= 12 for batch in batches[1:])
    assert plan_batches({}, 12) == []
