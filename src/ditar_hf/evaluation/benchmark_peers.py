"""Systems of transformers that speak latent by latent as DiTAR does, by their own `generate` with random weights."""

from fractions import Fraction
from typing import Any

import torch
from transformers import (
    PocketTTSAudioTokenizerConfig,
    PocketTTSAudioTokenizerModel,
    PocketTTSConfig,
    PocketTTSForConditionalGeneration,
    VibeVoiceConfig,
    VibeVoiceForConditionalGeneration,
)

from .benchmark_systems import SEED, System, count_parameters, size_in_bytes
from .benchmark_timing import ModuleClock, Run, now

# of VibeVoice-1.5B, whose language model is Qwen2.5's; the class itself has the sizes of one with 11B
VIBEVOICE_TEXT_CONFIG = {
    "model_type": "qwen2",
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "max_position_embeddings": 65536,
    "tie_word_embeddings": True,
}
# its released setting: the head was distilled to one step, and guidance into it
POCKET_TTS_FLOW_STEPS = 1


def pocket_tts_configs() -> dict[str, Any]:
    """`config` and `codec_config` of the published Pocket TTS, for a [`SystemSpec`]."""
    return {"config": PocketTTSConfig(), "codec_config": PocketTTSAudioTokenizerConfig(encoder_config=None)}


def vibevoice_configs() -> dict[str, Any]:
    """`config` of the published VibeVoice-1.5B, for a [`SystemSpec`]."""
    return {"config": VibeVoiceConfig(text_config=VIBEVOICE_TEXT_CONFIG)}


class PeerSystem(System):
    """What both have: random weights on the device, and noise from torch's own generator."""

    model_class: type
    compiled_part = "a static cache, with which transformers compiles the LM on a GPU"

    def build_model(self) -> torch.nn.Module:
        """The model with random weights, in evaluation mode."""
        with self.device:
            model = self.model_class(self.spec.config)
        self.attention = model.config._attn_implementation
        return model.to(self.device, self.dtype).eval()

    def generate(self, **arguments: Any) -> Any:
        """Its `generate`, with a seed and without end before `num_steps`."""
        arguments |= {"max_new_tokens": self.num_steps, "return_dict_in_generate": True}
        if self.spec.compile:
            arguments["cache_implementation"] = "static"
        torch.manual_seed(SEED)
        return self.model.generate(**arguments)


class PocketTTSSystem(PeerSystem):
    """`pocket_tts` (Kyutai, 2026): one frame of 80 ms at a time by an MLP in one step, without guidance."""

    about = (
        "Pocket TTS of transformers: causal LM, and an MLP that draws a frame in one step, without guidance. Its "
        "codec is run once at the end, in float32."
    )
    model_class = PocketTTSForConditionalGeneration

    def build(self) -> None:
        """Makes the model and the decoder of its codec."""
        self.model = self.build_model()
        with self.device:
            self.codec = PocketTTSAudioTokenizerModel(self.spec.codec_config).eval()
        self.step_seconds = Fraction(self.codec.config.frame_size, self.codec.config.sampling_rate)
        # a part of it is for training only
        self.num_parameters = count_parameters(self.model) - count_parameters(self.model.loss_weighting)
        self.num_codec_parameters = count_parameters(self.codec.decoder)
        self.num_bytes = size_in_bytes(self.model, self.codec)
        self.num_inference_steps, self.num_branches = POCKET_TTS_FLOW_STEPS, 1

    def speak(self, batch_size: int) -> Run:
        """Says the workload once, as [`System.speak`]."""
        device, arguments = self.device, self._arguments(batch_size)
        with torch.random.fork_rng(), torch.no_grad(), ModuleClock(self.model.flow_head, device) as head:
            begin = now(device)
            latents = self.generate(**arguments).audio_latents.float()
            seconds = now(device) - begin
            waveforms = self.codec.decode(latents).audio_values
            decode_seconds = now(device) - begin - seconds
            again = now(device)
            self.codec.decode(latents[:, :1])
            first_decode_seconds = now(device) - again
        first_patch_seconds = head.intervals[POCKET_TTS_FLOW_STEPS - 1][1] - begin
        speech_seconds = waveforms.shape[-1] / self.codec.config.sampling_rate
        self.check_length(speech_seconds)
        return Run(seconds, decode_seconds, first_patch_seconds, first_decode_seconds, speech_seconds)

    def _arguments(self, batch_size: int) -> dict[str, Any]:
        config, num_prompt = self.spec.config, self.num_prompt_steps
        voice = [config.audio_prompt_bos_token_id] + [config.audio_prompt_token_id] * num_prompt
        reserved = {*voice, config.audio_latent_token_id, config.audio_bos_token_id, config.pad_token_id}
        ids = _after(voice if num_prompt else [], self.text_ids(batch_size, config.vocab_size, reserved))
        ids = torch.cat((ids, torch.full((batch_size, 1), config.audio_bos_token_id)), dim=1).to(self.device)
        arguments = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "num_flow_steps": POCKET_TTS_FLOW_STEPS,
            "do_sample": True,
            "eos_threshold": float("inf"),  # never ends by itself
            "frames_after_eos": 1,
        }
        if num_prompt:
            arguments["audio_prompt_latents"] = self.random_frames(batch_size, num_prompt, config.latent_dim)
            arguments["audio_prompt_latents_mask"] = torch.ones(batch_size, num_prompt, device=self.device)
        return arguments


class VibeVoiceSystem(PeerSystem):
    """`vibevoice` (Microsoft, 2025): one frame of 133 ms at a time by an MLP, decoded and encoded again for the LM."""

    about = (
        "VibeVoice of transformers: causal LM, run a second time for guidance, and an MLP that draws a frame. Each "
        "frame is decoded and encoded again by its semantic encoder, which counts as generation; its decoder counts "
        "as vocoder, and the encoding of the prompt, which the others have done beforehand, is left out."
    )
    model_class = VibeVoiceForConditionalGeneration
    # its configuration does not hold it
    sampling_rate = 24000

    def build(self) -> None:
        """Makes the model, which holds its codec."""
        self.model = self.build_model()
        codec = self.model.model.audio_tower
        self.step_seconds = Fraction(codec.config.hop_length, self.sampling_rate)
        self.num_parameters = count_parameters(self.model) - count_parameters(codec)
        self.num_codec_parameters = count_parameters(codec.decoder)
        self.num_bytes = size_in_bytes(self.model)
        self.num_branches = 2  # with or without guidance

    def speak(self, batch_size: int) -> Run:
        """Says the workload once, as [`System.speak`]."""
        device, model, arguments = self.device, self.model.model, self._arguments(batch_size)
        codec = model.audio_tower
        with (
            torch.random.fork_rng(),
            ModuleClock(codec.encoder, device) as encoder,
            ModuleClock(codec.decoder, device) as vocoder,
            ModuleClock(model.diffusion_head, device) as head,
        ):
            begin = now(device)
            output = self.generate(**arguments)
            seconds = now(device) - begin
        first = head.intervals[self.num_inference_steps - 1][1]
        for waveform in output.audio:
            self.check_length(waveform.shape[-1] / self.sampling_rate)
        first_decode_begin, first_decode_end = vocoder.intervals[0]
        return Run(
            seconds - vocoder.seconds - encoder.seconds,
            vocoder.seconds,
            first - begin - encoder.seconds,
            first_decode_end - first_decode_begin,
            output.audio[0].shape[-1] / self.sampling_rate,
        )

    def _arguments(self, batch_size: int) -> dict[str, Any]:
        config, num_prompt = self.spec.config, self.num_prompt_steps
        voice = [config.audio_bos_token_id, *[config.audio_token_id] * num_prompt, config.audio_eos_token_id]
        reserved = {*voice, config.audio_token_id, config.pad_token_id, config.eos_token_id}
        ids = _after(voice if num_prompt else [], self.text_ids(batch_size, config.vocab_size, reserved))
        ids = torch.cat((ids, torch.full((batch_size, 1), config.audio_bos_token_id)), dim=1).to(self.device)
        arguments = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "num_diffusion_steps": self.num_inference_steps,
            # of the four tokens that its `generate` allows, only the one that makes a frame
            "suppress_tokens": sorted({config.audio_bos_token_id, config.audio_eos_token_id, config.eos_token_id}),
        }
        if num_prompt:
            samples = num_prompt * config.audio_config.hop_length
            arguments["input_values"] = self.random_frames(batch_size, 1, samples).to(self.dtype)
            arguments["padding_mask"] = torch.ones(batch_size, samples, dtype=torch.bool, device=self.device)
        return arguments


def _after(first: list[int], ids: torch.Tensor) -> torch.Tensor:
    """The same tokens in front of all rows `(batch_size, num_tokens)`."""
    return torch.cat((torch.tensor([first] * len(ids), dtype=ids.dtype).reshape(len(ids), -1), ids), dim=1)
