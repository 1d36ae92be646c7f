"""Tar files of recordings: which there are, and the recordings in them, read in their order without unpacking."""

import json
import tarfile
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import fsspec
from datasets import IterableDataset

from .schema import AUDIO_SUFFIXES, EXAMPLE_FEATURES, make_example

if TYPE_CHECKING:
    from .data import AudioSource


def find_files(pattern: str, kind: str) -> dict[str, dict[str, Any]]:
    """
    The files that a pattern means.

    Args:
        pattern (`str`): A path, an address such as `hf://datasets/…`, or a pattern of them.
        kind (`str`): What they shall be, for the message.

    Returns:
        `dict` from addresses, as fsspec opens them, in alphabetical order, to what the filesystem tells of each.

    Raises:
        ValueError: If there is none.
    """
    filesystem, inner = fsspec.url_to_fs(pattern)
    found = filesystem.glob(inner, detail=True)
    if not found:
        raise ValueError(f"`path`: there is no {kind} {pattern}.")
    return dict(sorted((filesystem.unstrip_protocol(name), info) for name, info in found.items()))


def find_tars(path: str) -> dict[str, int | None]:
    """
    The tar files at a path.

    Args:
        path (`str`): A tar file, a pattern that ends in `.tar`, or a folder; also addresses, such as `hf://datasets/…`.

    Returns:
        `dict` from addresses, as fsspec opens them, in alphabetical order, to sizes in bytes; `None` for a size that
        the filesystem does not tell.

    Raises:
        ValueError: If there is none.
    """
    pattern = path if path.endswith(".tar") else f"{path}/**/*.tar"
    return {url: info.get("size") for url, info in find_files(pattern, "tar file").items()}


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


def iterate_tars(urls: Iterable[str]) -> Iterator[tuple[str, dict[str, bytes] | None]]:
    """
    Recordings of tar files: files that stand next to each other and differ in the suffix only.

    What cannot be opened or read, such as when a connection breaks, ends the run; a file that is damaged does not.

    Args:
        urls (`Iterable[str]`): Paths or addresses of tar files, as fsspec opens them.

    Yields:
        The name without suffix, and a `dict` from suffixes in lower case, such as `".json"`, to contents. A damaged
        file ends with its address and the damage as the name, and `None`; after that comes what arrived of the
        recording at the damage, if its text did, and then the next file.

    Raises:
        OSError: If a file cannot be opened or read.
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
                        yield key, members
                        members = {}
                    key = f"{folder}/{stem}"
                    members[f".{suffix}".lower()] = archive.extractfile(member).read()
        except (tarfile.TarError, EOFError) as error:
            # no `OSError`: a broken connection says nothing of the file, and what it cost would never be read
            yield f"{url} ({error})", None
            if not members.keys() & {".json", ".txt"}:
                members = {}
        if members:
            yield key, members


def read_webdataset(source: "AudioSource") -> IterableDataset:
    """
    Rows of tar files of audio and `json`: Emilia's, Emilia-YODAS's, and a mixture of both.

    Args:
        source ([`AudioSource`]): Its path and language.

    Returns:
        `datasets.IterableDataset` in the columns of `EXAMPLE_FEATURES`, with a shard for each tar file. What is
        damaged is a row without audio, so that it is counted where audio is decoded.

    Raises:
        ValueError: If there is no tar file.
    """
    options = {"urls": list(find_tars(source.path)), "language": source.language}
    return IterableDataset.from_generator(_rows_of_tars, features=EXAMPLE_FEATURES, gen_kwargs=options)


def _rows_of_tars(urls: list[str], language: str | None) -> Iterator[dict[str, Any]]:
    for key, members in iterate_tars(urls):
        if members is None:
            yield make_example(key)
            continue
        suffix = next((suffix for suffix in AUDIO_SUFFIXES if suffix in members), None)
        if suffix is None:
            continue  # such as a readme among the recordings
        try:
            stated = dict(json.loads(members.get(".json", b"{}")))
        except (ValueError, TypeError) as error:
            # rather than used without its text
            yield make_example(f"{key.strip('/')} (its json cannot be read: {error})")
            continue
        # Emilia's name for it, and Emilia-YODAS's
        identifier = next((str(stated[name]) for name in ("id", "_id") if stated.get(name)), key.strip("/"))
        text = str(stated.get("text") or members.get(".txt", b"").decode("utf-8", "replace")).strip()
        yield make_example(
            identifier,
            content=members[suffix],
            text=text,
            speaker=stated.get("speaker"),
            language=stated.get("language") or language,
            duration_seconds=stated.get("duration"),
            dnsmos=stated.get("dnsmos"),
        )
