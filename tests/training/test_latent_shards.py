"""Laws of the files of a store: what is read, and that a batch is its rows alone and keeps to its budget."""

import numpy as np
import pytest
import soundfile
import torch

from ditar_hf import DiTARVAE
from ditar_hf.training.audio import UnusableAudioError
from ditar_hf.training.latent_shards import encode_waveforms, plan_batches, read_waveform

LENGTHS = [5000, 2400, 12_345, 1, 7200, 2401]


@pytest.fixture
def vae(make_vae) -> DiTARVAE:
    return make_vae()


def test_a_recording_of_a_low_rate_is_read_if_that_is_allowed(tmp_path):
    soundfile.write(tmp_path / "x.wav", 0.1 * np.ones(800), 8000)
    audio = {"path": str(tmp_path / "x.wav"), "bytes": None}
    assert len(read_waveform(audio, 1.0, 8000, 24_000)) == 2400
    with pytest.raises(UnusableAudioError, match="sampling rate is 8000 Hz, less than 8001 Hz"):
        read_waveform(audio, 1.0, 8001, 24_000)


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
