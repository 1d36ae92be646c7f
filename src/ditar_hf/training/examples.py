"""From a row of a source to an example for [`DiTARDataCollator`]: phones, samples without a silent end, their fit."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile

from ..modeling.processing_ditar import DiTARProcessor
from .audio import MIN_SAMPLING_RATE, UnusableAudioError, decode_audio, resample_audio, segment_of
from .filters import FilterArguments


class UnusableRowError(ValueError):
    """A row that cannot be learnt from, for another reason than its audio; the message says why."""


class LeftOutError(UnusableRowError):
    """A row that the filters leave out; the message is one of their reasons."""


UNUSABLE = (UnusableRowError, UnusableAudioError)


@dataclass
class ExampleArguments:
    """
    How rows become examples, and which do not.

    Args:
        max_unknown_tokens (`int`, *optional*, defaults to 0):
            Rows with more tokens outside the vocabulary are left out.
        trim_margin_seconds (`float`, *optional*, defaults to 0.1):
            Silence that is left at the end of speech; after long silence a model never learns to stop. `None` leaves
            the end as it was recorded.
        trim_threshold_decibels (`float`, *optional*, defaults to -40.0): Silence lies so far below the loud parts.
        min_sampling_rate (`int`, *optional*, defaults to 16000): Recordings of a lower rate are left out, in Hz.

    Raises:
        ValueError: If a value is out of its range.
    """

    max_unknown_tokens: int = 0
    trim_margin_seconds: float | None = 0.1
    trim_threshold_decibels: float = -40.0
    min_sampling_rate: int = MIN_SAMPLING_RATE

    def __post_init__(self):
        if self.trim_margin_seconds is not None and not self.trim_margin_seconds >= 0:
            raise ValueError(f"`trim_margin_seconds` is {self.trim_margin_seconds}: it must not be negative.")
        if not self.trim_threshold_decibels < 0:
            raise ValueError(f"`trim_threshold_decibels` is {self.trim_threshold_decibels}: it must be negative.")
        if self.max_unknown_tokens < 0:
            raise ValueError(f"`max_unknown_tokens` is {self.max_unknown_tokens}: it must not be negative.")


@dataclass
class Outline:
    """
    What is known of an example before its audio is decoded.

    Args:
        row (`Mapping`): The row it comes from.
        input_ids (`list[int]`): Tokens of its text.
        num_positions (`int`): Positions of the language model that it takes, at most.
        name (`str`, *optional*, defaults to `""`): Of the row, for messages.
    """

    row: Mapping[str, Any]
    input_ids: list[int]
    num_positions: int
    name: str = ""


class ExampleMaker:
    """
    Makes examples of rows, of a source of speech or of a store of latents.

    Args:
        processor ([`DiTARProcessor`]): Tokenizer, sampling rate and patch length.
        arguments ([`ExampleArguments`], *optional*): How rows are used.
        filters ([`FilterArguments`], *optional*): Which rows are used, of those that are not encoded yet.
    """

    def __init__(
        self,
        processor: DiTARProcessor,
        arguments: ExampleArguments | None = None,
        filters: FilterArguments | None = None,
    ):
        self.processor = processor
        self.arguments = ExampleArguments() if arguments is None else arguments
        self.filters = FilterArguments() if filters is None else filters

    def outline(self, row: Mapping[str, Any]) -> Outline:
        """
        Tokens and length of an example; no audio is decoded.

        Args:
            row (`Mapping`): In the columns of `EXAMPLE_FEATURES` or of a store of latents; `input_ids` or `phonemes`
                may stand in place of `text`.

        Returns:
            [`Outline`].

        Raises:
            LeftOutError: If the filters leave the row out.
            UnusableRowError: If its text cannot be made into tokens.
            UnusableAudioError: If there is no speech.
        """
        extractor = self.processor.feature_extractor
        if row.get("latents") is not None:
            seconds = len(row["latents"]) * extractor.hop_length / extractor.sampling_rate
        else:
            self._refuse(self.filters.find_fault(row))
            seconds = measure_seconds(row)
            self._refuse(self.filters.find_fault_of_length(row, seconds))
        input_ids = self._tokens(row)
        num_patches = -int(-seconds * extractor.sampling_rate // extractor.patch_length)
        # a stated length is rounded, and so is that of resampled speech
        spare = 0 if row.get("latents") is not None else 1
        return Outline(row, input_ids, len(input_ids) + 1 + num_patches + spare)

    def complete(self, outline: Outline) -> dict[str, Any]:
        """
        The example of an outline.

        Args:
            outline ([`Outline`]): What `outline` gave.

        Returns:
            `dict` of `id`, `input_ids`, and `latents` and `alignment` as the row has them, or `audio`.

        Raises:
            LeftOutError: If the filters leave the speech out, now that its silent end is off.
            UnusableRowError: If latents are not finite or no whole patches.
            UnusableAudioError: If the audio cannot be decoded, or is longer than its source states.
        """
        row, arguments = outline.row, self.arguments
        example = {"id": row["id"], "input_ids": outline.input_ids}
        if row.get("latents") is not None:
            self._check_latents(row["latents"])
            return {**example, "latents": row["latents"], "alignment": row.get("alignment")}
        samples, rate = decode_audio(row["audio"], min_sampling_rate=arguments.min_sampling_rate, **segment_of(row))
        if arguments.trim_margin_seconds is not None:
            samples = trim_end(samples, rate, arguments.trim_margin_seconds, arguments.trim_threshold_decibels)
        self._refuse(self.filters.find_fault_of_length(row, len(samples) / rate))
        sampling_rate = self.processor.feature_extractor.sampling_rate
        samples = resample_audio(samples, rate, sampling_rate)
        example["audio"] = {"array": samples, "sampling_rate": sampling_rate}
        if len(outline.input_ids) + 1 + self.count_patches(example) > outline.num_positions:
            raise UnusableAudioError("it is longer than its source states")  # and the batch would be over its budget
        return example

    def count_patches(self, example: Mapping[str, Any]) -> int:
        """
        Patches of an example's speech.

        Args:
            example (`Mapping`): What `complete` gave.

        Returns:
            `int`: Their number.
        """
        extractor = self.processor.feature_extractor
        if "latents" in example:
            return len(example["latents"]) // extractor.patch_size
        return -(-len(example["audio"]["array"]) // extractor.patch_length)

    def _check_latents(self, latents: Any):
        values = np.asarray(latents)
        if values.ndim != 2 or not len(values) or len(values) % self.processor.feature_extractor.patch_size:
            raise UnusableRowError("its latents are not whole patches of this model")
        if not np.isfinite(values).all():
            raise UnusableRowError("its latents are not finite")

    def _tokens(self, row: Mapping[str, Any]) -> list[int]:
        processor, text = self.processor, row.get("text")
        if row.get("input_ids") is not None:
            ids = [int(index) for index in row["input_ids"]]
        elif row.get("phonemes"):
            ids = processor.tokenize_text(row["phonemes"], phonemize=False)
        elif text and text.strip():
            is_phonemes = processor.reads_phonemes
            language = row["language"].lower() if row.get("language") and is_phonemes else None
            try:
                ids = processor.tokenize_text(text, language, phonemize=True if is_phonemes else None)
            except ValueError as error:
                raise UnusableRowError(f"its text cannot be made into phones: {error}") from error
        else:
            raise UnusableRowError("it has no text")
        if not ids:
            raise UnusableRowError("its text has no phones")
        tokenizer = processor.tokenizer
        if {tokenizer.pad_token_id, tokenizer.audio_bos_token_id, tokenizer.audio_patch_token_id}.intersection(ids):
            raise UnusableRowError("its text holds a control token")
        unknown = list(ids).count(tokenizer.unk_token_id)
        if unknown > self.arguments.max_unknown_tokens:
            raise UnusableRowError(f"{unknown} phones of its text are outside the vocabulary")
        return list(ids)

    @staticmethod
    def _refuse(fault: str | None):
        if fault is not None:
            raise LeftOutError(fault)


def measure_seconds(row: Mapping[str, Any]) -> float:
    """
    Length of a row's speech by what the row or its file says, without decoding.

    Args:
        row (`Mapping`): In the columns of `EXAMPLE_FEATURES`.

    Returns:
        `float`: Seconds.

    Raises:
        UnusableAudioError: If there is no audio, or its header cannot be read.
    """
    if row.get("duration_seconds"):
        return float(row["duration_seconds"])
    audio = row.get("audio") or {}
    if audio.get("bytes") is None and audio.get("path") is None:
        raise UnusableAudioError("there is no audio")
    try:
        seconds = soundfile.info(audio["path"] if audio.get("bytes") is None else io.BytesIO(audio["bytes"])).duration
        return seconds - (row.get("start_seconds") or 0.0)
    except (OSError, soundfile.LibsndfileError) as error:
        raise UnusableAudioError("it cannot be decoded") from error


def trim_end(samples: np.ndarray, rate: int, margin_seconds: float, threshold_decibels: float) -> np.ndarray:
    """
    Speech without the silence after it.

    Args:
        samples (`np.ndarray` of shape `(num_samples,)`): Speech.
        rate (`int`): Samples a second.
        margin_seconds (`float`): Silence that is left.
        threshold_decibels (`float`): Silence lies so far below the loud parts, the loudest twentieth.

    Returns:
        `np.ndarray` of shape `(num_kept_samples,)`.
    """
    frame = max(1, rate // 100)  # 10 ms
    num_frames = len(samples) // frame
    if not num_frames:
        return samples
    level = np.sqrt(np.square(samples[: num_frames * frame].reshape(num_frames, frame)).mean(axis=1))
    (loud,) = np.nonzero(level > np.quantile(level, 0.95) * 10 ** (threshold_decibels / 20))
    if not len(loud):
        return samples
    return samples[: (loud[-1] + 1) * frame + round(margin_seconds * rate)]
