"""The work of `generate`: prefill, then patch after patch, each one call of a function that compiles as one graph."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from transformers import Cache, DynamicCache, StaticCache
from transformers.utils import logging

from .generation_config_ditar import DiTARGenerationConfig

logger = logging.get_logger(__name__)


@dataclass
class PatchState:
    """
    What one patch leaves for the next; rows are those that still speak.

    Attributes:
        hidden_states (`torch.Tensor` of shape `(batch_size, hidden_size)`): State that the next patch is drawn from.
        history (`torch.Tensor` of shape `(batch_size, num_history_patches * patch_size, latent_dim)`):
            Last clean frames.
        position_ids (`torch.Tensor` of shape `(batch_size, 1)`): Position of the next patch in the LM.
        attention_mask (`torch.Tensor`):
            Additive, `(batch_size, 1, 1, cache_length)`, or `(batch_size, cache_length)` for kernels that make their
            own.
        past_key_values (`Cache`): The LM's.
        time_embeds (`torch.Tensor` of shape `(num_inference_steps, locdit_hidden_size)`): The same for all patches.
        tokens (`torch.Tensor` of shape `(branches * batch_size, 1 + history + patch_size, locdit_hidden_size)`):
            LocDiT's input, written in place; two branches with guidance, the conditioned one first.
        encoder_tokens (`torch.Tensor` of shape `(batch_size, 1 + patch_size, encoder_hidden_size)`):
            The patch encoder's input, written in place.
        blank (`torch.Tensor` of shape `(batch_size, patch_size, latent_dim)`):
            Zeros, which a temperature below 1 starts from.
    """

    hidden_states: torch.Tensor
    history: torch.Tensor
    position_ids: torch.Tensor
    attention_mask: torch.Tensor
    past_key_values: Cache
    time_embeds: torch.Tensor
    tokens: torch.Tensor
    encoder_tokens: torch.Tensor
    blank: torch.Tensor


@dataclass
class Prompt:
    """Voice prompts as patches: `(num_patches, patch_size, latent_dim)` of all rows in order, and how many each row
    has.
    """

    patches: torch.Tensor
    counts: list[int]

    def rows(self) -> list[torch.Tensor]:
        """Patches of each row."""
        return list(self.patches.split(self.counts))


class DiTARPatchLoop:
    """The part of [`DiTARForTextToSpeech`] that draws patches; [`DiTARGenerationMixin`] calls it."""

    def _prefill(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        prompt: Prompt,
        scheduler: Any,
        config: DiTARGenerationConfig,
        max_new_patches: int,
    ) -> PatchState:
        """Runs the LM over text and prompts and lays out all that the loop writes to."""
        lm, dtype = self.model.language_model, self.stop_head.weight.dtype
        batch_size, prefix_length = input_ids.shape
        if config.cache_implementation == "static":
            cache = StaticCache(config=lm.config, max_cache_len=prefix_length + max_new_patches)
        else:
            cache = DynamicCache(config=lm.config)
        patches = prompt.patches.to(dtype) if prompt.patches.numel() else None
        hidden_states = self.model(input_ids, attention_mask, patches, cache, use_cache=True).last_hidden_state[:, -1]
        # a copy, not a view with the strides of the prefix: those would be compiled for once more
        hidden_states = hidden_states.clone(memory_format=torch.contiguous_format)

        cache_length = prefix_length + max_new_patches
        mask = torch.nn.functional.pad(attention_mask, (0, max_new_patches))  # (B, cache_length), future closed
        if self._takes_additive_mask(cache):
            mask = torch.where(mask == 1, 0.0, torch.finfo(dtype).min).to(dtype)[:, None, None]
        frames = self.config.num_history_patches * self.config.patch_size
        history = torch.zeros(batch_size, frames, self.config.latent_dim, device=input_ids.device)
        for row, row_patches in enumerate(prompt.rows() if prompt.patches.numel() else []):
            last = row_patches.flatten(0, 1)[-frames:] if frames else row_patches[:0].flatten(0, 1)
            history[row, frames - len(last) :] = last
        branches = 2 if config.guidance_scale > 1 else 1
        locdit = self.locdit
        # not `new_zeros` of a weight: it may be offloaded, and have no device of its own
        tokens = torch.zeros(
            (branches * batch_size, 1 + frames + self.config.patch_size, locdit.sample_proj.out_features),
            dtype=dtype,
            device=hidden_states.device,
        )
        return PatchState(
            hidden_states=hidden_states,
            history=history,
            position_ids=attention_mask.sum(1, keepdim=True),
            attention_mask=mask[..., :cache_length],
            past_key_values=cache,
            time_embeds=locdit.time_embedding(scheduler.timesteps),
            tokens=tokens,
            encoder_tokens=self.model.patch_encoder.blank_tokens(batch_size),
            blank=history.new_zeros(batch_size, self.config.patch_size, self.config.latent_dim),
        )

    def _takes_additive_mask(self, cache: Cache) -> bool:
        """Whether the LM takes a mask made once; flash kernels and layers with windows make their own at each step."""
        lm_config = self.model.language_model.config
        others = {kind for kind in getattr(lm_config, "layer_types", None) or [] if kind != "full_attention"}
        # the cache knows of windows that a config without `layer_types` has in all layers
        others |= {type(layer) for layer in cache.layers if getattr(layer, "is_sliding", False)}
        return lm_config._attn_implementation in ("sdpa", "eager") and not others

    def _patch_step(
        self,
        state: PatchState,
        scheduler: Any,
        guidance_scale: float,
        noise: torch.Tensor | None,
        attention_mask: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        One patch: LocDiT at each time, patch encoder, one token of the LM, stop logit. It compiles as one graph.

        Args:
            state ([`PatchState`]):
                From the patch before; hidden states and positions are replaced, the rest written to.
            scheduler ([`DiTARScheduler`]): With its timesteps set.
            guidance_scale (`float`): 1 is none.
            noise (`torch.Tensor` of shape `(batch_size, patch_size, latent_dim)`, *optional*):
                The start, or what is added at the temperature's time; `None` if the plan draws nothing.
            attention_mask (`torch.Tensor`): That of `state` with the new position open.

        Returns:
            The patch `(batch_size, patch_size, latent_dim)` in fp32, and the logit of "no patch follows"
            `(batch_size,)`.
        """
        locdit, encoder, patch_size = self.locdit, self.model.patch_encoder, self.config.patch_size
        batch_size = state.hidden_states.shape[0]
        branches = state.tokens.shape[0] // batch_size
        history_end = 1 + state.history.shape[1]
        condition = locdit.condition_proj(state.hidden_states)  # (B, C); zeros in the branch without condition
        tokens = state.tokens.view(branches, batch_size, *state.tokens.shape[1:])
        if history_end > 1:
            tokens[:, :, 1:history_end] = locdit.embed_history(state.history.to(condition.dtype))
        sample, previous = noise if scheduler.starts_from_noise else state.blank, None
        for index in range(state.time_embeds.shape[0]):
            tokens[:, :, 0] = state.time_embeds[index]
            tokens[0, :, 0] += condition
            tokens[:, :, history_end:] = locdit.sample_proj(sample.to(condition.dtype))
            output = locdit.read_out(locdit.transformer(state.tokens)).float()  # (branches * B, P, D)
            if branches == 2:
                conditioned, free = output.chunk(2)
                output = free + guidance_scale * (conditioned - free)  # Eq. 2 with guidance_scale = 1 + w
            sample, previous = scheduler.update(output, index, sample, previous, noise)
        if history_end > 1:
            # older patches move up, one after the other: source and target of a move do not overlap
            for start in range(0, state.history.shape[1] - patch_size, patch_size):
                state.history[:, start : start + patch_size] = state.history[:, start + patch_size :][:, :patch_size]
            state.history[:, -patch_size:] = sample
        state.encoder_tokens[:, 1:] = encoder.input_proj(sample.to(condition.dtype))
        hidden_states = self.model.language_model(
            inputs_embeds=encoder.read_out(state.encoder_tokens)[:, None],  # (B, 1, H)
            attention_mask=attention_mask,
            position_ids=state.position_ids,
            use_cache=True,
            **{self.model.cache_name: state.past_key_values},
        ).last_hidden_state[:, 0]
        state.hidden_states = hidden_states
        state.position_ids = state.position_ids + 1
        return sample, self.stop_head(hidden_states)[:, 0].float()

    def _patch_step_function(self, config: DiTARGenerationConfig) -> Callable:
        if not config.compile_patch_step:
            return self._patch_step
        # graphs are cached with the code, so nothing is kept here that a copy of the model would share
        compiled = torch.compile(self._patch_step, fullgraph=True)

        def step(*arguments):
            try:
                return compiled(*arguments)
            except torch._dynamo.exc.FailOnRecompileLimitHit:
                logger.warning_once(
                    "Each number of steps, temperature's grid point, use of guidance and kind of batch is compiled "
                    "apart, and `torch._dynamo.config.recompile_limit` is reached: further ones run uncompiled."
                )
                return self._patch_step(*arguments)

        return step

    def _draw_patches(
        self,
        state: PatchState,
        scheduler: Any,
        config: DiTARGenerationConfig,
        fewest: list[int],
        most: list[int],
        generator: torch.Generator | list[torch.Generator] | None,
        streamer: Any | None,
        delay: int | None = None,
    ) -> tuple[list[torch.Tensor], list[bool]]:
        """
        Latents `(num_frames, latent_dim)` of each row, and whether the row stopped by itself.

        Reading a stop flag waits for the device, so elsewhere than on a CPU it is read `delay` = 1 patch late, when
        the next one is under way; surplus patches are discarded.
        """
        device, patch_size = state.hidden_states.device, self.config.patch_size
        step = self._patch_step_function(config)
        if delay is None:
            delay = 0 if device.type == "cpu" else 1
        rows = list(range(len(most)))  # row of the batch at each place of the state
        drawn, stopped = [[] for _ in most], [False] * len(most)
        shape = (len(most), patch_size, self.config.latent_dim)
        prefix_length = state.attention_mask.shape[-1] - max(most)
        threshold = torch.tensor(config.stop_threshold).logit().item()
        waiting = []  # (rows, patches, flags) of patches whose flags are still unread
        for index in range(max(most) + delay):
            if index < max(most):
                mask = self._open_position(state, prefix_length + index, config)
                noise = None
                if scheduler.draws_noise:
                    # drawn for the whole batch, so that rows that end change nothing for the others
                    noise = self._draw_noise(shape, generator, rows, device)
                patches, logits = step(state, scheduler, float(config.guidance_scale), noise, mask)
                waiting.append((list(rows), patches, logits > threshold))
            if index < delay:
                continue
            spoken, patches, flags = waiting.pop(0)
            latents = torch.zeros(shape, device=device) if streamer is not None else None
            for place, (row, flag) in enumerate(zip(spoken, flags.tolist(), strict=True)):
                if stopped[row] or len(drawn[row]) >= most[row]:
                    continue  # a surplus patch, drawn while the flag was under way
                drawn[row].append(patches[place])
                stopped[row] = flag and len(drawn[row]) >= fewest[row]
                if latents is not None:
                    latents[row] = patches[place]
            if streamer is not None:
                streamer.put(latents)
            kept = [place for place, row in enumerate(rows) if not stopped[row] and len(drawn[row]) < most[row]]
            if not kept:
                break
            places = self._bucket(kept, len(rows))
            if len(places) < len(rows):
                self._keep_rows(state, places)
                rows = [rows[place] for place in places]
        if streamer is not None:
            streamer.end()
        return [torch.cat(patches) for patches in drawn], stopped

    def _open_position(self, state: PatchState, position: int, config: DiTARGenerationConfig) -> torch.Tensor:
        """Lets the LM see the position of the next patch; a growing cache gets a growing view of the mask."""
        state.attention_mask[..., position] = 0 if state.attention_mask.ndim == 4 else 1
        return (
            state.attention_mask
            if config.cache_implementation == "static"
            else state.attention_mask[..., : position + 1]
        )

    def _draw_noise(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | list[torch.Generator] | None,
        rows: list[int],
        device: torch.device,
    ) -> torch.Tensor:
        """Noise for the rows that still speak, `(len(rows), patch_size, latent_dim)`."""
        if isinstance(generator, list):
            return randn_tensor((len(rows), *shape[1:]), [generator[row] for row in rows], device, torch.float32)
        noise = randn_tensor(shape, generator, device, torch.float32)
        return noise if len(rows) == shape[0] else noise[rows]

    @staticmethod
    def _bucket(kept: list[int], num_rows: int) -> list[int]:
        """`kept` and as many ended places as fill a half, a quarter … of the batch: few shapes to compile for."""
        size = num_rows
        while len(kept) <= -(-size // 2) < size:
            size = -(-size // 2)
        ended = [place for place in range(num_rows) if place not in kept]
        return sorted([*kept, *ended[: size - len(kept)]])

    def _keep_rows(self, state: PatchState, places: list[int]):
        """Drops the other rows of a state."""
        index = torch.tensor(places, device=state.hidden_states.device)
        branches = state.tokens.shape[0] // state.hidden_states.shape[0]
        state.tokens = state.tokens[: branches * len(places)].clone()
        for name in ("hidden_states", "history", "position_ids", "attention_mask", "encoder_tokens", "blank"):
            setattr(state, name, getattr(state, name)[index])
        for layer in state.past_key_values.layers:
            layer.keys, layer.values = layer.keys[index], layer.values[index]
