"""
Sources of speech: readers that bring every kind of data set to one schema, `EXAMPLE_FEATURES`, without decoding audio.

A folder on this machine becomes a `datasets.Dataset` of paths, whose rows can be drawn in any order; tar files and
data sets of the Hub become a `datasets.IterableDataset` that is read as it arrives, local or not. `audio.decode_audio`
makes samples of a row. torchcodec is not needed: audio columns are read undecoded.
"""

import csv
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import fsspec
from datasets import Audio, Dataset, Features, IterableDataset, Value, load_dataset, load_from_disk

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
            Names of the columns of a `"datasets"` source; all but that of the audio may be absent.
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

    def read(self) -> Dataset | IterableDataset:
        """
        The rows, in the columns of `EXAMPLE_FEATURES`, audio undecoded.

        Returns:
            `datasets.Dataset`, or `datasets.IterableDataset` for what is read as it arrives.

        Raises:
            ValueError: If there is nothing at `path`, no row in it, or a column is missing.
        """
        rows = READERS[detect_format(self.path) if self.format == "auto" else self.format](self)
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


def _row(identifier: str, path: Path | None = None, content: bytes | None = None, **fields: str | None):
    audio = {"path": None if path is None else str(path), "bytes": content}
    return {"id": identifier, "audio": audio, **{name: fields.get(name) or None for name in TEXT_FIELDS}}


def _read_metadata(source: AudioSource) -> Iterator[dict[str, Any]]:
    table = Path(source.path, "metadata.csv")
    with open(table, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        _require_column("file_name", reader.fieldnames or [], table)
        for row in reader:
            fields = {name: row.get(name) for name in TEXT_FIELDS}
            fields["language"] = fields["language"] or source.language
            yield _row(row["file_name"], table.parent / row["file_name"], **fields)


def _read_ljspeech(source: AudioSource) -> Iterator[dict[str, Any]]:
    folder = Path(source.path)
    with open(folder / "metadata.csv", encoding="utf-8", newline="") as file:
        for row in csv.reader(file, delimiter="|", quoting=csv.QUOTE_NONE):
            if not row:
                continue  # an empty line
            if len(row) < 2:
                raise ValueError(f"`path`: {folder / 'metadata.csv'} has a line without `|`: {row}.")
            yield _row(row[0], folder / "wavs" / f"{row[0]}.wav", text=row[-1], language=source.language)


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
    pattern = source.path if source.path.endswith(".tar") else f"{source.path}/**/*.tar"
    filesystem, path = fsspec.url_to_fs(pattern)
    urls = sorted(filesystem.unstrip_protocol(file) for file in filesystem.glob(path))
    if not urls:
        raise ValueError(f"`path`: there is no tar file {pattern}.")
    return IterableDataset.from_generator(
        iterate_tars, features=EXAMPLE_FEATURES, gen_kwargs={"urls": urls, "language": source.language}
    )


class _CheckedTarInfo(tarfile.TarInfo):
    """Members of a tar file, in which a damaged header is an error and not, as for the base class, the end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "tarfile.TarInfo":
        try:
            return super().fromtarfile(archive)
        except (tarfile.EOFHeaderError, tarfile.EmptyHeaderError):
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


def iterate_tars(urls: Iterable[str], language: str | None = None) -> Iterator[dict[str, Any]]:
    """
    Rows of tar files in which `<key>.json` and `<key>.mp3` (or another audio suffix) stand next to each other.

    Emilia's schema (`id`) and Emilia-YODAS's (`_id`) may be mixed. A damaged file ends with a row without audio, which
    is counted where audio is decoded, and the next file is read.

    Args:
        urls (`list[str]`): Paths or addresses of tar files, as fsspec opens them.
        language (`str`, *optional*): Language of rows that do not name their own.

    Yields:
        `dict` in the columns of `EXAMPLE_FEATURES`.
    """
    for url in urls:
        key, members = None, {}
        try:
            with (
                fsspec.open(url, "rb") as file,
                tarfile.open(fileobj=file, mode="r|", tarinfo=_CheckedTarInfo) as archive,
            ):
                for member in archive:
                    folder, _, name = member.name.rpartition("/")
                    stem, _, suffix = name.partition(".")
                    if not member.isfile():
                        continue
                    if key is not None and key != f"{folder}/{stem}":
                        yield from _tar_rows(key, members, language)
                        members = {}
                    key = f"{folder}/{stem}"
                    members[f".{suffix}".lower()] = archive.extractfile(member).read()
        except (tarfile.TarError, OSError, EOFError) as error:
            yield _row(f"{url} ({error})")
            if not members.keys() & {".json", ".txt"}:
                members = {}  # the text of the clip at the damage is lost
        yield from _tar_rows(key, members, language)


def _tar_rows(key: str | None, members: dict[str, bytes], language: str | None) -> Iterator[dict[str, Any]]:
    suffix = next((suffix for suffix in AUDIO_SUFFIXES if suffix in members), None)
    if suffix is None:
        return  # such as a readme among the clips
    try:
        fields = dict(json.loads(members.get(".json", b"{}")))
    except (ValueError, TypeError):
        fields = {}
    fields = {name: str(value) for name, value in fields.items() if value is not None}
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
    rows = rows.cast_column(source.audio_column, Audio(decode=False))
    names = {name: getattr(source, f"{name}_column") for name in TEXT_FIELDS}
    id_column = next((name for name in ("id", "_id") if name in columns), None)

    def to_schema(row: dict[str, Any], index: int) -> dict[str, Any]:
        fields = {name: row.get(column) for name, column in names.items()}
        fields["language"] = fields["language"] or source.language
        fields = {name: None if value is None else str(value) for name, value in fields.items()}
        audio = row[source.audio_column] or {}
        identifier = str(row[id_column]) if id_column else f"{index:08d}"
        return {**_row(identifier, **fields), "audio": {"path": audio.get("path"), "bytes": audio.get("bytes")}}

    if isinstance(rows, Dataset):
        # made when a row is asked for: a copy of all audio on the disk would be needed otherwise
        return rows.to_iterable_dataset().map(
            to_schema, with_indices=True, remove_columns=columns, features=EXAMPLE_FEATURES
        )
    return rows.map(to_schema, with_indices=True, remove_columns=columns, features=EXAMPLE_FEATURES)


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
