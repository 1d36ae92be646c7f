"""Frames to patches and back."""

import pytest
import torch

from ditar_hf.modeling.patches_ditar import check_placeholders, history_of, join_frames, split_into_patches


def frames(batch_size: int, num_frames: int) -> torch.Tensor:
    return torch.randn(batch_size, num_frames, 8)


def test_patches_are_the_frames_in_order(make_config):
    latents, config = frames(2, 12), make_config()
    patches, frame_mask, patch_mask = split_into_patches(latents, None, config)
    assert patches.shape == (2, 3, 4, 8) and torch.equal(patches.flatten(1, 2), latents)
    assert frame_mask.all() and patch_mask.all() and patch_mask.dtype == torch.bool
    mask = torch.tensor([[1] * 12, [1] * 4 + [0] * 8])
    _, frame_mask, patch_mask = split_into_patches(latents, mask, config)
    assert torch.equal(frame_mask.flatten(1), mask.float()) and patch_mask.tolist() == [
        [True] * 3,
        [True, False, False],
    ]


@pytest.mark.parametrize("shape", [(2, 11, 8), (2, 12, 7), (12, 8)])
def test_frames_that_make_no_patches(make_config, shape):
    with pytest.raises(ValueError, match="`latents` must be .* multiple of 4 frames"):
        split_into_patches(torch.zeros(shape), None, make_config())


@pytest.mark.parametrize("num_history_patches", [0, 1, 2])
def test_history_is_what_went_before_and_zeros_before_that(num_history_patches):
    patches = torch.randn(2, 5, 4, 8)
    history = history_of(patches, num_history_patches)
    assert history.shape == (2, 5, 4 * num_history_patches, 8)
    for place in range(5):
        for age in range(1, num_history_patches + 1):
            start = 4 * (num_history_patches - age)
            expected = patches[:, place - age] if place >= age else torch.zeros(2, 4, 8)
            assert torch.equal(history[:, place, start : start + 4], expected)


def test_joined_frames_follow_each_other_without_a_gap():
    first, second = [torch.randn(n, 8) for n in (4, 0, 8)], [torch.randn(n, 8) for n in (4, 12, 4)]
    latents, mask = join_frames(first, second)
    assert latents.shape == (3, 12, 8)
    for row, pair in enumerate(zip(first, second, strict=True)):
        assert torch.equal(latents[row][mask[row].bool()], torch.cat(pair))


def test_each_row_needs_its_own_placeholders(make_config):
    input_ids = torch.tensor([[5, 2, 3, 3], [5, 5, 2, 3]])
    check_placeholders(input_ids, torch.tensor([[1, 1], [1, 0]]), make_config())
    with pytest.raises(ValueError, match=r"hold \[2, 1\] placeholders .* \[1, 2\] patches"):
        check_placeholders(input_ids, torch.tensor([[1, 0], [1, 1]]), make_config())
