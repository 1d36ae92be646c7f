"""
Sources of speech: readers that bring every kind of data set to one schema, `EXAMPLE_FEATURES`, without decoding audio.

A folder and a data set that is not streamed become a `datasets.Dataset`, whose rows can be drawn in any order; tar
files and a streamed data set become a `datasets.IterableDataset` that is read as it arrives, local or not.
`audio.decode_audio` makes samples of a row. torchcodec is not needed: audio columns are read undecoded.
"""

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from datasets import (
    Audio,
    Dataset,
    DatasetInfo,
    Features,
    IterableDataset,
    Value,
    concatenate_datasets,
    load_dataset,
    load_from_disk,
)

from .tars import find_tars, iterate_tars

AUDIO_SUFFIXES = (".flac", ".wav", ".mp3", ".ogg", ".opus")
TEXT_FIELDS = ("text", "speaker", "language")
EXAMPLE_FEATURES = Features(
    {
        "id": Value("string"),  # unique within its source
        "audio": {"path": Value("string"), "bytes": Value("binary")},  # one of the two is enough
        "text": Value("string"),
        "speaker": Value("string"),
        "language": Value("string"),
    }
)


@dataclass
class AudioSource:
    """
    Where speech comes from, and how it is laid out.

    Args:
        path (`str`):
            A folder, a tar file or a pattern of tar files (`.../EN-*.tar`, also `hf://datasets/…`), or with
            `format="datasets"` whatever `datasets.load_dataset` takes, Hub ids included.
        format (`str`, *optional*, defaults to `"auto"`):
            `"metadata"`: folder with a `metadata.csv` that has a column `file_name`. `"ljspeech"`: folder with
            `metadata.csv` of `id|raw text|normalised text` and `wavs/`. `"libritts"`: `*.wav` beside
            `*.normalized.txt`. `"librilight"`: `set/speaker/book/*.flac` beside `*.json`. `"files"`: any audio files
            below a folder. `"webdataset"`: tar files of audio and `json`, such as Emilia's. `"datasets"`: a data set
            with an audio column. `"auto"` looks, and never takes a path for a Hub id.
        weight (`float`, *optional*, defaults to 1.0):
            Share of draws that come from here, in proportion to the weights of the other sources.
        name (`str`, *optional*): Configuration of a data set, for `"datasets"`.
        split (`str`, *optional*, defaults to `"train"`): Split of a data set, for `"datasets"`.
        revision (`str`, *optional*): Revision of a data set on the Hub, for `"datasets"`.
        streaming (`bool`, *optional*, defaults to `False`): Read a `"datasets"` source as it arrives.
        audio_column, text_column, speaker_column, language_column (`str`, *optional*):
            Names of the columns of a `"datasets"` source; all but that of the audio may be absent. Ids come from a
            column `id` or `_id`, and are row numbers where there is none. Of a streamed data set they are paths of
            the audio then, and where there are none either, row numbers of each process, which repeat if several
            processes share the stream.
        language (`str`, *optional*): Language of all rows that do not name their own.

    Raises:
        ValueError: If `format` is none of these or `weight` is not positive.
    """

    path: str
    format: Literal["auto", "metadata", "ljspeech", "libritts", "librilight", "files", "webdataset", "datasets"] = (
        "auto"
    )
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
            ValueError: If there is nothing at `path`, no row in it, a column is missing or a table is damaged.
        """
        rows = READERS[self.resolve_format()](self)
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
    folder = Path(path)
    if not folder.is_dir():
        raise ValueError(
            f"`path`: there is no folder {path}. For a data set of the Hub, or one in single files, write "
            '`format: datasets`; for tar files, a pattern that ends in ".tar".'
        )
    if (folder / "metadata.csv").is_file():
        with open(folder / "metadata.csv", encoding="utf-8") as file:
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
        `dict`: Number of rows and a hash of their ids; of tar files, whose rows are not known before they are read,
        number and a hash of names and sizes; of other streams nothing.
    """
    if isinstance(rows, Dataset):
        lines, name = list(rows["id"]), "rows"
    elif source.resolve_format() == "webdataset":
        lines, name = [f"{url} {size}" for url, size in find_tars(source.path).items()], "tars"
    else:
        return {}
    return {f"num_{name}": len(lines), f"{name}_hash": hashlib.sha256("\n".join(lines).encode()).hexdigest()}


def _row(identifier: str, path: Path | None = None, content: bytes | None = None, **fields: str | None):
    audio = {"path": None if path is None else str(path), "bytes": content}
    return {"id": identifier, "audio": audio, **{name: fields.get(name) or None for name in TEXT_FIELDS}}


@contextmanager
def _naming_the_line(table: Path, reader: Any) -> Iterator[None]:
    try:
        yield
    except csv.Error as error:
        raise ValueError(
            f"`path`: {table}, near line {reader.line_num}: {error}. Mend the line or leave it out."
        ) from error


def _read_metadata(source: AudioSource) -> Iterator[dict[str, Any]]:
    table = Path(source.path, "metadata.csv")
    with open(table, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        with _naming_the_line(table, reader):
            _require_column("file_name", reader.fieldnames or [], table)
            for row in reader:
                if not row["file_name"]:
                    raise csv.Error("there is no `file_name`")
                fields = {name: row.get(name) for name in TEXT_FIELDS}
                fields["language"] = fields["language"] or source.language
                yield _row(row["file_name"], table.parent / row["file_name"], **fields)


def _read_ljspeech(source: AudioSource) -> Iterator[dict[str, Any]]:
    table = Path(source.path, "metadata.csv")
    with open(table, encoding="utf-8", newline="") as file:
        reader = csv.reader(file, delimiter="|", quoting=csv.QUOTE_NONE)
        with _naming_the_line(table, reader):
            for row in reader:
                if not row:
                    continue  # an empty line
                if len(row) < 2 or not row[0]:
                    raise csv.Error(f"it has no `|`, or no id before it: {row}")
                yield _row(row[0], table.parent / "wavs" / f"{row[0]}.wav", text=row[-1], language=source.language)


def _read_libritts(source: AudioSource) -> Iterator[dict[str, Any]]:
    for transcript in sorted(Path(source.path).rglob("*.normalized.txt")):
        name = transcript.name.removesuffix(".normalized.txt")
        text, speaker = transcript.read_text(encoding="utf-8").strip(), name.split("_")[0]
        yield _row(name, transcript.with_name(f"{name}.wav"), text=text, speaker=speaker, language=source.language)


def _read_librilight(source: AudioSource) -> Iterator[dict[str, Any]]:
    for file in sorted(Path(source.path).rglob("*.flac")):
        # the folders are speaker/book, which spares opening a json file for each row
        speaker = file.parent.parent.name
        yield _row(f"{speaker}/{file.parent.name}/{file.stem}", file, speaker=speaker, language=source.language)


def _read_files(source: AudioSource) -> Iterator[dict[str, Any]]:
    folder = Path(source.path)
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in AUDIO_SUFFIXES:
            yield _row(file.relative_to(folder).as_posix(), file, language=source.language)


def _read_webdataset(source: AudioSource) -> IterableDataset:
    options = {"urls": list(find_tars(source.path)), "language": source.language}
    return IterableDataset.from_generator(_rows_of_tars, features=EXAMPLE_FEATURES, gen_kwargs=options)


def _rows_of_tars(urls: list[str], language: str | None) -> Iterator[dict[str, Any]]:
    for key, members in iterate_tars(urls):
        if members is None:
            yield _row(key)  # of a damaged file: counted where audio is decoded
            continue
        suffix = next((suffix for suffix in AUDIO_SUFFIXES if suffix in members), None)
        if suffix is None:
            continue  # such as a readme among the recordings
        try:
            fields = dict(json.loads(members.get(".json", b"{}")))
        except (ValueError, TypeError) as error:
            # as a damaged tar file: counted where audio is decoded, rather than used without its text
            yield _row(f"{key.strip('/')} (its json cannot be read: {error})")
            continue
        fields = {name: str(value) for name, value in fields.items() if value is not None}
        # Emilia's name for it, and Emilia-YODAS's
        identifier = fields.get("id") or fields.get("_id") or key.strip("/")
        text = (fields.get("text") or members.get(".txt", b"").decode("utf-8", "replace")).strip()
        named = {"speaker": fields.get("speaker"), "language": fields.get("language") or language}
        yield _row(identifier, content=members[suffix], text=text, **named)


def _read_datasets(source: AudioSource) -> Dataset | IterableDataset:
    folder = Path(source.path)
    if any((folder / name).is_file() for name in ("dataset_info.json", "dataset_dict.json")):
        rows = load_from_disk(source.path)
        if isinstance(rows, dict):
            if source.split not in rows:
                splits = ", ".join(f"`{name}`" for name in rows)
                raise ValueError(f"{source.path} has no split `{source.split}`; it has {splits}.")
            rows = rows[source.split]
    else:
        rows = load_dataset(
            source.path, source.name, split=source.split, revision=source.revision, streaming=source.streaming
        )
    columns = rows.column_names or list(rows.features or next(iter(rows)))
    _require_column(source.audio_column, columns, source.path)
    # one that was saved with a format would come back in it
    rows = rows.with_format(None).cast_column(source.audio_column, Audio(decode=False))
    names = {name: getattr(source, f"{name}_column") for name in TEXT_FIELDS}
    names["id"] = next((name for name in ("id", "_id") if name in columns), "id")
    if isinstance(rows, Dataset):
        return _rename_columns(rows, names, source)

    def to_schema(row: dict[str, Any], index: int) -> dict[str, Any]:
        fields = {name: _as_text(row.get(column)) for name, column in names.items()}
        fields["language"] = fields["language"] or source.language
        audio = row[source.audio_column] or {}
        audio = {"path": audio.get("path"), "bytes": audio.get("bytes")}
        # numbers alone would repeat where several processes share the stream
        identifier = fields.pop("id") or audio["path"] or f"{index:08d}"
        return {"id": identifier, "audio": audio, **fields}

    return rows.map(to_schema, with_indices=True, remove_columns=columns, features=EXAMPLE_FEATURES)


def _rename_columns(rows: Dataset, names: dict[str, str], source: AudioSource) -> Dataset:
    """The rows in the columns of `EXAMPLE_FEATURES`; audio stays where it is on the disk, and is not copied."""
    if not len(rows):
        raise ValueError(f"`path`: there is no speech in {source.path}.")
    texts = {
        name: map(_as_text, rows[column][:] if column in rows.column_names else [None] * len(rows))
        for name, column in names.items()
    }
    texts["language"] = (value or source.language for value in texts["language"])
    texts["id"] = (value or f"{index:08d}" for index, value in enumerate(texts["id"]))
    features = Features({name: Value("string") for name in texts})
    fields = Dataset.from_dict({name: list(values) for name, values in texts.items()}, features=features)
    audio = rows.select_columns([source.audio_column]).rename_columns({source.audio_column: "audio"})
    joined = concatenate_datasets([fields, audio], axis=1).select_columns(list(EXAMPLE_FEATURES))
    # an undecoded audio column is stored as bytes and path: only what the table says of itself differs
    return Dataset(joined.data.replace_schema_metadata(None), info=DatasetInfo(features=EXAMPLE_FEATURES))


def _as_text(value: Any) -> str | None:
    return None if value is None else str(value) or None


def _require_column(name: str, columns: Iterable[str], where: str | Path):
    if name not in columns:
        raise ValueError(f"{where} has no column `{name}`; it has {', '.join(f'`{column}`' for column in columns)}.")


READERS: dict[str, Callable[[AudioSource], Any]] = {
    "metadata": _read_metadata,
    "ljspeech": _read_ljspeech,
    "libritts": _read_libritts,
    "librilight": _read_librilight,
    "files": _read_files,
    "webdataset": _read_webdataset,
    "datasets": _read_datasets,
}
