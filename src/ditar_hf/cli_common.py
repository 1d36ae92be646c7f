"""What the commands share: how they end on bad input, how they say something on the side, and what they keep quiet."""

import logging
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import torch


@contextmanager
def exits_with_2(*faults: type[Exception], **options: str) -> Iterator[None]:
    """
    Make such exceptions one short line on standard error; any other is an error of ours, shown whole.

    Messages name arguments of functions; `options` says what these are called on the command line.
    """
    try:
        yield
    except faults as error:
        message = str(error)
        for argument, option in options.items():
            message = message.replace(f"`{argument}`", f"`{option}`")
        typer.echo(f"error: {textwrap.shorten(message, 400, placeholder=' …')}", err=True)
        raise typer.Exit(2) from error


def note(message: str) -> None:
    """Say something on standard error."""
    typer.echo(f"note: {message}", err=True)


@contextmanager
def errors_only(logger_name: str) -> Iterator[None]:
    """Keep warnings of a logger away."""
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def describe_totals(folder: Path, totals: Mapping[str, Any]) -> str:
    """What a store holds, and why rows were left out, in a line."""
    line = f"{folder}: {totals['num_rows']:,} rows, {totals['hours']:.2f} hours of speech"
    if not totals["num_rejected"]:
        return line
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in totals["reasons"].items())
    return f"{line}; {totals['num_rejected']:,} rejected, see rejected.jsonl: {reasons}"


def given(**options: Any) -> dict[str, Any]:
    """The options that are not `None`: each default has its home elsewhere."""
    return {name: value for name, value in options.items() if value is not None}


def find_device(device: str | None) -> "torch.device":
    """The device of that name, or by default an accelerator if there is one."""
    import torch

    if device is None:
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        # What torch raises for a device that cannot hold a number and give it back depends on the device.
        torch.zeros(1, device=device).item()
    except Exception as error:
        raise ValueError(f"`--device` must be one of this machine's such as `cpu`, got `{device}`: {error}") from error
    return torch.device(device)
