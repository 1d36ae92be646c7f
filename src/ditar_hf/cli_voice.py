"""What `ditar speak --voice` may be: a voice that lies with the model, one that it makes up, or a recording."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from ditar_hf import DiTARProcessor


def find_voice(processor: "DiTARProcessor", voice: str | None, voice_text: str | None) -> dict[str, Any]:
    """What the processor takes for a voice: `voice`, or `prompt_audio` with its rate and its transcript."""
    from ditar_hf.modeling.audio_files_ditar import read_audio
    from ditar_hf.modeling.voices_ditar import RANDOM_VOICE, names_of

    if voice is None:
        if voice_text is not None:
            raise ValueError("`--voice-text` needs `--voice`, the recording in which it is said")
        return {}
    if voice == RANDOM_VOICE or voice in processor.voices:
        if voice_text is not None:
            raise ValueError(
                f"`--voice-text` goes with a recording, and `{voice}` is a name; write `./{voice}` for a file"
            )
        return {"voice": voice}
    if not Path(voice).is_file():
        names = names_of(processor.voices)
        raise ValueError(f"`--voice` must be an audio file, `{RANDOM_VOICE}` or a name, and {names}; got `{voice}`")
    if voice_text is None or not voice_text.strip():
        raise ValueError("`--voice` needs `--voice-text`, the words that are said in the recording")
    samples, sampling_rate = read_audio(voice, "--voice")
    return {"prompt_audio": samples, "sampling_rate": sampling_rate, "prompt_text": voice_text.strip()}


def print_voices(processor: "DiTARProcessor") -> None:
    """One name a line."""
    from ditar_hf.modeling.voices_ditar import RANDOM_VOICE

    for name in sorted(processor.voices):
        typer.echo(f"{name} (default)" if name == processor.default_voice else name)
    typer.echo(RANDOM_VOICE if processor.default_voice else f"{RANDOM_VOICE} (default)")
