"""Readers of the formats of [`AudioSource`] that are folders of recordings: every row is known at once."""

import csv
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .schema import AUDIO_SUFFIXES, NUMBER_FIELDS, TEXT_FIELDS, as_number, make_example

if TYPE_CHECKING:
    from .data import AudioSource


def require_column(name: str, columns: Iterable[str], where: str | Path):
    """
    Raises where a table lacks a column.

    Args:
        name (`str`): The column.
        columns (`Iterable[str]`): Those that there are.
        where (`str` or `Path`): The table, for the message.

    Raises:
        ValueError: If it is not among them.
    """
    if name not in columns:
        raise ValueError(f"{where} has no column `{name}`; it has {', '.join(f'`{column}`' for column in columns)}.")


@contextmanager
def _naming_the_file(file: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(f"`path`: {file} is no text in UTF-8 ({error.reason}). Convert it first.") from error


@contextmanager
def _naming_the_line(table: Path, reader: Any) -> Iterator[None]:
    try:
        with _naming_the_file(table):
            yield
    except csv.Error as error:
        raise ValueError(
            f"`path`: {table}, near line {reader.line_num}: {error}. Mend the line or leave it out."
        ) from error


def _read_metadata(source: "AudioSource") -> Iterator[dict[str, Any]]:
    table = Path(source.path, "metadata.csv")
    with open(table, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        with _naming_the_line(table, reader):
            require_column("file_name", reader.fieldnames or [], table)
            for row in reader:
                if not row["file_name"]:
                    raise csv.Error("there is no `file_name`")
                fields = {name: row.get(name) or None for name in (*TEXT_FIELDS, *NUMBER_FIELDS)}
                fields["language"] = fields["language"] or source.language
                for name in NUMBER_FIELDS:
                    # another part of the file would be read without it
                    if fields[name] is not None and as_number(fields[name]) is None:
                        raise csv.Error(f"`{name}` is {fields[name]!r}, no number")
                yield make_example(row["file_name"], path=table.parent / row["file_name"], **fields)


def _read_ljspeech(source: "AudioSource") -> Iterator[dict[str, Any]]:
    table = Path(source.path, "metadata.csv")
    with open(table, encoding="utf-8", newline="") as file:
        reader = csv.reader(file, delimiter="|", quoting=csv.QUOTE_NONE)
        with _naming_the_line(table, reader):
            for row in reader:
                if not row:
                    continue  # an empty line
                if len(row) < 2 or not row[0]:
                    raise csv.Error(f"it has no `|`, or no id before it: {row}")
                path = table.parent / "wavs" / f"{row[0]}.wav"
                yield make_example(row[0], path=path, text=row[-1], language=source.language)


def _read_libritts(source: "AudioSource") -> Iterator[dict[str, Any]]:
    for transcript in sorted(Path(source.path).rglob("*.normalized.txt")):
        name = transcript.name.removesuffix(".normalized.txt")
        with _naming_the_file(transcript):
            text = transcript.read_text(encoding="utf-8").strip()
        path, speaker = transcript.with_name(f"{name}.wav"), name.split("_")[0]
        yield make_example(name, path=path, text=text, speaker=speaker, language=source.language)


def _read_librilight(source: "AudioSource") -> Iterator[dict[str, Any]]:
    for file in sorted(Path(source.path).rglob("*.flac")):
        # the folders are speaker/book, which spares opening a json file for each row
        speaker = file.parent.parent.name
        identifier = f"{speaker}/{file.parent.name}/{file.stem}"
        yield make_example(identifier, path=file, speaker=speaker, language=source.language)


def _read_files(source: "AudioSource") -> Iterator[dict[str, Any]]:
    folder = Path(source.path)
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in AUDIO_SUFFIXES:
            yield make_example(file.relative_to(folder).as_posix(), path=file, language=source.language)


FOLDER_READERS: dict[str, Callable[["AudioSource"], Iterator[dict[str, Any]]]] = {
    "metadata": _read_metadata,
    "ljspeech": _read_ljspeech,
    "libritts": _read_libritts,
    "librilight": _read_librilight,
    "files": _read_files,
}
