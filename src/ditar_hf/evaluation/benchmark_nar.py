"""The non-autoregressive baseline of Table 7 and Fig. 5: one diffusion transformer over all frames at once.

The paper says only that it is a diffusion transformer of the same parameters, with guidance and the same number of
steps. Text and prompt condition each frame as in F5-TTS (Chen et al., 2024): embeddings of the tokens, padded to the
length of the frames, and the prompt's frames are added to the noisy ones. Blocks, solver, latents and vocoder are
those of DiTAR, so that only the design differs.
"""

import copy
import math
from fractions import Fraction
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ditar_hf import DiTARConfig, DiTARForTextToSpeech, DiTARScheduler, DiTARTransformerConfig, DiTARVAE

from .benchmark_systems import System, count_parameters, size_in_bytes
from .benchmark_timing import ModuleClock, Run, now

NUM_FREQUENCIES = 128
TIME_SCALE = 1000.0
# the width of the FFN is the roundest of these multiples that is near enough to a DiTAR's number of weights
ALIGNMENTS, TOLERANCE = (64, 32, 16, 8, 4, 2, 1), 0.01


class NonAutoregressiveTransformer(nn.Module):
    """
    Predicts the velocity of all frames of an utterance, prompt and target, at one diffusion time.

    Args:
        config ([`DiTARTransformerConfig`]): Sizes of the transformer.
        transformer_class (`type`): Makes it, from `config` and the longest sequence: DiTAR's own `DiTARTransformer`.
        num_frames (`int`): Longest sequence.
        latent_dim (`int`): Channels of a frame.
        vocab_size (`int`): Tokens of the text.
    """

    def __init__(
        self,
        config: DiTARTransformerConfig,
        transformer_class: type[nn.Module],
        num_frames: int,
        latent_dim: int,
        vocab_size: int,
    ):
        super().__init__()
        hidden_size = config.hidden_size
        # the last one fills the frames that have no token of their own
        self.text_embedding = nn.Embedding(vocab_size + 1, hidden_size)
        self.prompt_proj = nn.Linear(latent_dim, hidden_size)
        self.sample_proj = nn.Linear(latent_dim, hidden_size)
        self.time_in_proj = nn.Linear(2 * NUM_FREQUENCIES, hidden_size)
        self.time_out_proj = nn.Linear(hidden_size, hidden_size)
        self.transformer = transformer_class(config, num_frames)
        self.output_proj = nn.Linear(hidden_size, latent_dim)

    def embed_condition(self, text_ids: torch.Tensor, prompt: torch.Tensor, num_frames: int) -> torch.Tensor:
        """
        What text and prompt add to each frame; the same in all steps.

        Args:
            text_ids (`torch.Tensor` of shape `(batch_size, num_tokens)`): At most as many as frames.
            prompt (`torch.Tensor` of shape `(batch_size, num_prompt_frames, latent_dim)`): Encoded voice.
            num_frames (`int`): Of prompt and target.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_frames, hidden_size)`.
        """
        filler = self.text_embedding.num_embeddings - 1
        padded = F.pad(text_ids, (0, num_frames - text_ids.shape[1]), value=filler)
        frames = F.pad(prompt, (0, 0, 0, num_frames - prompt.shape[1]))
        return self.text_embedding(padded) + self.prompt_proj(frames)

    def embed_time(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Times `(num_steps,)` in [0, 1] to `(num_steps, hidden_size)`."""
        exponent = torch.arange(NUM_FREQUENCIES, dtype=torch.float32, device=timesteps.device) / NUM_FREQUENCIES
        angle = TIME_SCALE * timesteps[:, None] * torch.exp(-math.log(10000.0) * exponent)
        sinusoids = torch.cat((angle.cos(), angle.sin()), dim=-1).to(self.time_in_proj.weight.dtype)
        return self.time_out_proj(F.silu(self.time_in_proj(sinusoids)))

    def forward(self, sample: torch.Tensor, time_embed: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Noisy frames `(N, T, D)`, the time `(C,)` and the condition `(N, T, C)` to velocities `(N, T, D)`."""
        hidden_states = self.sample_proj(sample) + condition + time_embed
        return self.output_proj(self.transformer(hidden_states))

    @torch.no_grad()
    def generate(
        self,
        text_ids: torch.Tensor,
        prompt: torch.Tensor,
        num_frames: int,
        num_inference_steps: int,
        guidance_scale: float,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """
        Draws all frames at once, by the solver of DiTAR.

        Args:
            text_ids (`torch.Tensor` of shape `(batch_size, num_tokens)`): The text.
            prompt (`torch.Tensor` of shape `(batch_size, num_prompt_frames, latent_dim)`): Encoded voice.
            num_frames (`int`): Of the target.
            num_inference_steps (`int`): Steps of the solver.
            guidance_scale (`float`): 1 is none; otherwise the rows without condition run along in the same batch.
            generator (`torch.Generator`): Source of noise.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_frames, latent_dim)` in fp32.
        """
        dtype, device = self.sample_proj.weight.dtype, text_ids.device
        scheduler = DiTARScheduler()
        scheduler.set_timesteps(num_inference_steps, device=device)
        times = self.embed_time(scheduler.timesteps)
        shape = (len(text_ids), prompt.shape[1] + num_frames, prompt.shape[2])
        condition = self.embed_condition(text_ids, prompt.to(dtype), shape[1])
        branches = 2 if guidance_scale > 1 else 1
        if branches == 2:
            condition = torch.cat((condition, torch.zeros_like(condition)))
        sample = scheduler.init_noise(shape, generator, device)
        for index in range(num_inference_steps):
            output = self(sample.to(dtype).repeat(branches, 1, 1), times[index], condition).float()
            if branches == 2:
                conditioned, free = output.chunk(2)
                output = free + guidance_scale * (conditioned - free)
            sample, _ = scheduler.update(output, index, sample)
        return sample[:, prompt.shape[1] :]


def matched_config(config: DiTARConfig, transformer_class: type[nn.Module]) -> DiTARTransformerConfig:
    """
    Sizes of the non-autoregressive transformer that has as many weights as a DiTAR.

    It is as wide as the language model and as deep as all parts of DiTAR together; the width of its FFN makes the
    numbers meet.

    Args:
        config ([`DiTARConfig`]): Of the DiTAR.
        transformer_class (`type`): As for [`NonAutoregressiveTransformer`].

    Returns:
        [`DiTARTransformerConfig`].

    Raises:
        ValueError: If even an FFN of width 1 makes it too large, or the language model does not tell its sizes.
    """
    with torch.device("meta"):
        model = DiTARForTextToSpeech(config)
    target = count_parameters(model) - count_parameters(model.vae) - count_parameters(model.alignment_head)
    parts = (config.lm_config, config.encoder_config, config.locdit_config)
    sizes = {
        "num_hidden_layers": sum(part.num_hidden_layers for part in parts),
        "hidden_size": config.lm_config.hidden_size,
        "num_attention_heads": config.lm_config.num_attention_heads,
    }
    thin = DiTARTransformerConfig(**sizes, intermediate_size=1)
    with torch.device("meta"):
        rest = count_parameters(
            NonAutoregressiveTransformer(thin, transformer_class, 1, config.latent_dim, config.lm_config.vocab_size)
        )
    # two matrices a layer
    per_unit = 2 * sizes["hidden_size"] * sizes["num_hidden_layers"]
    exact_size = 1 + (target - rest) / per_unit
    if exact_size < 1:
        raise ValueError(
            f"`config` has {target:,} weights, fewer than attention and embeddings of a non-autoregressive "
            f"transformer of its depth and width ({rest:,}): leave out the system `nar`."
        )
    # odd sizes would slow matrix kernels down
    for multiple in ALIGNMENTS:
        intermediate_size = multiple * max(1, round(exact_size / multiple))
        if abs(intermediate_size - exact_size) * per_unit <= TOLERANCE * target:
            break
    return DiTARTransformerConfig(**sizes, intermediate_size=intermediate_size)


class NARSystem(System):
    """The non-autoregressive baseline, of as many weights as a DiTAR; the specification's `config` is of that."""

    about = (
        "Non-autoregressive: one diffusion transformer of our blocks, with as many weights as ours, over all frames "
        "of prompt and target. Nothing is there before the end, so the latency is that of all speech."
    )
    compiled_part = "the work of a step is compiled"

    def build(self) -> None:
        """Makes the model and a vocoder as DiTAR's."""
        config: DiTARConfig = self.spec.config
        frame_seconds = Fraction(config.vae_config.hop_length, config.sampling_rate)
        # as DiTAR, it is asked for whole patches
        self.config, self.step_seconds = config, config.patch_size * frame_seconds
        sizes = copy.deepcopy(matched_config(config, self.spec.transformer_class))
        # the class is told how to attend by the model around it, which is none here
        sizes._attn_implementation = self.attention = "sdpa"
        self.num_prompt_frames = self.num_prompt_steps * config.patch_size
        # a table of positions that is long enough, also where the length is refused later
        num_frames = math.ceil(Fraction(str(self.workload.seconds)) / frame_seconds)
        total = self.num_prompt_frames + num_frames
        if self.workload.text_length > total:
            raise ValueError(
                f"`num_text_tokens` ({self.workload.text_length}) is more than the {total} frames that "
                f"{self.spec.name} spreads them over: take fewer."
            )
        arguments = (self.spec.transformer_class, total, config.latent_dim, config.lm_config.vocab_size)
        with self.device:
            model = NonAutoregressiveTransformer(sizes, *arguments)
            self.vae = DiTARVAE(config.vae_config).eval().requires_grad_(False)
        self.model = model.to(self.device, self.dtype).eval()
        self.num_parameters = count_parameters(model)
        self.num_codec_parameters = count_parameters(self.vae.decoder)
        self.num_bytes = size_in_bytes(model, self.vae)
        if self.spec.compile:
            self.model.compile()

    def speak(self, batch_size: int) -> Run:
        """Says the workload once, as [`System.speak`]."""
        config, device = self.config, self.device
        arguments: dict[str, Any] = {
            "text_ids": self.text_ids(batch_size, config.lm_config.vocab_size, set()).to(device),
            "prompt": self.random_frames(batch_size, self.num_prompt_frames, config.latent_dim),
            "num_frames": self.num_steps * config.patch_size,
            "num_inference_steps": self.workload.num_inference_steps,
            "guidance_scale": self.workload.guidance_scale,
        }
        with ModuleClock(self.vae.decoder, device) as vocoder, torch.no_grad():
            begin = now(device)
            latents = self.model.generate(**arguments, generator=self.generator(device))
            waveforms = self.vae.decode(latents)
            seconds = now(device) - begin
            decode_seconds = vocoder.seconds
            self.vae.decode(latents[:, : config.patch_size])
        speech_seconds = waveforms.shape[1] / config.sampling_rate
        self.check_length(speech_seconds)
        seconds -= decode_seconds
        return Run(seconds, decode_seconds, seconds, vocoder.seconds - decode_seconds, speech_seconds)
