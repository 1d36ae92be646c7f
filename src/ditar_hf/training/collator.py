"""Batches for DiTAR: text and speech of examples to left-padded sequences with stop labels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from ..modeling.loss_ditar import IGNORE_INDEX
from ..modeling.processing_ditar import DiTARProcessor


@dataclass
class DiTARDataCollator:
    """
    Collates examples for [`DiTARForTextToSpeech`], for the plain `Trainer` as well.

    An example holds its text as `input_ids` (a list of token ids), `phonemes` (an IPA string) or `text`, and its
    speech as `latents` (normalised, `(num_frames, latent_dim)`, a multiple of the patch size of them) or `audio` (a
    dict of `array` and `sampling_rate`, as `datasets` gives it). Optional are a voice prompt, `prompt_latents` or
    `prompt_audio` with `prompt_input_ids`, `prompt_phonemes` or `prompt_text`, which is read but not learnt; and
    `alignment`, for each patch of the speech the index of the token spoken in its middle, −100 where unknown. Other
    keys are ignored.

    Args:
        processor ([`DiTARProcessor`]): Tokenizer, sampling rate and patch length.
        language (`str`, *optional*): Language of `text`; the tokenizer's by default.
    """

    processor: DiTARProcessor
    language: str | None = None

    def __call__(self, examples: list[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """
        Args:
            examples (`list[Mapping]`): As above; all with latents or all with audio.

        Returns:
            `dict` of `input_ids`, `attention_mask`, `labels` and `alignment_targets` (all −100 without alignments),
            each `(batch_size, sequence_length)`, with either `latents` `(batch_size, num_frames, latent_dim)` and
            `latents_mask` (a prompt's frames first) or `waveforms` `(batch_size, num_samples)` and `waveforms_mask`,
            and with prompts `prompt_values` `(batch_size, num_prompt_samples)` and `prompt_mask`.

        Raises:
            ValueError: If an example lacks text or speech, or one of them does not fit; the message has its place in
            the batch.
        """
        if not examples:
            raise ValueError("`examples` is empty: a batch needs at least one.")
        rows = [self._row(example, place) for place, example in enumerate(examples)]
        kinds = {row["kind"] for row in rows}
        if len(kinds) > 1:
            raise ValueError("`examples` mix latents and audio: give all of a batch in the same way.")
        kind = kinds.pop()
        width = max(len(row["input_ids"]) for row in rows)
        batch = {
            "input_ids": self._pad([row["input_ids"] for row in rows], self.processor.tokenizer.pad_token_id),
            "attention_mask": self._pad([torch.ones_like(row["input_ids"]) for row in rows], 0),
            "labels": self._pad([row["labels"] for row in rows], IGNORE_INDEX),
            "alignment_targets": self._pad([self._alignment(row, width) for row in rows], IGNORE_INDEX),
            **_padded_speech(kind, f"{kind}_mask", [row["speech"] for row in rows]),
        }
        if any(row["prompt"] is not None for row in rows):
            nothing = torch.zeros(0)
            prompts = [nothing if row["prompt"] is None else row["prompt"] for row in rows]
            batch |= _padded_speech("prompt_values", "prompt_mask", prompts)
        return batch

    @staticmethod
    def _pad(values: list[torch.Tensor], padding: int) -> torch.Tensor:
        return pad_sequence(values, batch_first=True, padding_value=padding, padding_side="left")

    def _row(self, example: Mapping[str, Any], place: int) -> dict[str, Any]:
        tokenizer = self.processor.tokenizer
        kind, speech, num_patches = self._speech(example, "", place)
        if kind is None:
            raise ValueError(f"`examples[{place}]` has neither `latents` nor `audio`; its keys are {sorted(example)}.")
        text, num_prompt_patches, offset = self._text(example, "", place), 0, 0
        if text is None:
            raise ValueError(
                f"`examples[{place}]` has no `text`, `phonemes` or `input_ids`; its keys are {sorted(example)}."
            )
        prompt_kind, prompt, num_prompt_patches = self._speech(example, "prompt_", place)
        prompt_text = self._text(example, "prompt_", place)
        if (prompt_kind is None) != (prompt_text is None):
            raise ValueError(
                f"`examples[{place}]` has a prompt's speech without its text, or the text without the speech."
            )
        if prompt_kind is not None:
            if prompt_kind != kind:
                raise ValueError(f"`examples[{place}]` mixes latents and audio in prompt and target.")
            if kind == "latents":
                speech, prompt = torch.cat((prompt, speech)), None
            text, offset = self._behind_prompt(example, prompt_text, text)
        patches = [tokenizer.audio_patch_token_id] * (num_prompt_patches + num_patches)
        input_ids = torch.tensor([*text, tokenizer.audio_bos_token_id, *patches])
        # the states that target patches are drawn from: from audio_bos or the prompt's last patch on
        labels = torch.full_like(input_ids, IGNORE_INDEX)
        labels[-1 - num_patches :] = 0
        labels[-1] = 1
        alignment = example.get("alignment")
        if alignment is not None:
            if len(alignment) != num_patches:
                raise ValueError(
                    f"`examples[{place}]['alignment']` has {len(alignment)} entries for {num_patches} patches of "
                    "speech."
                )
            length = len(text) - offset
            if wrong := [index for index in alignment if index != IGNORE_INDEX and not 0 <= index < length]:
                raise ValueError(
                    f"`examples[{place}]['alignment']` points at token {int(wrong[0])} of a text of {length}."
                )
        return {
            "kind": kind,
            "speech": speech,
            "prompt": prompt,
            "input_ids": input_ids,
            "labels": labels,
            "alignment": alignment,
            "alignment_offset": offset,
        }

    def _text(self, example: Mapping[str, Any], prefix: str, place: int) -> list[int] | None:
        """Token ids of target or prompt, `None` if the example has no such text."""
        if example.get(f"{prefix}input_ids") is not None:
            ids = list(example[f"{prefix}input_ids"])
        elif example.get(f"{prefix}phonemes") is not None:
            ids = self.processor.tokenize_text(example[f"{prefix}phonemes"], phonemize=False)
        elif example.get(f"{prefix}text") is not None:
            phonemize = True if self.processor.reads_phonemes else None
            ids = self.processor.tokenize_text(example[f"{prefix}text"], self.language, phonemize)
        else:
            return None
        if not ids:
            raise ValueError(f"`examples[{place}]` has an empty text: filter such examples out.")
        tokenizer = self.processor.tokenizer
        ids = [int(index) for index in ids]
        control = {tokenizer.pad_token_id, tokenizer.audio_bos_token_id, tokenizer.audio_patch_token_id}
        if found := sorted(control.intersection(ids)):
            raise ValueError(
                f"`examples[{place}]` has control token {found[0]} in its text: leave it out, the collator places it."
            )
        return ids

    def _behind_prompt(
        self, example: Mapping[str, Any], prompt_text: list[int], text: list[int]
    ) -> tuple[list[int], int]:
        """The text behind that of the prompt and a space, and where in it the text begins."""
        if self.processor.reads_phonemes:
            prompt_text = [*prompt_text, *self.processor.tokenize_text(" ", phonemize=False)]
        elif isinstance(example.get("prompt_text"), str) and isinstance(example.get("text"), str):
            # letters are joined first, as the processor does: many tokens begin with a space
            joined = self.processor.tokenize_text(f"{example['prompt_text']} {example['text']}")
            return joined, len(joined) - len(text)
        return [*prompt_text, *text], len(prompt_text)

    def _speech(
        self, example: Mapping[str, Any], prefix: str, place: int
    ) -> tuple[str | None, torch.Tensor | None, int]:
        """Kind (`latents` or `waveforms`), tensor and number of patches of target or prompt."""
        extractor = self.processor.feature_extractor
        if example.get(f"{prefix}latents") is not None:
            latents = torch.as_tensor(np.asarray(example[f"{prefix}latents"]), dtype=torch.float32)  # (T, D)
            if latents.ndim != 2 or not len(latents) or len(latents) % extractor.patch_size:
                raise ValueError(
                    f"`examples[{place}]['{prefix}latents']` has shape {list(latents.shape)}: it must be (num_frames, "
                    f"latent_dim) with a multiple of {extractor.patch_size} frames. Pad the audio before encoding it."
                )
            if not torch.isfinite(latents).all():
                raise ValueError(f"`examples[{place}]['{prefix}latents']` holds NaN or infinite values.")
            return "latents", latents, len(latents) // extractor.patch_size
        audio = example.get(f"{prefix}audio")
        if audio is None:
            return None, None, 0
        if audio["sampling_rate"] != extractor.sampling_rate:
            raise ValueError(
                f"`examples[{place}]['{prefix}audio']` has {audio['sampling_rate']} samples a second, the model "
                f"{extractor.sampling_rate}: resample it."
            )
        samples = torch.as_tensor(np.asarray(audio["array"]), dtype=torch.float32)  # (S,)
        if samples.ndim != 1 or not len(samples) or not torch.isfinite(samples).all():
            raise ValueError(
                f"`examples[{place}]['{prefix}audio']` must be finite mono samples, got {list(samples.shape)}."
            )
        length = extractor.patch_length
        # a prompt is trimmed, so that it ends in speech; a target is padded, so that its end is not lost
        num_patches = len(samples) // length if prefix else -(-len(samples) // length)
        if not num_patches:
            raise ValueError(f"`examples[{place}]['{prefix}audio']` is shorter than one patch ({length} samples).")
        samples = torch.nn.functional.pad(samples, (0, max(0, num_patches * length - len(samples))))
        return "waveforms", samples[: num_patches * length], num_patches

    @staticmethod
    def _alignment(row: dict[str, Any], width: int) -> torch.Tensor:
        """Alignment of a row as positions in the padded sequence, on the states before the patches."""
        labels = torch.full_like(row["input_ids"], IGNORE_INDEX)
        if row["alignment"] is not None:
            alignment = torch.as_tensor(row["alignment"])
            shift = width - len(labels) + row["alignment_offset"]
            known = torch.where(alignment == IGNORE_INDEX, IGNORE_INDEX, alignment + shift)
            labels[-1 - len(alignment) : -1] = known
        return labels


def _padded_speech(name: str, mask_name: str, rows: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    mask = [torch.ones(len(row)) for row in rows]
    return {name: pad_sequence(rows, batch_first=True), mask_name: pad_sequence(mask, batch_first=True)}


__all__ = ["DiTARDataCollator"]
