"""`ditar demo`: a page to hear a model in the browser. Heavy packages are imported late."""

from pathlib import Path
from typing import Annotated

import typer

from .cli_common import exits_with_2, find_device
from .cli_models import DEFAULT_MODEL, find_model, load_model, load_processor

app = typer.Typer()


@app.command()
def demo(
    model: Annotated[
        str | None,
        typer.Option(help=f"Folder or Hub id of the model. Not given: {DEFAULT_MODEL.as_posix()} of the clone."),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Not given: the first free one from 7860.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    device: Annotated[
        str | None, typer.Option(help="Where to compute: cpu, cuda, mps … Not given: a GPU if there is one.")
    ] = None,
) -> None:
    """Open a page to hear a model in the browser: text, voices, recordings, settings. Needs gradio."""
    with exits_with_2(ValueError, OSError):
        target_device, name = find_device(device), find_model(model)
        try:
            from .demo import build_demo, launch_demo
        except ModuleNotFoundError as error:
            if error.name is None or error.name.split(".")[0] not in ("gradio", "matplotlib"):
                raise
            raise ValueError(f'the demo needs {error.name}: pip install -e ".[demo]"') from error
        processor = load_processor(name)
        page = build_demo(load_model(name).to(target_device), processor, Path(name).name)
        url = launch_demo(page, host, port)
    typer.echo(f"{url} is the demo of {name}; Ctrl+C ends it")
    page.block_thread()
