"""Feature extractor of DiTAR: voice prompts, checked, resampled, trimmed to whole patches, and padded."""

from numbers import Integral, Real
from typing import Any

import numpy as np
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.feature_extraction_utils import BatchFeature

try:
    import soxr
except ImportError:  # only other sampling rates than the model's need it
    soxr = None


# A prompt is silent if no sample is further than this from the mean (−60 dB of full scale).
SILENCE_PEAK = 1e-3
# Resampling and lossy codecs overshoot 1 a little; beyond this, floats hold integers.
MAX_PEAK = 2.0
# Full scale of the integer types that WAV files hold.
_INTEGER_SCALES = {np.dtype("int16"): 2.0**15, np.dtype("int32"): 2.0**31}
# What the library writes into the file of any feature extractor, or passes to it.
LIBRARY_KEYS = {"auto_map", "feature_extractor_type", "name_or_path", "processor_class", "return_attention_mask"}


class DiTARFeatureExtractor(SequenceFeatureExtractor):
    """
    Prepares voice prompts: mono audio, trimmed at its end to a multiple of the patch length, left-padded in a batch.

    A prompt is not repaired: audio that is not what the model needs is refused with a message that says what to do.
    The keys are `prompt_values` and `prompt_mask`, for the text-to-speech pipeline loads no feature extractor and
    cannot batch `input_values` without one.

    Args:
        feature_size (`int`, *optional*, defaults to 1):
            The number of channels; always 1.
        sampling_rate (`int`, *optional*, defaults to 24000):
            The rate of the model's audio in hertz, which prompts are resampled to.
        padding_value (`float`, *optional*, defaults to 0.0):
            The value of the samples before a shorter prompt of a batch.
        hop_length (`int`, *optional*, defaults to 600):
            The samples of one latent frame.
        patch_size (`int`, *optional*, defaults to 4):
            The latent frames of one patch.
        min_seconds (`float`, *optional*, defaults to 0.5):
            The shortest prompt.
        max_seconds (`float`, *optional*, defaults to 30.0):
            The longest prompt.
        prompt_peak (`float`, *optional*):
            The level that prompts are scaled to, as that of their loudest sample: the one that the model's training
            speech was scaled to. By default prompts keep their level.
        padding_side (`str`, *optional*, defaults to `"left"`):
            The side that padding stands on. The pipeline pads prompts and tokens on the same side.
        **kwargs:
            What the library notes in a file, such as `processor_class`.

    Raises:
        ValueError: If a value is of another type or out of range, or a key is unknown.
    """

    model_input_names = ["prompt_values", "prompt_mask"]

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = 24000,
        padding_value: float = 0.0,
        hop_length: int = 600,
        patch_size: int = 4,
        min_seconds: float = 0.5,
        max_seconds: float = 30.0,
        prompt_peak: float | None = None,
        padding_side: str = "left",
        **kwargs,
    ):
        for name, value in (("sampling_rate", sampling_rate), ("hop_length", hop_length), ("patch_size", patch_size)):
            if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
                raise ValueError(f"`{name}` must be a positive whole number, got {value!r}.")
        numbers = {"min_seconds": min_seconds, "max_seconds": max_seconds, "padding_value": padding_value}
        if prompt_peak is not None:
            numbers["prompt_peak"] = prompt_peak
        for name, value in numbers.items():
            if isinstance(value, bool) or not isinstance(value, Real):
                raise ValueError(f"`{name}` must be a number, got {value!r}.")
        if unknown := [name for name in kwargs if name not in LIBRARY_KEYS and not name.startswith("_")]:
            raise ValueError(f"`{unknown[0]}` is not a setting of {type(self).__name__}. Take it out.")
        if feature_size != 1:
            raise ValueError(f"`feature_size` must be 1, for prompts are mono, got {feature_size}.")
        if padding_side not in ("left", "right"):
            raise ValueError(f"`padding_side` must be 'left' or 'right', got {padding_side!r}.")
        if not 0 < min_seconds < max_seconds:
            raise ValueError(
                f"`min_seconds` must be positive and below `max_seconds`, got {min_seconds} and {max_seconds}."
            )
        if prompt_peak is not None and not 0 < prompt_peak <= 1:
            raise ValueError(f"`prompt_peak` must lie in (0, 1], or be None to keep the level, got {prompt_peak}.")
        kwargs.pop("auto_map", None)  # which the library notes again where it saves code beside the file
        super().__init__(
            feature_size=feature_size,
            sampling_rate=sampling_rate,
            padding_value=padding_value,
            padding_side=padding_side,
            **kwargs,
        )
        self.hop_length = hop_length
        self.patch_size = patch_size
        self.min_seconds = min_seconds
        self.max_seconds = max_seconds
        self.prompt_peak = prompt_peak

    @property
    def patch_length(self) -> int:
        """`int`: The samples of one patch, 2,400 by default."""
        return self.hop_length * self.patch_size

    def __call__(
        self,
        raw_audio: Any,
        sampling_rate: int | None = None,
        padding: bool = True,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """
        Prepares one voice prompt or a batch of them.

        Args:
            raw_audio (`np.ndarray`, `torch.Tensor`, `list[float]` or a list of them):
                One waveform or a list with one per row; `None` in a list is a row without a prompt. See
                [`~DiTARFeatureExtractor.prepare_prompt`] for what a waveform may be.
            sampling_rate (`int`):
                The rate of `raw_audio` in hertz. It must be given; another than the model's is resampled.
            padding (`bool`, *optional*, defaults to `True`):
                Whether to pad the rows to the longest.
            return_tensors (`str`, *optional*):
                `"pt"` or `"np"`. By default the values are lists of NumPy arrays.

        Returns:
            [`BatchFeature`] with

            - **prompt_values** (`(batch_size, num_samples)`, float32): the waveforms;
            - **prompt_mask** (`(batch_size, num_samples)`, int64): 1 on samples, 0 on padding. A row without a prompt
              is all zeros.

        Raises:
            ValueError: If a waveform is refused, see [`~DiTARFeatureExtractor.prepare_prompt`].
        """
        rows = raw_audio if is_list_of_waveforms(raw_audio) else [raw_audio]
        if not len(rows):
            raise ValueError("`raw_audio` is an empty list. Pass at least one waveform.")
        prompts = [
            None if row is None else self.prepare_prompt(row, sampling_rate, name=f"raw_audio[{index}]")
            for index, row in enumerate(rows)
        ]
        return BatchFeature(self.pad_prompts(prompts, padding=padding), tensor_type=return_tensors)

    def prepare_prompt(self, audio: Any, sampling_rate: int | None, name: str = "raw_audio") -> np.ndarray:
        """
        Checks one waveform, brings it to the model's sampling rate and level, and cuts its end off to whole patches.

        Args:
            audio (`np.ndarray`, `torch.Tensor` or `list[float]` of shape `(num_samples,)`):
                Mono audio; `(1, num_samples)` and `(num_samples, 1)` will do. Floats lie in [-1, 1]. `int16` and
                `int32` are divided by 2¹⁵ and 2³¹; no other integers are taken, for their scale is not known.
            sampling_rate (`int`):
                The rate of `audio` in hertz. Another than the model's is resampled with soxr in high quality.
            name (`str`, *optional*, defaults to `"raw_audio"`):
                What messages call the waveform.

        Returns:
            `np.ndarray` of shape `(num_samples,)`: float32 at the model's rate, a multiple of `patch_length` samples.

        Raises:
            ValueError: If the rate is missing or impossible, or the audio is not mono, not finite, out of range,
                silent (no sample further than 0.001 from the mean), or shorter or longer than configured.
            ImportError: If the rate differs and `soxr` is not installed.
        """
        sampling_rate = self._check_rate(sampling_rate, name)
        samples = _mono_samples(audio, name)
        seconds = len(samples) / sampling_rate
        if not self.min_seconds <= seconds <= self.max_seconds:
            remedy = "Pass a longer recording" if seconds < self.min_seconds else "Cut it, and its transcript with it"
            raise ValueError(
                f"`{name}` lasts {seconds:.2f} seconds at {sampling_rate} Hz, but a prompt lasts"
                f" {self.min_seconds:g} to {self.max_seconds:g} seconds. {remedy}, and check `sampling_rate`."
            )
        if not np.isfinite(samples).all():
            raise ValueError(f"`{name}` holds NaN or infinite samples. Repair or replace the recording.")
        peak = np.abs(samples).max()
        if peak > MAX_PEAK:
            raise ValueError(
                f"`{name}` reaches {peak:.6g}, but float audio lies in [-1, 1]. Divide it by the full scale of its"
                " source, for example 32768 for 16-bit audio."
            )
        if np.abs(samples - samples.mean(dtype=np.float64)).max() < SILENCE_PEAK:
            raise ValueError(
                f"`{name}` is silent: no sample is further than {SILENCE_PEAK:g} from the mean. Pass a recording of"
                " the voice, or amplify it."
            )
        if sampling_rate != self.sampling_rate:
            samples = self._resample(samples, sampling_rate, name)
        num_patches = len(samples) // self.patch_length
        if not num_patches:
            raise ValueError(f"`{name}` is shorter than one patch of {self.patch_length} samples. Pass a longer one.")
        samples = samples[: num_patches * self.patch_length]
        if self.prompt_peak is not None:
            samples = samples * (self.prompt_peak / max(np.abs(samples).max(), SILENCE_PEAK))
        return np.ascontiguousarray(samples)

    def pad_prompts(self, prompts: list[np.ndarray | None], padding: bool = True) -> dict[str, Any]:
        """
        Puts prepared prompts into a batch.

        Args:
            prompts (`list`):
                Waveforms of shape `(num_samples,)` as [`~DiTARFeatureExtractor.prepare_prompt`] returns them, `None`
                for a row without a prompt.
            padding (`bool`, *optional*, defaults to `True`):
                Whether to pad the rows to the longest. Otherwise the values are lists of arrays.

        Returns:
            `dict[str, Any]`: `prompt_values` and `prompt_mask`, see [`~DiTARFeatureExtractor.__call__`].
        """
        rows = [np.zeros(0, np.float32) if prompt is None else prompt for prompt in prompts]
        masks = [np.ones(len(row), np.int64) for row in rows]
        if not padding:
            return {"prompt_values": rows, "prompt_mask": masks}
        longest = max(len(row) for row in rows)
        values = np.full((len(rows), longest), self.padding_value, np.float32)  # (B, S)
        mask = np.zeros((len(rows), longest), np.int64)  # (B, S)
        for index, row in enumerate(rows):
            place = slice(longest - len(row), None) if self.padding_side == "left" else slice(len(row))
            values[index, place] = row
            mask[index, place] = masks[index]
        return {"prompt_values": values, "prompt_mask": mask}

    def _check_rate(self, sampling_rate: int | None, name: str) -> int:
        if sampling_rate is None:
            raise ValueError(
                f"`sampling_rate` of `{name}` is missing. Pass the rate the audio was read with; the model's is"
                f" {self.sampling_rate}, and any other is resampled."
            )
        is_whole = isinstance(sampling_rate, Integral) or (
            isinstance(sampling_rate, float) and sampling_rate.is_integer()
        )
        if isinstance(sampling_rate, bool) or not is_whole or sampling_rate <= 0:
            raise ValueError(f"`sampling_rate` must be a positive whole number of hertz, got {sampling_rate!r}.")
        return int(sampling_rate)

    def _resample(self, samples: np.ndarray, sampling_rate: int, name: str) -> np.ndarray:
        if soxr is None:
            raise ImportError(
                f"`{name}` has {sampling_rate} Hz and the model {self.sampling_rate} Hz. Resampling needs `pip install"
                " soxr`; otherwise resample the audio yourself."
            )
        return soxr.resample(samples, sampling_rate, self.sampling_rate, quality="HQ")


def is_list_of_waveforms(audio: Any) -> bool:
    """
    Whether audio is a batch: a list or tuple whose entries are no numbers.

    Args:
        audio (`Any`): One waveform or a list of waveforms and `None`.

    Returns:
        `bool`: `False` for arrays, tensors, and lists of numbers.
    """
    return isinstance(audio, (list, tuple)) and not any(
        isinstance(entry, (int, float, np.number)) for entry in audio[:1]
    )


def _mono_samples(audio: Any, name: str) -> np.ndarray:
    if hasattr(audio, "is_floating_point"):  # a tensor, on any device and of any precision
        try:
            audio = audio.detach().cpu()
            audio = (audio.float() if audio.is_floating_point() else audio).numpy()
        except (TypeError, RuntimeError) as error:  # sparse, quantised, or on the meta device
            raise ValueError(f"`{name}` is a tensor without plain samples ({error}). Pass a dense one.") from error
    try:
        samples = np.asarray(audio)
    except ValueError as error:
        raise ValueError(f"`{name}` is no waveform: its parts differ in length. Pass a list of 1-D arrays.") from error
    if not samples.ndim:
        raise ValueError(
            f"`{name}` is a {type(audio).__name__}, no waveform. Pass mono samples of shape (num_samples,)."
        )
    if samples.ndim == 2 and 1 in samples.shape:
        samples = samples.reshape(-1)
    if samples.ndim != 1:
        raise ValueError(
            f"`{name}` must be mono with shape (num_samples,), got {samples.shape}. Average the channels of stereo"
            " audio (`audio.mean(axis=...)`); pass a batch as a list of 1-D arrays."
        )
    if samples.dtype in _INTEGER_SCALES:
        return (samples / _INTEGER_SCALES[samples.dtype]).astype(np.float32)
    if samples.dtype.kind != "f":
        raise ValueError(
            f"`{name}` has type {samples.dtype}, whose scale is not known. Pass floats in [-1, 1], int16 or int32."
        )
    with np.errstate(over="ignore"):  # what is infinite is refused afterwards
        return samples.astype(np.float32)


__all__ = ["DiTARFeatureExtractor"]
