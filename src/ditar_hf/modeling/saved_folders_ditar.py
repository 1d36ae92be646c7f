"""What a saved folder must be before the library reads it, which would fail on its parts without naming them."""

import json
import os
from collections.abc import Iterable


def refuse_missing_folder(name_or_path: str | os.PathLike | None):
    """
    Says that a folder is not there, where the library would speak of the name of a repository.

    Args:
        name_or_path (`str` or `os.PathLike`, *optional*): A folder or the name of a repository.

    Raises:
        ValueError: If it is neither text nor a path, or written as no name can be, and no folder.
    """
    if name_or_path is not None and not isinstance(name_or_path, (str, os.PathLike)):
        raise ValueError(f"a model is named by a path or the name of a repository, got {name_or_path!r}.")
    path = str(name_or_path)
    is_path = isinstance(name_or_path, os.PathLike) or path.startswith((".", "~", os.sep)) or path.count("/") > 1
    if name_or_path is not None and is_path and not os.path.isdir(path):
        raise ValueError(f"there is no folder {path!r}. Pass a folder that is there, or the name of a repository.")


def refuse_broken_json(folder: str | os.PathLike | None, names: Iterable[str], subfolder: str | None = None):
    """
    Says which file of a folder is no JSON object; files that are not there, and repositories, are left alone.

    Args:
        folder (`str` or `os.PathLike`, *optional*): A folder or the name of a repository.
        names (`Iterable[str]`): The files.
        subfolder (`str`, *optional*): Where they lie in it.

    Raises:
        ValueError: If one of them holds something else, or cannot be parsed.
    """
    for name in names:
        path = os.path.join(folder or "", subfolder or "", name)
        if not folder or not os.path.isfile(path):
            continue
        try:
            with open(path, encoding="utf-8") as file:
                values = json.load(file)
        except (ValueError, RecursionError) as error:  # also of bytes that are no text
            raise ValueError(f"{path!r} is no JSON file: {error}. Mend it, or fetch it again.") from error
        if not isinstance(values, dict):
            raise ValueError(
                f"{path!r} holds a {type(values).__name__}, not a JSON object ({{…}}). Mend it, or fetch it again."
            )


__all__ = ["refuse_broken_json", "refuse_missing_folder"]
