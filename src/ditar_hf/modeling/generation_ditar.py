"""Patch by patch: LocDiT paints, the patch encoder reads, the language model goes on (sections 3.3 to 3.5.4)."""

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig
from transformers.utils import ModelOutput, logging

from .generation_config_ditar import LIBRARY_NOTES, DiTARGenerationConfig
from .generation_inputs_ditar import check_tokens, check_types
from .patch_loop_ditar import DiTARPatchLoop, Prompt

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


def _changes(generation_config: GenerationConfig) -> dict[str, Any]:
    """What a generation config of any class says; a plain one leaves open what it does not change."""
    values = generation_config.to_diff_dict()
    return {k: v for k, v in values.items() if k not in LIBRARY_NOTES and not k.startswith("_")}


class DiTARGenerationMixin(DiTARPatchLoop):
    """`generate` for [`DiTARForTextToSpeech`]; independent of transformers' loop over token logits."""

    generation_config_class = DiTARGenerationConfig
    output_modalities = ("audio",)

    def adjust_generation_fn(
        self,
        generation_config: GenerationConfig | None,
        from_auto_class: bool,
        from_pipeline: str | None,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *args: Any,
        **kwargs: Any,
    ):
        """
        Gives a model that `from_pretrained` loads its generation config, of our class; the library calls it.

        Args:
            generation_config (`GenerationConfig`, *optional*): In place of the file.
            from_auto_class (`bool`): Whether an Auto class loads; told to the Hub.
            from_pipeline (`str`, *optional*): Which pipeline loads; told to the Hub.
            pretrained_model_name_or_path (`str` or `os.PathLike`, *optional*):
                Where `generation_config.json` is; without that file the defaults stay.
            *args: `cache_dir`, `force_download` … in the order of the library.
            **kwargs: The same by name, and what has nothing to do with it.

        Raises:
            OSError: If the file is broken.
            ValueError: If it holds what DiTAR does not take.
        """
        names = ("cache_dir", "force_download", "proxies", "local_files_only", "token", "revision", "subfolder")
        # only where to look: other keyword arguments override fields of the model's configuration
        kwargs = {key: value for key, value in kwargs.items() if key in names} | dict(zip(names, args, strict=False))
        if generation_config is not None:
            self.generation_config = self.generation_config_class.from_dict(_changes(generation_config))
        elif pretrained_model_name_or_path is not None:
            try:
                self.generation_config = self.generation_config_class.from_pretrained(
                    pretrained_model_name_or_path,
                    _from_auto=from_auto_class,
                    _from_pipeline=from_pipeline,
                    **kwargs,
                )
            except OSError as error:
                if isinstance(error.__context__, ValueError):
                    raise  # the file is there but broken
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
            ValueError: If an argument is unknown, of another type or out of range, prompts and placeholders do not
                match, text and speech may exceed the positions of the language model, that is trained with gradient
                checkpointing, the weights are nowhere or spread over accelerators, or the speech is not finite.
        """
        lm = self.model.language_model
        if lm.training and lm.is_activation_checkpointing:
            raise ValueError(
                "the language model is in training mode with gradient checkpointing, which drops the cache that "
                "`generate` goes on from: call `model.eval()` first, and `model.train()` to go on training."
            )
        config = self._merge_generation_config(generation_config, kwargs)
        self._check_placement(config)
        tensors = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "prompt_values": prompt_values,
            "prompt_mask": prompt_mask,
            "prompt_latents": prompt_latents,
            "prompt_latents_mask": prompt_latents_mask,
        }
        check_types(tensors, generator, streamer)
        input_ids, attention_mask = check_tokens(self.config, input_ids, attention_mask)
        scheduler = self._build_scheduler(noise_scheduler)
        scheduler.set_timesteps(config.num_inference_steps, device=input_ids.device, temperature=config.temperature)
        if isinstance(generator, list) and len(generator) != len(input_ids):
            raise ValueError(
                f"`generator` is a list of {len(generator)} for {len(input_ids)} rows: give one for each row."
            )
        prompt = self._prompt_patches(input_ids, prompt_values, prompt_mask, prompt_latents, prompt_latents_mask)
        if not scheduler.draws_noise and 0 in prompt.counts:
            logger.warning_once(
                "At this temperature nothing is drawn: a text without a prompt is always spoken in the same voice, "
                "whatever the generator. Raise `temperature` for others."
            )
        fewest, most = self._length_bounds(input_ids, attention_mask, prompt, config)
        self._check_positions(attention_mask, max(most))
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

    def draws_noise(self, generation_config: GenerationConfig | None = None, **kwargs: Any) -> bool:
        """
        Whether a generator has an effect on `generate` with these settings.

        At temperature 0 it has none, and neither at one so near to it that it falls on the end of the grid of steps.

        Args:
            generation_config ([`DiTARGenerationConfig`], *optional*): As for `generate`.
            **kwargs: As for `generate`, settings alone.

        Returns:
            `bool`.

        Raises:
            ValueError: If a setting is unknown or out of range.
        """
        config, scheduler = self._merge_generation_config(generation_config, kwargs), self._build_scheduler(None)
        scheduler.set_timesteps(config.num_inference_steps, temperature=config.temperature)
        return scheduler.draws_noise

    def _merge_generation_config(
        self, generation_config: GenerationConfig | None, overrides: dict[str, Any]
    ) -> DiTARGenerationConfig:
        """The model's settings, under those of a config for this call, under single values for this call."""
        if generation_config is not None:
            if not isinstance(generation_config, GenerationConfig):
                kind = type(generation_config).__name__
                raise ValueError(
                    f"`generation_config` is of type {kind}: pass a DiTARGenerationConfig, or settings by "
                    "name, such as `temperature=0.5`."
                )
            changes = _changes(generation_config)
            if isinstance(generation_config, DiTARGenerationConfig):
                changes["cache_implementation"] = generation_config.cache_implementation  # also where it is None
            overrides = {**changes, **overrides}
        return self.generation_config.merged(overrides)

    def _check_placement(self, config: DiTARGenerationConfig):
        """Raises where the weights lie so that the loop cannot run: spread over accelerators, or nowhere."""
        places = set((getattr(self, "hf_device_map", None) or {}).values())
        accelerators = sorted(map(str, places - {"cpu", "disk"}))
        if len(accelerators) > 1:
            raise ValueError(
                f"the model is spread over the devices {', '.join(accelerators)}, and all parts speak at each patch: "
                f"load it on one, `device_map={{'': {accelerators[0]}}}`, or offload to 'cpu' or 'disk'."
            )
        head = self.stop_head
        if head.weight.is_meta and not hasattr(head, "_hf_hook"):
            raise ValueError("the weights are on the meta device, so there are none: load the model on a real one.")
        if config.compile_patch_step and (len(places) > 1 or "disk" in places):
            raise ValueError("`compile_patch_step=True` needs all weights on one device, but some are offloaded.")

    def _build_scheduler(self, noise_scheduler: Any | None) -> Any:
        """A scheduler of this call's own, so that threads can share a model."""
        own = self.noise_scheduler
        if noise_scheduler is None:
            return type(own).from_config(own.config)
        # on the class: the property itself needs a plan, which a fresh scheduler does not have
        if not hasattr(type(noise_scheduler), "renoise_index"):
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
        size, latent_dim = self.config.patch_size, self.config.latent_dim
        if latents is not None and (
            latents.ndim != 3
            or latents.shape[2] != latent_dim
            or (latents_mask is not None and latents_mask.shape != latents.shape[:2])
        ):
            raise ValueError(
                f"`prompt_latents` {list(latents.shape)} must be (batch_size, num_frames, {latent_dim}), and "
                "`prompt_latents_mask` the same without its last dimension."
            )
        frames = [input_ids.new_zeros((0, latent_dim), dtype=torch.float32)] * len(input_ids)
        if values is not None:
            frames = self.encode_prompts(values, mask)
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
            # cut down as numbers, which may be too large to be whole ones
            bound = int(min(config.max_patches_per_token * num_tokens, config.max_new_tokens + num_prompt))
            bound += config.spare_patches - num_prompt
            most.append(max(1, config.min_new_tokens, min(config.max_new_tokens, bound)))
            bound = int(min(config.min_patches_per_token * num_tokens, most[-1] + num_prompt)) - num_prompt
            fewest.append(min(most[-1], max(config.min_new_tokens, bound)))
        return fewest, most

    def _check_positions(self, attention_mask: torch.Tensor, most: int):
        """Raises where text, prompt and as many patches have more positions than the LM; ended rows run along."""
        limit = getattr(self.config.lm_config, "max_position_embeddings", None)
        prefix = int(attention_mask.sum(1).max())
        if limit is not None and prefix + most > limit:
            raise ValueError(
                f"text and prompt of {prefix} tokens and up to {most} patches of speech exceed the {limit} positions "
                "of `lm_config.max_position_embeddings`: shorten the text or the prompt, or lower `max_new_tokens`."
            )

    def _decode_rows(self, latents: list[torch.Tensor]) -> list[torch.Tensor]:
        """Waveforms of the rows, decoded as one batch in fp32."""
        mask = None  # which spares work where there is nothing to hide
        if len({len(row) for row in latents}) > 1:
            mask = pad_sequence([torch.ones_like(row[:, 0]) for row in latents], batch_first=True)
        with torch.autocast(latents[0].device.type, enabled=False):
            waveforms = self.vae.decode(pad_sequence(latents, batch_first=True), mask)
        hop_length = self.vae.config.hop_length
        rows = [waveform[: len(row) * hop_length] for waveform, row in zip(waveforms, latents, strict=True)]
        if not all(row.isfinite().all() for row in rows):
            raise ValueError(
                "the speech is not finite: something in it grew too large. Lower `guidance_scale`, load the model "
                "with a `dtype` of wider range, and look for NaN in prompts and weights."
            )
        return [row.clamp(-1, 1) for row in rows]


__all__ = ["DiTARGenerateOutput", "DiTARGenerationConfig", "DiTARGenerationMixin"]
