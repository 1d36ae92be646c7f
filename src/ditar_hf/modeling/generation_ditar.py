"""Patch by patch: LocDiT paints, the patch encoder reads, the language model goes on (sections 3.3 to 3.5.4)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Cache, DynamicCache, GenerationConfig, StaticCache
from transformers.utils import ModelOutput, logging

from .generation_config_ditar import DEFAULTS, DiTARGenerationConfig

logger = logging.get_logger(__name__)


@dataclass
class DiTARGenerateOutput(ModelOutput):
    """
    Output of [`DiTARForTextToSpeech.generate`], a list or tensor with an entry for each row.

    Args:
        audio (`list[torch.Tensor]`): Float32 samples in [-1, 1], `(num_samples,)` each, without the prompt.
        latents (`list[torch.Tensor]`): Normalised latents, `(num_frames, latent_dim)` each, without the prompt.
        num_patches (`torch.Tensor` of shape `(batch_size,)`): Patches drawn.
        reached_limit (`torch.Tensor` of shape `(batch_size,)`): Whether the row ran into its limit before it stopped.
    """

    audio: list[torch.Tensor] | None = None
    latents: list[torch.Tensor] | None = None
    num_patches: torch.Tensor | None = None
    reached_limit: torch.Tensor | None = None


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
    """

    hidden_states: torch.Tensor
    history: torch.Tensor
    position_ids: torch.Tensor
    attention_mask: torch.Tensor
    past_key_values: Cache
    time_embeds: torch.Tensor
    tokens: torch.Tensor


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


class DiTARGenerationMixin:
    """`generate` for [`DiTARForTextToSpeech`]; independent of transformers' loop over token logits."""

    generation_config_class = DiTARGenerationConfig

    def adjust_generation_fn(
        self, generation_config, from_auto_class, from_pipeline, pretrained_model_name_or_path, *args, **kwargs
    ):
        """Loads `generation_config.json` as our class when a model is loaded; the library's version knows only its
        own.
        """
        names = ("cache_dir", "force_download", "proxies", "local_files_only", "token", "revision", "subfolder")
        kwargs.update(zip(names, args, strict=False))
        kwargs.pop("trust_remote_code", None)
        if generation_config is not None:
            self.generation_config = self.generation_config_class.from_dict(generation_config.to_dict())
        elif pretrained_model_name_or_path is not None:
            try:
                self.generation_config = self.generation_config_class.from_pretrained(
                    pretrained_model_name_or_path,
                    _from_auto=from_auto_class,
                    _from_pipeline=from_pipeline,
                    **kwargs,
                )
            except OSError:
                logger.info("There is no generation_config.json: DiTAR's defaults are used.")

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        prompt_values: torch.Tensor | None = None,
        prompt_mask: torch.Tensor | None = None,
        prompt_latents: torch.Tensor | None = None,
        prompt_latents_mask: torch.Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        noise_scheduler: Any | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        streamer: Any | None = None,
        **kwargs: Any,
    ) -> DiTARGenerateOutput:
        """
        Speaks.

        Args:
            input_ids (`torch.Tensor` of shape `(batch_size, sequence_length)`):
                Left-padded phonemes of prompt and target text, audio_bos, a placeholder for each prompt patch; from
                [`DiTARProcessor`]. Text alone gives a random voice where the temperature is above 0.
            attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
                1 for real positions; all but padding tokens by default.
            prompt_values (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*): Voice prompts, 24 kHz.
            prompt_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*):
                1 for real samples, on either side; a row of zeros has no prompt. All real by default.
            prompt_latents (`torch.Tensor` of shape `(batch_size, num_frames, latent_dim)`, *optional*):
                Encoded prompts in place of `prompt_values`, right-padded.
            prompt_latents_mask (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*): 1 for real frames.
            generation_config ([`DiTARGenerationConfig`], *optional*): In place of the model's own.
            noise_scheduler ([`DiTARScheduler`], *optional*):
                Another solver or grid for this call; its `prediction_type` must be the model's.
            generator (`torch.Generator` or a list of them, *optional*):
                Source of noise. With one for each row, a row draws the same noise alone and in a batch.
            streamer (*optional*):
                Its `put` gets the latents of each patch as drawn, `(batch_size, patch_size, latent_dim)`, zeros in
                rows that have ended; its `end` is called last.
            **kwargs:
                Values of the generation config for this call: `temperature`, `guidance_scale`, `num_inference_steps`,
                `max_new_tokens`, `min_new_tokens`, `stop_threshold`, `cache_implementation` …

        Returns:
            [`DiTARGenerateOutput`].

        Raises:
            ValueError: If an argument is unknown or out of range, or prompts and placeholders do not match.
        """
        config = self._merge_generation_config(generation_config, kwargs)
        input_ids, attention_mask = self._check_text(input_ids, attention_mask)
        scheduler = self._build_scheduler(noise_scheduler)
        scheduler.set_timesteps(config.num_inference_steps, device=input_ids.device, temperature=config.temperature)
        if isinstance(generator, list) and len(generator) != len(input_ids):
            raise ValueError(
                f"`generator` is a list of {len(generator)} for {len(input_ids)} rows: give one for each row."
            )
        prompt = self._prompt_patches(input_ids, prompt_values, prompt_mask, prompt_latents, prompt_latents_mask)
        fewest, most = self._length_bounds(input_ids, attention_mask, prompt, config)
        state = self._prefill(input_ids, attention_mask, prompt, scheduler, config, max(most))
        latents, stopped = self._draw_patches(state, scheduler, config, fewest, most, generator, streamer)
        if not all(stopped):
            rows = [row for row, has_stopped in enumerate(stopped) if not has_stopped]
            logger.warning(
                f"Rows {rows} ran into their limit of {[most[row] for row in rows]} patches without stopping: "
                "their speech may be cut off or wrong. Raise `max_new_tokens` or `max_patches_per_token`, or try "
                "another seed."
            )
        device = input_ids.device
        return DiTARGenerateOutput(
            audio=self._decode_rows(latents),
            latents=latents,
            num_patches=torch.tensor([len(row) // self.config.patch_size for row in latents], device=device),
            reached_limit=torch.tensor([not has_stopped for has_stopped in stopped], device=device),
        )

    # -- arguments ----------------------------------------------------------------------------------------------------

    def _merge_generation_config(
        self, generation_config: GenerationConfig | None, overrides: dict[str, Any]
    ) -> DiTARGenerationConfig:
        """The model's settings, under those of a config for this call, under single values for this call."""
        if generation_config is not None:
            # a plain GenerationConfig says only what it changes
            names = {*DEFAULTS, "cache_implementation"}
            changed = {k: v for k, v in generation_config.to_diff_dict().items() if k in names}
            if isinstance(generation_config, DiTARGenerationConfig):
                changed = {name: getattr(generation_config, name) for name in names}
            overrides = {**changed, **overrides}
        return self.generation_config.merged(overrides)

    def _check_text(
        self, input_ids: torch.Tensor | None, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if input_ids is None or input_ids.ndim != 2 or not input_ids.numel():
            shape = None if input_ids is None else list(input_ids.shape)
            raise ValueError(
                f"`input_ids` must be (batch_size, sequence_length), got {shape}: call the processor first."
            )
        if attention_mask is None:
            attention_mask = input_ids != self.config.pad_token_id
        if attention_mask.shape != input_ids.shape:
            raise ValueError(
                f"`attention_mask` {list(attention_mask.shape)} must have the shape of `input_ids`, "
                f"{list(input_ids.shape)}."
            )
        attention_mask = attention_mask.long()
        if (attention_mask.diff(dim=1) < 0).any():
            raise ValueError("`input_ids` must be padded on the left: speech goes on where the text ends.")
        if ((input_ids == self.config.audio_bos_token_id) & (attention_mask == 1)).sum(1).ne(1).any():
            raise ValueError(
                f"each row of `input_ids` needs one audio_bos token (id {self.config.audio_bos_token_id}) after its "
                "text: use the processor, not the tokenizer alone."
            )
        return input_ids, attention_mask

    def _build_scheduler(self, noise_scheduler: Any | None) -> Any:
        """A scheduler of this call's own, so that threads can share a model."""
        own = self.noise_scheduler
        if noise_scheduler is None:
            return type(own).from_config(own.config)
        if not hasattr(noise_scheduler, "renoise_index"):
            raise ValueError(
                f"`noise_scheduler` is a {type(noise_scheduler).__name__}, which knows neither time from 1 to 0 nor "
                "the temperature: pass a DiTARScheduler."
            )
        ours, theirs = own.config.prediction_type, noise_scheduler.config.prediction_type
        if ours != theirs:
            raise ValueError(
                f"`noise_scheduler` expects a model with prediction_type {theirs!r}, this one gives {ours!r}: build "
                f"it with `DiTARScheduler.from_config(noise_scheduler.config, prediction_type={ours!r})`."
            )
        return type(noise_scheduler).from_config(noise_scheduler.config)

    def _prompt_patches(
        self,
        input_ids: torch.Tensor,
        values: torch.Tensor | None,
        mask: torch.Tensor | None,
        latents: torch.Tensor | None,
        latents_mask: torch.Tensor | None,
    ) -> Prompt:
        """Prompts of all rows as patches, checked against the placeholders."""
        if values is not None and latents is not None:
            raise ValueError("`prompt_values` and `prompt_latents` are both given: pass the one that you have.")
        size, counts = self.config.patch_size, [0] * len(input_ids)
        frames = [input_ids.new_zeros((0, self.config.latent_dim), dtype=torch.float32)] * len(input_ids)
        if values is not None:
            mask = torch.ones_like(values) if mask is None else mask
            rows = [row[keep.bool()].float() for row, keep in zip(values, mask, strict=True)]
            if any(len(row) % self.config.patch_length for row in rows):
                raise ValueError(
                    f"`prompt_values` must hold a multiple of {self.config.patch_length} samples a row: trim them."
                )
            if any(len(row) for row in rows):
                # an empty row is encoded as one patch of zeros, which is cut off below
                kept = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
                encoded, _ = self.encode_waveforms(pad_sequence(rows, batch_first=True), kept)
                frames = [x[: len(row) // self.vae.config.hop_length] for x, row in zip(encoded, rows, strict=True)]
        elif latents is not None:
            keep = torch.ones_like(latents[..., 0]) if latents_mask is None else latents_mask
            frames = [row[kept.bool()].float() for row, kept in zip(latents, keep, strict=True)]
            if any(len(row) % size for row in frames):
                raise ValueError(f"`prompt_latents` must hold a multiple of {size} frames a row.")
        counts = [len(row) // size for row in frames]
        placeholders = (input_ids == self.config.audio_patch_token_id).sum(1).tolist()
        if counts != placeholders:
            raise ValueError(
                f"`input_ids` has {placeholders} placeholders for prompt patches, but the prompts have {counts}: make "
                "both with one call of the processor."
            )
        return Prompt(torch.cat(frames).unflatten(0, (-1, size)) if any(counts) else frames[0][:, None], counts)

    def _length_bounds(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, prompt: Prompt, config: DiTARGenerationConfig
    ) -> tuple[list[int], list[int]]:
        """Fewest and most new patches of each row, from its text less what its prompt has spoken."""
        text = (attention_mask.sum(1) - 1).tolist()
        fewest, most = [], []
        for num_tokens, num_prompt in zip(text, prompt.counts, strict=True):
            num_tokens -= num_prompt
            bound = int(config.max_patches_per_token * num_tokens) + config.spare_patches - num_prompt
            most.append(max(1, config.min_new_tokens, min(config.max_new_tokens, bound)))
            bound = int(config.min_patches_per_token * num_tokens) - num_prompt
            fewest.append(min(most[-1], max(config.min_new_tokens, bound)))
        return fewest, most

    # -- the loop -----------------------------------------------------------------------------------------------------

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

        cache_length = prefix_length + max_new_patches
        mask = torch.nn.functional.pad(attention_mask, (0, max_new_patches))  # (B, cache_length), future closed
        if self._takes_additive_mask():
            mask = torch.where(mask == 1, 0.0, torch.finfo(dtype).min).to(dtype)[:, None, None]
        frames = self.config.num_history_patches * self.config.patch_size
        history = torch.zeros(batch_size, frames, self.config.latent_dim, device=input_ids.device)
        for row, row_patches in enumerate(prompt.rows() if prompt.patches.numel() else []):
            last = row_patches.flatten(0, 1)[-frames:] if frames else row_patches[:0].flatten(0, 1)
            history[row, frames - len(last) :] = last
        branches = 2 if config.guidance_scale > 1 else 1
        locdit = self.locdit
        tokens = locdit.sample_proj.weight.new_zeros(
            branches * batch_size, 1 + frames + self.config.patch_size, locdit.sample_proj.out_features
        )
        return PatchState(
            hidden_states=hidden_states,
            history=history,
            position_ids=attention_mask.sum(1, keepdim=True),
            attention_mask=mask[..., :cache_length],
            past_key_values=cache,
            time_embeds=locdit.time_embedding(scheduler.timesteps),
            tokens=tokens,
        )

    def _takes_additive_mask(self) -> bool:
        """Whether the LM takes a mask made once; flash kernels and layers with windows make their own at each step."""
        lm_config = self.model.language_model.config
        windows = {kind for kind in getattr(lm_config, "layer_types", None) or [] if kind != "full_attention"}
        return lm_config._attn_implementation in ("sdpa", "eager") and not windows

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
        locdit, config = self.locdit, self.config
        batch_size = state.hidden_states.shape[0]
        branches = state.tokens.shape[0] // batch_size
        history_end = 1 + state.history.shape[1]
        condition = locdit.condition_proj(state.hidden_states)  # (B, C); zeros in the branch without condition
        tokens = state.tokens.view(branches, batch_size, *state.tokens.shape[1:])
        if history_end > 1:
            tokens[:, :, 1:history_end] = locdit.embed_history(state.history.to(condition.dtype))
        sample = torch.zeros_like(noise) if noise is not None else torch.zeros_like(self._blank_patch(state))
        if scheduler.starts_from_noise:
            sample = noise
        previous = None
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
            state.history[:, : -config.patch_size] = state.history[:, config.patch_size :].clone()
            state.history[:, -config.patch_size :] = sample
        embeds = self.model.patch_encoder(sample.to(condition.dtype))[:, None]  # (B, 1, H)
        hidden_states = self.model.language_model(
            inputs_embeds=embeds,
            attention_mask=attention_mask,
            position_ids=state.position_ids,
            past_key_values=state.past_key_values,
            use_cache=True,
        ).last_hidden_state[:, 0]
        state.hidden_states = hidden_states
        state.position_ids = state.position_ids + 1
        return sample, self.stop_head(hidden_states)[:, 0].float()

    def _blank_patch(self, state: PatchState) -> torch.Tensor:
        """A patch of zeros in fp32 for the rows of a state: `(batch_size, patch_size, latent_dim)`."""
        shape = (state.hidden_states.shape[0], self.config.patch_size, self.config.latent_dim)
        return torch.zeros(shape, device=state.hidden_states.device)

    def _patch_step_function(self, config: DiTARGenerationConfig) -> Callable:
        if not config.compile_patch_step:
            return self._patch_step
        if getattr(self, "_compiled_patch_step", None) is None:
            self._compiled_patch_step = torch.compile(self._patch_step, fullgraph=True)
        return self._compiled_patch_step

    def _draw_patches(
        self,
        state: PatchState,
        scheduler: Any,
        config: DiTARGenerationConfig,
        fewest: list[int],
        most: list[int],
        generator: torch.Generator | list[torch.Generator] | None,
        streamer: Any | None,
    ) -> tuple[list[torch.Tensor], list[bool]]:
        """Latents `(num_frames, latent_dim)` of each row, and whether the row stopped by itself."""
        device, patch_size = state.hidden_states.device, self.config.patch_size
        step = self._patch_step_function(config)
        # reading a flag waits for the device, so elsewhere than on a CPU it is read when the next patch is under way
        delay = 0 if device.type == "cpu" else 1
        rows = list(range(len(most)))  # row of the batch at each place of the state
        drawn, stopped = [[] for _ in most], [False] * len(most)
        shape = (len(most), patch_size, self.config.latent_dim)
        draws_noise = scheduler.starts_from_noise or scheduler.renoise_index is not None
        prefix_length = state.attention_mask.shape[-1] - max(most)
        threshold = torch.tensor(config.stop_threshold).logit().item()
        waiting = []  # (rows, patches, flags) of patches whose flags are still unread
        for index in range(max(most) + delay):
            if index < max(most):
                mask = self._open_position(state, prefix_length + index, config)
                noise = None
                if draws_noise:
                    # drawn for the whole batch, so that rows that end change nothing for the others
                    noise = self._draw_noise(shape, generator, rows, device)
                patches, logits = step(state, scheduler, config.guidance_scale, noise, mask)
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
            if len(kept) <= len(rows) // 2:
                # fewer shapes to compile and fewer copies than compacting after every row
                self._keep_rows(state, kept)
                rows = [rows[place] for place in kept]
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

    def _keep_rows(self, state: PatchState, places: list[int]):
        """Drops the rows of a state that have ended."""
        index = torch.tensor(places, device=state.hidden_states.device)
        branches = state.tokens.shape[0] // state.hidden_states.shape[0]
        state.tokens = state.tokens[: branches * len(places)].clone()
        for name in ("hidden_states", "history", "position_ids", "attention_mask"):
            setattr(state, name, getattr(state, name)[index])
        for layer in state.past_key_values.layers:
            layer.keys, layer.values = layer.keys[index], layer.values[index]

    def _decode_rows(self, latents: list[torch.Tensor]) -> list[torch.Tensor]:
        """Waveforms of the rows, decoded as one batch in fp32."""
        mask = pad_sequence([torch.ones_like(row[:, 0]) for row in latents], batch_first=True)
        with torch.autocast(mask.device.type, enabled=False):
            waveforms = self.vae.decode(pad_sequence(latents, batch_first=True), mask)
        hop_length = self.vae.config.hop_length
        return [
            waveform[: len(row) * hop_length].clamp(-1, 1) for waveform, row in zip(waveforms, latents, strict=True)
        ]


__all__ = ["DiTARGenerateOutput", "DiTARGenerationConfig", "DiTARGenerationMixin"]
