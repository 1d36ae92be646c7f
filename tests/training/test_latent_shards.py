"""Laws of the files of a store: a batch is its rows alone, and keeps to its budget."""

import numpy as np
import pytest
import torch

from ditar_hf import DiTARVAE
from ditar_hf.training.latent_shards import encode_waveforms, plan_batches

LENGTHS = [5000, 2400, 12_345, 1, 7200, 2401]


@pytest.fixture
def vae(make_vae_config) -> DiTARVAE:
    vae = DiTARVAE(make_vae_config()).eval()
    channels = torch.linspace(0, 1, vae.config.latent_dim)
    vae.set_latent_statistics(channels - 0.4, 0.5 + channels)
    return vae


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
