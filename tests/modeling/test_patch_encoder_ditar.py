"""The patch encoder: one vector for each patch, from all of its frames and no others."""

import pytest
import torch

from ditar_hf.modeling.patch_encoder_ditar import DiTARPatchEncoder


@pytest.fixture
def encoder(make_config) -> DiTARPatchEncoder:
    encoder = DiTARPatchEncoder(make_config(lm_config={"hidden_size": 48, "head_dim": 12}))
    encoder.reset_parameters()
    return encoder.eval()


def test_it_gives_one_vector_of_the_lm_s_width_for_each_patch(encoder):
    assert encoder(torch.randn(5, 4, 8)).shape == (5, 48)


def test_patches_are_independent(encoder):
    patches = torch.randn(5, 4, 8)
    for row in range(5):
        torch.testing.assert_close(encoder(patches[row : row + 1])[0], encoder(patches)[row], atol=1e-6, rtol=0)


def test_every_channel_of_every_frame_matters(encoder):
    patches = torch.randn(3, 4, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(encoder(patches).square().sum(), patches)
    assert (gradient != 0).all()


def test_order_of_frames_matters(encoder):
    patches = torch.randn(3, 4, 8)
    assert (encoder(patches) - encoder(patches.flip(1))).abs().max() > 1e-3


def test_the_learnt_token_reads(encoder):
    patches, before = torch.randn(3, 4, 8), None
    before = encoder(patches)
    encoder.patch_token.data.neg_().add_(1.0)
    assert (encoder(patches) - before).abs().max() > 1e-3


def test_reset_gives_the_token_its_initial_distribution(make_config):
    encoder = DiTARPatchEncoder(make_config(encoder_config={"hidden_size": 1024}, initializer_range=0.5))
    encoder.patch_token.data.fill_(float("nan"))
    encoder.reset_parameters()
    # 1,024 draws: the deviation of their deviation is 0.011
    assert abs(encoder.patch_token.std() - 0.5) < 0.06 and abs(encoder.patch_token.mean()) < 0.08
