"""Audio files: read as mono, written as a whole or not at all."""

import io
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

try:
    import soundfile
except ImportError:  # only files need it
    soundfile = None

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


def read_audio(source: str | os.PathLike | bytes, name: str = "source") -> tuple[np.ndarray, int]:
    """
    Reads an audio file as mono; of several channels it is the mean.

    Args:
        source (`str`, `os.PathLike` or `bytes`):
            Path or content of a WAV, FLAC, OGG or MP3 file, or of another kind that libsndfile reads.
        name (`str`, *optional*, defaults to `"source"`): What messages call it.

    Returns:
        `tuple[np.ndarray, int]`: Float32 samples of shape `(num_samples,)` and their rate in hertz.

    Raises:
        ValueError: If there is no such file, or it is not audio, damaged or empty.
        ImportError: If `soundfile` is not installed.
    """
    if soundfile is None:
        raise ImportError("Audio files are read by `soundfile`, which is not installed: `pip install soundfile`.")
    shown = f"{len(source)} bytes" if isinstance(source, bytes) else repr(str(source))
    if not isinstance(source, bytes) and not os.path.isfile(source):
        raise ValueError(f"`{name}` is {shown}, but there is no such file. Pass the path of a recording.")
    try:
        samples, sampling_rate = soundfile.read(
            io.BytesIO(source) if isinstance(source, bytes) else source, dtype="float32", always_2d=True
        )  # (num_samples, num_channels)
    except (soundfile.LibsndfileError, TypeError) as error:  # the latter of a file without a header
        reason = str(getattr(error, "error_string", error)).rstrip(".")
        raise ValueError(
            f"`{name}` is {shown}, which cannot be read as audio: {reason}. Pass a WAV, FLAC, OGG or MP3 file."
        ) from error
    if not len(samples):
        raise ValueError(f"`{name}` is {shown}, which holds no samples. Pass a recording of some seconds.")
    return samples.mean(axis=1), sampling_rate


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """
    Writes a file all or not at all, as a context manager: a failure leaves an older file as it was.

    Args:
        path (`str` or `os.PathLike`): The file to write or to replace.

    Yields:
        `Path`: Where to write instead, beside `path` and with its suffix; takes its place if all went well.

    Raises:
        OSError: If the written file cannot take the place of `path`.
    """
    path = Path(path)
    partial = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_audio(audio: Any, path: str | os.PathLike, sampling_rate: int):
    """
    Writes one waveform to a file, all of it or nothing.

    Args:
        audio (`torch.Tensor` or `np.ndarray` of shape `(num_samples,)`): The waveform, in [-1, 1].
        path (`str` or `os.PathLike`):
            The file to write; its suffix (`.wav`, `.flac`, `.ogg`, `.mp3`) decides on the format.
        sampling_rate (`int`): The rate in hertz.

    Raises:
        ValueError: If `audio` is not one mono waveform of finite samples in [-1, 1], the suffix of `path` is another,
            or `sampling_rate` is not a positive whole number.
        OSError: If the file cannot be written.
        ImportError: If `soundfile` is not installed.
    """
    if soundfile is None:
        raise ImportError("Audio is written by `soundfile`, which is not installed: `pip install soundfile`.")
    path = Path(path)
    if path.suffix.lower() not in AUDIO_SUFFIXES:
        raise ValueError(f"`path` must end in one of {', '.join(AUDIO_SUFFIXES)}, got {str(path)!r}.")
    if isinstance(sampling_rate, bool) or not isinstance(sampling_rate, Integral) or sampling_rate < 1:
        raise ValueError(f"`sampling_rate` must be a positive whole number of hertz, got {sampling_rate!r}.")
    samples = checked_samples(audio)
    try:
        with replacing(path) as partial:
            soundfile.write(partial, samples, int(sampling_rate))
    except soundfile.LibsndfileError as error:
        raise OSError(f"cannot write {str(path)!r} at {sampling_rate} Hz: {error.error_string}") from error


def checked_samples(audio: Any) -> np.ndarray:
    """
    The samples of one waveform that a file can hold.

    Args:
        audio (`torch.Tensor` or `np.ndarray` of shape `(num_samples,)`): The waveform, in [-1, 1].

    Returns:
        `np.ndarray` of shape `(num_samples,)`, float32.

    Raises:
        ValueError: If it is not one mono waveform of finite samples in [-1, 1].
    """
    if isinstance(audio, Mapping):
        raise ValueError(f'`audio` is a dictionary of {sorted(map(str, audio))}. Pass its samples: `speech["audio"]`.')
    samples = audio.detach().cpu().float().numpy() if hasattr(audio, "detach") else np.asarray(audio, np.float32)
    if samples.ndim != 1 or not samples.size:
        raise ValueError(
            f"`audio` must have shape (num_samples,) and hold a sample, got {samples.shape}. Pass one row of a batch."
        )
    if not np.isfinite(samples).all():
        raise ValueError("`audio` holds NaN or infinite samples. Look for their cause in what made it.")
    peak = np.abs(samples).max()
    if peak > 1:
        raise ValueError(f"`audio` must lie in [-1, 1], but peaks at {peak:g}. Divide it by its peak.")
    return samples


__all__ = ["AUDIO_SUFFIXES", "checked_samples", "read_audio", "replacing", "write_audio"]
