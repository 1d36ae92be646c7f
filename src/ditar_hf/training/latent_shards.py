"""Files of a store of latents: rows of a source are encoded and written, all of a file or nothing."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from datasets import Array2D, Dataset, Features, Value

from ..modeling.modeling_ditar_vae import DiTARVAE
from .audio import decode_audio, resample_audio, segment_of
from .examples import UNUSABLE, ExampleArguments, LeftOutError, trim_end
from .filters import FilterArguments
from .stores import writing

ROWS_PER_GROUP = 100  # a stream reads so many rows at once
SUMMARY_KEY = b"ditar_hf"


def latent_features(latent_dim: int) -> Features:
    """
    Columns of a file.

    Args:
        latent_dim (`int`): Channels of a latent frame.

    Returns:
        `datasets.Features`.
    """
    return Features(
        {
            "id": Value("string"),
            "text": Value("string"),
            "speaker": Value("string"),
            "language": Value("string"),
            "num_frames": Value("int32"),
            "num_samples": Value("int32"),
            # of the types that `datasets` knows, lists of lists read ten times slower, and bytes have no shape
            "latents": Array2D((None, latent_dim), "float16"),
        }
    )


@torch.inference_mode()
def encode_waveforms(vae: DiTARVAE, waveforms: list[np.ndarray], patch_size: int, dtype: str) -> list[np.ndarray]:
    """
    Latents of waveforms, encoded in one batch: the posterior's mean.

    Zeros behind a waveform up to a whole patch belong to it, as in [`DiTARDataCollator`]; those that pad the batch do
    not.

    Args:
        vae ([`DiTARVAE`]): The tokenizer of speech.
        waveforms (`list[np.ndarray]`): Each `(num_samples,)`, at the tokenizer's rate, of any length but 0.
        patch_size (`int`): Frames in a patch.
        dtype (`str`): Precision of the computation, by autocast: `"float32"`, `"bfloat16"` or `"float16"`.

    Returns:
        `list[np.ndarray]`: Each `(num_frames, latent_dim)`, float16, with a multiple of `patch_size` frames.
    """
    hop_length = vae.config.hop_length
    num_frames = [-(-len(waveform) // (patch_size * hop_length)) * patch_size for waveform in waveforms]
    padded = torch.zeros(len(waveforms), max(num_frames) * hop_length)  # (B, S)
    mask = torch.zeros_like(padded)
    for row, (waveform, count) in enumerate(zip(waveforms, num_frames, strict=True)):
        padded[row, : len(waveform)] = torch.from_numpy(waveform)
        mask[row, : count * hop_length] = 1
    precision = None if dtype == "float32" else getattr(torch, dtype)
    # switched off, not only left out: what is around does not decide
    with torch.autocast(vae.device.type, precision, enabled=precision is not None):
        latents = vae.encode(padded.to(vae.device), mask.to(vae.device)).mode()  # (B, T, D)
    latents = latents.to(torch.float16).cpu().numpy()
    return [frames[:count] for frames, count in zip(latents, num_frames, strict=True)]


def plan_batches(lengths: Mapping[int, int], most: float) -> list[list[int]]:
    """
    Batches of rows of like length, the longest first, so that little is padded and lack of memory shows at once.

    Args:
        lengths (`dict`): Length of each row by its place.
        most (`float`): Longest length times number of rows that a batch may have; a longer row is alone.

    Returns:
        `list[list[int]]`: Places; each in one batch.
    """
    batches = []
    for place in sorted(lengths, key=lengths.__getitem__, reverse=True):
        if not batches or (len(batches[-1]) + 1) * lengths[batches[-1][0]] > most:
            batches.append([])
        batches[-1].append(place)
    return batches


def read_waveform(
    row: Mapping[str, Any], sampling_rate: int, filters: FilterArguments, examples: ExampleArguments
) -> np.ndarray:
    """
    Samples of a row at the rate wanted, without the silence after its speech, as [`ExampleMaker`] makes them.

    Args:
        row (`Mapping`): In the columns of `EXAMPLE_FEATURES`.
        sampling_rate (`int`): The rate wanted, in Hz.
        filters ([`FilterArguments`]): Which rows are used; their lengths hold before and after the silence is off.
        examples ([`ExampleArguments`]): The lowest rate, and what silence is left.

    Returns:
        `np.ndarray` of shape `(num_samples,)`, float32.

    Raises:
        LeftOutError: If the filters leave it out.
        UnusableAudioError: If it cannot be decoded, is of a lower rate, or too short for a sample.
    """
    _refuse(filters.find_fault(row))
    # one second more than allowed tells it, without decoding hours of audio book
    most = None if filters.max_seconds is None else filters.max_seconds + 1
    samples, rate = decode_audio(
        row["audio"], seconds=most, min_sampling_rate=examples.min_sampling_rate, **segment_of(row)
    )
    _refuse(filters.find_fault_of_length(row, len(samples) / rate))
    if examples.trim_margin_seconds is not None:
        samples = trim_end(samples, rate, examples.trim_margin_seconds, examples.trim_threshold_decibels)
        _refuse(filters.find_fault_of_length(row, len(samples) / rate))
    return resample_audio(samples, rate, sampling_rate)


def _refuse(fault: str | None):
    if fault is not None:
        raise LeftOutError(fault)


def encode_rows(
    vae: DiTARVAE,
    rows: list[dict[str, Any]],
    filters: FilterArguments,
    examples: ExampleArguments,
    *,
    batch_seconds: float,
    patch_size: int,
    dtype: str,
) -> tuple[dict[str, list[Any]], list[dict[str, str]]]:
    """
    Decodes, trims, resamples and encodes rows of a source.

    Args:
        vae ([`DiTARVAE`]): The tokenizer of speech.
        rows (`list[dict]`): In the columns of `EXAMPLE_FEATURES`.
        filters, examples: As in `read_waveform`.
        batch_seconds (`float`): Most seconds that are encoded at once, padding included.
        patch_size, dtype: As in `encode_waveforms`.

    Returns:
        Columns as in `latent_features` of the rows that can be used, and `{"id": …, "reason": …}` of the others; both
        in the order of `rows`.
    """
    sampling_rate, waveforms, latents, reasons = vae.config.sampling_rate, {}, {}, {}
    for place, row in enumerate(rows):
        try:
            waveforms[place] = read_waveform(row, sampling_rate, filters, examples)
        except UNUSABLE as error:
            reasons[place] = str(error)
    lengths = {place: len(waveform) for place, waveform in waveforms.items()}
    for places in plan_batches(lengths, batch_seconds * sampling_rate):
        encoded = encode_waveforms(vae, [waveforms[place] for place in places], patch_size, dtype)
        latents.update(zip(places, encoded, strict=True))
    for place, frames in latents.items():
        if not np.isfinite(frames).all():
            reasons[place] = "its latents are not finite in float16"
    kept = [place for place in range(len(rows)) if place not in reasons]
    columns = {name: [rows[place][name] for place in kept] for name in ("id", "text", "speaker", "language")}
    columns["num_frames"] = [len(latents[place]) for place in kept]
    columns["num_samples"] = [lengths[place] for place in kept]
    columns["latents"] = [latents[place] for place in kept]
    return columns, [{"id": rows[place]["id"], "reason": reasons[place]} for place in sorted(reasons)]


def write_shard(file: Path, columns: Mapping[str, list[Any]], rejected: list[dict[str, str]], latent_dim: int):
    """
    Writes a Parquet file, whole or not at all, with what was rejected in its metadata.

    Args:
        file (`Path`): The file.
        columns (`dict`): As `encode_rows` gives them; there may be no row.
        rejected (`list[dict]`): As `encode_rows` gives them.
        latent_dim (`int`): Channels of a latent frame.
    """
    table = Dataset.from_dict(columns, features=latent_features(latent_dim)).with_format("arrow")[:]
    summary = {"num_rows": len(columns["id"]), "num_samples": sum(columns["num_samples"]), "rejected": rejected}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), SUMMARY_KEY: json.dumps(summary)})
    # a dictionary of float16 values would be of no use
    options = {"compression": "zstd", "use_dictionary": ["speaker", "language"]}
    with writing(file) as stream, pq.ParquetWriter(stream, table.schema, **options) as writer:
        # `datasets` takes a file without groups of rows, but no group without rows
        if len(table):
            writer.write_table(table, row_group_size=ROWS_PER_GROUP)


def read_summary(file: Path) -> dict[str, Any]:
    """
    What a file's metadata says of it.

    Args:
        file (`Path`): As `write_shard` wrote it.

    Returns:
        `dict` of `num_rows`, `num_samples` at the tokenizer's rate, and `rejected`.
    """
    return json.loads(pq.read_schema(file).metadata[SUMMARY_KEY])
