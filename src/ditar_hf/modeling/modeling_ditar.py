"""DiTAR: patch encoder, causal language model, LocDiT and stop head around a frozen tokenizer of speech (section 3.1).

Shapes: B batch, S sequence (text, audio_bos, patches), T latent frames, P frames in a patch, D latent channels, N
target patches of the whole batch, R draws for each, H the language model's width.
"""

import copy
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import nn
from transformers import AutoModel, Cache, PreTrainedModel

from .alignment_ditar import DiTARAlignmentHead
from .configuration_ditar import DiTARConfig, cache_name_of
from .frozen_vae_ditar import FrozenVAEMixin
from .generation_ditar import DiTARGenerationMixin
from .loading_ditar import CompleteWeightsMixin
from .locdit_ditar import LocDiT
from .loss_ditar import IGNORE_INDEX, diffusion_loss, sample_timesteps, stop_loss
from .modeling_ditar_vae import DiTARVAE
from .outputs_ditar import DiTARForTextToSpeechOutput, DiTARModelOutput
from .patch_encoder_ditar import DiTARPatchEncoder
from .patches_ditar import check_placeholders, history_of, join_frames, split_into_patches
from .scheduling_ditar import DiTARScheduler
from .transformer_ditar import DiTARRotaryEmbedding

# of the times and the noise that a model is evaluated at
EVALUATION_SEED = 0


class DiTARPreTrainedModel(CompleteWeightsMixin, PreTrainedModel):
    """Weights initialisation, and what the parts of DiTAR support."""

    config_class = DiTARConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    # a patch's tokens must stay on one device, and so must a layer of the LM, whose own list is added to this one
    _no_split_modules = ["DiTARPatchEncoder", "LocDiT", "ConvNeXtBlock", "BigVGANBlock", "ResidualUnit"]
    _skip_keys_device_placement = ["past_key_values", "cache"]
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    # the tokenizer of speech is trained apart, and its latents are only as good as its precision
    _keep_in_fp32_modules_strict = ["vae"]
    # only the layers of LM, patch encoder and LocDiT are quantised: what lies around them is small, and its errors
    # would be heard; an adapter is as exact as it was trained
    _modules_to_not_quantize = (
        "vae",
        "stop_head",
        "alignment_head",
        r"locdit\.\w+_proj",
        r"locdit\.time_embedding",
        r"(model\.)?patch_encoder\.\w+_proj",
        r".*\.lora_[AB]",
    )

    def __init__(self, config: DiTARConfig, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        # the lean transformers are plain modules, so nobody else tells them how to attend
        for part in (config.encoder_config, config.locdit_config):
            if part._attn_implementation is None:
                part._attn_implementation = config._attn_implementation

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, DiTARPatchEncoder | DiTARRotaryEmbedding):
            module.reset_parameters()


class DiTARModel(DiTARPreTrainedModel):
    """
    Text embedding, patch encoder and language model: the part of DiTAR that reads.

    Args:
        config ([`DiTARConfig`]): Sizes; the language model is built by `AutoModel` from `config.lm_config`.
    """

    def __init__(self, config: DiTARConfig):
        super().__init__(config)
        # built like the parts around it: the configuration of a pretrained LM may name another precision
        self.language_model = AutoModel.from_config(config.lm_config, dtype=torch.get_default_dtype())
        self.cache_name = cache_name_of(type(self.language_model))
        self.patch_encoder = DiTARPatchEncoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The text embedding, which is the language model's."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        """Replaces the text embedding."""
        self.language_model.set_input_embeddings(value)

    def embed(self, input_ids: torch.Tensor, patches: torch.Tensor | None) -> torch.Tensor:
        """
        Embeddings of tokens and, in place of placeholders, of patches.

        Args:
            input_ids (`torch.Tensor` of shape `(batch_size, sequence_length)`): Tokens.
            patches (`torch.Tensor` of shape `(num_patches, patch_size, latent_dim)`, *optional*):
                The patches of all rows, one after the other.

        Returns:
            `torch.Tensor` of shape `(batch_size, sequence_length, hidden_size)`.

        Raises:
            ValueError: If there is not one patch for each placeholder.
        """
        embeds = self.get_input_embeddings()(input_ids)
        is_patch = input_ids == self.config.audio_patch_token_id
        num_patches = 0 if patches is None else patches.shape[0]
        if int(is_patch.sum()) != num_patches:
            raise ValueError(
                f"`input_ids` holds {int(is_patch.sum())} placeholders (id {self.config.audio_patch_token_id}) but "
                f"there are {num_patches} patches: put one placeholder for each {self.config.patch_size} frames."
            )
        if num_patches:
            embeds = embeds.masked_scatter(is_patch[..., None], self.patch_encoder(patches).to(embeds.dtype))
        return embeds

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        patches: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool = False,
    ) -> DiTARModelOutput:
        """
        Args:
            input_ids (`torch.Tensor` of shape `(batch_size, sequence_length)`):
                Left-padded text, audio_bos, placeholders.
            attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*): 1 for real positions.
            patches (`torch.Tensor` of shape `(num_patches, patch_size, latent_dim)`, *optional*):
                Of all rows in order.
            past_key_values (`Cache`, *optional*): States of the positions before.
            use_cache (`bool`, *optional*, defaults to `False`): Whether to return a cache.

        Returns:
            [`DiTARModelOutput`].
        """
        position_ids = None
        if attention_mask is not None:
            # positions count real tokens only, so that left padding changes nothing
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp_min(0)[:, -input_ids.shape[1] :]
        output = self.language_model(
            inputs_embeds=self.embed(input_ids, patches),
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=use_cache,
            **{self.cache_name: past_key_values},
        )
        return DiTARModelOutput(output.last_hidden_state, output.get(self.cache_name))


class DiTARForTextToSpeech(FrozenVAEMixin, DiTARGenerationMixin, DiTARPreTrainedModel):
    """
    DiTAR for text-to-speech: [`DiTARModel`], LocDiT, stop head and the frozen [`DiTARVAE`].

    Args:
        config ([`DiTARConfig`]): Sizes, and how it is trained.
    """

    # a training aid, which may be switched on for a model that was trained without it
    _keys_to_ignore_on_load_missing = [r"^alignment_head\."]

    # the `Trainer` counts labelled states over micro-batches and ranks, and `forward` weights its losses by them
    accepts_loss_kwargs = True

    def __init__(self, config: DiTARConfig):
        super().__init__(config)
        self.model = DiTARModel(config)
        self.locdit = LocDiT(config)
        self.stop_head = nn.Linear(config.lm_config.hidden_size, 1)
        self.alignment_head = DiTARAlignmentHead(config) if config.alignment_loss_weight else None
        self.vae = DiTARVAE(config.vae_config).float()
        self.noise_scheduler = DiTARScheduler.from_config(config.scheduler_config)
        self.post_init()
        self.freeze_vae()

    @classmethod
    def from_vae(cls, vae: DiTARVAE, config: DiTARConfig) -> "DiTARForTextToSpeech":
        """
        A fresh model around a trained tokenizer of speech.

        Args:
            vae ([`DiTARVAE`]): Its weights are copied.
            config ([`DiTARConfig`]): Sizes of the rest; its `vae_config` is replaced by that of `vae`.

        Returns:
            [`DiTARForTextToSpeech`].

        Raises:
            ValueError: If the sizes that both name differ.
        """
        config = copy.deepcopy(config)  # not by way of a dict, which would forget the attention implementation
        config.vae_config = type(config.vae_config)(**vae.config.to_dict())
        config.validate_architecture()
        model = cls(config)
        model.vae.load_state_dict(vae.state_dict())
        return model

    def _diffusion_loss(
        self,
        states: torch.Tensor,
        target: torch.Tensor,
        history: torch.Tensor,
        frame_mask: torch.Tensor,
        generator: torch.Generator | None,
    ) -> torch.Tensor:
        """Loss of Eq. 7 over states `(N, H)`, patches `(N, P, D)`, history `(N, K * P, D)`, with independent draws."""
        if not len(target):
            return states.float().sum()  # 0, and still part of the graph
        if generator is None and not self.training:
            # evaluations can be compared, and leave the caller's random numbers alone
            generator = torch.Generator(target.device).manual_seed(EVALUATION_SEED)
        draws = self.config.num_noise_samples
        states, target, history, frame_mask = (
            x.repeat_interleave(draws, dim=0) for x in (states, target.float(), history, frame_mask)
        )  # (N * R, …)
        timestep = sample_timesteps(
            (target.shape[0],),
            self.config.timestep_distribution,
            self.config.timestep_logit_mean,
            self.config.timestep_logit_std,
            target.device,
            generator,
        )
        noise = randn_tensor(target.shape, generator, target.device, torch.float32)
        if self.training and self.config.condition_dropout:
            source = target.device if generator is None else generator.device
            chance = torch.rand(states.shape[0], device=source, generator=generator).to(states.device)
            states = states * (chance >= self.config.condition_dropout)[:, None].to(states.dtype)
        noisy = self.noise_scheduler.add_noise(target, noise, timestep)
        prediction = self.locdit(noisy.to(states.dtype), timestep, states, history.to(states.dtype))
        velocity = self.noise_scheduler.get_target(target, noise, timestep)
        with torch.autocast(target.device.type, enabled=False):
            return diffusion_loss(prediction, velocity, frame_mask)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        latents: torch.Tensor | None = None,
        latents_mask: torch.Tensor | None = None,
        waveforms: torch.Tensor | None = None,
        waveforms_mask: torch.Tensor | None = None,
        prompt_values: torch.Tensor | None = None,
        prompt_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        alignment_targets: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool = False,
        generator: torch.Generator | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        return_dict: bool | None = None,
    ) -> DiTARForTextToSpeechOutput | tuple[Any, ...]:
        """
        States and losses with the true patches as input (teacher forcing).

        Args:
            input_ids (`torch.Tensor` of shape `(batch_size, sequence_length)`):
                Left-padded phonemes, audio_bos, and one placeholder for each patch.
            attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*): 1 for real positions.
            latents (`torch.Tensor` of shape `(batch_size, num_frames, latent_dim)`, *optional*):
                Right-padded normalised latents, a multiple of `patch_size` frames a row.
            latents_mask (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*): 1 for real frames.
            waveforms (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*):
                In place of latents; a row's real length is a multiple of `config.patch_length` samples.
            waveforms_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*): 1 for real samples.
            prompt_values (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*):
                Voice prompts that the waveforms go on from, encoded apart from them as in `generate`; their patches
                come first in a row.
            prompt_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*): As for `encode_prompts`.
            labels (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
                Stop labels: 1 on the last patch, 0 on states that a target patch is drawn from, −100 elsewhere.
                Without them, all patches are targets and there is no stop loss.
            alignment_targets (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
                On a state that a patch is drawn from, the position in `input_ids` of the token spoken in its middle;
                −100 elsewhere or where unknown. Needs `config.alignment_loss_weight`.
            past_key_values (`Cache`, *optional*): States of the positions before. There are no losses then.
            use_cache (`bool`, *optional*, defaults to `False`): Whether to return a cache.
            generator (`torch.Generator`, *optional*):
                Source of times, noise and condition dropping. By default torch's own in training, and one with a fixed
                seed otherwise, so that two evaluations of a model are equal.
            num_items_in_batch (`int`, *optional*):
                Labelled states in all micro-batches of an optimizer step, from the `Trainer`: `loss`, but none of its
                parts, is then this batch's share of the mean over them.
            return_dict (`bool`, *optional*): Whether to return an output object rather than a tuple.

        Returns:
            [`DiTARForTextToSpeechOutput`].

        Raises:
            ValueError: If patches and placeholders do not match, shapes are wrong, or both or neither of latents and
                waveforms are given where placeholders stand.
        """
        if latents is not None and waveforms is not None:
            raise ValueError("`latents` and `waveforms` are both given: pass the one that you have, not both.")
        if prompt_values is not None and waveforms is None:
            raise ValueError("`prompt_values` without `waveforms`: in `latents` a prompt's frames come first.")
        if waveforms is not None:
            sample = self.training and self.config.sample_latents
            latents, latents_mask = self.encode_waveforms(waveforms, waveforms_mask, sample, generator)
            if prompt_values is not None:
                prompts = self.encode_prompts(prompt_values, prompt_mask)
                keep = [slice(None)] * len(latents) if latents_mask is None else latents_mask.bool()
                latents, latents_mask = join_frames(prompts, [row[k] for row, k in zip(latents, keep, strict=True)])
        patches = None
        if latents is not None:
            target, frame_mask, patch_mask = split_into_patches(latents, latents_mask, self.config)
            check_placeholders(input_ids, patch_mask, self.config)
            seen = target
            if self.training and self.config.history_noise_std:
                noise = randn_tensor(target.shape, generator, target.device, target.dtype)
                seen = target + self.config.history_noise_std * noise
            patches = seen[patch_mask].to(self.stop_head.weight.dtype)
        is_continuation = past_key_values is not None and past_key_values.get_seq_length() > 0
        output = self.model(input_ids, attention_mask, patches, past_key_values, use_cache)
        states = output.last_hidden_state  # (B, S, H)
        stop_logits = self.stop_head(states)[..., 0]  # (B, S)

        losses = {}
        if latents is not None and not is_continuation:
            # a patch is drawn from the state before its placeholder; it is a target where that state's label is 0
            is_drawn = input_ids[:, 1:] == self.config.audio_patch_token_id
            is_target = is_drawn if labels is None else is_drawn & (labels[:, :-1] == 0)
            picked = is_target[is_drawn]  # (patches,) in the order of patch_mask
            losses["diffusion_loss"] = self._diffusion_loss(
                states[:, :-1][is_target],
                target[patch_mask][picked],
                history_of(seen, self.config.num_history_patches)[patch_mask][picked],
                frame_mask[patch_mask][picked],
                generator,
            )
            loss = losses["diffusion_loss"]
            if labels is not None:
                losses["stop_loss"] = stop_loss(stop_logits, labels, self.config.stop_positive_weight)
                loss = loss + self.config.stop_loss_weight * losses["stop_loss"]
            if alignment_targets is not None and self.alignment_head is not None:
                losses["alignment_loss"] = self.alignment_head(states, input_ids, alignment_targets)
                loss = loss + self.config.alignment_loss_weight * losses["alignment_loss"]
            if num_items_in_batch is not None and labels is not None:
                loss = loss * (labels != IGNORE_INDEX).sum() / num_items_in_batch
            losses["loss"] = loss
        result = DiTARForTextToSpeechOutput(stop_logits=stop_logits, **losses, **output)
        return result if (self.config.return_dict if return_dict is None else return_dict) else result.to_tuple()


__all__ = [
    "DiTARForTextToSpeech",
    "DiTARForTextToSpeechOutput",
    "DiTARModel",
    "DiTARModelOutput",
    "DiTARPreTrainedModel",
]
