"""
A store of latents: a data set encoded once, so that training DiTAR neither decodes nor encodes audio.

A store is a folder. `latents.json` says which tokenizer of speech, which source and which settings made it.
`latents-00000.parquet` and so on each stand for a fixed range of the source's rows, with those that were rejected, and
why, in the file's metadata; each bears its name only when it is whole, so that a run that was killed goes on where it
was. At the end `rejected.jsonl` lists all that were rejected, and `latents.json` says that the store is complete.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from datasets import Dataset, IterableDataset, load_dataset

from ..modeling.modeling_ditar_vae import DiTARVAE
from .data import AudioSource
from .examples import ExampleArguments
from .filters import FilterArguments
from .latent_shards import encode_rows, read_summary, write_shard
from .stores import Store, describe_source, find_differences, rows_from

FORMAT_VERSION = 2  # the first one held the silence after the speech, from which a model learns not to stop
MAX_SECONDS = 40.0  # where the filters do not say it: an hour in one piece fits into no memory
# of `ExampleArguments`, those of audio
EXAMPLE_FIELDS = ("min_sampling_rate", "trim_margin_seconds", "trim_threshold_decibels")
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
    filters: FilterArguments | None = None,
    examples: ExampleArguments | None = None,
    *,
    patch_size: int = 4,
    rows_per_shard: int = 500,
    batch_seconds: float = 100.0,
    device: str | torch.device | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
) -> dict[str, Any]:
    """
    Encodes a source into a store of latents; called again after it was stopped at any moment, it completes the store.

    What is stored equals what [`DiTARForTextToSpeech`] computes when it is trained on the audio itself, with the same
    `filters` and `examples`, rounded to float16: the posterior's mean, of samples without the silence after the
    speech, with zeros behind them up to a whole patch. Audio is resampled to the tokenizer's rate; its loudness is
    left as it is. A recording that is not used is written down with the reason, and the rest is encoded.

    Args:
        vae ([`DiTARVAE`]): The tokenizer of speech; moved to `device`.
        source ([`AudioSource`]): What is read, in its own order.
        out (`str` or `os.PathLike`): Folder of the store: new, or one that an earlier call began.
        filters ([`FilterArguments`], *optional*):
            Which rows are encoded. Where they name no longest recording, it is of 40 seconds.
        examples ([`ExampleArguments`], *optional*):
            The lowest rate, and what silence is left at the end. The rest is for texts, which are stored as they are.
        patch_size (`int`, *optional*, defaults to 4): Frames in a patch of the model that the latents are for.
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
        `dict`: What `latents.json` says; its `totals` are `num_rows`, `num_rejected`, `reasons` (how many rows are
        rejected for each), `num_shards` and `hours`.

    Raises:
        ValueError: If a setting is out of its range; the folder holds other things, was made by another tokenizer,
            from another source or with other settings, or is being written by another process; the source has no row,
            or none that can be used.
        OSError: If a connection to the source breaks, or the folder cannot be written; a later call goes on.
    """
    examples, filters = examples or ExampleArguments(), filters or FilterArguments()
    if filters.max_seconds is None:
        filters = replace(filters, max_seconds=MAX_SECONDS)
    settings = {
        "patch_size": patch_size,
        "rows_per_shard": rows_per_shard,
        "dtype": dtype,
        **{name: getattr(examples, name) for name in EXAMPLE_FIELDS},
    }
    _check_settings(settings, batch_seconds, vae.device if device is None else device)
    store = _store(out)
    store.refuse_foreign()
    rows, vae = source.read(), vae if device is None else vae.to(device)

    def write(file: Path, some: list[dict[str, Any]]):
        options = {"batch_seconds": batch_seconds, "patch_size": patch_size, "dtype": dtype}
        columns, rejected = encode_rows(vae, some, filters, examples, **options)
        write_shard(file, columns, rejected, vae.config.latent_dim)

    def summarize(file: Path) -> dict[str, Any]:
        summary = read_summary(file)
        return {**summary, "seconds": summary["num_samples"] / vae.config.sampling_rate}

    description = {
        **_describe_vae(vae),
        "source": describe_source(source, rows),
        "filters": asdict(filters),
        "settings": settings,
    }
    bar = {"desc": "encoding", "unit": " rows", "total": len(rows) if isinstance(rows, Dataset) else None}
    items = partial(rows_from, rows)
    return store.complete(description, items, rows_per_shard, write, summarize, bar=bar)


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
    store = _store(path)
    description = store.read_description()
    if description is None:
        raise ValueError(f"`path`: there is no store of latents in {path}. Make one with `ditar encode`.")
    if not store.is_whole(description):
        raise ValueError(f"`path`: the store {path} is not complete. Run the `ditar encode` that began it again.")
    if vae is not None and (found := find_differences(description, _describe_vae(vae))):
        raise ValueError(
            f"`vae` is not the tokenizer that made the latents in {path}: {found}. Pass that one, or encode the data "
            "again into another folder."
        )
    files = [str(store.shard(index)) for index in range(description["totals"]["num_shards"])]
    return load_dataset("parquet", data_files=files, split="train", streaming=streaming).with_format("torch")


def describe_latents(path: str | os.PathLike) -> dict[str, Any]:
    """
    What tells a store from another, wherever it lies.

    Args:
        path (`str` or `os.PathLike`): Folder of a complete store.

    Returns:
        `dict` of `vae_hash`, `source`, `filters`, `settings` and `totals`.
    """
    description = _store(path).read_description()
    return {name: description[name] for name in ("vae_hash", "source", "filters", "settings", "totals")}


def _store(folder: str | os.PathLike) -> Store:
    return Store(Path(folder), "latents", "latents.json", FORMAT_VERSION, "latents-{:05d}.parquet")


def _check_settings(settings: Mapping[str, Any], batch_seconds: float, device: str | torch.device):
    positive = ("patch_size", "rows_per_shard", "min_sampling_rate")
    for name, value in {**{name: settings[name] for name in positive}, "batch_seconds": batch_seconds}.items():
        if not value > 0:
            raise ValueError(f"`{name}` is {value}: it must be positive.")
    dtype = settings["dtype"]
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"`dtype` is {dtype!r}: use 'float32', 'bfloat16' or 'float16'.")
    if dtype != "float32" and torch.device(device).type == "cpu":
        # on CPUs with AMX, strided convolutions of torch 2.13 in bfloat16 give other values altogether
        raise ValueError(f"`dtype` is {dtype!r} on a CPU, where it cannot be relied on: use 'float32'.")


def _describe_vae(vae: DiTARVAE) -> dict[str, Any]:
    return {"vae_hash": hash_vae(vae), "vae_config": {name: getattr(vae.config, name) for name in CONFIG_FIELDS}}
