"""Step 6 of the tiny recipe: named voices for a model, from recordings or from the free synthesiser flite.

    python examples/tiny/add_voices.py --model hub_cards/ditar-tiny-en --flite ada=slt ben=rms --default ada \
        --recording eve=eve.wav "What is said in eve.wav, word for word."

A voice of a name that the model has already is replaced. Take only recordings of people who agree to it.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from synthesize import VOICES, synthesize

from ditar_hf import DiTARProcessor, DiTARVoice

# the model was trained on short examples: after a prompt of five seconds it made twice as many errors
SENTENCE = "The rain has stopped."


def read(path: Path) -> tuple[np.ndarray, int]:
    """Samples `(num_samples,)`, the mean of the channels, and their rate."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return samples.mean(axis=1), rate


def say(voice: str, sentence: str) -> tuple[np.ndarray, int]:
    """A sentence in a voice of flite, without the pauses at its ends."""
    with tempfile.TemporaryDirectory() as folder:
        row = synthesize((0, sentence, voice, 1.0, Path(folder)))
        if row is None:
            raise ValueError(f"flite says nothing to `--sentence {sentence!r}`")
        return read(Path(folder) / row["file_name"])


def pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise ValueError(f"{text!r} is not NAME=VALUE")
    return name, value


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="the model's folder, which gets the voices")
    parser.add_argument(
        "--recording", nargs=2, action="append", default=[], metavar=("NAME=FILE", "TEXT"), help="may be repeated"
    )
    parser.add_argument(
        "--flite", nargs="+", type=pair, default=[], metavar="NAME=VOICE", help=f"of {', '.join(VOICES)}"
    )
    parser.add_argument("--sentence", default=SENTENCE, help="what flite says")
    parser.add_argument("--default", help="the name of the voice that speaks where none is asked for")
    options = parser.parse_args()

    processor = DiTARProcessor.from_pretrained(options.model)
    for argument, text in options.recording:
        name, file = pair(argument)
        processor.add_voice(name, *read(Path(file)), text)
    for name, voice in options.flite:
        if voice not in VOICES:
            parser.error(f"--flite {name}={voice}: the voices of flite are {', '.join(VOICES)}")
        audio, rate = say(voice, options.sentence)
        processor.add_voice(name, audio, rate, options.sentence)
        # kept at flite's own rate, which takes two thirds of the place
        phonemes = processor.voices[name].phonemes
        processor.voices[name] = DiTARVoice(audio, rate, options.sentence, phonemes)
    if options.default is not None:
        processor.default_voice = options.default
    processor.save_pretrained(options.model)
    for name, voice in sorted(processor.voices.items()):
        default = " (default)" if name == processor.default_voice else ""
        print(f"{name}{default}: {len(voice.audio) / voice.sampling_rate:.1f} s, {voice.text}")


if __name__ == "__main__":
    main()
