"""LocDiT: the diffusion transformer that paints the next patch (DiTAR, sections 3.2 and 3.5.2)."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from .configuration_ditar import DiTARConfig
from .mlp_head_ditar import DiTARMLPHead
from .transformer_ditar import DiTARTransformer

TIME_SCALE = 1000.0  # diffusion times in [0, 1] are spread over the range that sinusoidal embeddings are made for
NUM_FREQUENCIES = 128


class DiTARTimeEmbedding(nn.Module):
    """Sinusoids of the diffusion time and an MLP."""

    def __init__(self, hidden_size: int):
        super().__init__()
        self.in_proj = nn.Linear(2 * NUM_FREQUENCIES, hidden_size)
        self.out_proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, timestep: torch.Tensor) -> torch.Tensor:
        """Times `(N,)` in [0, 1], 1 is noise, to `(N, hidden_size)`; the sinusoids are computed in fp32."""
        exponent = torch.arange(NUM_FREQUENCIES, dtype=torch.float32, device=timestep.device) / NUM_FREQUENCIES
        angle = TIME_SCALE * timestep.float()[:, None] * torch.exp(-math.log(10000.0) * exponent)
        sinusoids = torch.cat((angle.cos(), angle.sin()), dim=-1).to(self.in_proj.weight.dtype)
        return self.out_proj(F.silu(self.in_proj(sinusoids)))


class LocDiT(nn.Module):
    """
    Predicts what the scheduler asks for (a velocity by default) at the frames of one noisy patch.

    The sequence is one token of LM output plus time embedding, the frames of the history patches, oldest first, and
    the frames of the noisy patch; only the last are read out.

    Args:
        config ([`DiTARConfig`]): Uses `locdit_config`, `head_type`, `lm_config.hidden_size`, `latent_dim`,
            `patch_size` and `num_history_patches`.
    """

    def __init__(self, config: DiTARConfig):
        super().__init__()
        hidden_size = config.locdit_config.hidden_size
        self.patch_size = config.patch_size
        self.num_history_frames = config.num_history_patches * config.patch_size
        # no bias: a dropped condition is zero in front of this layer and behind it
        self.condition_proj = nn.Linear(config.lm_config.hidden_size, hidden_size, bias=False)
        self.time_embedding = DiTARTimeEmbedding(hidden_size)
        if self.num_history_frames:
            self.history_proj = nn.Linear(config.latent_dim, hidden_size)
        self.sample_proj = nn.Linear(config.latent_dim, hidden_size)
        if config.head_type == "mlp":
            self.transformer = DiTARMLPHead(config.locdit_config)
        else:
            self.transformer = DiTARTransformer(config.locdit_config, 1 + self.num_history_frames + config.patch_size)
        self.output_proj = nn.Linear(hidden_size, config.latent_dim)

    def embed_history(self, history: torch.Tensor) -> torch.Tensor:
        """History frames `(N, history_frames, latent_dim)` to tokens; the same in each step of a patch."""
        return self.history_proj(history)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        condition: torch.Tensor,
        history: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Args:
            sample (`torch.Tensor` of shape `(num_patches, patch_size, latent_dim)`): The noisy patches.
            timestep (`torch.Tensor` of shape `(num_patches,)`): Their diffusion times, 1 is noise.
            condition (`torch.Tensor` of shape `(num_patches, lm_hidden_size)`): LM outputs, zeros where dropped.
            history (`torch.Tensor` of shape `(num_patches, num_history_patches * patch_size, latent_dim)`,
            *optional*):
                The clean frames before, zeros before the first patch; needed unless there are no history patches.

        Returns:
            `torch.Tensor` of the shape of `sample`.
        """
        return self.denoise(sample, self.condition_proj(condition) + self.time_embedding(timestep), history)

    def denoise(
        self, sample: torch.Tensor, condition_embeds: torch.Tensor, history: torch.Tensor | None
    ) -> torch.Tensor:
        """As `forward`, given the sum of condition and time embedding `(num_patches, hidden_size)`."""
        tokens = [condition_embeds[:, None], self.sample_proj(sample)]
        if self.num_history_frames:
            tokens.insert(1, self.embed_history(history))
        hidden_states = self.transformer(torch.cat(tokens, dim=1))  # (N, 1 + history + P, C)
        return self.read_out(hidden_states)

    def read_out(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Final states of all tokens to the prediction at the noisy frames, `(N, patch_size, latent_dim)`."""
        return self.output_proj(hidden_states[:, -self.patch_size :])
