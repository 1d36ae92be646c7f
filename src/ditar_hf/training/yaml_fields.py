"""From YAML files to dataclasses: each key and type is checked, and messages name the place."""

import dataclasses
import difflib
import types
import typing
from pathlib import Path
from typing import Any

import yaml


def read_yaml(path: str | Path) -> dict[str, Any]:
    """
    What a YAML file holds.

    Args:
        path (`str` or `Path`): The file.

    Returns:
        `dict`.

    Raises:
        ValueError: If it is no YAML mapping.
    """
    try:
        with open(path, encoding="utf-8") as file:
            values = yaml.safe_load(file)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML file: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a mapping of fields, got {values!r}.")
    return values


def build(kind: Any, value: Any, where: str) -> Any:
    """
    Brings what a YAML file holds to the type of a dataclass's field, nested dataclasses included.

    Args:
        kind (`type`): The type wanted, a dataclass or what its fields are annotated with.
        value: What the file holds.
        where (`str`): Name of the place, for messages.

    Returns:
        The value in that type.

    Raises:
        ValueError: If a key is unknown or missing, or a value is of another type.
    """
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return build(next(argument for argument in arguments if argument is not type(None)), value, where)
    if origin is typing.Literal:
        if value in arguments:
            return value
    elif origin in (list, tuple):
        if isinstance(value, list | tuple):
            kinds = [arguments[0]] * len(value) if origin is list or arguments[-1] is Ellipsis else arguments
            if len(kinds) == len(value):
                return origin(build(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    elif origin is dict:
        if isinstance(value, dict):
            return value
    elif kind is float:
        # YAML 1.1 takes 1e-4, which has no point, for a string
        try:
            if not isinstance(value, bool):
                return float(value)
        except (TypeError, ValueError):
            pass
    elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise ValueError(f"`{where}` is {value!r}, which is not of the type {kind}.")


def _build_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"`{where}` must hold the fields of {kind.__name__}, got {value!r}.")
    hints, fields = typing.get_type_hints(kind), {entry.name: entry for entry in dataclasses.fields(kind)}
    refuse_unknown_fields(kind, value, where)
    for name, entry in fields.items():
        required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        if required and name not in value:
            raise ValueError(f"`{name}` is missing in {where}.")
    return kind(**{key: build(hints[key], item, f"{where}: {key}") for key, item in value.items()})


def refuse_unknown_fields(kind: Any, values: dict[str, Any], where: str):
    """
    Raises where a key is no field of a dataclass.

    Args:
        kind (`type`): The dataclass.
        values (`dict`): Keys and values.
        where (`str`): Name of the place, for messages.

    Raises:
        ValueError: If a key is unknown; the message names the nearest field.
    """
    fields = [entry.name for entry in dataclasses.fields(kind)]
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"its fields are {', '.join(fields)}."
            raise ValueError(f"`{key}` in {where} is not a field of {kind.__name__}: {hint}")
