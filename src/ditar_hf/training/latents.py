"""
A store of latents: a data set encoded once, so that training DiTAR neither decodes nor encodes audio.

A store is a folder. `latents.json` says which tokenizer of speech, which source and which settings made it.
`latents-00000.parquet` and so on each stand for a fixed range of the source's rows, with those that were rejected, and
why, in the file's metadata; each bears its name only when it is whole, so that a run that was killed goes on where it
was. At the end `rejected.jsonl` lists all that were rejected, and `latents.json` says that the store is complete.
"""

import hashlib
import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from datasets import Dataset, IterableDataset, load_dataset
from transformers.utils import logging

from ..modeling.modeling_ditar_vae import DiTARVAE
from .audio import MIN_SAMPLING_RATE
from .data import AudioSource
from .latent_shards import encode_rows, read_summary, write_shard
from .stores import describe_source, find_differences, locked, read_description, refuse_foreign, write_lines

FORMAT_VERSION = 1
DESCRIPTION_FILE, REJECTED_FILE = "latents.json", "rejected.jsonl"
# the last three are what latents depend on, and neither names nor shapes of weights say
CONFIG_FIELDS = (
    "sampling_rate",
    "hop_length",
    "frame_rate",
    "latent_dim",
    "encoder_type",
    "encoder_causal",
    "mel_window_length",
)


def hash_vae(vae: DiTARVAE) -> str:
    """
    Hash of the weights that a tokenizer's latents depend on, wherever they lie and in whatever precision.

    A decoder trained further on a frozen encoder decodes the same latents, so it is left out. Weights saved in half
    precision are the same values in any precision that holds them; rounding to a lower one changes values and hash.

    Args:
        vae ([`DiTARVAE`]): Alone, or that of a [`DiTARForTextToSpeech`].

    Returns:
        `str`: SHA-256 over names, shapes and values, as float32, of the encoder's weights and the latents' statistics.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(vae.state_dict().items()):
        if name.startswith("decoder."):
            continue
        digest.update(f"{name} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy())
    return digest.hexdigest()


def encode_source(
    vae: DiTARVAE,
    source: AudioSource,
    out: str | os.PathLike,
    *,
    patch_size: int = 4,
    max_seconds: float = 40.0,
    min_sampling_rate: int = MIN_SAMPLING_RATE,
    rows_per_shard: int = 500,
    batch_seconds: float = 100.0,
    device: str | torch.device | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
) -> dict[str, Any]:
    """
    Encodes a source into a store of latents; called again after it was stopped at any moment, it completes the store.

    What is stored equals what [`DiTARForTextToSpeech`] computes of the same audio in a batch of
    [`DiTARDataCollator`], rounded to float16: the posterior's mean, of samples with zeros behind them up to a whole
    patch. Audio is resampled to the tokenizer's rate; its loudness is left as it is. A recording that cannot be used
    is written down with the reason, and the rest is encoded.

    Args:
        vae ([`DiTARVAE`]): The tokenizer of speech; moved to `device`.
        source ([`AudioSource`]): What is read, in its own order.
        out (`str` or `os.PathLike`): Folder of the store: new, or one that an earlier call began.
        patch_size (`int`, *optional*, defaults to 4): Frames in a patch of the model that the latents are for.
        max_seconds (`float`, *optional*, defaults to 40.0): Longer recordings are rejected.
        min_sampling_rate (`int`, *optional*, defaults to 16000): Recordings of a lower rate are rejected, in Hz.
        rows_per_shard (`int`, *optional*, defaults to 500):
            Rows of the source that a file stands for. They are in memory together, at 24 kHz 96 kB for each second.
        batch_seconds (`float`, *optional*, defaults to 100.0):
            Most seconds that are encoded at once, padding included. It may change between calls, and so may `device`;
            both change latents by rounding only.
        device (`str` or `torch.device`, *optional*): Where to encode; by default where `vae` is.
        dtype (`str`, *optional*, defaults to `"float32"`):
            Precision in which the encoder computes, by autocast; lower ones are for accelerators. Training on
            waveforms always uses `"float32"`.

    Returns:
        `dict`: What `latents.json` says; its `totals` are `num_rows`, `num_rejected`, `num_shards` and `hours`.

    Raises:
        ValueError: If a setting is out of its range; the folder holds other things, was made by another tokenizer,
            from another source or with other settings, or is being written by another process; the source has no row,
            or none that can be used.
        OSError: If a connection to the source breaks, or the folder cannot be written; a later call goes on.
    """
    settings = {
        "patch_size": patch_size,
        "max_seconds": max_seconds,
        "min_sampling_rate": min_sampling_rate,
        "rows_per_shard": rows_per_shard,
        "dtype": dtype,
    }
    for name, value in {**settings, "dtype": 1, "batch_seconds": batch_seconds}.items():
        if not value > 0:
            raise ValueError(f"`{name}` is {value}: it must be positive.")
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"`dtype` is {dtype!r}: use 'float32', 'bfloat16' or 'float16'.")
    if dtype != "float32" and torch.device(vae.device if device is None else device).type == "cpu":
        # on CPUs with AMX, strided convolutions of torch 2.13 in bfloat16 give other values altogether
        raise ValueError(f"`dtype` is {dtype!r} on a CPU, where it cannot be relied on: use 'float32'.")
    out = Path(out)
    refuse_foreign(out, DESCRIPTION_FILE, "latents")
    rows = source.read()
    description = {"format_version": FORMAT_VERSION, **_describe_vae(vae), "source": describe_source(source, rows)}
    description["settings"] = settings
    with locked(out):
        return _complete(vae if device is None else vae.to(device), rows, out, description, batch_seconds)


def load_latents(
    path: str | os.PathLike, vae: DiTARVAE | None = None, streaming: bool = False
) -> Dataset | IterableDataset:
    """
    Rows of a complete store, in the order of its source.

    They are examples for [`DiTARDataCollator`] as they are: `collator([rows[0], rows[1]])`. Without `streaming`,
    `datasets` makes a copy in its cache, which it then maps into memory.

    Args:
        path (`str` or `os.PathLike`): Folder of the store.
        vae ([`DiTARVAE`], *optional*): The tokenizer in use; a store of another one's latents is refused.
        streaming (`bool`, *optional*, defaults to `False`): Read the files as they are needed, without a copy.

    Returns:
        `datasets.Dataset`, or with `streaming` a `datasets.IterableDataset` with a shard for each file. Its columns
        are `id`, `text`, `speaker`, `language` (the latter three may be `None`), `num_frames`, `num_samples` (at the
        tokenizer's rate, before padding) and `latents`: a float32 tensor `(num_frames, latent_dim)`, which is float16
        on the disk.

    Raises:
        ValueError: If there is no complete store, or its latents are those of another tokenizer.
    """
    path = Path(path)
    description = read_description(path / DESCRIPTION_FILE, FORMAT_VERSION)
    if description is None:
        raise ValueError(f"`path`: there is no store of latents in {path}. Make one with `ditar encode`.")
    if not description["complete"] or not _all_there(path, description):
        raise ValueError(f"`path`: the store {path} is not complete. Run the `ditar encode` that began it again.")
    if vae is not None and (found := find_differences(description, _describe_vae(vae))):
        raise ValueError(
            f"`vae` is not the tokenizer that made the latents in {path}: {found}. Pass that one, or encode the data "
            "again into another folder."
        )
    files = [str(_shard(path, index)) for index in range(description["totals"]["num_shards"])]
    return load_dataset("parquet", data_files=files, split="train", streaming=streaming).with_format("torch")


def _shard(folder: Path, index: int) -> Path:
    return folder / f"latents-{index:05d}.parquet"


def _all_there(folder: Path, description: Mapping[str, Any]) -> bool:
    return all(_shard(folder, index).is_file() for index in range(description["totals"]["num_shards"]))


def _describe_vae(vae: DiTARVAE) -> dict[str, Any]:
    return {"vae_hash": hash_vae(vae), "vae_config": {name: getattr(vae.config, name) for name in CONFIG_FIELDS}}


def _complete(
    vae: DiTARVAE, rows: Dataset | IterableDataset, out: Path, description: dict[str, Any], batch_seconds: float
) -> dict[str, Any]:
    """Writes what the store lacks, and returns its description."""
    stored, settings = read_description(out / DESCRIPTION_FILE, FORMAT_VERSION), dict(description["settings"])
    if stored is None:
        write_lines(out / DESCRIPTION_FILE, [{**description, "complete": False}], indent=2)
    elif found := find_differences(stored, description):
        raise ValueError(f"`out`: {out} was begun with something else: {found}. Use that, or another folder.")
    elif stored["complete"] and _all_there(out, stored):
        return stored
    for index, shard_rows in _missing_shards(rows, out, settings.pop("rows_per_shard")):
        columns, rejected = encode_rows(vae, shard_rows, batch_seconds, **settings)
        write_shard(_shard(out, index), columns, rejected, vae.config.latent_dim)
    summaries = [read_summary(file) for file in _leading_shards(out)]
    rejected = [entry for summary in summaries for entry in summary["rejected"]]
    write_lines(out / REJECTED_FILE, rejected)
    totals = {
        "num_rows": sum(summary["num_rows"] for summary in summaries),
        "num_rejected": len(rejected),
        "num_shards": len(summaries),
        "hours": sum(summary["num_samples"] for summary in summaries) / vae.config.sampling_rate / 3600,
    }
    if not totals["num_rows"]:
        why = f"no row can be used ({out / REJECTED_FILE}), {rejected[0]}" if rejected else "there is no row"
        raise ValueError(f"`source`: of {description['source']['path']} {why}. Check path and format.")
    description = {**description, "complete": True, "totals": totals}
    write_lines(out / DESCRIPTION_FILE, [description], indent=2)
    return description


def _leading_shards(folder: Path) -> list[Path]:
    """Files from the first to the one before the first that is not there."""
    files = (_shard(folder, index) for index in itertools.count())
    return list(itertools.takewhile(Path.is_file, files))


def _missing_shards(
    rows: Dataset | IterableDataset, out: Path, rows_per_shard: int
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Numbers and rows of the shards that are not there; audio of the others is not decoded."""
    first = len(_leading_shards(out))
    total = len(rows) if isinstance(rows, Dataset) else None
    stream = rows.to_iterable_dataset() if isinstance(rows, Dataset) else rows
    iterator = iter(stream.skip(first * rows_per_shard))
    # it vanishes when done, and is for terminals only (`disable=None`)
    options = {"desc": "encoding", "unit": " rows", "leave": False, "disable": None}
    with logging.tqdm(total=total, initial=first * rows_per_shard, **options) as bar:
        for index in itertools.count(first):
            shard_rows = list(itertools.islice(iterator, rows_per_shard))
            if not shard_rows:
                return
            if not _shard(out, index).is_file():
                yield index, shard_rows
            bar.update(len(shard_rows))
