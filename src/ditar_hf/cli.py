"""The command `ditar`: speech from the command line. Heavy packages are imported by the commands that need them."""

import math
import os
import secrets
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .cli_bench import app as bench_app
from .cli_common import errors_only, exits_with_2, find_device, given, note
from .cli_data import app as data_app
from .cli_demo import app as demo_app
from .cli_evaluate import app as evaluate_app
from .cli_flops import app as flops_app
from .cli_hub import app as hub_app
from .cli_models import DEFAULT_MODEL, find_model, load_model, load_processor
from .cli_train import app as train_app
from .cli_vae import app as vae_app
from .cli_voice import find_voice, print_voices

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ditar_hf import DiTARForTextToSpeech, DiTARProcessor

PICTURE_SUFFIXES = (".png", ".pdf", ".svg")
LIMIT_LOGGER = "ditar_hf.modeling.generation_ditar"

# Sampling defaults have one home, the generation config that comes with a model.
MODEL_DECIDES = "Not given: the model's own default."
SPEAK_EXAMPLES = """
Examples:

ditar speak "The rain has stopped, and the streets are shining."

ditar speak --file letter.txt --out letter.wav --plot letter.png --seed 7

echo "Read from a pipe." | ditar speak -

ditar speak "Now in another voice." --voice voice.wav --voice-text "What is said in voice.wav."

ditar speak "And in one that nobody has." --voice random --temperature 1
"""

app = typer.Typer(
    help="Text-to-speech with DiTAR, a causal language model with a diffusion head over patches of speech.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from ditar_hf import __version__

        typer.echo(f"ditar-hf {__version__}")
        raise typer.Exit()


def _finite(value: float | None) -> float | None:
    # No comparison with a bound refuses nan.
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


# the commands of training, of the speech tokenizer, of measuring and the demo stand beside `speak`
app.add_typer(bench_app)
app.add_typer(data_app)
app.add_typer(demo_app)
app.add_typer(evaluate_app)
app.add_typer(flops_app)
app.add_typer(hub_app)
app.add_typer(train_app)
app.add_typer(vae_app)


@app.callback()
def main(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    # The help text of the app stands in its constructor; this callback makes `speak` a subcommand.
    pass


@app.command(epilog=SPEAK_EXAMPLES)
def speak(
    text: Annotated[str | None, typer.Argument(help="What to say; `-` reads it from standard input.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="Read the text from this UTF-8 file instead.", exists=True, dir_okay=False)
    ] = None,
    voice: Annotated[
        str | None,
        typer.Option(
            help="The voice to speak in: a name out of `--list-voices`, `random` for one that the model makes up, or "
            "a recording of a few seconds (WAV, FLAC, MP3, OGG; any sampling rate; channels are averaged). A name "
            "wins over a file of that name, which is `./NAME`. Not given: the model's default voice."
        ),
    ] = None,
    voice_text: Annotated[
        str | None, typer.Option(help="What is said in the recording, word by word; a recording needs it.")
    ] = None,
    list_voices: Annotated[
        bool, typer.Option("--list-voices", help="Print the names of the model's voices, and speak nothing.")
    ] = False,
    language: Annotated[
        str | None, typer.Option(help="Language of the text, such as `en-us`. Not given: what the tokenizer says.")
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(min=0, max=1, callback=_finite, help=f"How varied speech is; 0 is not at all. {MODEL_DECIDES}"),
    ] = None,
    guidance_scale: Annotated[
        float | None,
        typer.Option(
            min=1,
            callback=_finite,
            help=f"How closely the text and the voice are followed; 1 is no guidance. {MODEL_DECIDES}",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help=f"Diffusion steps for each patch: fewer is faster. {MODEL_DECIDES}")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=2**32 - 1,
            help="Makes speech repeatable where the temperature is above 0. Not given: drawn, and printed with the "
            "result.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help=f"Folder or Hub id of the model. Not given: {DEFAULT_MODEL.as_posix()} of the clone."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where to compute: cpu, cuda, mps … Not given: a GPU if there is one.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The WAV file to write.")] = Path("speech.wav"),
    plot: Annotated[
        Path | None,
        typer.Option(
            help=f"Also draw the spectrogram into this file ({', '.join(PICTURE_SUFFIXES)}); needs matplotlib."
        ),
    ] = None,
) -> None:
    """Speak a text, in the voice of a recording if you like, and write it to a WAV file."""
    with exits_with_2(ValueError, OSError):
        if list_voices:
            print_voices(load_processor(find_model(model)))
            raise typer.Exit()
        # What is quick to check comes first, and the weights, which are slow to load, come last.
        text = _read_text(text, file)
        _check_target(out, "--out", (".wav",))
        if plot is not None:
            _check_target(plot, "--plot", PICTURE_SUFFIXES)
        target_device = find_device(device)
        name = find_model(model)
        processor = load_processor(name)
        preprocess_params = {**find_voice(processor, voice, voice_text), **given(language=language)}
        inputs = processor(text, **preprocess_params)
        speaker = load_model(name).to(target_device)
        settings = given(temperature=temperature, guidance_scale=guidance_scale, num_inference_steps=steps)
        is_drawn = speaker.draws_noise(**settings)

    if not is_drawn and (seed is not None or voice == "random"):
        note("at this temperature nothing is drawn: every seed, and `--voice random`, gives one and the same speech")
    seed = secrets.randbits(32) if seed is None else seed
    bar = PatchProgress(_most_patches(speaker, inputs, settings))
    start = time.perf_counter()
    with exits_with_2(ValueError):  # what only `generate` can tell, such as speech that is not finite
        waveform, sampling_rate = _synthesize(speaker, processor, text, preprocess_params, settings, seed, bar)
    seconds = time.perf_counter() - start
    length = len(waveform) / sampling_rate
    if bar.num_patches == bar.most_patches:
        remedy = "another --seed" if is_drawn else "a higher --temperature"
        note(f"the speech ran into its limit of {length:.2f} s and may be cut off or wrong; try {remedy}")

    with exits_with_2(OSError):
        processor.save_audio(waveform, out, sampling_rate)
        typer.echo(
            f"{out}: {length:.2f} s of speech, made in {seconds:.2f} s "
            f"(real-time factor {seconds / length:.3f}{f', seed {seed}' if is_drawn else ''})"
        )
        if plot is not None:
            _draw(waveform, sampling_rate, plot, title=text)


class PatchProgress:
    """
    A bar on the terminal that grows with each patch of speech; silent where standard error is no terminal.

    It is a `streamer` of `generate`, and a context manager that shows the bar. Speech mostly ends before its limit, so
    the bar is labelled "at most" and vanishes when the speech ends.

    Args:
        most_patches (`int`): Patches after which the speech is ended, finished or not.
    """

    def __init__(self, most_patches: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("speaking"),
            BarColumn(),
            TextColumn("{task.completed:.0f} patches (at most {task.total:.0f})"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("speaking", total=most_patches)
        self.num_patches, self.most_patches = 0, most_patches

    def __enter__(self) -> "PatchProgress":
        self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.end()

    def put(self, value: Any) -> None:
        """Counts a patch; its latents, which `generate` passes as `value`, are not looked at."""
        self.num_patches += 1
        self._progress.advance(self._task)

    def end(self) -> None:
        """Removes the bar; doing it again does no harm."""
        self._progress.stop()


def _read_text(text: str | None, file: Path | None) -> str:
    if (text is None) == (file is None):
        raise ValueError("give the text either as an argument (`-` reads standard input) or with `--file`")
    if file is not None:
        source, content = f"`{file}`", file.read_bytes()
    elif text == "-":
        source, content = "standard input", sys.stdin.buffer.read()
    else:
        source, content = "the argument", text.encode("utf-8", "surrogateescape")
    try:
        # A file's line breaks are only its layout.
        words = content.decode("utf-8-sig").split()
    except UnicodeDecodeError as error:
        raise ValueError(f"{source} is not UTF-8 text; convert it first") from error
    if not words:
        raise ValueError(f"there is no text to speak in {source}")
    return " ".join(words)


def _check_target(path: Path, option: str, suffixes: tuple[str, ...]) -> None:
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"`{option}` must end in {' or '.join(suffixes)}, got `{path}`")
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"`{option}` must name a file in a folder that exists, got `{path}`")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"`{option}`: the folder of `{path}` is not writable")


def _synthesize(
    speaker: "DiTARForTextToSpeech",
    processor: "DiTARProcessor",
    text: str,
    preprocess_params: dict[str, Any],
    settings: dict[str, Any],
    seed: int,
    bar: PatchProgress,
) -> tuple["np.ndarray", int]:
    """The waveform of shape `(num_samples,)` from transformers' own pipeline, and its sampling rate."""
    import numpy as np
    import torch
    from transformers import pipeline

    pipe = pipeline(
        "text-to-speech", model=speaker, tokenizer=processor.tokenizer, processor=processor, device=speaker.device
    )
    # On the CPU whatever the device is, so that a seed gives the same noise on each.
    generator = torch.Generator().manual_seed(seed)
    # Our note about the limit stands in for the library's warning, which names settings that are no options here.
    with bar, errors_only(LIMIT_LOGGER):
        output = pipe(
            text,
            preprocess_params=preprocess_params,
            generate_kwargs={**settings, "generator": generator, "streamer": bar},
        )
    waveform = np.atleast_1d(output["audio"])
    if waveform.size == 0 or not np.isfinite(waveform).all():
        raise RuntimeError(f"the model made {waveform.size} samples, not all of them finite")
    return waveform, output["sampling_rate"]


def _most_patches(speaker: "DiTARForTextToSpeech", inputs: dict[str, "torch.Tensor"], settings: dict[str, Any]) -> int:
    """The limit of `generate`; of a prompt it depends only on the number of patches."""
    placeholders = inputs["input_ids"] == speaker.config.audio_patch_token_id
    prompt = SimpleNamespace(counts=placeholders.sum(1).tolist())
    config = speaker.generation_config.merged(settings)
    _, most = speaker._length_bounds(inputs["input_ids"], inputs["attention_mask"], prompt, config)
    return most[0]


def _draw(waveform: "np.ndarray", sampling_rate: int, path: Path, title: str) -> None:
    from ditar_hf.modeling.audio_files_ditar import replacing
    from ditar_hf.plotting import save_spectrogram

    try:
        with replacing(path) as partial:
            save_spectrogram(waveform, sampling_rate, partial, title)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "matplotlib":
            raise
        note('no picture without matplotlib: pip install -e ".[plot]"')
    else:
        typer.echo(f"{path}: its spectrogram")


if __name__ == "__main__":
    app()
