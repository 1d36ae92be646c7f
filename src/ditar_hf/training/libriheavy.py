"""
Manifests of libriheavy: the texts of Libri-light, and where in its long files they are spoken.

A line is a cut as lhotse writes it (`MonoCut`): where it begins in a recording, how long it is, and a supervision with
its speaker and two texts, of the book (cased, with punctuation) and of a recogniser (capitals). The book's is taken.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import fsspec
from datasets import Dataset, IterableDataset
from datasets.exceptions import DatasetGenerationError

from .audio import UnusableAudioError
from .schema import EXAMPLE_FEATURES, make_example
from .tars import find_files

if TYPE_CHECKING:
    from .data import AudioSource

MANIFEST_SUFFIXES = (".jsonl.gz", ".jsonl")
# where the recipe that made the manifests kept Libri-light
RECIPE_FOLDER = PurePosixPath("download/librilight")
# of the compressed file, of its lines, and of what stands in them; no `OSError`, as of a connection that breaks
DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, ValueError, KeyError, IndexError, TypeError, AttributeError)
LANGUAGE = "en"  # of all of it; the manifests write "English"


def is_manifest(path: str) -> bool:
    """
    Whether a path is one of manifests, by its name.

    Args:
        path (`str`): A path, an address or a pattern.

    Returns:
        `bool`.
    """
    return path.endswith(MANIFEST_SUFFIXES)


def find_manifests(path: str) -> dict[str, int | None]:
    """
    The manifests at a path.

    Args:
        path (`str`): A manifest or a pattern of them that ends in `.jsonl.gz` or `.jsonl`; also addresses.

    Returns:
        `dict` from addresses, as fsspec opens them, in alphabetical order, to sizes in bytes; `None` for a size that
        the filesystem does not tell.

    Raises:
        ValueError: If it is another name, or there is none. A folder is not taken: train, dev and test lie together.
    """
    return {url: info.get("size") for url, info in _find(path).items()}


def read_libriheavy(source: "AudioSource") -> Dataset | IterableDataset:
    """
    Rows of manifests: segments of Libri-light's files, with their texts.

    Args:
        source ([`AudioSource`]): Its path, audio_dir, language and streaming.

    Returns:
        `datasets.Dataset`, a table that `datasets` keeps in its cache and maps into memory, or with `streaming` a
        `datasets.IterableDataset` with a shard for each manifest; in the columns of `EXAMPLE_FEATURES`.

    Raises:
        ValueError: If there is no manifest, no row in them, one is damaged, or `audio_dir` is no folder. Of a stream
            what is damaged shows when it is read.
        OSError: If a manifest cannot be opened or read.
    """
    if source.audio_dir is not None and not Path(source.audio_dir).is_dir():
        raise ValueError(f"`audio_dir`: there is no folder {source.audio_dir}. Name that of Libri-light.")
    found = _find(source.path)
    options = {"urls": list(found), "audio_dir": source.audio_dir, "language": source.language or LANGUAGE}
    if source.streaming:
        return IterableDataset.from_generator(_rows_of_manifests, features=EXAMPLE_FEATURES, gen_kwargs=options)
    if next(_rows_of_manifests(**options), None) is None:
        raise ValueError(f"`path`: there is no speech in {source.path}.")
    # what the filesystems tell of the manifests is part of the cache's key: one that was replaced is read again
    options["versions"] = [str(sorted(info.items())) for info in found.values()]
    try:
        return Dataset.from_generator(_rows_of_manifests, features=EXAMPLE_FEATURES, gen_kwargs=options)
    except DatasetGenerationError as error:
        # what went wrong, rather than that something did
        raise (error.__cause__ or error) from None


def _find(path: str) -> dict[str, dict[str, Any]]:
    if not is_manifest(path):
        raise ValueError(
            f"`path` is {path}: name a manifest of libriheavy or a pattern of them, .../libriheavy_cuts_*.jsonl.gz."
        )
    return find_files(path, "manifest")


def _rows_of_manifests(
    urls: list[str], audio_dir: str | None, language: str, versions: list[str] | None = None
) -> Iterator[dict[str, Any]]:
    for url in urls:
        number = 0
        try:
            with fsspec.open(url, "rt", encoding="utf-8", compression="infer") as file:
                for line in file:
                    number += 1
                    yield _row_of_cut(json.loads(line), audio_dir, language)
        except DAMAGE as error:
            raise UnusableAudioError(
                f"`path`: {url} is damaged near line {number}, or is none of libriheavy: {error!r}. Fetch it again."
            ) from error


def _row_of_cut(cut: dict[str, Any], audio_dir: str | None, language: str) -> dict[str, Any]:
    supervision = cut["supervisions"][0]
    # manifests that lhotse's recipes prepare further hold one text in the place of both
    texts = (supervision.get("custom") or {}).get("texts") or [supervision.get("text") or ""]
    path = PurePosixPath(cut["recording"]["sources"][0]["source"])
    if audio_dir is not None:
        inner = path.relative_to(RECIPE_FOLDER) if path.is_relative_to(RECIPE_FOLDER) else path
        path = Path(audio_dir, inner)
    return make_example(
        cut["id"],
        path=path,
        text=texts[0].strip(),
        speaker=supervision.get("speaker"),
        language=language,
        start_seconds=float(cut["start"]),
        duration_seconds=float(cut["duration"]),
    )
