"""The tokenizer of speech inside DiTAR: frozen, in fp32, and apart from all that happens to the rest."""

import torch
from torch.nn.utils.rnn import pad_sequence

from .layers_ditar_vae import keeping_dtype


class FrozenVAEMixin:
    """Keeps `self.vae` in evaluation mode, without gradients and in fp32, and encodes speech with it."""

    def freeze_vae(self):
        """Puts the tokenizer of speech into evaluation mode, without gradients."""
        self.vae.eval().requires_grad_(False)

    def train(self, mode: bool = True):
        """Sets training mode on all but the frozen tokenizer of speech."""
        super().train(mode)
        # loading makes all parameters trainable again, and ends in `eval()`
        self.freeze_vae()
        return self

    def _apply(self, fn, recurse: bool = True):
        # `.to(bfloat16)` and the like must move the tokenizer of speech but not round it
        vae = self._modules.pop("vae")
        try:
            super()._apply(fn, recurse)
            vae._apply(keeping_dtype(fn), recurse)
        finally:
            self._modules["vae"] = vae
        return self

    @torch.no_grad()
    def encode_waveforms(
        self,
        waveforms: torch.Tensor,
        waveforms_mask: torch.Tensor | None = None,
        sample: bool = False,
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Latents of waveforms, in fp32 whatever the precision around it.

        Args:
            waveforms (`torch.Tensor` of shape `(batch_size, num_samples)`):
                A multiple of `config.patch_length` samples.
            waveforms_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*): 1 for real samples.
            sample (`bool`, *optional*, defaults to `False`): Whether to draw from the posterior; its mean otherwise.
            generator (`torch.Generator`, *optional*): Source of the draw.

        Returns:
            Latents `(batch_size, num_frames, latent_dim)` and their mask `(batch_size, num_frames)` or `None`.
        """
        with torch.autocast(waveforms.device.type, enabled=False):
            posterior = self.vae.encode(waveforms.float(), waveforms_mask)
        return posterior.sample(generator) if sample else posterior.mode(), posterior.mask

    def encode_prompts(
        self, prompt_values: torch.Tensor, prompt_mask: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """
        Latents of voice prompts, each as if it were alone: what follows a prompt is never encoded with it.

        Args:
            prompt_values (`torch.Tensor` of shape `(batch_size, num_samples)`): 24 kHz.
            prompt_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*):
                1 for real samples, on either side; a row of zeros has no prompt. All real by default.

        Returns:
            `list[torch.Tensor]`: Posterior means `(num_frames, latent_dim)` of each row.

        Raises:
            ValueError: If a row's real length is not a multiple of `config.patch_length`, or shapes do not fit.
        """
        prompt_mask = torch.ones_like(prompt_values) if prompt_mask is None else prompt_mask
        if prompt_values.ndim != 2 or prompt_mask.shape != prompt_values.shape:
            raise ValueError(
                f"`prompt_values` {list(prompt_values.shape)} must be (batch_size, num_samples), and `prompt_mask` "
                "the same."
            )
        rows = [row[keep.bool()].float() for row, keep in zip(prompt_values, prompt_mask, strict=True)]
        if any(len(row) % self.config.patch_length for row in rows):
            raise ValueError(
                f"`prompt_values` must hold a multiple of {self.config.patch_length} samples a row: trim them."
            )
        if not any(len(row) for row in rows):
            return [row.new_zeros(0, self.config.latent_dim) for row in rows]
        # padded on the right, where the tokenizer of speech reads zeros beyond a row's end
        kept = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        latents, mask = self.encode_waveforms(pad_sequence(rows, batch_first=True), kept)
        return [frames[keep.bool()] for frames, keep in zip(latents, mask, strict=True)]
