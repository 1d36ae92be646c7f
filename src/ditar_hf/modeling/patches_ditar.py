"""Latent frames to patches and back: pure functions.

Shapes: B batch, T latent frames, P frames in a patch, D latent channels, N patches of the longest row, K patches of
history.
"""

import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from .configuration_ditar import DiTARConfig


def split_into_patches(
    latents: torch.Tensor, latents_mask: torch.Tensor | None, config: DiTARConfig
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    Right-padded frames as patches.

    Args:
        latents (`torch.Tensor` of shape `(batch_size, num_frames, latent_dim)`): A multiple of `patch_size` frames.
        latents_mask (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*): 1 for real frames.
        config ([`DiTARConfig`]): Of the model.

    Returns:
        Patches `(B, N, P, D)`, their frames' mask `(B, N, P)` and their own `(B, N)`.

    Raises:
        ValueError: If a shape does not fit.
    """
    size = config.patch_size
    if latents.ndim != 3 or latents.shape[1] % size or latents.shape[2] != config.latent_dim:
        raise ValueError(
            f"`latents` must be (batch_size, num_frames, {config.latent_dim}) with a multiple of {size} frames, got "
            f"{list(latents.shape)}: pad waveforms to a multiple of {config.patch_length} samples."
        )
    if latents_mask is None:
        latents_mask = latents.new_ones(latents.shape[:2])
    elif latents_mask.shape != latents.shape[:2]:
        raise ValueError(f"`latents_mask` {list(latents_mask.shape)} must match `latents` {list(latents.shape[:2])}.")
    frame_mask = latents_mask.unflatten(1, (-1, size)).float()
    return latents.unflatten(1, (-1, size)), frame_mask, frame_mask[:, :, 0].bool()


def history_of(patches: torch.Tensor, num_history_patches: int) -> torch.Tensor:
    """The patches before each, oldest first, zeros before the first: `(B, N, P, D)` to `(B, N, K * P, D)`."""
    shifts = range(num_history_patches, 0, -1)
    padded = [F.pad(patches, (0, 0, 0, 0, shift, 0))[:, : patches.shape[1]] for shift in shifts]
    return torch.cat(padded, dim=2) if padded else patches[:, :, :0]


def join_frames(first: list[torch.Tensor], second: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames `(num_frames, D)` of each row, one list behind the other: right-padded `(B, T, D)` and mask `(B, T)`."""
    rows = [torch.cat(pair) for pair in zip(first, second, strict=True)]
    mask = [row.new_ones(len(row)) for row in rows]
    return pad_sequence(rows, batch_first=True), pad_sequence(mask, batch_first=True)


def check_placeholders(input_ids: torch.Tensor, patch_mask: torch.Tensor, config: DiTARConfig):
    """
    Raises unless each row has as many placeholders as patches: a surplus would go to another row's.

    Args:
        input_ids (`torch.Tensor` of shape `(batch_size, sequence_length)`): Tokens.
        patch_mask (`torch.Tensor` of shape `(batch_size, num_patches)`): 1 for real patches.
        config ([`DiTARConfig`]): Of the model.

    Raises:
        ValueError: If a row's numbers differ.
    """
    token = config.audio_patch_token_id
    placeholders, patches = (input_ids == token).sum(1).tolist(), patch_mask.sum(1).tolist()
    if placeholders != patches:
        raise ValueError(
            f"the rows of `input_ids` hold {placeholders} placeholders (id {token}), those of `latents` {patches} "
            f"patches: put one placeholder for each {config.patch_size} frames."
        )
