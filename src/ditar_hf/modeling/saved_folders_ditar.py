"""What a saved folder must be before the library reads it, which would fail on its parts without naming them."""

import json
import os
from collections.abc import Iterable
from typing import Any


def refuse_other_names(name_or_path: Any):
    """
    Refuses what can be neither a folder nor the name of a repository.

    Args:
        name_or_path (`Any`): Named as a model.

    Raises:
        ValueError: If it is neither text nor a path, or empty.
    """
    if not isinstance(name_or_path, (str, os.PathLike)) or not str(name_or_path):
        raise ValueError(f"a model is named by a folder or the name of a repository, got {name_or_path!r}.")


def refuse_missing_folder(name_or_path: str | os.PathLike):
    """
    Says that a folder is not there, where the library would speak of the name of a repository.

    Args:
        name_or_path (`str` or `os.PathLike`): A folder or the name of a repository.

    Raises:
        ValueError: If it is no name at all, or written as that of a repository cannot be, and no folder.
    """
    refuse_other_names(name_or_path)
    path = str(name_or_path)
    is_path = isinstance(name_or_path, os.PathLike) or path.startswith((".", "~", os.sep)) or path.count("/") > 1
    if is_path and not os.path.isdir(path):
        raise ValueError(f"there is no folder {path!r}. Pass a folder that is there, or the name of a repository.")


def refuse_folder_without(names: Iterable[str], folder: str | os.PathLike, subfolder: str | None = None):
    """
    Says that a folder is not that of a saved model, of which the library may make the defaults.

    Args:
        names (`Iterable[str]`): Files of which one must be there.
        folder (`str` or `os.PathLike`): A folder; the name of a repository is left alone.
        subfolder (`str`, *optional*): Where they lie in it.

    Raises:
        ValueError: If none is there.
    """
    place = os.path.join(folder, subfolder) if subfolder else str(folder)
    names = list(names)
    if os.path.isdir(folder) and not any(os.path.isfile(os.path.join(place, name)) for name in names):
        raise ValueError(f"the folder {place!r} has no {names[0]}: it is not that of a saved model.")


def refuse_broken_json(names: Iterable[str], folder: str | os.PathLike, subfolder: str | None = None):
    """
    Says which file of a folder is no JSON object.

    Args:
        names (`Iterable[str]`): The files; what is not there is left alone.
        folder (`str` or `os.PathLike`): A folder; the name of a repository is left alone.
        subfolder (`str`, *optional*): Where they lie in it.

    Raises:
        ValueError: If one of them holds something else, or cannot be parsed.
    """
    for name in names:
        path = os.path.join(folder, subfolder or "", name)
        if os.path.isdir(folder) and os.path.isfile(path):
            read_json_object(path)


def read_json_object(path: str | os.PathLike) -> dict[str, Any]:
    """
    Reads a file of JSON.

    Args:
        path (`str` or `os.PathLike`): The file.

    Returns:
        `dict[str, Any]`.

    Raises:
        ValueError: If it holds something else than an object, or cannot be parsed.
        OSError: If it cannot be read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
    except (ValueError, RecursionError) as error:  # also of bytes that are no text
        raise ValueError(f"{str(path)!r} is no JSON file: {error}. Mend it, or fetch it again.") from error
    if not isinstance(values, dict):
        raise ValueError(
            f"{str(path)!r} holds {json.dumps(values)[:40]}, not a JSON object ({{…}}). Mend it, or fetch it again."
        )
    return values


__all__ = [
    "read_json_object",
    "refuse_broken_json",
    "refuse_folder_without",
    "refuse_missing_folder",
    "refuse_other_names",
]
