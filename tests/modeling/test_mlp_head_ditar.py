"""The MLP in place of LocDiT's transformer: what it sees, and that a model trains and speaks with it."""

import pytest
import torch

from ditar_hf import DiTARForTextToSpeech
from ditar_hf.modeling.mlp_head_ditar import DiTARMLPHead

MLP = {"head_type": "mlp", "patch_size": 1, "num_history_patches": 0}


@pytest.fixture
def head(make_config) -> DiTARMLPHead:
    torch.manual_seed(0)
    return DiTARMLPHead(make_config(**MLP).locdit_config).eval()


def test_each_frame_is_worked_on_alone(head):
    tokens = torch.randn(3, 1 + 4, head.norm.weight.shape[0])
    together = head(tokens)
    assert together.shape == (3, 4, tokens.shape[-1])
    for frame in range(4):
        alone = head(tokens[:, [0, 1 + frame]])
        torch.testing.assert_close(together[:, frame : frame + 1], alone)


def test_the_condition_counts(head):
    tokens = torch.randn(3, 2, head.norm.weight.shape[0])
    others = torch.cat((tokens[:, :1] + 1, tokens[:, 1:]), dim=1)
    assert (head(tokens) - head(others)).abs().max() > 1e-3


def test_a_model_with_it_learns_and_speaks(make_model):
    model = make_model(**MLP).train()
    input_ids = torch.tensor([[11, 12, 2, 3, 3, 3, 3, 3]])
    arguments = {"input_ids": input_ids, "latents": torch.randn(1, 5, model.config.latent_dim)}
    model(**arguments).loss.backward()
    assert all(weight.grad is not None for weight in model.locdit.parameters())
    speech = model.eval().generate(input_ids[:, :3], max_new_tokens=5, min_new_tokens=5, guidance_scale=2.0)
    assert len(speech.audio[0]) == 5 * model.config.vae_config.hop_length


def test_saved_equals_loaded(make_model, tmp_path):
    model = make_model(**MLP).eval()
    model.save_pretrained(tmp_path)
    loaded = DiTARForTextToSpeech.from_pretrained(tmp_path).eval()
    assert loaded.config.head_type == "mlp"
    input_ids, arguments = torch.tensor([[11, 12, 2]]), {"max_new_tokens": 4, "min_new_tokens": 4, "temperature": 0.0}
    speech, again = model.generate(input_ids, **arguments), loaded.generate(input_ids, **arguments)
    # where weights lie in memory decides on kernels, and so on the last bits
    torch.testing.assert_close(again.audio[0], speech.audio[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("sizes", [{"patch_size": 4}, {"num_history_patches": 1}])
def test_more_than_a_frame_is_refused(make_config, sizes):
    with pytest.raises(ValueError, match="`head_type` 'mlp' draws single frames"):
        make_config(**{**MLP, **sizes})


def test_an_unknown_head_is_refused(make_config):
    with pytest.raises(ValueError, match="head_type"):
        make_config(head_type="cnn")
