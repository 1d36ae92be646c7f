"""The aggregation encoder: a patch of latent frames to one vector (DiTAR, section 3.5.2)."""

from contextlib import nullcontext

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils import is_accelerate_available

from .configuration_ditar import DiTARConfig
from .transformer_ditar import DiTARTransformer

if is_accelerate_available():
    from accelerate.utils import align_module_device
else:
    align_module_device = nullcontext  # without it, nothing is offloaded


class DiTARPatchEncoder(nn.Module):
    """Turns each patch into one vector for the LM: a learnt token reads the patch's frames (section 3.5.2)."""

    def __init__(self, config: DiTARConfig):
        super().__init__()
        hidden_size = config.encoder_config.hidden_size
        self.initializer_range, self.patch_size = config.initializer_range, config.patch_size
        self.patch_token = nn.Parameter(torch.empty(hidden_size))
        self.input_proj = nn.Linear(config.latent_dim, hidden_size)
        self.transformer = DiTARTransformer(config.encoder_config, 1 + config.patch_size)
        self.output_proj = nn.Linear(hidden_size, config.lm_config.hidden_size)

    def reset_parameters(self):
        """Gives the learnt token its initial value, also after construction on the meta device."""
        init.normal_(self.patch_token, std=self.initializer_range)

    def blank_tokens(self, num_patches: int) -> torch.Tensor:
        """The transformer's input for `N` patches, `(N, 1 + P, C)`: the learnt token, and zeros for the frames."""
        with align_module_device(self):  # an offloaded token is fetched by `forward` alone, or here
            frames = self.patch_token.new_zeros(num_patches, self.patch_size, len(self.patch_token))
            return torch.cat((self.patch_token.expand(num_patches, 1, -1), frames), dim=1)

    def read_out(self, tokens: torch.Tensor) -> torch.Tensor:
        """Learnt token and embedded frames `(N, 1 + P, C)` to embeddings `(N, H)` for the LM."""
        return self.output_proj(self.transformer(tokens)[:, 0])

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """`(N, P, D)` latents to `(N, H)` embeddings."""
        token = self.patch_token.expand(patches.shape[0], 1, -1)
        return self.read_out(torch.cat((token, self.input_proj(patches)), dim=1))
