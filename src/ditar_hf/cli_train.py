"""The command that trains DiTAR. Heavy packages are imported by the commands that need them."""

import atexit
from pathlib import Path
from typing import Annotated, Any

import typer

from .cli_common import exits_with_2, given

EXAMPLES = """
Examples:

ditar train examples/train/emilia.yaml --vae path/to/vae

ditar train examples/finetune/voice.yaml --model hub_cards/ditar-tiny-en --data my_voice --out runs/my_voice

torchrun --nproc_per_node 8 -m ditar_hf.cli train examples/train/emilia.yaml --resume
"""
STOPPED_BY_SIGTERM = 143

app = typer.Typer()


@app.command(epilog=EXAMPLES)
def train(
    config: Annotated[
        Path,
        typer.Argument(
            help="YAML file of the run, such as examples/finetune/voice.yaml.", exists=True, dir_okay=False
        ),
    ],
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint of the output folder.")] = False,
    model: Annotated[str | None, typer.Option(help="Trained DiTAR to go on from: a folder or Hub id.")] = None,
    vae: Annotated[str | None, typer.Option(help="Speech tokenizer of a fresh model: a folder or Hub id.")] = None,
    lm: Annotated[
        str | None, typer.Option(help="Causal language model whose weights are taken: a folder or Hub id.")
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="Recordings, in place of the file's; several times for several folders.")
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="Language of all recordings that do not name their own, such as `de`.")
    ] = None,
    new_language: Annotated[
        str | None, typer.Option(help="Language whose phones are added to the model's vocabulary.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="The run's folder, in place of the file's.")] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Updates, in place of the file's.")] = None,
) -> None:
    """Train or fine-tune DiTAR as a YAML file describes it; options replace fields of the file."""
    with exits_with_2(ValueError, OSError, ImportError):
        from .training.audio import UnusableAudioError
        from .training.checkpoints import RunError
        from .training.process_group import leave_process_group
        from .training.run import TrainingRun
        from .training.run_parts import make_trainer

        atexit.register(leave_process_group)
        training: dict[str, Any] = given(output_dir=out, max_steps=max_steps)
        overrides = given(model=model, vae=vae, lm=lm, new_language=new_language)
        if data:
            overrides["data"] = [given(path=path, language=language) for path in data]
        elif language is not None:
            raise ValueError("`--language` is for recordings given by `--data`; the file says it of its own.")
        run = TrainingRun.from_yaml(config, training=training, **overrides)
        trainer = make_trainer(run, resume)
    # a ValueError of another kind in a long run is an error of ours, and shown whole
    with exits_with_2(RunError, UnusableAudioError, ArithmeticError, OSError):
        trainer.train(resume_from_checkpoint=resume)
    if trainer.was_stopped:
        typer.echo(f"{trainer.folder}: stopped by SIGTERM, go on with --resume", err=True)
        raise typer.Exit(STOPPED_BY_SIGTERM)
    with exits_with_2(OSError):
        trainer.save_model()
    if trainer.is_world_process_zero():
        typer.echo(f"{trainer.folder}: the trained model")
