"""Speech recognisers by name: those of the papers' protocols, one that is offline, and any model of transformers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .summary import PAPERS_EXTRA, NotMeasuredError, one_line, require_package
from .waveforms import is_too_short, resampled

POCKETSPHINX = "pocketsphinx"
# the rate of all models here but those of transformers, which say theirs
RECOGNIZER_RATE = 16000
# longer recordings are read in windows, which recognisers with a fixed window need
WINDOW_SECONDS = 30.0

Recognize = Callable[[np.ndarray, int], str]


@dataclass(frozen=True)
class Recognizer:
    """
    A recogniser that has a name here.

    Args:
        model (`str`): The model behind it, as its library knows it.
        measures (`str`): What cannot be measured without it.
        load (`Callable`): From the model and a device to the function that recognises.
    """

    model: str
    measures: str
    load: Callable[[str, str], Recognize]


def load_recognizer(name: str, device: str = "cpu") -> Recognize:
    """
    A speech recogniser.

    Args:
        name (`str`):
            One of `RECOGNIZERS`, set up as in the protocol that uses it, so that the two Whisper models are told that
            the language is English:

            - `"pocketsphinx"`: English, offline and quick, with the models of its package; it mishears much, so that
              only large differences say something.
            - `"hubert-large-ls960-ft"` and `"whisper-large-v3"`: by transformers.
            - `"faster-whisper-large-v3"`: by the package faster-whisper; float16 on a GPU, its own default elsewhere.
              Where it is unsure it draws words at random, from a generator of its own that cannot be seeded for each
              recording, so that transcripts of such recordings differ from run to run.
            - `"paraformer-zh"`: Mandarin, by the package funasr, which loads it from ModelScope, sets the seeds of
              random generators when it does, and reads its weights by `torch.load`.

            Anything else is a folder or Hub id of a model for transformers' pipeline
            `"automatic-speech-recognition"`, which finds out the language itself where it knows several.
        device (`str`, *optional*, defaults to `"cpu"`): Where a model computes; pocketsphinx knows only the CPU.

    Returns:
        A function from samples `(num_samples,)` and their rate in Hz to a transcript, which is empty for a recording
        of less than `SHORTEST_SECONDS`. What it says of a recording does not depend on what it heard before, but for
        the draws of faster-whisper.

    Raises:
        NotMeasuredError:
            If the package or the model of a name cannot be had; the message says what it would have measured.
        ValueError: If a folder or Hub id is not found, or recognises no speech.
    """
    if name not in RECOGNIZERS:
        try:
            return _of_any_length(_pipeline(name, device))
        except (OSError, ValueError, KeyError) as error:
            # some of what the library says does not name the model
            raise ValueError(
                f"`name`: the recogniser {name!r} cannot be loaded ({error}). "
                f"Name one of {', '.join(map(repr, RECOGNIZERS))}, a folder or a Hub id."
            ) from error
    recognizer = RECOGNIZERS[name]
    try:
        return _of_any_length(recognizer.load(recognizer.model, device))
    except (NotMeasuredError, OSError, ValueError, KeyError) as error:
        raise NotMeasuredError(
            f"the recogniser {name} ({recognizer.model}), for {recognizer.measures}, cannot be had: {one_line(error)}"
        ) from error


def _of_any_length(recognize: Recognize) -> Recognize:
    def of_any_length(waveform: np.ndarray, sampling_rate: int) -> str:
        return "" if is_too_short(waveform, sampling_rate) else recognize(waveform, sampling_rate)

    return of_any_length


def _pocketsphinx(model: str, device: str) -> Recognize:
    # means over the whole recording: the default carries them on from one recording to the next
    pocketsphinx = require_package("pocketsphinx", "pocketsphinx")
    decoder = pocketsphinx.Decoder(samprate=RECOGNIZER_RATE, cmn="batch", loglevel="FATAL")

    def recognize(waveform: np.ndarray, sampling_rate: int) -> str:
        samples = np.clip(resampled(waveform, sampling_rate, RECOGNIZER_RATE), -1, 1)
        decoder.start_utt()
        decoder.process_raw((samples * 32767).astype(np.int16).tobytes(), full_utt=True)
        decoder.end_utt()
        hypothesis = decoder.hyp()
        return "" if hypothesis is None else hypothesis.hypstr

    return recognize


def _pipeline(model: str, device: str, **options: Any) -> Recognize:
    from transformers import pipeline

    recognizer = pipeline("automatic-speech-recognition", model=model, device=device)
    rate = recognizer.feature_extractor.sampling_rate

    def recognize(waveform: np.ndarray, sampling_rate: int) -> str:
        samples = resampled(waveform, sampling_rate, rate)
        windows = {"chunk_length_s": WINDOW_SECONDS} if len(samples) > WINDOW_SECONDS * rate else {}
        return recognizer({"raw": samples, "sampling_rate": rate}, **options, **windows)["text"]

    return recognize


def _whisper(model: str, device: str) -> Recognize:
    # as seed-tts-eval calls it
    return _pipeline(model, device, generate_kwargs={"language": "english", "task": "transcribe"})


def _faster_whisper(model: str, device: str) -> Recognize:
    package = require_package("faster_whisper", PAPERS_EXTRA)
    # CTranslate2 takes the number of a GPU apart from its kind
    kind, _, index = device.partition(":")
    # type, beams and language as F5-TTS calls it
    whisper = package.WhisperModel(
        model, device=kind, device_index=int(index or 0), compute_type="float16" if kind == "cuda" else "default"
    )

    def recognize(waveform: np.ndarray, sampling_rate: int) -> str:
        samples = resampled(waveform, sampling_rate, RECOGNIZER_RATE)
        segments, _ = whisper.transcribe(samples, beam_size=5, language="en")
        return " ".join(segment.text.strip() for segment in segments)

    return recognize


def _paraformer(model: str, device: str) -> Recognize:
    import torch

    package = require_package("funasr", PAPERS_EXTRA)
    try:
        # it would set the number of threads to 4
        threads = torch.get_num_threads()
        paraformer = package.AutoModel(
            model=model, device=device, ncpu=threads, disable_update=True, disable_pbar=True, log_level="ERROR"
        )
    except Exception as error:  # it says nowhere what it raises where a download fails
        raise NotMeasuredError(f"funasr: {one_line(error)}") from error

    def recognize(waveform: np.ndarray, sampling_rate: int) -> str:
        samples = resampled(waveform, sampling_rate, RECOGNIZER_RATE)
        return paraformer.generate(input=samples, batch_size_s=300)[0]["text"]

    return recognize


RECOGNIZERS: dict[str, Recognizer] = {
    POCKETSPHINX: Recognizer("en-us of its package", "the word error of protocol offline-en", _pocketsphinx),
    "hubert-large-ls960-ft": Recognizer(
        "facebook/hubert-large-ls960-ft", "the word error of protocol librispeech-a", _pipeline
    ),
    "whisper-large-v3": Recognizer("openai/whisper-large-v3", "the word error of protocol seed-en", _whisper),
    "faster-whisper-large-v3": Recognizer(
        "Systran/faster-whisper-large-v3", "the word error of protocol librispeech-pc", _faster_whisper
    ),
    "paraformer-zh": Recognizer("paraformer-zh", "the character error of protocol seed-zh", _paraformer),
}
