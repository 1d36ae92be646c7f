"""
Speech without texts made into training data, by a recogniser: Libri-light above all.

The result is a folder of tar files in the layout of Emilia, FLAC and JSON of each recording beside each other, which
[`AudioSource`] reads as `"webdataset"`. `speech-00000.tar` and so on each stand for a fixed range of the source's
segments; what was left out of it, and why, is in the JSON file of the same stem. Each bears its name only when it is
whole, so that a run that was killed goes on where it was. At the end `rejected.jsonl` lists all that was left out.
"""

import io
import itertools
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from .audio import MIN_SAMPLING_RATE, UnusableAudioError, decode_audio, resample_audio, segment_of
from .data import AudioSource
from .stores import Store, describe_source, rows_from, write_lines, writing
from .voice_activity import cut_row

FORMAT_VERSION = 1
# a row, and the reason why it cannot be used, where that is known before it is decoded
Segment = tuple[dict[str, Any], str | None]


def transcribe_source(
    source: AudioSource,
    asr: Callable[..., list[dict[str, Any]]],
    out: str | os.PathLike,
    *,
    asr_options: Mapping[str, Any] | None = None,
    sampling_rate: int | None = None,
    batch_size: int = 8,
    min_seconds: float = 0.5,
    max_seconds: float = 30.0,
    max_gap_seconds: float = 1.0,
    min_sampling_rate: int = MIN_SAMPLING_RATE,
    segments_per_shard: int = 500,
) -> dict[str, Any]:
    """
    Transcribes a source into tar files; called again after it was stopped at any moment, it completes them.

    Files of Libri-light are cut at pauses, by their `voice_activity`; rows of other sources stay as they are. Audio is
    stored at its own rate with 16 bits. Whatever texts a source has are not used.

    Args:
        source ([`AudioSource`]): What is read, in its own order.
        asr (`Callable`):
            A pipeline `"automatic-speech-recognition"` of transformers, or what is called like one: for a list of
            `{"raw": samples, "sampling_rate": rate}`, `batch_size` and `asr_options` it gives a list of `{"text": …}`.
        out (`str` or `os.PathLike`): Folder of the tar files: new, or one that an earlier call began.
        asr_options (`Mapping`, *optional*):
            Further arguments of each call, such as `{"generate_kwargs": {"language": "en"}}`; what JSON can hold.
        sampling_rate (`int`, *optional*): Of what `asr` hears, in Hz; by default that of its feature extractor.
        batch_size (`int`, *optional*, defaults to 8): Segments recognised at once. It may change between calls.
        min_seconds (`float`, *optional*, defaults to 0.5): Shorter segments are left out.
        max_seconds (`float`, *optional*, defaults to 30.0): Longest segment; what has no pause in it is left out.
        max_gap_seconds (`float`, *optional*, defaults to 1.0): Longest pause within a segment of Libri-light.
        min_sampling_rate (`int`, *optional*, defaults to 16000): Recordings of a lower rate are left out, in Hz.
        segments_per_shard (`int`, *optional*, defaults to 500): Segments that a tar file stands for.

    Returns:
        `dict`: What `transcription.json` says; its `totals` are `num_rows`, `num_rejected`, `reasons` (how many
        segments are rejected for each), `num_shards` and `hours`.

    Raises:
        ValueError: If a setting is out of its range; the folder holds other things, was made from another source or
            with other settings, or is being written by another process; the source has no row, or none that can be
            used; `asr` does not answer as it should.
        OSError: If a connection to the source breaks, or the folder cannot be written; a later call goes on.
    """
    settings = {
        "min_seconds": min_seconds,
        "max_seconds": max_seconds,
        "min_sampling_rate": min_sampling_rate,
        "segments_per_shard": segments_per_shard,
    }
    for name, value in {**settings, "batch_size": batch_size}.items():
        if not value > 0:
            raise ValueError(f"`{name}` is {value}: it must be positive.")
    if not max_gap_seconds >= 0:
        raise ValueError(f"`max_gap_seconds` is {max_gap_seconds}: it must not be negative.")
    recognize = _Recognizer(asr, asr_options or {}, sampling_rate, batch_size)
    store = Store(Path(out), "transcribed speech", "transcription.json", FORMAT_VERSION, "speech-{:05d}.tar")
    store.refuse_foreign()
    rows, is_cut = source.read(), source.resolve_format() == "librilight"

    def segments(first: int) -> Iterator[Segment]:
        if not is_cut:
            return ((row, None) for row in rows_from(rows, first))
        # no audio is read for it, only the files beside it
        cut = itertools.chain.from_iterable(cut_row(row, max_seconds, max_gap_seconds) for row in rows)
        return itertools.islice(cut, first, None)

    def write(file: Path, some: list[Segment]):
        _write_shard(file, some, recognize, settings)

    description = {
        "source": describe_source(source, rows),
        "asr": recognize.describe(),
        "settings": {**settings, "max_gap_seconds": max_gap_seconds},
    }
    bar = {"desc": "transcribing", "unit": " segments"}
    return store.complete(description, segments, segments_per_shard, write, _read_summary, bar=bar)


class _Recognizer:
    """The recogniser as it is called for a batch of segments."""

    def __init__(
        self, asr: Callable[..., Any], options: Mapping[str, Any], sampling_rate: int | None, batch_size: int
    ):
        if sampling_rate is None:
            sampling_rate = getattr(getattr(asr, "feature_extractor", None), "sampling_rate", None)
        if sampling_rate is None:
            raise ValueError("`sampling_rate` is not given, and `asr` has no feature extractor that says it: give it.")
        try:
            # as it will be read again, to be compared
            self.described_options = json.loads(json.dumps(dict(options)))
        except TypeError as error:
            raise ValueError(f"`asr_options` holds what JSON cannot hold: {error}.") from error
        self.asr, self.options, self.sampling_rate, self.batch_size = asr, dict(options), sampling_rate, batch_size

    def describe(self) -> dict[str, Any]:
        name = getattr(getattr(self.asr, "model", None), "name_or_path", None)
        return {"name": name, "options": self.described_options, "sampling_rate": self.sampling_rate}

    def __call__(self, waveforms: list[np.ndarray]) -> list[str]:
        if not waveforms:
            return []
        inputs = [{"raw": waveform, "sampling_rate": self.sampling_rate} for waveform in waveforms]
        outputs = self.asr(inputs, batch_size=self.batch_size, **self.options)
        try:
            texts = [output["text"].strip() for output in outputs]
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"`asr` answered {outputs!r:.200}: it must give a dict with `text` for each.") from error
        if len(texts) != len(waveforms):
            raise ValueError(f"`asr` gave {len(texts)} answers for {len(waveforms)} segments.")
        return texts


def _write_shard(
    file: Path,
    segments: list[Segment],
    recognize: _Recognizer,
    settings: Mapping[str, Any],
):
    """Writes a tar file and the summary beside it, whole or not at all."""
    summary: dict[str, Any] = {"num_rows": 0, "seconds": 0.0, "rejected": []}
    with writing(file) as stream:
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for first in range(0, len(segments), recognize.batch_size):
                batch = segments[first : first + recognize.batch_size]
                for place, (row, speech) in enumerate(_transcribe(batch, recognize, settings), start=first):
                    if isinstance(speech, str):
                        summary["rejected"].append({"id": row["id"], "reason": speech})
                        continue
                    text, samples, rate = speech
                    _add_recording(archive, f"{file.stem}-{place:06d}", row, text, samples, rate)
                    summary["num_rows"] += 1
                    summary["seconds"] += len(samples) / rate
        # the tar file bears its name last: where it is, the summary is
        write_lines(file.with_suffix(".json"), [summary])


def _transcribe(
    batch: list[Segment], recognize: _Recognizer, settings: Mapping[str, Any]
) -> list[tuple[dict[str, Any], str | tuple[str, np.ndarray, int]]]:
    """Text, samples and their rate of each segment of a batch, or the reason why it cannot be used."""
    decoded: dict[int, tuple[np.ndarray, int]] = {}
    heard: dict[int, np.ndarray] = {}
    results: list[Any] = [reason for _, reason in batch]
    for place, (row, reason) in enumerate(batch):
        if reason is None:
            try:
                decoded[place] = samples, rate = _read_segment(row, settings)
                heard[place] = resample_audio(samples, rate, recognize.sampling_rate)
            except UnusableAudioError as error:
                results[place] = str(error)
    texts = recognize(list(heard.values()))
    for place, text in zip(heard, texts, strict=True):
        results[place] = (text, *decoded[place]) if text else "nothing is heard in it"
    return [(row, result) for (row, _), result in zip(batch, results, strict=True)]


def _read_segment(row: dict[str, Any], settings: Mapping[str, Any]) -> tuple[np.ndarray, int]:
    min_seconds, max_seconds = settings["min_seconds"], settings["max_seconds"]
    # one second more than allowed tells that it is longer
    samples, rate = decode_audio(
        row["audio"],
        seconds=max_seconds + 1,
        min_sampling_rate=settings["min_sampling_rate"],
        **segment_of(row),
    )
    # a sample more or less is a matter of rounding
    if len(samples) > max_seconds * rate + 1:
        raise UnusableAudioError(f"it is longer than {max_seconds:g} seconds")
    if len(samples) < min_seconds * rate - 1:
        raise UnusableAudioError(f"it is shorter than {min_seconds:g} seconds")
    return samples, rate


def _add_recording(archive: tarfile.TarFile, key: str, row: dict[str, Any], text: str, samples: np.ndarray, rate: int):
    """Puts audio and JSON of a recording into a tar file, in the layout of Emilia."""
    audio = io.BytesIO()
    soundfile.write(audio, samples, rate, format="FLAC", subtype="PCM_16")
    fields = {"id": row["id"], "text": text, "duration": len(samples) / rate}
    fields |= {name: row[name] for name in ("speaker", "language", "dnsmos") if row[name] is not None}
    for suffix, content in (("flac", audio.getvalue()), ("json", json.dumps(fields, ensure_ascii=False).encode())):
        # without time or owner: the same recordings make the same file
        member = tarfile.TarInfo(f"{key}.{suffix}")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))


def _read_summary(file: Path) -> dict[str, Any]:
    return json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
