"""Laws of `hash_vae`: it is that of the values that latents depend on, however they are kept."""

import pytest
import torch

from ditar_hf import DiTARForTextToSpeech, DiTARVAE
from ditar_hf.training.latents import hash_vae


@pytest.fixture
def vae(make_vae) -> DiTARVAE:
    return make_vae()


def test_the_hash_is_that_of_the_values(make_vae, vae, tmp_path):
    assert hash_vae(vae) == hash_vae(make_vae())
    assert hash_vae(vae) != hash_vae(make_vae(seed=1))
    vae.save_pretrained(tmp_path / "one")
    loaded = DiTARVAE.from_pretrained(tmp_path / "one")
    assert hash_vae(loaded) == hash_vae(vae)
    loaded.save_pretrained(tmp_path / "shards", max_shard_size=20_000)
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    assert hash_vae(DiTARVAE.from_pretrained(tmp_path / "shards")) == hash_vae(vae)


@pytest.mark.parametrize("name", ["latent_mean", "latent_std", "encoder.norm.weight"])
def test_a_single_value_changes_the_hash(vae, name):
    before, tensor = hash_vae(vae), vae.state_dict()[name]
    tensor[-1] += 1e-3
    assert hash_vae(vae) != before


def test_another_decoder_of_the_same_latents_has_the_same_hash(vae):
    before = hash_vae(vae)
    vae.decoder.output_proj.bias.data += 1
    assert hash_vae(vae) == before


def test_values_have_one_hash_in_any_precision_that_holds_them(vae, make_config, tmp_path):
    state = {name: value if "latent_" in name else value.half() for name, value in vae.state_dict().items()}
    vae.save_pretrained(tmp_path, state_dict=state)
    low, high = (DiTARVAE.from_pretrained(tmp_path, dtype=dtype) for dtype in (torch.float16, torch.float32))
    assert (low.dtype, high.dtype) == (torch.float16, torch.float32)
    whole = DiTARForTextToSpeech.from_vae(high, make_config())
    assert hash_vae(low) == hash_vae(high) == hash_vae(whole.vae) != hash_vae(vae)


def test_what_is_no_weight_is_not_in_the_hash(vae):
    before = hash_vae(vae)
    vae.encoder.spectrogram.filters.zero_()  # made anew on loading
    assert hash_vae(vae) == before
