"""Folders, written whole or not at all."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def new_folder(out: str | Path) -> Iterator[Path]:
    """
    Writes a folder whole or not at all, as a context manager.

    Args:
        out (`str` or `Path`): The folder; it may exist if it is empty.

    Yields:
        `Path`: Where to write instead, beside `out`; it takes its place if all went well, and goes away if not.

    Raises:
        ValueError: If there is something at `out` already.
        OSError: If it cannot be written.
    """
    out = Path(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ValueError(f"`out`: there is something at {out} already. Name a new folder.")
    out = out.absolute()  # "." has no name
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial.{secrets.token_hex(4)}")
    partial.mkdir()
    try:
        yield partial
        if out.exists():
            # not every system replaces a folder
            out.rmdir()
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
