"""A voice: a prompt with its transcript, that can be called by a name and kept in a file."""

import hashlib
import io
import re
import wave
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral

import numpy as np

from .audio_files_ditar import checked_samples

# In place of a name: no prompt at all, so that the model makes up a voice.
RANDOM_VOICE = "random"
# Names become names of files, and words on the command line.
VOICE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
FULL_SCALE = 2**15  # of 16-bit audio


@dataclass(frozen=True, eq=False)
class DiTARVoice:
    """
    A prompt that can be kept in a file.

    Its samples are rounded to 16 bits at once, so that a voice sounds the same before and after it is saved.

    Args:
        audio (`np.ndarray` of shape `(num_samples,)`): Mono float samples in [-1, 1].
        sampling_rate (`int`): Their rate in hertz.
        text (`str`): What is said in `audio`, word for word.
        phonemes (`str`, *optional*):
            The phoneme string of `text`, which is read in its place. Without it, `text` is turned into phonemes each
            time, in the tokenizer's language. Models that read letters need none.

    Raises:
        ValueError: If `audio` is not one mono waveform of finite samples in [-1, 1], the rate is no positive whole
            number, or a text is none.
    """

    audio: np.ndarray
    sampling_rate: int
    text: str
    phonemes: str | None = None

    def __post_init__(self):
        rate = self.sampling_rate
        if isinstance(rate, bool) or not isinstance(rate, Integral) or rate < 1:
            raise ValueError(f"`sampling_rate` must be a positive whole number of hertz, got {rate!r}.")
        if not isinstance(self.text, str) or not self.text.strip():
            raise ValueError(f"`text` must be what is said in `audio`, got {self.text!r}.")
        if self.phonemes is not None and not isinstance(self.phonemes, str):
            raise ValueError(f"`phonemes` must be a phoneme string or None, got {self.phonemes!r}.")
        steps = np.round(checked_samples(self.audio) * FULL_SCALE)
        samples = np.clip(steps, -FULL_SCALE, FULL_SCALE - 1) / np.float32(FULL_SCALE)
        object.__setattr__(self, "audio", samples)

    def to_wav(self) -> bytes:
        """
        The samples as a file.

        Returns:
            `bytes`: A mono WAV file of 16 bits, the same for the same samples.
        """
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as file:
            file.setparams((1, 2, int(self.sampling_rate), 0, "NONE", "not compressed"))
            file.writeframes((self.audio * FULL_SCALE).astype(np.int16).tobytes())
        return buffer.getvalue()

    @classmethod
    def from_wav(cls, content: bytes, text: str, phonemes: str | None = None) -> "DiTARVoice":
        """
        The voice that [`~DiTARVoice.to_wav`] was called on.

        Args:
            content (`bytes`): A mono WAV file of 16 bits.
            text (`str`): What is said in it.
            phonemes (`str`, *optional*): Its phoneme string.

        Returns:
            [`DiTARVoice`].

        Raises:
            ValueError: If it is another kind of file.
        """
        try:
            with wave.open(io.BytesIO(content)) as file:
                channels, width, rate = file.getparams()[:3]
                frames = file.readframes(file.getnframes())
        except (wave.Error, EOFError) as error:
            raise ValueError(f"it is no WAV file ({error})") from error
        if (channels, width) != (1, 2):
            raise ValueError(f"it has {channels} channels of {8 * width} bits, not one of 16 bits")
        samples = np.frombuffer(frames, np.int16).astype(np.float32) / np.float32(FULL_SCALE)
        return cls(samples, rate, text, phonemes)

    def to_dict(self) -> dict[str, str]:
        """
        What `processor_config.json` says of the voice.

        Returns:
            `dict[str, str]`: `text`, `phonemes` if there are some, and `sha256` of the file.
        """
        values = {"sha256": hashlib.sha256(self.to_wav()).hexdigest(), "text": self.text}
        return values if self.phonemes is None else {**values, "phonemes": self.phonemes}


def check_voices(voices: Mapping[str, DiTARVoice], default_voice: str | None):
    """
    Checks what a processor shall have as its voices.

    Args:
        voices (`Mapping[str, DiTARVoice]`): Name to voice.
        default_voice (`str`, *optional*): One of the names.

    Raises:
        ValueError: If a name cannot be one, a voice is none, or there is no voice of the name `default_voice`.
    """
    if not isinstance(voices, Mapping):
        raise ValueError(f"`voices` must map names to voices, got {type(voices).__name__}.")
    for name, voice in voices.items():
        check_voice_name(name)
        if not isinstance(voice, DiTARVoice):
            raise ValueError(f"`voices[{name!r}]` must be a DiTARVoice, got {type(voice).__name__}.")
    if default_voice is not None and not (isinstance(default_voice, str) and default_voice in voices):
        raise ValueError(
            f"`default_voice` is {default_voice!r}, but {names_of(voices)}. Pass one of them, or None for no prompt."
        )


def check_voice_name(name: str):
    """
    Checks the name of a voice.

    Args:
        name (`str`): The name.

    Raises:
        ValueError: If it has other characters than a to z, digits, `-` and `_`, or begins with one of the latter two,
            or is `random`.
    """
    if not isinstance(name, str) or not VOICE_NAME.fullmatch(name):
        raise ValueError(
            f"a voice cannot be called {name!r}: take lower-case letters (a to z), digits, `-` and `_`, a letter or a"
            " digit first."
        )
    if name == RANDOM_VOICE:
        raise ValueError(f"a voice cannot be called {name!r}: the word stands for speaking without a prompt.")


def names_of(voices: Mapping[str, DiTARVoice]) -> str:
    """
    The names, for messages.

    Args:
        voices (`Mapping[str, DiTARVoice]`): Name to voice.

    Returns:
        `str`: Part of a sentence.
    """
    return f"the voices are {', '.join(sorted(voices))}" if voices else "there are no named voices"


__all__ = ["RANDOM_VOICE", "DiTARVoice", "check_voice_name", "check_voices", "names_of"]
