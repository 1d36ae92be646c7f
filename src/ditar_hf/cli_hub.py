"""`ditar export` and `ditar push`: a model as a repository of the Hub. Heavy packages are imported late."""

from pathlib import Path
from typing import Annotated

import typer

from .cli_common import exits_with_2, given
from .cli_models import quiet_loading

app = typer.Typer()

Model = Annotated[
    str, typer.Argument(help="Folder or Hub id of a model with its processor, or of a speech tokenizer.")
]
License = Annotated[str | None, typer.Option(help="For the card: identifier of the weights' licence.")]
Languages = Annotated[
    list[str] | None, typer.Option("--language", help="For the card: ISO 639 code. Not given: of the tokenizer.")
]
BaseModel = Annotated[str | None, typer.Option(help="For the card: Hub id of the model that training started from.")]
Reports = Annotated[
    list[Path] | None,
    typer.Option(
        "--report", help="For the card: folder of `ditar evaluate` or `ditar evaluate-vae`; may be repeated."
    ),
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of MODEL on the Hub.")]


@app.command()
def export(
    model: Model,
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    name: Annotated[
        str | None, typer.Option(help="For the card: `org/name` of the repository. Not given: the name of OUT.")
    ] = None,
    license: License = None,
    languages: Languages = None,
    base_model: BaseModel = None,
    reports: Reports = None,
    revision: Revision = None,
) -> None:
    """Write a folder that loads with `trust_remote_code=True` where this package is not installed."""
    with exits_with_2(ValueError, OSError), quiet_loading():
        from . import hub

        card = given(license=license, languages=languages, base_model=base_model, reports=reports)
        hub.export(model, out, name, revision=revision, **card)
    typer.echo(f"{out}: {len(list(out.glob('*.py')))} files of code, {_megabytes(out):,.1f} MB in all")


@app.command()
def push(
    model: Model,
    repo_id: Annotated[str, typer.Argument(help="The repository, such as `org/name`; made if there is none.")],
    private: Annotated[
        bool | None, typer.Option("--private/--public", help="Of a new repository. Not given: as its owner has it.")
    ] = None,
    branch: Annotated[str | None, typer.Option(help="Branch to commit to, made if there is none.")] = None,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    license: License = None,
    languages: Languages = None,
    base_model: BaseModel = None,
    reports: Reports = None,
    revision: Revision = None,
) -> None:
    """Export a model and make it one commit of a repository of the Hub; log in first with `hf auth login`."""
    with exits_with_2(ValueError, OSError), quiet_loading():
        from . import hub

        card = given(license=license, languages=languages, base_model=base_model, reports=reports)
        url = hub.push(model, repo_id, private, branch, message, revision=revision, **card)
    typer.echo(url)


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
