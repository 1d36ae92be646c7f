"""The continuous speech tokenizer: a variational auto-encoder from 24 kHz samples to 40 Hz latents (DiTAR, section
3.5.1).
"""

from dataclasses import dataclass

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from .configuration_ditar_vae import DiTARVAEConfig
from .decoder_bigvgan_ditar_vae import AntiAliasedSnake, BigVGANDecoder
from .decoder_istft_ditar_vae import ISTFTDecoder
from .encoder_ditar_vae import LogMelSpectrogram, MelEncoder, WaveformEncoder
from .layers_ditar_vae import ConvNeXtBlock, downsample_mask, keeping_dtype, upsample_mask
from .loading_ditar import CompleteWeightsMixin
from .loss_ditar_vae import ReconstructionLoss, kl_divergence, limit_bandwidth
from .streaming_ditar_vae import DiTARVAEDecodeState


@dataclass
class DiTARVAEPosterior:
    """
    Diagonal Gaussian over normalised latents.

    Attributes:
        mean (`torch.Tensor` of shape `(batch_size, num_frames, latent_dim)`): Its mean, and its mode.
        std (`torch.Tensor` of shape `(batch_size, num_frames, latent_dim)`): Its standard deviation.
        mask (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*): 1 for real frames.
    """

    mean: torch.Tensor
    std: torch.Tensor
    mask: torch.Tensor | None = None

    def mode(self) -> torch.Tensor:
        """The most probable latents: what prompts and stored latents use."""
        return self.mean

    def sample(self, generator: torch.Generator | list[torch.Generator] | None = None) -> torch.Tensor:
        """One draw; with a list of generators each row has its own."""
        noise = randn_tensor(self.mean.shape, generator, self.mean.device, self.mean.dtype)
        return self.mean + self.std * noise


@dataclass
class DiTARVAEOutput(ModelOutput):
    """
    Output of [`DiTARVAE`].

    Args:
        loss (`torch.Tensor` of shape `()`): Weighted sum of the losses below.
        mel_loss (`torch.Tensor` of shape `()`): Multi-resolution log-mel distance.
        stft_loss (`torch.Tensor` of shape `()`): Multi-resolution STFT distance.
        kl_loss (`torch.Tensor` of shape `()`): Divergence from the prior in nats a channel and frame.
        waveforms (`torch.Tensor` of shape `(batch_size, num_samples)`): The reconstruction, zeros where masked.
    """

    loss: torch.Tensor | None = None
    mel_loss: torch.Tensor | None = None
    stft_loss: torch.Tensor | None = None
    kl_loss: torch.Tensor | None = None
    waveforms: torch.Tensor | None = None


class DiTARVAE(CompleteWeightsMixin, PreTrainedModel):
    """
    Variational auto-encoder between waveforms and latent frames.

    Latents leave `encode` and enter `decode` normalised: `latent_mean` and `latent_std`, measured after training, are
    taken off and put back here, so that nothing outside has to know them.

    Args:
        config ([`DiTARVAEConfig`]): Sizes of both halves.
    """

    config_class = DiTARVAEConfig
    base_model_prefix = "vae"
    main_input_name = "waveforms"
    _no_split_modules = ["ConvNeXtBlock", "BigVGANBlock", "ResidualUnit"]
    # it has no attention, so whatever the model around it is told to use suits it
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # a whole reconstruction is needed for the losses, so there is nothing per item to count
    accepts_loss_kwargs = False

    def __init__(self, config: DiTARVAEConfig):
        super().__init__(config)
        self.encoder = MelEncoder(config) if config.encoder_type == "mel" else WaveformEncoder(config)
        self.decoder = ISTFTDecoder(config) if config.decoder_type == "istft" else BigVGANDecoder(config)
        self.register_buffer("latent_mean", torch.zeros(config.latent_dim, dtype=torch.float32))
        self.register_buffer("latent_std", torch.ones(config.latent_dim, dtype=torch.float32))
        self.reconstruction_loss = ReconstructionLoss(config.sampling_rate)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, nn.Linear | nn.Conv1d | nn.ConvTranspose1d):
            # scaled by fan-in: a fixed deviation would let the signal die in the deep stacks of narrow convolutions
            init.kaiming_uniform_(module.weight, a=5**0.5)
            init.zeros_(module.bias)
        elif isinstance(module, ConvNeXtBlock | AntiAliasedSnake):
            module.reset_parameters()
        elif isinstance(module, LogMelSpectrogram):
            init.copy_(module.filters, module.mel_filters())
        elif isinstance(module, DiTARVAE):
            init.zeros_(module.latent_mean)
            init.ones_(module.latent_std)

    def _apply(self, fn, recurse: bool = True):
        # the statistics of the latents stay in fp32 whatever the precision of the weights
        statistics = {name: self._buffers.pop(name) for name in ("latent_mean", "latent_std")}
        try:
            super()._apply(fn, recurse)
        finally:
            self._buffers.update({name: keeping_dtype(fn)(value) for name, value in statistics.items()})
        return self

    def set_latent_statistics(self, mean: torch.Tensor, std: torch.Tensor):
        """
        Stores what `encode` and `decode` take off and put back.

        Args:
            mean (`torch.Tensor` of shape `(latent_dim,)`): Mean of each channel of the raw posterior means.
            std (`torch.Tensor` of shape `(latent_dim,)`): Their standard deviations, positive.

        Raises:
            ValueError: If a shape is wrong or a value is not finite or not positive.
        """
        for name, value in (("mean", mean), ("std", std)):
            if value.shape != (self.config.latent_dim,) or not torch.isfinite(value).all():
                raise ValueError(
                    f"`{name}` must be {self.config.latent_dim} finite values, got shape {list(value.shape)}."
                )
        if (std <= 0).any():
            raise ValueError("`std` must be positive in each channel: a channel without variance carries nothing.")
        self.latent_mean.copy_(mean)
        self.latent_std.copy_(std)

    def _encode_raw(self, waveforms: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        if waveforms.ndim != 2 or waveforms.shape[1] % self.config.hop_length or not waveforms.shape[1]:
            raise ValueError(
                f"`waveforms` must be (batch_size, num_samples) with a multiple of {self.config.hop_length} samples, "
                f"got {list(waveforms.shape)}: pad targets with zeros, trim prompts."
            )
        if mask is not None:
            if mask.shape != waveforms.shape:
                raise ValueError(
                    f"`waveforms_mask` {list(mask.shape)} must match `waveforms` {list(waveforms.shape)}."
                )
            waveforms = waveforms * mask
        mean, logvar = self.encoder(waveforms.float(), mask).float().chunk(2, dim=-1)  # (B, T, D) each
        return mean, logvar.clamp(-14.0, 4.0)

    def encode(self, waveforms: torch.Tensor, waveforms_mask: torch.Tensor | None = None) -> DiTARVAEPosterior:
        """
        Posterior over the latents of waveforms.

        Args:
            waveforms (`torch.Tensor` of shape `(batch_size, num_samples)`):
                Mono samples in [-1, 1] at `config.sampling_rate`, a multiple of `config.hop_length` of them.
            waveforms_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*):
                1 for real samples, padding on the right; a row's real length is a multiple of `config.hop_length`.

        Returns:
            [`DiTARVAEPosterior`] with `num_samples / hop_length` frames, 40 a second.

        Raises:
            ValueError: If the number of samples is not such a multiple, or the mask's shape differs.
        """
        mean, logvar = self._encode_raw(waveforms, waveforms_mask)
        return DiTARVAEPosterior(
            (mean - self.latent_mean) / self.latent_std,
            (0.5 * logvar).exp() / self.latent_std,
            downsample_mask(waveforms_mask, self.config.hop_length),
        )

    def new_decode_state(self, batch_size: int = 1) -> DiTARVAEDecodeState:
        """
        State of a `decode` in pieces.

        Args:
            batch_size (`int`, *optional*, defaults to 1): Rows that are decoded together and end together.

        Returns:
            [`DiTARVAEDecodeState`] before its first piece.

        Raises:
            ValueError: If the decoder is not causal, or `batch_size` not positive.
        """
        return DiTARVAEDecodeState(self.config, batch_size)

    def decode(
        self,
        latents: torch.Tensor,
        latents_mask: torch.Tensor | None = None,
        state: DiTARVAEDecodeState | None = None,
        is_last: bool = False,
    ) -> torch.Tensor:
        """
        Waveforms of normalised latents, of all at once or, with a `state`, of the next piece.

        The pieces of waveform add up to the waveform of all latents at once. They come as early as they can: after a
        number of frames, all samples of these frames but the last `config.lookahead_seconds` are there.

        Args:
            latents (`torch.Tensor` of shape `(batch_size, num_frames, latent_dim)`): As `encode` gives them.
            latents_mask (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*):
                1 for real frames, padding on the right; not with a `state`.
            state ([`DiTARVAEDecodeState`], *optional*):
                From `new_decode_state`; it is changed. A piece may then have any number of frames, even none.
            is_last (`bool`, *optional*, defaults to `False`):
                Whether no piece follows, so that the look-ahead is given out too and the `state` is used up.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_frames * hop_length)`: float32 samples, zeros where masked. With
            a `state` of shape `(batch_size, num_samples)`, perhaps of no samples.

        Raises:
            ValueError: If the latents have another number of channels; if the `state` is used up or for another number
                of rows, or comes with a mask; if `is_last` comes without a `state`.
        """
        fewest_frames = 1 if state is None else 0
        if latents.ndim != 3 or latents.shape[2] != self.config.latent_dim or latents.shape[1] < fewest_frames:
            raise ValueError(
                f"`latents` must be (batch_size, num_frames, {self.config.latent_dim}), got {list(latents.shape)}."
            )
        if state is not None:
            state.begin_piece(latents, latents_mask, is_last)
        elif is_last:
            raise ValueError("`is_last` ends a decode in pieces: pass its `state`, or leave `is_last` out.")
        raw = latents.float() * self.latent_std + self.latent_mean
        return self._decode_raw(raw, latents_mask, state)

    def _decode_raw(
        self, raw: torch.Tensor, mask: torch.Tensor | None, state: DiTARVAEDecodeState | None = None
    ) -> torch.Tensor:
        waveforms = self.decoder(raw.to(self.dtype), mask, state).float()
        return waveforms if mask is None else waveforms * upsample_mask(mask, self.config.hop_length)

    def forward(
        self,
        waveforms: torch.Tensor,
        waveforms_mask: torch.Tensor | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool | None = None,
        target_waveforms: torch.Tensor | None = None,
        bandwidths: torch.Tensor | None = None,
    ) -> DiTARVAEOutput | tuple:
        """
        Reconstructs waveforms and measures how well.

        Args:
            waveforms (`torch.Tensor` of shape `(batch_size, num_samples)`): As for `encode`.
            waveforms_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*): 1 for real samples.
            generator (`torch.Generator`, *optional*): Source of the posterior's draw; not drawn from in `eval()`.
            return_dict (`bool`, *optional*): Whether to return a [`DiTARVAEOutput`] rather than a tuple.
            target_waveforms (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*):
                What the reconstruction should be, where it is not `waveforms` itself.
            bandwidths (`torch.Tensor` of shape `(batch_size,)`, *optional*):
                Highest frequency in Hz that a row's recording holds: what the reconstruction has above it is no error,
                so material of 16 kHz does not teach that speech ends at 8 kHz.

        Returns:
            [`DiTARVAEOutput`].
        """
        mean, logvar = self._encode_raw(waveforms, waveforms_mask)
        raw = mean
        if self.training:
            raw = mean + (0.5 * logvar).exp() * randn_tensor(mean.shape, generator, mean.device, mean.dtype)
        reconstruction = self._decode_raw(raw, downsample_mask(waveforms_mask, self.config.hop_length))
        target = (waveforms if target_waveforms is None else target_waveforms).float()
        with torch.autocast(waveforms.device.type, enabled=False):
            compared = [x if waveforms_mask is None else x * waveforms_mask for x in (reconstruction, target)]
            if bandwidths is not None:
                compared = [limit_bandwidth(x, bandwidths, self.config.sampling_rate) for x in compared]
            mel_loss, stft_loss = self.reconstruction_loss(*compared, waveforms_mask)
            kl_loss = kl_divergence(mean, logvar, downsample_mask(waveforms_mask, self.config.hop_length))
        loss = (
            self.config.mel_loss_weight * mel_loss
            + self.config.stft_loss_weight * stft_loss
            + self.config.kl_loss_weight * kl_loss
        )
        output = DiTARVAEOutput(loss, mel_loss, stft_loss, kl_loss, reconstruction)
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()


__all__ = ["DiTARVAE", "DiTARVAEOutput", "DiTARVAEPosterior"]
