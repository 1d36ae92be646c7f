"""What the commands share: how they end on bad input, how they say something on the side."""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import torch


@contextmanager
def exits_with_2(*faults: type[Exception]) -> Iterator[None]:
    """Make such exceptions one short line on standard error; any other is an error of ours, shown whole."""
    try:
        yield
    except faults as error:
        typer.echo(f"error: {textwrap.shorten(str(error), 400, placeholder=' …')}", err=True)
        raise typer.Exit(2) from error


def note(message: str) -> None:
    """Say something on standard error."""
    typer.echo(f"note: {message}", err=True)


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
