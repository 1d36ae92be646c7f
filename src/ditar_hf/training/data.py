"""
Sources of speech: readers that bring every kind of data set to one schema, `EXAMPLE_FEATURES`, without decoding audio.

A folder, a manifest and a data set that is not streamed become a `datasets.Dataset`, whose rows can be drawn in any
order; tar files, and what is streamed, become a `datasets.IterableDataset` that is read as it arrives, local or not,
with a shard for each file. `audio.decode_audio` makes samples of a row. Audio columns are read undecoded, without
torchcodec; `datasets` wants it only where it makes rows of audio files itself, by `format="datasets"` on a folder.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from datasets import Dataset, IterableDataset

from .dataset_reader import read_dataset
from .folder_readers import FOLDER_READERS
from .libriheavy import find_manifests, is_manifest, read_libriheavy
from .schema import EXAMPLE_FEATURES
from .tars import find_tars, read_webdataset


@dataclass
class AudioSource:
    """
    Where speech comes from, and how it is laid out.

    Args:
        path (`str`):
            A folder, a tar file or a pattern of tar files (`.../EN-*.tar`, also `hf://datasets/…`), a manifest or a
            pattern of manifests (`.../libriheavy_cuts_*.jsonl.gz`), or with `format="datasets"` whatever
            `datasets.load_dataset` takes, Hub ids included.
        format (`str`, *optional*, defaults to `"auto"`):
            `"metadata"`: folder with a `metadata.csv` that has a column `file_name`, and may have others of
            `EXAMPLE_FEATURES`. `"ljspeech"`: folder with `metadata.csv` of `id|raw text|normalised text` and `wavs/`.
            `"libritts"`: `*.wav` beside `*.normalized.txt`. `"librilight"`: `set/speaker/book/*.flac` beside
            `*.json`, without text. `"libriheavy"`: manifests of texts for Libri-light. `"files"`: any audio files
            below a folder. `"webdataset"`: tar files of audio and `json`, such as Emilia's. `"datasets"`: a data set
            with an audio column. `"auto"` looks, and never takes a path for a Hub id.
        weight (`float`, *optional*, defaults to 1.0):
            Share of draws that come from here, in proportion to the weights of the other sources.
        name (`str`, *optional*): Configuration of a data set, for `"datasets"`.
        split (`str`, *optional*, defaults to `"train"`): Split of a data set, for `"datasets"`.
        revision (`str`, *optional*): Revision of a data set on the Hub, for `"datasets"`.
        streaming (`bool`, *optional*, defaults to `False`):
            Read a source of `"datasets"` or `"libriheavy"` as it arrives. Of manifests `datasets` makes a table in its
            cache otherwise, once, so that neighbours in a book are not neighbours in training.
        audio_column, text_column, speaker_column, language_column (`str`, *optional*):
            Names of the columns of a `"datasets"` source; all but that of the audio may be absent. Ids come from a
            column `id` or `_id`, and are row numbers where there is none. Of a streamed data set they are paths of
            the audio then, and where there are none either, row numbers of each process, which repeat if several
            processes share the stream.
        language (`str`, *optional*): Language of all rows that do not name their own.
        audio_dir (`str`, *optional*):
            Folder of Libri-light, with `small/`, `medium/` …, for the `download/librilight/` of the manifests of
            `"libriheavy"`. By default their paths are taken as they stand, from the working folder on.

    Raises:
        ValueError: If `format` is none of these or `weight` is not positive.
    """

    path: str
    format: Literal[
        "auto", "metadata", "ljspeech", "libritts", "librilight", "libriheavy", "files", "webdataset", "datasets"
    ] = "auto"
    weight: float = 1.0
    name: str | None = None
    split: str = "train"
    revision: str | None = None
    streaming: bool = False
    audio_column: str = "audio"
    text_column: str = "text"
    speaker_column: str = "speaker"
    language_column: str = "language"
    language: str | None = None
    audio_dir: str | None = None

    def __post_init__(self):
        if self.format != "auto" and self.format not in READERS:
            raise ValueError(f"`format` is {self.format!r}: use 'auto' or one of {', '.join(map(repr, READERS))}.")
        if not self.weight > 0:
            raise ValueError(f"`weight` of {self.path} is {self.weight}: it must be positive.")

    def resolve_format(self) -> str:
        """
        The format, after a look at what lies at `path` if it is `"auto"`.

        Returns:
            `str`: One of the formats but `"auto"`.

        Raises:
            ValueError: If nothing lies there, or nothing that is known.
        """
        return detect_format(self.path) if self.format == "auto" else self.format

    def read(self) -> Dataset | IterableDataset:
        """
        The rows, in the columns of `EXAMPLE_FEATURES`, audio undecoded; where a data set has none, it may be `None`.

        Returns:
            `datasets.Dataset`, or `datasets.IterableDataset` for what is read as it arrives.

        Raises:
            ValueError: If there is nothing at `path`, no row in it, a column is missing, a table is damaged or no
                text in UTF-8, `audio_dir` is no folder or given for another format than `"libriheavy"`, or `datasets`
                needs torchcodec.
        """
        format = self.resolve_format()
        if self.audio_dir is not None and format != "libriheavy":
            raise ValueError(f"`audio_dir` is {self.audio_dir!r}: only `libriheavy` has one, and this is `{format}`.")
        rows = READERS[format](self)
        if isinstance(rows, Dataset | IterableDataset):
            return rows
        rows = list(rows)
        if not rows:
            raise ValueError(f"`path`: there is no speech in {self.path}.")
        return Dataset.from_list(rows, features=EXAMPLE_FEATURES)


def detect_format(path: str) -> str:
    """
    The layout of what lies at a path, by its files.

    Args:
        path (`str`): As in [`AudioSource`].

    Returns:
        One of the formats of [`AudioSource`] but `"auto"`.

    Raises:
        ValueError: If nothing lies there, or nothing that is known.
    """
    if path.endswith(".tar"):
        return "webdataset"
    if is_manifest(path):
        return "libriheavy"
    folder = Path(path)
    if not folder.is_dir():
        raise ValueError(
            f"`path`: there is no folder {path}. For a data set of the Hub, or one in single files, write "
            '`format: datasets`; for tar files, a pattern that ends in ".tar".'
        )
    if (folder / "metadata.csv").is_file():
        # what is no UTF-8 is left to the reader, which says so
        with open(folder / "metadata.csv", encoding="utf-8", errors="replace") as file:
            return "ljspeech" if "file_name" not in file.readline() else "metadata"
    if any((folder / name).is_file() for name in ("dataset_info.json", "dataset_dict.json")):
        return "datasets"
    for file in folder.rglob("*"):
        if file.name.endswith(".normalized.txt"):
            return "libritts"
        if file.suffix == ".flac" and file.with_suffix(".json").is_file():
            return "librilight"
        if file.suffix == ".tar":
            return "webdataset"
        if file.suffix == ".parquet":
            return "datasets"
    return "files"


def describe_rows(source: AudioSource, rows: Dataset | IterableDataset) -> dict[str, Any]:
    """
    What tells later whether a source still holds the same rows.

    Args:
        source ([`AudioSource`]): The source.
        rows (`datasets.Dataset` or `datasets.IterableDataset`): What it gave.

    Returns:
        `dict`: Number of rows and a hash of their ids and texts; of tar files and manifests that are streamed, whose
        rows are not known before they are read, number and a hash of names and sizes; of other streams nothing.
    """
    if isinstance(rows, Dataset):
        # a batch at a time: of a large manifest they would not fit into memory
        columns = [name for name in ("id", "text") if name in rows.column_names]
        parts = rows.select_columns(columns).iter(batch_size=10_000)
        lines = (" ".join(map(str, row)) for part in parts for row in zip(*(part[c] for c in columns), strict=True))
        name = "rows"
    elif source.resolve_format() in FILES_OF_STREAMS:
        find, name = FILES_OF_STREAMS[source.resolve_format()]
        # without their folder, so that they may be moved
        lines = (f"{PurePosixPath(url).name} {size}" for url, size in find(source.path).items())
    else:
        return {}
    count, digest = 0, hashlib.sha256()
    for count, line in enumerate(lines, start=1):
        digest.update((line if count == 1 else f"\n{line}").encode())
    return {f"num_{name}": count, f"{name}_hash": digest.hexdigest()}


# what finds the files of a format that is streamed, and what they are called
FILES_OF_STREAMS = {"webdataset": (find_tars, "tars"), "libriheavy": (find_manifests, "manifests")}
READERS: dict[str, Callable[[AudioSource], Any]] = {
    **FOLDER_READERS,
    "webdataset": read_webdataset,
    "libriheavy": read_libriheavy,
    "datasets": read_dataset,
}


def spread_rows(rows: Dataset | IterableDataset, num_rows: int) -> Dataset | IterableDataset:
    """
    Some rows: of a table, spread over all of it, because the first ones are often one speaker's.

    Args:
        rows (`datasets.Dataset` or `datasets.IterableDataset`): All rows.
        num_rows (`int`): Rows wanted.

    Returns:
        The same kind: so many rows, or all if there are fewer; of a stream, the first ones.
    """
    if isinstance(rows, IterableDataset):
        return rows.take(num_rows)
    num_rows = min(num_rows, len(rows))
    return rows.select([index * len(rows) // num_rows for index in range(num_rows)])
