"""Systems of the benchmark: what they are told to say, what all of them have, and DiTAR itself."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from numbers import Integral, Real
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

from ditar_hf import DiTARForTextToSpeech

from .benchmark_timing import ModuleClock, Run, now

# of random weights, texts, prompts and noise; speed does not depend on it
SEED = 0
# appendix A.4 of the paper assumes so many
TEXT_TOKENS_PER_SECOND = 7


@dataclass(frozen=True)
class Workload:
    """
    What every system says in a call; the defaults are those of the paper (section 4.4.2, appendix A.4).

    Args:
        seconds (`float`): Length of the speech of each row.
        prompt_seconds (`float`, *optional*, defaults to 3.0):
            Length of the voice, which is encoded beforehand; 0 is none. Each system takes whole frames of its own.
        num_text_tokens (`int`, *optional*): Tokens of prompt and target text; by default 7 for each second of both.
        num_inference_steps (`int`, *optional*, defaults to 10):
            Solver steps of each diffusion (NFE), where a system has a choice.
        guidance_scale (`float`, *optional*, defaults to 2.0):
            Strength of guidance, where a system has it; 1 is none, any other costs the same.

    Raises:
        ValueError: If a number makes no sense.
    """

    seconds: float
    prompt_seconds: float = 3.0
    num_text_tokens: int | None = None
    num_inference_steps: int = 10
    guidance_scale: float = 2.0

    def __post_init__(self):
        for name, low, meaning in (("seconds", 0, "above 0"), ("prompt_seconds", None, "0 or more")):
            value = getattr(self, name)
            if not _is_finite(value) or value < 0 or value == low:
                raise ValueError(f"`{name}` must be a finite number {meaning}, got {value!r}.")
        if not _is_finite(self.guidance_scale) or self.guidance_scale < 1:
            raise ValueError(f"`guidance_scale` must be a finite number of 1 or more, got {self.guidance_scale!r}.")
        for name in ("num_inference_steps", "num_text_tokens"):
            value = getattr(self, name)
            if value is None and name == "num_text_tokens":
                continue
            if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
                raise ValueError(f"`{name}` must be a whole number of 1 or more, got {value!r}.")

    @property
    def text_length(self) -> int:
        """Tokens of the text, given or by the length of the speech."""
        if self.num_text_tokens is not None:
            return self.num_text_tokens
        return max(1, round(TEXT_TOKENS_PER_SECOND * (self.prompt_seconds + self.seconds)))

    @property
    def num_branches(self) -> int:
        """Rows of a diffusion for each row of the batch: two with guidance."""
        return 2 if self.guidance_scale > 1 else 1


def _is_finite(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class SystemSpec:
    """
    All that a process needs to build a system and to run it.

    Args:
        name (`str`): In tables.
        kind (`str`): A key of `SYSTEMS`.
        config (`PreTrainedConfig`): Sizes.
        workload ([`Workload`]): What it says.
        codec_config (`PreTrainedConfig`, *optional*): Of the vocoder, where that is a model of its own.
        folder (`str`, *optional*): Weights of a trained model; random ones by default.
        device (`str`, *optional*, defaults to `"cpu"`): Where it computes.
        dtype (`str`, *optional*, defaults to `"float32"`): Precision of all but the vocoder.
        compile (`bool`, *optional*, defaults to `False`): Whether the work of a patch, or of a step, is compiled.
        transformer_class (`type`, *optional*): Of the non-autoregressive system.
        reference (`str`, *optional*): Name of the system that it is compared with; itself by default.
    """

    name: str
    kind: str
    config: PreTrainedConfig
    workload: Workload
    codec_config: PreTrainedConfig | None = None
    folder: str | None = None
    device: str = "cpu"
    dtype: str = "float32"
    compile: bool = False
    transformer_class: type[nn.Module] | None = None
    reference: str | None = None


def count_parameters(*modules: nn.Module | None) -> int:
    """Weights of some modules together; one that is shared counts once."""
    unique = {id(weight): weight for module in modules if module is not None for weight in module.parameters()}
    return sum(weight.numel() for weight in unique.values())


class System(ABC):
    """
    A system under test. Its weights are made when it is.

    Args:
        spec ([`SystemSpec`]): Which one. On the device "meta" it has sizes but no weights, and cannot speak.

    Attributes:
        about (`str`): What it is and what its figures hold, in a sentence or two.
        compiled_part (`str`): What of it is compiled if that is asked for.
        num_parameters (`int`): Weights that generate latents.
        num_codec_parameters (`int`): Weights that turn latents into a waveform.
        num_bytes (`int`): Of all weights that are loaded.
        step_seconds (`Fraction`): Speech in one patch or frame.
        num_inference_steps (`int`): Solver steps of one diffusion.
        num_branches (`int`): Rows of its diffusion for each row of the batch.
        attention (`str`): Implementation of attention.

    Raises:
        ValueError: If it cannot be built.
    """

    about = ""
    compiled_part = ""

    def __init__(self, spec: SystemSpec):
        self.spec, self.workload = spec, spec.workload
        self.device, self.dtype = torch.device(spec.device), getattr(torch, spec.dtype)
        self.num_branches = self.workload.num_branches
        self.num_inference_steps = self.workload.num_inference_steps
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            self.build()

    @abstractmethod
    def build(self) -> None:
        """Makes the model, in evaluation mode, and sets what `System` lists."""

    @abstractmethod
    def speak(self, batch_size: int) -> Run:
        """
        Says the workload once.

        Args:
            batch_size (`int`): Rows that are said together.

        Returns:
            [`Run`].
        """

    @property
    def num_steps(self) -> int:
        """
        Patches or frames of the speech.

        Raises:
            ValueError: If the speech is no whole number of them.
        """
        steps = Fraction(str(self.workload.seconds)) / self.step_seconds
        if steps.denominator != 1:
            raise ValueError(
                f"`seconds` ({self.workload.seconds}) is no whole number of the {float(self.step_seconds):g} s that "
                f"{self.spec.name} makes at a time."
            )
        return int(steps)

    @property
    def num_prompt_steps(self) -> int:
        """Patches or frames of the prompt, rounded up."""
        return math.ceil(Fraction(str(self.workload.prompt_seconds)) / self.step_seconds)

    def generator(self, device: torch.device | None = None) -> torch.Generator:
        """A fresh source of random numbers, the same each time."""
        return torch.Generator(device or "cpu").manual_seed(SEED)

    def text_ids(self, batch_size: int, vocab_size: int, reserved: set[int]) -> torch.Tensor:
        """Random tokens `(batch_size, num_text_tokens)` that have no meaning of their own."""
        plain = torch.tensor(sorted(set(range(vocab_size)) - reserved))
        drawn = torch.randint(len(plain), (batch_size, self.workload.text_length), generator=self.generator())
        return plain[drawn]

    def random_frames(self, *shape: int) -> torch.Tensor:
        """Noise in place of latents or samples, in fp32."""
        return torch.randn(*shape, generator=self.generator()).to(self.device)

    def check_length(self, speech_seconds: float) -> None:
        """
        Raises unless the speech is as long as it should be: figures of others would compare unequal work.

        Args:
            speech_seconds (`float`): Of each row.

        Raises:
            RuntimeError: If it is not.
        """
        if not math.isclose(speech_seconds, self.workload.seconds, rel_tol=1e-9):
            raise RuntimeError(
                f"{self.spec.name} made {speech_seconds} s of speech where {self.workload.seconds} s were asked for."
            )

    def describe(self) -> dict[str, Any]:
        """What stands in the report about the system, as plain values."""
        return {
            "name": self.spec.name,
            "kind": self.spec.kind,
            "about": self.about,
            "weights": self.spec.folder or "random",
            "num_parameters": self.num_parameters,
            "num_codec_parameters": self.num_codec_parameters,
            "num_bytes": self.num_bytes,
            "step_seconds": float(self.step_seconds),
            "num_steps": self.num_steps,
            "num_prompt_steps": self.num_prompt_steps,
            "num_inference_steps": self.num_inference_steps,
            "num_branches": self.num_branches,
            "dtype": self.spec.dtype,
            "attention": self.attention,
            "compile": self.compiled_part if self.spec.compile else None,
            "reference": self.spec.reference or self.spec.name,
        }


def size_in_bytes(*modules: nn.Module) -> int:
    """Bytes of all weights and buffers of some modules."""
    tensors = {id(t): t for module in modules for t in (*module.parameters(), *module.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


class _FirstPatchCame(Exception):
    """Ends a call of `generate` that only its first patch is wanted of."""


class FirstPatchStreamer:
    """A `streamer` of `generate` that notes when the first patch is there, and ends the call."""

    def __init__(self, device: torch.device):
        self.device, self.moment = device, math.nan

    def put(self, value: Any) -> None:
        """Takes the first patch."""
        self.moment = now(self.device)
        raise _FirstPatchCame

    def end(self) -> None:
        """Is never called."""


class DiTARSystem(System):
    """DiTAR of any configuration, by its own `generate`."""

    about = (
        "Ours: patch encoder, causal LM and LocDiT; each patch is fed back. The first patch is timed as `streamer` "
        "gets it, in a call that then ends."
    )
    compiled_part = "the work of a patch is compiled"

    def build(self) -> None:
        """Makes or loads the model."""
        spec = self.spec
        if spec.folder is None or self.device.type == "meta":
            with self.device:
                self.model = DiTARForTextToSpeech(spec.config)
        else:
            self.model = DiTARForTextToSpeech.from_pretrained(spec.folder, dtype=self.dtype)
        self.model = self.model.to(self.device, self.dtype).eval()
        model = self.model
        self.config = config = model.config
        self.num_codec_parameters = count_parameters(model.vae.decoder)
        others = count_parameters(model.vae) + count_parameters(model.alignment_head)
        self.num_parameters = count_parameters(model) - others
        self.num_bytes = size_in_bytes(model)
        self.step_seconds = Fraction(config.patch_length, config.sampling_rate)
        self.attention = config.locdit_config._attn_implementation

    def speak(self, batch_size: int) -> Run:
        """Says the workload once, as [`System.speak`]."""
        model, config, device = self.model, self.config, self.device
        arguments = self._arguments(batch_size)
        streamer = FirstPatchStreamer(device)
        begin = now(device)
        try:
            model.generate(**arguments, generator=self.generator(device), streamer=streamer)
        except _FirstPatchCame:
            first_patch_seconds = streamer.moment - begin
        with ModuleClock(model.vae.decoder, device) as vocoder:
            begin = now(device)
            output = model.generate(**arguments, generator=self.generator(device))
            seconds = now(device) - begin
        for waveform in output.audio:
            self.check_length(len(waveform) / config.sampling_rate)
        first = torch.stack([latents[: config.patch_size] for latents in output.latents])
        begin = now(device)
        with torch.no_grad():
            model.vae.decode(first)
        first_decode_seconds = now(device) - begin
        return Run(
            seconds - vocoder.seconds,
            vocoder.seconds,
            first_patch_seconds,
            first_decode_seconds,
            len(output.audio[0]) / config.sampling_rate,
        )

    def _arguments(self, batch_size: int) -> dict[str, Any]:
        config, num_prompt = self.config, self.num_prompt_steps
        placeholder = config.audio_patch_token_id
        reserved = {config.pad_token_id, config.audio_bos_token_id, placeholder}
        text = self.text_ids(batch_size, config.lm_config.vocab_size, reserved)
        bos = torch.full((batch_size, 1), config.audio_bos_token_id)
        prompt = torch.full((batch_size, num_prompt), placeholder)
        arguments = {
            "input_ids": torch.cat((text, bos, prompt), dim=1).to(self.device),
            "min_new_tokens": self.num_steps,
            "max_new_tokens": self.num_steps,
            "num_inference_steps": self.workload.num_inference_steps,
            "guidance_scale": self.workload.guidance_scale,
            "temperature": 1.0,
        }
        if num_prompt:
            arguments["prompt_latents"] = self.random_frames(
                batch_size, num_prompt * config.patch_size, config.latent_dim
            )
        if self.spec.compile:
            arguments |= {"compile_patch_step": True, "cache_implementation": "static"}
        return arguments


class MARSystem(DiTARSystem):
    """A MAR-like system: single frames, drawn by an MLP."""

    about = (
        "MAR-like: as ours, but each latent frame is a patch (P = 1) and an MLP of as many layers stands in place of "
        "LocDiT; no history."
    )
