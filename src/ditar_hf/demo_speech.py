"""What the demo does when its button is pressed, without the page around it."""

import secrets
import time
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ditar_hf import DiTARForTextToSpeech, DiTARProcessor

# in place of the name of a voice; the space keeps it from being one
RECORDING = "a recording"


@dataclass(frozen=True)
class DemoSpeech:
    """
    What was said, and how.

    Args:
        waveform (`np.ndarray` of shape `(num_samples,)`): Float samples in [-1, 1].
        sampling_rate (`int`): Their rate in hertz.
        seed (`int`): That was given or drawn.
        made_in_seconds (`float`): How long it took.
        reached_limit (`bool`): Whether speech ran into its limit instead of stopping.
        is_drawn (`bool`, *optional*, defaults to `True`): Whether another seed gives other speech.
    """

    waveform: np.ndarray
    sampling_rate: int
    seed: int
    made_in_seconds: float
    reached_limit: bool
    is_drawn: bool = True

    @property
    def summary(self) -> str:
        """`str`: A line for whoever listens."""
        seconds = len(self.waveform) / self.sampling_rate
        drawn = f"seed {self.seed}" if self.is_drawn else "the same for every seed at this temperature"
        line = f"{seconds:.1f} s of speech, made in {self.made_in_seconds:.1f} s, {drawn}"
        if self.reached_limit:
            remedy = "another seed" if self.is_drawn else "a higher temperature"
            line += f". It ran into the limit of its length and may be wrong: try {remedy}, or a shorter text"
        return line


class DemoSpeaker:
    """
    Speaks what is filled in on the page.

    Args:
        model ([`DiTARForTextToSpeech`]): On the device that shall compute.
        processor ([`DiTARProcessor`]): Of the model, with its voices.
    """

    def __init__(self, model: DiTARForTextToSpeech, processor: DiTARProcessor):
        self.model, self.processor = model.eval(), processor

    def __call__(
        self,
        text: str,
        voice: str,
        recording: str | Path | None = None,
        transcript: str | None = None,
        has_consent: bool = False,
        seed: int | None = None,
        language: str | None = None,
        **settings: Any,
    ) -> DemoSpeech:
        """
        Speaks.

        Args:
            text (`str`): What to say.
            voice (`str`): The name of a voice, `"random"`, or `RECORDING`.
            recording (`str` or `Path`, *optional*): A file of the voice, for `RECORDING`; channels become their mean.
            transcript (`str`, *optional*): What is said in it, word for word.
            has_consent (`bool`, *optional*, defaults to `False`): Whether the recorded person agrees.
            seed (`int`, *optional*): From 0; by default one is drawn.
            language (`str`, *optional*): Of text and transcript; by default the tokenizer's.
            **settings: Of `generate`: `temperature`, `guidance_scale`, `num_inference_steps`.

        Returns:
            [`DemoSpeech`].

        Raises:
            ValueError: If something is missing, or the processor or the model refuses it.
        """
        for name, value in (("text", text), ("voice", voice), ("transcript", transcript)):
            if value is not None and not isinstance(value, str):
                raise ValueError(f"The {name} is of type {type(value).__name__}. Pass a string.")
        if not text or not text.strip():
            raise ValueError("There is no text. Write what shall be said.")
        if voice is None:
            raise ValueError("There is no voice. Choose one.")
        is_whole = isinstance(seed, Integral) and not isinstance(seed, bool)
        if seed is not None and not (is_whole and 0 <= seed < 2**63):
            raise ValueError(
                f"The seed must be a whole number below 2⁶³ and not below 0, got {seed!r}. Leave it empty to draw one."
            )
        prompt = self._prompt(recording, transcript, has_consent) if voice == RECORDING else {"voice": voice}
        inputs = self.processor(text.strip(), language=language, **prompt).to(self.model.device)
        seed = secrets.randbits(32) if seed is None else int(seed)
        start = time.perf_counter()
        # on the CPU whatever the device is, so that a seed gives the same noise on each
        output = self.model.generate(**inputs, generator=torch.Generator().manual_seed(seed), **settings)
        waveform = output.audio[0].float().cpu().numpy()
        seconds = time.perf_counter() - start
        return DemoSpeech(
            waveform,
            self.model.config.sampling_rate,
            seed,
            seconds,
            bool(output.reached_limit[0]),
            self.model.draws_noise(**settings),
        )

    def _prompt(self, recording: str | Path | None, transcript: str | None, has_consent: bool) -> dict[str, Any]:
        """What the processor takes for a recorded voice."""
        if recording is None:
            raise ValueError("There is no recording of the voice. Record one, choose a file, or take another voice.")
        if not transcript or not transcript.strip():
            raise ValueError("The recording needs its transcript. Write what is said in it, word for word.")
        if has_consent is not True:
            raise ValueError(
                "A recorded voice is imitated only with the consent of the person. Tick the box if you have it."
            )
        if not isinstance(recording, (str, Path)):
            raise ValueError(f"The recording is of type {type(recording).__name__}. Pass the path of a file.")
        path = Path(recording)
        if not path.is_file():
            raise ValueError(f"There is no file {path.name!r}. Record the voice, or choose another file.")
        # not its path, which would say nothing in a message to whom uses the page
        return {"prompt_audio": path.read_bytes(), "prompt_text": transcript.strip()}
