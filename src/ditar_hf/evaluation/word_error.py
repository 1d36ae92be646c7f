"""Word error by speech recognition: what a recogniser hears, against a text or against what it heard elsewhere."""

import unicodedata
from collections.abc import Callable, Sequence

import numpy as np
import soxr

from .summary import require_package

POCKETSPHINX = "pocketsphinx"
POCKETSPHINX_RATE = 16000
# longer recordings are read in windows, which recognisers with a fixed window need
WINDOW_SECONDS = 30.0


def split_words(text: str) -> list[str]:
    """
    Words as they are compared: lower case, without punctuation and symbols; apostrophes inside words stay.

    Languages that are written without spaces become one long word: word error says little about them.

    Args:
        text (`str`): A text or a transcript.

    Returns:
        `list[str]`.
    """
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    # letters, marks and numbers
    kept = "".join(c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in text)
    return [word for word in (word.strip("'") for word in kept.split()) if word]


def count_word_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """
    The least number of substitutions, deletions and insertions that make one of the other, by jiwer.

    Args:
        reference (`list[str]`): Words that should have been heard.
        hypothesis (`list[str]`): Words that were heard.

    Returns:
        Their number.

    Raises:
        NotMeasuredError: If jiwer is not installed.
    """
    jiwer = require_package("jiwer")
    if not reference or not hypothesis:
        return max(len(reference), len(hypothesis))
    output = jiwer.process_words(" ".join(reference), " ".join(hypothesis))
    return output.substitutions + output.deletions + output.insertions


def load_recognizer(name: str, device: str = "cpu") -> Callable[[np.ndarray, int], str]:
    """
    A speech recogniser.

    Args:
        name (`str`):
            `"pocketsphinx"`: English, offline and quick, with the models of its package; it mishears much, so that
            only large differences say something. Anything else is a folder or Hub id of a model for transformers'
            pipeline `"automatic-speech-recognition"`.
        device (`str`, *optional*, defaults to `"cpu"`): Where a pipeline computes.

    Returns:
        A function from samples `(num_samples,)` and their rate in Hz to a transcript. What it says of a recording does
        not depend on what it heard before.

    Raises:
        NotMeasuredError: If pocketsphinx is asked for and not installed.
        ValueError: If a model is not found, or recognises no speech.
    """
    return _pocketsphinx() if name == POCKETSPHINX else _pipeline(name, device)


def _pocketsphinx() -> Callable[[np.ndarray, int], str]:
    # means over the whole recording: the default carries them on from one recording to the next
    pocketsphinx = require_package("pocketsphinx", "pocketsphinx")
    decoder = pocketsphinx.Decoder(samprate=POCKETSPHINX_RATE, cmn="batch", loglevel="FATAL")

    def recognize(waveform: np.ndarray, sampling_rate: int) -> str:
        samples = np.clip(_resampled(waveform, sampling_rate, POCKETSPHINX_RATE), -1, 1)
        decoder.start_utt()
        decoder.process_raw((samples * 32767).astype(np.int16).tobytes(), full_utt=True)
        decoder.end_utt()
        hypothesis = decoder.hyp()
        return "" if hypothesis is None else hypothesis.hypstr

    return recognize


def _pipeline(name: str, device: str) -> Callable[[np.ndarray, int], str]:
    from transformers import pipeline

    try:
        recognizer = pipeline("automatic-speech-recognition", model=name, device=device)
    except (OSError, ValueError, KeyError) as error:
        # some of what the library says does not name the model
        raise ValueError(
            f"`name`: the recogniser {name!r} cannot be loaded ({error}). Name {POCKETSPHINX!r}, a folder or a Hub id."
        ) from error
    rate = recognizer.feature_extractor.sampling_rate

    def recognize(waveform: np.ndarray, sampling_rate: int) -> str:
        samples = _resampled(waveform, sampling_rate, rate)
        windows = {"chunk_length_s": WINDOW_SECONDS} if len(samples) > WINDOW_SECONDS * rate else {}
        return recognizer({"raw": samples, "sampling_rate": rate}, **windows)["text"]

    return recognize


def _resampled(waveform: np.ndarray, sampling_rate: int, wanted: int) -> np.ndarray:
    waveform = np.asarray(waveform, np.float32)
    return waveform if sampling_rate == wanted else soxr.resample(waveform, sampling_rate, wanted)
