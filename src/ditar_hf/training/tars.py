"""Tar files of recordings: which there are, and the files of each recording, read in their order without unpacking."""

import tarfile
from collections.abc import Iterable, Iterator

import fsspec


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
    filesystem, inner = fsspec.url_to_fs(pattern)
    found = filesystem.glob(inner, detail=True)
    if not found:
        raise ValueError(f"`path`: there is no tar file {pattern}.")
    sizes = {filesystem.unstrip_protocol(name): info.get("size") for name, info in found.items()}
    return dict(sorted(sizes.items()))


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
