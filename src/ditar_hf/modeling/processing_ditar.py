"""Processor of DiTAR: text and voice prompts to model inputs."""

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin

from .feature_extraction_ditar import DiTARFeatureExtractor, is_list_of_waveforms
from .normalization_ditar import check_text
from .tokenization_ditar import PUNCTUATION_MARKS, WORD_BOUNDARY, DiTARTokenizer

try:
    import soundfile
except ImportError:  # only `save_audio` needs it
    soundfile = None

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


class DiTARBatchFeature(BatchFeature):
    """
    Model inputs whose prompt audio stays in float32.

    The VAE always computes in float32, and the text-to-speech pipeline casts its inputs to the type of the model: in
    bfloat16 a prompt would lose all but 8 bits.
    """

    def to(self, *args, **kwargs) -> "DiTARBatchFeature":
        """
        Moves all values to a device and casts the floating-point ones, but `prompt_values` are only moved.

        Args:
            *args: As for `torch.Tensor.to`.
            **kwargs: As for `torch.Tensor.to`.

        Returns:
            [`DiTARBatchFeature`]: The same instance.
        """
        prompt_values = self.data.get("prompt_values")
        super().to(*args, **kwargs)
        if hasattr(prompt_values, "to"):
            self.data["prompt_values"] = prompt_values.to(device=self.data["prompt_values"].device)
        return self


class DiTARProcessor(ProcessorMixin):
    """
    Turns text, and for voice cloning a recording with its transcript, into the inputs of DiTAR.

    A row of `input_ids` is: the phonemes of the prompt's transcript, a space, the phonemes of the text, `audio_bos`,
    and one placeholder per patch of the prompt. Padding stands on the left. A model that was made from a text language
    model may read letters instead: its tokenizer is that of the language model, and a row begins with the transcript,
    a space and the text, cut into its tokens.

    Args:
        feature_extractor ([`DiTARFeatureExtractor`]):
            Prepares prompt audio.
        tokenizer ([`DiTARTokenizer`] or `PreTrainedTokenizerBase`):
            Turns text into phonemes and ids; or that of a text language model, with a `pad_token`, an
            `audio_bos_token` and an `audio_patch_token`.
        max_text_length (`int`, *optional*, defaults to 1000):
            The most text tokens (phones, spaces and punctuation) of a row, the transcript of the prompt included.

    Example:

    ```python
    >>> inputs = processor("Hello there.", prompt_audio=audio, prompt_text="What the voice says.", sampling_rate=24000)
    >>> output = model.generate(**inputs)
    ```
    """

    def __init__(
        self, feature_extractor: DiTARFeatureExtractor, tokenizer: DiTARTokenizer, max_text_length: int = 1000
    ):
        super().__init__(feature_extractor, tokenizer)
        control_tokens = ("pad_token", "audio_bos_token", "audio_patch_token")
        if missing := [name for name in control_tokens if getattr(tokenizer, name, None) is None]:
            raise ValueError(
                f"`tokenizer` has no `{missing[0]}`. Load that of a text language model with the three control tokens:"
                ' `AutoTokenizer.from_pretrained(…, audio_bos_token="<audio_bos>", audio_patch_token="<audio_patch>",'
                ' padding_side="left")`, and give it a `pad_token` if it has none.'
            )
        if feature_extractor.padding_side != tokenizer.padding_side:
            raise ValueError(
                f"`tokenizer` pads on the {tokenizer.padding_side} and `feature_extractor` on the"
                f" {feature_extractor.padding_side}. Load both with the same `padding_side`."
            )
        if max_text_length < 1:
            raise ValueError(f"`max_text_length` must be positive, got {max_text_length}.")
        self.max_text_length = max_text_length

    @property
    def model_input_names(self) -> list[str]:
        """`list[str]`: The keys that a call may return."""
        return ["input_ids", "attention_mask", "prompt_values", "prompt_mask"]

    @property
    def reads_phonemes(self) -> bool:
        """`bool`: Whether text is turned into phonemes; otherwise the tokenizer is that of a text language model."""
        return hasattr(self.tokenizer, "phonemize")

    def __call__(
        self,
        text: str | list[str],
        prompt_audio: Any = None,
        prompt_text: str | list[str | None] | None = None,
        sampling_rate: int | None = None,
        language: str | None = None,
        phonemize: bool | None = None,
        return_tensors: str | None = "pt",
        padding: bool = True,
    ) -> BatchFeature:
        """
        Prepares one text or a batch of texts.

        Args:
            text (`str` or `list[str]`):
                What to speak.
            prompt_audio (`np.ndarray`, `torch.Tensor`, `list[float]`, `dict` or a list of them, *optional*):
                A recording of the voice to speak with: a mono waveform, or a dictionary with `array` and
                `sampling_rate` as `datasets` gives it. One recording serves all rows; a list has one per row, `None`
                for no prompt.
            prompt_text (`str` or `list[str]`, *optional*):
                What is said in `prompt_audio`, word for word; in the same form.
            sampling_rate (`int`, *optional*):
                The rate of `prompt_audio` in hertz. Required unless the recordings are dictionaries. Another rate than
                the model's is resampled.
            language (`str`, *optional*):
                The language of `text` and `prompt_text`. Defaults to the tokenizer's. For phonemes only.
            phonemize (`bool`, *optional*):
                `False` if `text` and `prompt_text` are phoneme strings already. Defaults to the tokenizer's
                `do_phonemize`. For phonemes only.
            return_tensors (`str`, *optional*, defaults to `"pt"`):
                `"pt"`, `"np"`, or `None` for lists.
            padding (`bool`, *optional*, defaults to `True`):
                Whether to pad all rows to the longest.

        Returns:
            [`BatchFeature`] with

            - **input_ids** (`(batch_size, sequence_length)`): text, `audio_bos`, placeholders of prompt patches;
            - **attention_mask** (`(batch_size, sequence_length)`): 1 on tokens, 0 on padding;
            - **prompt_values** (`(batch_size, num_samples)`, float32): the prompts, left-padded with zeros;
            - **prompt_mask** (`(batch_size, num_samples)`): 1 on their samples, all 0 in a row without a prompt.

            The last two are there only if some row has a prompt.

        Raises:
            ValueError: If a text has nothing to speak or is too long, a prompt lacks its audio or its text, the
                numbers of rows differ, or the tokenizer or the feature extractor refuses what it gets.
        """
        texts = [text] if isinstance(text, str) else text
        if not isinstance(texts, (list, tuple)) or not texts:
            raise ValueError(f"`text` must be a string or a list of strings with at least one entry, got {text!r}.")
        voices = _rows_of("prompt_audio", prompt_audio, is_list_of_waveforms(prompt_audio), len(texts))
        transcripts = _rows_of("prompt_text", prompt_text, isinstance(prompt_text, (list, tuple)), len(texts))

        rows, prompts = [], []
        for index, (target, voice, transcript) in enumerate(zip(texts, voices, transcripts, strict=True)):
            if (voice is None) != (transcript is None):
                raise ValueError(_half_a_prompt(index, has_audio=voice is not None))
            ids = self._text_ids(target, f"text[{index}]", language, phonemize)
            prompt = None
            if voice is not None:
                transcript_ids = self._text_ids(transcript, f"prompt_text[{index}]", language, phonemize)
                ids = self._joined_ids(transcript, transcript_ids, target, ids)
                prompt = self._prompt(voice, sampling_rate, f"prompt_audio[{index}]")
            self._check_length(len(ids), index, has_prompt=voice is not None)
            num_patches = 0 if prompt is None else len(prompt) // self.feature_extractor.patch_length
            rows.append(
                [*ids, self.tokenizer.audio_bos_token_id, *[self.tokenizer.audio_patch_token_id] * num_patches]
            )
            prompts.append(prompt)

        data = dict(self.tokenizer.pad({"input_ids": rows}, padding=padding, return_attention_mask=True))
        if any(prompt is not None for prompt in prompts):
            data |= self.feature_extractor.pad_prompts(prompts, padding=padding)
        return DiTARBatchFeature(data, tensor_type=return_tensors)

    def tokenize_text(self, text: str, language: str | None = None, phonemize: bool | None = None) -> list[int]:
        """
        The tokens of one text, without control tokens.

        Args:
            text (`str`): A text, or a phoneme string.
            language (`str`, *optional*): As in a call.
            phonemize (`bool`, *optional*): As in a call.

        Returns:
            `list[int]`: Ids; none for a text without tokens.

        Raises:
            ValueError: If the tokenizer refuses the text or the language, or it is that of a text language model,
                which knows nothing of languages and phonemes.
        """
        if self.reads_phonemes:
            return self.tokenizer(text, language=language, phonemize=phonemize, add_special_tokens=False)["input_ids"]
        for name, value in (("language", language), ("phonemize", phonemize)):
            if value is not None:
                raise ValueError(
                    f"`{name}` is {value!r}, but this model reads letters, with the tokenizer of a text language model"
                    f" ({type(self.tokenizer).__name__}). Leave it out."
                )
        check_text(text)
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def save_audio(self, audio: Any, path: str | os.PathLike, sampling_rate: int | None = None):
        """
        Writes one waveform to a file, all of it or nothing.

        Args:
            audio (`torch.Tensor` or `np.ndarray` of shape `(num_samples,)`):
                The waveform, in [-1, 1], as `generate` returns it.
            path (`str` or `os.PathLike`):
                The file to write; its suffix (`.wav`, `.flac`, `.ogg`, `.mp3`) decides on the format.
            sampling_rate (`int`, *optional*):
                The rate in hertz. Defaults to the model's.

        Raises:
            ValueError: If `audio` is not one mono waveform of finite samples in [-1, 1], the suffix of `path` is
                another, or `sampling_rate` is not a positive whole number.
            OSError: If the file cannot be written.
            ImportError: If `soundfile` is not installed.
        """
        if soundfile is None:
            raise ImportError("Audio is written by `soundfile`, which is not installed: `pip install soundfile`.")
        path = Path(path)
        if path.suffix.lower() not in AUDIO_SUFFIXES:
            raise ValueError(f"`path` must end in one of {', '.join(AUDIO_SUFFIXES)}, got {str(path)!r}.")
        rate = self.feature_extractor.sampling_rate if sampling_rate is None else sampling_rate
        if isinstance(rate, bool) or not isinstance(rate, Integral) or rate < 1:
            raise ValueError(f"`sampling_rate` must be a positive whole number of hertz, got {rate!r}.")
        samples = _checked_samples(audio)
        try:
            with replacing(path) as partial:
                soundfile.write(partial, samples, int(rate))
        except soundfile.LibsndfileError as error:
            raise OSError(f"cannot write {str(path)!r} at {rate} Hz: {error.error_string}") from error

    def _text_ids(self, text: str, name: str, language: str | None, phonemize: bool | None) -> list[int]:
        if not isinstance(text, str):
            raise ValueError(f"`{name}` must be a string, got {type(text).__name__}.")
        tokenizer = self.tokenizer
        ids = self.tokenize_text(text, language, phonemize)
        for token in (tokenizer.pad_token, tokenizer.audio_bos_token, tokenizer.audio_patch_token):
            if tokenizer.convert_tokens_to_ids(token) in ids:
                raise ValueError(f"`{name}` holds the control token {token!r}. Remove it: the processor places it.")
        if self.reads_phonemes:
            silent = {tokenizer.unk_token_id, *tokenizer.convert_tokens_to_ids([WORD_BOUNDARY, *PUNCTUATION_MARKS])}
            problem = "gives no phoneme of the vocabulary" if silent.issuperset(ids) else None
        else:
            problem = None if any(char.isalnum() for char in text) else "holds no letter and no digit"
        if problem:
            raise ValueError(
                f"`{name}` has nothing to speak: {_shortened(text)!r} {problem}. Pass words, and leave out rows that"
                " have none."
            )
        return ids

    def _joined_ids(self, transcript: str, transcript_ids: list[int], text: str, text_ids: list[int]) -> list[int]:
        """Ids of a prompt's transcript and the text, with a space between them."""
        if self.reads_phonemes:
            return [*transcript_ids, self.tokenizer.convert_tokens_to_ids(WORD_BOUNDARY), *text_ids]
        # letters are joined first, as in a text that is read in one go: many tokens begin with a space
        return self.tokenize_text(f"{transcript} {text}")

    def _prompt(self, voice: Any, sampling_rate: int | None, name: str) -> np.ndarray:
        if isinstance(voice, Mapping):
            if not {"array", "sampling_rate"} <= voice.keys():
                raise ValueError(f"`{name}` is a dictionary without `array` or `sampling_rate`: {sorted(voice)}.")
            if sampling_rate not in (None, voice["sampling_rate"]):
                raise ValueError(
                    f"`{name}` has the sampling rate {voice['sampling_rate']}, but `sampling_rate` is {sampling_rate}."
                    " Leave `sampling_rate` out."
                )
            voice, sampling_rate = voice["array"], voice["sampling_rate"]
        elif isinstance(voice, (str, bytes, os.PathLike)):
            raise ValueError(
                f"`{name}` is a path or bytes. Read the file first, for example with `soundfile.read(path)`, and pass"
                " the samples and their `sampling_rate`."
            )
        return self.feature_extractor.prepare_prompt(voice, sampling_rate, name)

    def _check_length(self, num_tokens: int, index: int, has_prompt: bool):
        if num_tokens > self.max_text_length:
            with_prompt = " together with its prompt" if has_prompt else ""
            raise ValueError(
                f"`text[{index}]`{with_prompt} has {num_tokens} tokens, more than the {self.max_text_length} of"
                " `max_text_length`. Split it into sentences and speak them one after the other."
            )


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


def _checked_samples(audio: Any) -> np.ndarray:
    """The samples of one waveform in float32."""
    samples = audio.detach().cpu().float().numpy() if hasattr(audio, "detach") else np.asarray(audio, np.float32)
    if samples.ndim != 1 or not samples.size:
        raise ValueError(
            f"`audio` must have shape (num_samples,) and hold a sample, got {samples.shape}. Pass one row of a batch."
        )
    if not np.isfinite(samples).all():
        raise ValueError("`audio` holds NaN or infinite samples. Look for their cause in the model that made it.")
    peak = np.abs(samples).max()
    if peak > 1:
        raise ValueError(f"`audio` must lie in [-1, 1], but peaks at {peak:g}. Divide it by its peak.")
    return samples


def _rows_of(name: str, value: Any, is_list: bool, num_rows: int) -> list:
    """One entry per row. A single value serves all rows."""
    if not is_list:
        return [value] * num_rows
    if len(value) != num_rows:
        raise ValueError(
            f"`{name}` has {len(value)} rows and `text` has {num_rows}. Pass one entry per text, `None` where a text"
            " has no prompt."
        )
    return list(value)


def _half_a_prompt(index: int, has_audio: bool) -> str:
    if has_audio:
        return (
            f"`prompt_audio[{index}]` comes without its transcript. Pass what is said in it as `prompt_text`: the"
            " model reads the transcript and continues the recording."
        )
    return f"`prompt_text[{index}]` comes without its recording. Pass it as `prompt_audio`, or leave the text out."


def _shortened(text: str, length: int = 40) -> str:
    return text if len(text) <= length else text[:length] + "…"


__all__ = ["DiTARProcessor"]
