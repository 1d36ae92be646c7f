import pytest
import torch

from ditar_hf.training.vae_losses import adversarial_loss, discriminator_loss, feature_matching_loss


def features(score, scale=1.0):
    """Of two discriminators with two layers each."""
    torch.manual_seed(0)
    return [[scale * torch.randn(1, 2, 5), scale * torch.randn(1, 3, 4), torch.full((1, 1, 3), score)] for _ in (0, 1)]


def test_a_perfect_discriminator_has_no_loss_and_a_fooled_one_has():
    assert discriminator_loss(features(1.0), features(0.0)) == 0
    assert discriminator_loss(features(1.0), features(1.0)) == 1
    assert discriminator_loss(features(0.5), features(0.5)) == 0.5


def test_the_generator_wants_to_be_taken_for_a_recording():
    assert adversarial_loss(features(1.0)) == 0 and adversarial_loss(features(0.0)) == 1


def test_features_are_matched_without_the_scores():
    assert feature_matching_loss(features(1.0), features(0.0)) == 0
    ours, theirs = features(1.0), features(1.0, scale=3.0)
    expected = sum(
        (a - b).abs().mean() for x, y in zip(ours, theirs, strict=True) for a, b in zip(x[:2], y[:2], strict=True)
    )
    assert feature_matching_loss(ours, theirs).item() == pytest.approx(expected.item() / 4)


def test_bfloat16_features_give_float32_losses():
    low = [[x.bfloat16() for x in layers] for layers in features(0.3)]
    for loss in (adversarial_loss(low), discriminator_loss(low, low), feature_matching_loss(low, low)):
        assert loss.dtype == torch.float32
