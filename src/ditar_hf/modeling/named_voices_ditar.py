"""Voices by name, for the processor: how they are added, saved and loaded."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from .audio_files_ditar import replacing
from .saved_folders_ditar import refuse_broken_json, refuse_missing_folder
from .voices_ditar import DiTARVoice, check_voice_name, check_voices

VOICE_FOLDER = "voices"
# What of a saved processor is read before its parts are, which look after their own.
JSON_FILES = ("processor_config.json", "tokenizer_config.json")
# What says where files of a model are; all else has nothing to do with voices.
LOCATION_ARGUMENTS = ("cache_dir", "force_download", "proxies", "local_files_only", "token", "revision", "subfolder")


class NamedVoicesMixin:
    """
    Keeps `voices` with a processor: samples as WAV files in a folder, all else in `processor_config.json`.

    It stands before `ProcessorMixin` among the bases of a class whose constructor takes `voices` and `default_voice`,
    as [`DiTARProcessor`] does.
    """

    def add_voice(
        self,
        name: str,
        audio: Any,
        sampling_rate: int | None,
        text: str,
        language: str | None = None,
        phonemize: bool | None = None,
    ):
        """
        Adds a voice that can be called by its name, or replaces the one of that name.

        The recording is made into a prompt as in a call: resampled, cut to whole patches, brought to the model's
        level; then it is rounded to 16 bits. `save_pretrained` keeps it, and `default_voice` may become its name.

        Args:
            name (`str`): Lower-case letters, digits, `-` and `_`.
            audio (`str`, `bytes`, `np.ndarray`, `torch.Tensor`, `list[float]` or `dict`):
                A recording of the voice, a few seconds: in the forms of a `prompt_audio`.
            sampling_rate (`int`): The rate of a waveform in hertz; `None` for what has its own, such as a file.
            text (`str`): What is said in `audio`, word for word.
            language (`str`, *optional*): The language of `text`. Defaults to the tokenizer's. For phonemes only.
            phonemize (`bool`, *optional*):
                `False` if `text` is a phoneme string. Defaults to the tokenizer's `do_phonemize`. For phonemes only.

        Raises:
            ValueError: If the name cannot be one, or the recording or the text will not do as a prompt.
        """
        check_voice_name(name)
        self._text_ids(text, "text", language, phonemize)
        phonemes = None
        if self.reads_phonemes:
            # kept with the voice, which then needs neither its language nor espeak-ng
            phonemes, _ = self.tokenizer.prepare_for_tokenization(text, language=language, phonemize=phonemize)
        samples = self._prompt_samples(audio, sampling_rate, "audio")
        self.voices[name] = DiTARVoice(samples, self.feature_extractor.sampling_rate, text.strip(), phonemes)

    def to_dict(self) -> dict[str, Any]:
        """
        What `processor_config.json` says, without the samples of voices.

        Returns:
            `dict[str, Any]`: As of any processor; `voices` and `default_voice` only if there are some.
        """
        values = super().to_dict()
        voices, default_voice = values.pop("voices"), values.pop("default_voice")
        if voices:
            values["voices"] = {name: voice.to_dict() for name, voice in voices.items()}
        return values if default_voice is None else {**values, "default_voice": default_voice}

    def to_json_file(self, json_file_path: str | os.PathLike):
        """
        Writes the voices into a folder beside a file, and then the file, which names them; `save_pretrained` calls it.

        Args:
            json_file_path (`str` or `os.PathLike`): The file, `processor_config.json`.

        Raises:
            ValueError: If the voices are none that can be saved.
            OSError: If a file cannot be written.
        """
        check_voices(self.voices, self.default_voice)
        _save_voices(self.voices, Path(json_file_path).parent)
        with replacing(json_file_path) as partial:
            partial.write_text(self.to_json_string(), encoding="utf-8")

    @classmethod
    def get_processor_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """
        What `processor_config.json` says, with the voices it names; `from_pretrained` calls it.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): A folder or the name of a repository.
            **kwargs: As for `from_pretrained`.

        Returns:
            `tuple[dict[str, Any], dict[str, Any]]`: Arguments of the constructor, and the unused of `kwargs`.

        Raises:
            ValueError: If there is no such folder or no processor in it, a file is no JSON, or a voice is missing or
                damaged.
            OSError: If a file is not found on the Hub or in the cache.
        """
        refuse_missing_folder(pretrained_model_name_or_path)
        refuse_broken_json(JSON_FILES, pretrained_model_name_or_path, kwargs.get("subfolder"))
        values, unused = super().get_processor_dict(pretrained_model_name_or_path, **kwargs)
        if not values and not os.path.isdir(pretrained_model_name_or_path):
            raise OSError(
                f"there is no folder {str(pretrained_model_name_or_path)!r}, and no processor (processor_config.json)"
                " of that name could be had from the Hub or its cache."
            )
        if not values:
            raise ValueError(
                f"{str(pretrained_model_name_or_path)!r} holds no processor (processor_config.json). Save the one that"
                " the model was trained with beside it: `processor.save_pretrained(…)`."
            )
        if not isinstance(values.get("feature_extractor", {}), Mapping):
            raise ValueError(
                f"`feature_extractor` in the processor_config.json of {str(pretrained_model_name_or_path)!r} is no"
                f" mapping: {values['feature_extractor']!r}."
            )
        if "voices" in values:
            location = {name: kwargs[name] for name in LOCATION_ARGUMENTS if name in kwargs}
            values["voices"] = _load_voices(pretrained_model_name_or_path, values["voices"], **location)
        return values, unused


def _save_voices(voices: Mapping[str, DiTARVoice], folder: Path):
    """Writes `voices/<name>.wav` for each, whole or not at all; files of other voices stay."""
    for name, voice in voices.items():
        path = folder / VOICE_FOLDER / f"{name}.wav"
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as partial:
            partial.write_bytes(voice.to_wav())


def _load_voices(name_or_path: str | os.PathLike, entries: Any, **location: Any) -> dict[str, DiTARVoice]:
    """Reads the voices that a `processor_config.json` names; it says of each what [`~DiTARVoice.to_dict`] gives."""
    if not isinstance(entries, Mapping):
        raise ValueError(f"`voices` in the processor_config.json of {str(name_or_path)!r} is no mapping: {entries!r}.")
    voices, is_local = {}, os.path.isdir(name_or_path)
    for name, entry in entries.items():
        check_voice_name(name)  # first of all: it becomes part of a path
        file = f"{VOICE_FOLDER}/{name}.wav"
        try:
            path = cached_file(name_or_path, file, _raise_exceptions_for_missing_entries=not is_local, **location)
            if path is None:
                raise ValueError(f"`{file}` is missing")
            voices[name] = _read_voice(Path(path), file, entry)
        except OSError as error:
            raise OSError(f"`{file}` of {str(name_or_path)!r} cannot be had: {error}") from error
        except ValueError as error:
            raise ValueError(
                f"the voice {name!r} of {str(name_or_path)!r} cannot be used: {error}. Fetch the model again; a new"
                " voice is added by `processor.add_voice` and `processor.save_pretrained`."
            ) from error
    return voices


def _read_voice(path: Path, file: str, entry: Any) -> DiTARVoice:
    if not isinstance(entry, Mapping) or not {"sha256", "text"} <= entry.keys():
        raise ValueError(f"processor_config.json has no `sha256` and `text` of it: {entry!r}")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise ValueError(f"`{file}` is not the file that was saved with the processor, but damaged or another one")
    try:
        return DiTARVoice.from_wav(content, entry["text"], entry.get("phonemes"))
    except ValueError as error:
        raise ValueError(f"`{file}`: {str(error).rstrip('.')}") from error


__all__ = ["NamedVoicesMixin"]
