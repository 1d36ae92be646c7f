"""Processor of DiTAR: text and voice prompts to model inputs."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin

from .audio_files_ditar import read_audio, write_audio
from .feature_extraction_ditar import DiTARFeatureExtractor, is_list_of_waveforms
from .named_voices_ditar import NamedVoicesMixin
from .normalization_ditar import check_text
from .tokenization_ditar import PUNCTUATION_MARKS, WORD_BOUNDARY, DiTARTokenizer
from .voices_ditar import RANDOM_VOICE, DiTARVoice, check_voices, names_of


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


class _Prompt(NamedTuple):
    """A prompt as it enters a row: samples `(num_samples,)`, transcript, the tokens of that, what it is called."""

    samples: np.ndarray
    text: str
    ids: list[int]
    name: str


class DiTARProcessor(NamedVoicesMixin, ProcessorMixin):
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
        voices (`dict[str, DiTARVoice]`, *optional*):
            Prompts that can be called by name; saved and loaded with the processor. [`~DiTARProcessor.add_voice`]
            makes them of recordings.
        default_voice (`str`, *optional*):
            Which of them speaks if a call names no voice and brings no prompt. By default none: there is no prompt.

    Example:

    ```python
    >>> inputs = processor("Hello there.", prompt_audio=audio, prompt_text="What the voice says.", sampling_rate=24000)
    >>> output = model.generate(**inputs)
    >>> processor.add_voice("ada", audio, 24000, "What the voice says.")
    >>> inputs = processor("Hello there.", voice="ada")
    ```
    """

    def __init__(
        self,
        feature_extractor: DiTARFeatureExtractor,
        tokenizer: DiTARTokenizer,
        max_text_length: int = 1000,
        voices: Mapping[str, DiTARVoice] | None = None,
        default_voice: str | None = None,
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
        if isinstance(max_text_length, bool) or not isinstance(max_text_length, int) or max_text_length < 1:
            raise ValueError(f"`max_text_length` must be a positive whole number, got {max_text_length!r}.")
        check_voices({} if voices is None else voices, default_voice)
        self.max_text_length = max_text_length
        self.voices = dict(voices or {})
        self.default_voice = default_voice

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
        voice: str | list[str | None] | None = None,
        prompt_language: str | None = None,
    ) -> BatchFeature:
        """
        Prepares one text or a batch of texts.

        Args:
            text (`str` or `list[str]`):
                What to speak.
            prompt_audio (`str`, `bytes`, `np.ndarray`, `torch.Tensor`, `list[float]`, `dict` or a list, *optional*):
                A recording of the voice to speak with: path or content of an audio file, a mono waveform, or what
                `datasets` gives, a dictionary with `array` and `sampling_rate` or with `path` and `bytes`, or a
                decoder. Files are read as mono, the mean of their channels. One recording serves all rows; a list has
                one per row, `None` for no prompt.
            prompt_text (`str` or `list[str]`, *optional*):
                What is said in `prompt_audio`, word for word; in the same form.
            sampling_rate (`int`, *optional*):
                The rate of waveforms in `prompt_audio` in hertz; files and dictionaries have their own. Another rate
                than the model's is resampled.
            language (`str`, *optional*):
                The language of `text`. Defaults to the tokenizer's. For phonemes only.
            phonemize (`bool`, *optional*):
                `False` if `text` and `prompt_text` are phoneme strings already. Defaults to the tokenizer's
                `do_phonemize`. For phonemes only.
            return_tensors (`str`, *optional*, defaults to `"pt"`):
                `"pt"`, `"np"`, or `None` for lists.
            padding (`bool`, *optional*, defaults to `True`):
                Whether to pad all rows to the longest.
            voice (`str` or `list[str]`, *optional*):
                The name of one of `voices`, the same as its recording and transcript; one for all rows or a list with
                one per row. `"random"` is no prompt at all, so that the model makes up a voice: another one each time
                where the temperature is above 0, at 0 always the same for a text. Where none is named, `default_voice`
                speaks, unless prompts are given.
            prompt_language (`str`, *optional*):
                The language of `prompt_text`, where it is another than that of `text`. For phonemes only.

        Returns:
            [`BatchFeature`] with

            - **input_ids** (`(batch_size, sequence_length)`): text, `audio_bos`, placeholders of prompt patches;
            - **attention_mask** (`(batch_size, sequence_length)`): 1 on tokens, 0 on padding;
            - **prompt_values** (`(batch_size, num_samples)`, float32): the prompts, left-padded with zeros;
            - **prompt_mask** (`(batch_size, num_samples)`): 1 on their samples, all 0 in a row without a prompt.

            The last two are there only if some row has a prompt.

        Raises:
            ValueError: If a text has nothing to speak or is too long, a prompt lacks its audio or its text, the
                numbers of rows differ, `voice` is no name or comes with a prompt, or the tokenizer or the feature
                extractor refuses what it gets.
        """
        texts = [text] if isinstance(text, str) else text
        if not isinstance(texts, (list, tuple)) or not texts:
            raise ValueError(f"`text` must be a string or a list of strings with at least one entry, got {text!r}.")
        if prompt_audio is None and prompt_text is None:
            prompts = self._named_prompts(voice, len(texts))
        elif voice is None:
            spoken = language if prompt_language is None else prompt_language
            prompts = self._given_prompts(prompt_audio, prompt_text, sampling_rate, spoken, phonemize, len(texts))
        else:
            raise ValueError(f"`voice` is {voice!r}, but a prompt is passed as well. Pass one of them.")

        rows = []
        for index, (target, prompt) in enumerate(zip(texts, prompts, strict=True)):
            ids, num_patches = self._text_ids(target, f"text[{index}]", language, phonemize), 0
            if prompt is not None:
                ids = self._joined_ids(prompt.text, prompt.ids, target, ids)
                num_patches = len(prompt.samples) // self.feature_extractor.patch_length
            self._check_length(len(ids), index, prompt)
            rows.append(
                [*ids, self.tokenizer.audio_bos_token_id, *[self.tokenizer.audio_patch_token_id] * num_patches]
            )

        data = dict(self.tokenizer.pad({"input_ids": rows}, padding=padding, return_attention_mask=True))
        if any(prompt is not None for prompt in prompts):
            samples = [None if prompt is None else prompt.samples for prompt in prompts]
            data |= self.feature_extractor.pad_prompts(samples, padding=padding)
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
        write_audio(audio, path, self.feature_extractor.sampling_rate if sampling_rate is None else sampling_rate)

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
            languages = ", ".join(tokenizer.languages)
            is_silent = silent.issuperset(ids)
            problem = f"gives no phoneme of the vocabulary, which is of {languages}" if is_silent else None
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

    def _named_prompts(self, voice: Any, num_rows: int) -> list[_Prompt | None]:
        """Prompts of the voices that a call names, or of the default one."""
        prompts = []
        for name in _rows_of("voice", voice, isinstance(voice, (list, tuple)), num_rows):
            called = f"the voice {name!r}" if name else f"the default voice {self.default_voice!r}"
            name = self.default_voice if name is None else name
            if name in (None, RANDOM_VOICE):
                prompts.append(None)
                continue
            if not isinstance(name, str) or name not in self.voices:
                raise ValueError(
                    f"`voice` is {name!r}, but {names_of(self.voices)}. Pass a name, or {RANDOM_VOICE!r} for one that"
                    " the model makes up; `add_voice` adds one of a recording."
                )
            known = self.voices[name]
            if known.phonemes is None or not self.reads_phonemes:
                ids = self._text_ids(known.text, f"voices[{name!r}].text", None, None)
            else:
                ids = self._text_ids(known.phonemes, f"voices[{name!r}].phonemes", None, False)
            samples = self._prompt_samples(known.audio, known.sampling_rate, f"voices[{name!r}].audio")
            prompts.append(_Prompt(samples, known.text, ids, called))
        return prompts

    def _given_prompts(
        self,
        prompt_audio: Any,
        prompt_text: Any,
        sampling_rate: int | None,
        language: str | None,
        phonemize: bool | None,
        num_rows: int,
    ) -> list[_Prompt | None]:
        """Prompts of the recordings that a call brings."""
        recordings = _rows_of("prompt_audio", prompt_audio, is_list_of_waveforms(prompt_audio), num_rows)
        transcripts = _rows_of("prompt_text", prompt_text, isinstance(prompt_text, (list, tuple)), num_rows)
        prompts = []
        for index, (recording, transcript) in enumerate(zip(recordings, transcripts, strict=True)):
            if (recording is None) != (transcript is None):
                raise ValueError(_half_a_prompt(index, has_audio=recording is not None))
            if recording is None:
                prompts.append(None)
                continue
            ids = self._text_ids(transcript, f"prompt_text[{index}]", language, phonemize)
            samples = self._prompt_samples(recording, sampling_rate, f"prompt_audio[{index}]")
            prompts.append(_Prompt(samples, transcript, ids, "its prompt"))
        return prompts

    def _prompt_samples(self, recording: Any, sampling_rate: int | None, name: str) -> np.ndarray:
        """A recording as a prompt, of shape `(num_samples,)`."""
        if isinstance(recording, Mapping) and recording.get("array") is None:
            # of `datasets` without decoding; where there are bytes, the path is only a name
            stored = [recording[key] for key in ("bytes", "path") if recording.get(key) is not None]
            if not stored:
                raise ValueError(
                    f"`{name}` is a dictionary without `array` and `sampling_rate`, and without `bytes` and `path`:"
                    f" {sorted(map(str, recording))}. Pass one with either, as an `Audio` column of `datasets` gives"
                    " it."
                )
            recording = stored[0]
        if isinstance(recording, Mapping):
            recording, own_rate = recording["array"], recording.get("sampling_rate")
        elif isinstance(recording, (str, bytes, os.PathLike)):
            recording, own_rate = read_audio(recording, name)
        elif hasattr(recording, "get_all_samples"):  # a decoder of torchcodec
            decoded = recording.get_all_samples()
            recording, own_rate = decoded.data.mean(0), decoded.sample_rate
        else:
            own_rate = None
        if own_rate is not None and sampling_rate not in (None, own_rate):
            raise ValueError(
                f"`{name}` has the sampling rate {own_rate}, but `sampling_rate` is {sampling_rate}. Leave"
                " `sampling_rate` out."
            )
        sampling_rate = sampling_rate if own_rate is None else own_rate
        return self.feature_extractor.prepare_prompt(recording, sampling_rate, name)

    def _check_length(self, num_tokens: int, index: int, prompt: _Prompt | None):
        if num_tokens > self.max_text_length:
            with_prompt = f" together with the {len(prompt.ids)} of {prompt.name}" if prompt else ""
            raise ValueError(
                f"`text[{index}]`{with_prompt} has {num_tokens} tokens, more than the {self.max_text_length} of"
                " `max_text_length`. Split it into sentences and speak them one after the other."
            )


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
