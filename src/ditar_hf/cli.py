"""The command `ditar`: speech from the command line. Heavy packages are imported by the commands that need them."""

import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import numpy as np

DEFAULT_MODEL = Path("hub_cards", "ditar-tiny-en")
PICTURE_SUFFIXES = (".png", ".pdf", ".svg")

# Sampling defaults have one home, the generation config that comes with a model.
MODEL_DECIDES = "Not given: the model's own default."
SPEAK_EXAMPLES = """
Examples:

ditar speak "The rain has stopped, and the streets are shining."

ditar speak --file letter.txt --out letter.wav --plot letter.png --seed 7

echo "Read from a pipe." | ditar speak -

ditar speak "Now in another voice." --voice voice.wav --voice-text "What is said in voice.wav."
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
    if not wanted:
        return
    try:
        typer.echo(f"ditar-hf {version('ditar-hf')}")
    except PackageNotFoundError:
        typer.echo("ditar-hf (not installed: run from its sources)")
    raise typer.Exit()


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
        Path | None,
        typer.Option(
            help="A recording of the voice to speak in: a few seconds, any sampling rate (WAV, FLAC, MP3, OGG).",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    voice_text: Annotated[
        str | None, typer.Option(help="What is said in the recording, word by word; `--voice` needs it.")
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="Language of the text, such as `en-us`. Not given: what the tokenizer says.")
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help=f"How varied the speech is; 0 gives the same speech every time. {MODEL_DECIDES}"
        ),
    ] = None,
    guidance_scale: Annotated[
        float | None,
        typer.Option(
            min=1, help=f"How closely the text and the voice are followed; 1 is no guidance. {MODEL_DECIDES}"
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help=f"Diffusion steps for each patch: fewer is faster. {MODEL_DECIDES}")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, max=2**32 - 1, help="Makes the speech repeatable. Not given: drawn, and printed with the result."
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
    with _bad_input_exits_with_2():
        # All that can be refused is refused before the model is loaded.
        text = _read_text(text, file)
        _check_target(out, "--out", (".wav",))
        if plot is not None:
            _check_target(plot, "--plot", PICTURE_SUFFIXES)
        preprocess_params = _read_voice(voice, voice_text) | _given(language=language)
        seed = secrets.randbits(32) if seed is None else seed
        generate_kwargs = _given(temperature=temperature, guidance_scale=guidance_scale, num_inference_steps=steps)
        waveform, sampling_rate, seconds = _synthesize(
            text, _find_model(model), device, seed, preprocess_params, generate_kwargs
        )
        _write_wav(waveform, sampling_rate, out)
        length = len(waveform) / sampling_rate
        typer.echo(
            f"{out}: {length:.2f} s of speech, made in {seconds:.2f} s "
            f"(real-time factor {seconds / length:.3f}, seed {seed})"
        )
        if plot is not None:
            _draw(waveform, sampling_rate, plot, title=text)


class PatchProgress:
    """
    Counts patches on the terminal while `generate` makes them; silent where standard error is no terminal.

    It has the two methods that `generate` calls on its `streamer`: `put` once for each patch, and `end`.
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("speaking: {task.completed:.0f} patches"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("speaking", total=None)
        self.num_patches = 0

    def __enter__(self) -> "PatchProgress":
        self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.end()

    def put(self, value: Any) -> None:
        self.num_patches += 1
        self._progress.advance(self._task)

    def end(self) -> None:
        self._progress.stop()


@contextmanager
def _bad_input_exits_with_2() -> Iterator[None]:
    """Make an error about the input one line on standard error; any other exception is ours and is shown whole."""
    try:
        yield
    except (ValueError, OSError) as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from error


def _note(message: str) -> None:
    typer.echo(f"note: {message}", err=True)


def _given(**options: Any) -> dict[str, Any]:
    """The options that are not `None`: each default has its home elsewhere."""
    return {name: value for name, value in options.items() if value is not None}


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


def _read_voice(voice: Path | None, voice_text: str | None) -> dict[str, Any]:
    """What the processor takes for a voice: `prompt_audio` of shape `(num_samples,)`, its rate and its transcript."""
    if voice is None and voice_text is None:
        return {}
    if voice_text is None or not voice_text.strip():
        raise ValueError("`--voice` needs `--voice-text`, the words that are said in the recording")
    if voice is None:
        raise ValueError("`--voice-text` needs `--voice`, the recording in which it is said")
    import soundfile

    try:
        audio, sampling_rate = soundfile.read(voice, dtype="float32", always_2d=True)  # (num_samples, num_channels)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"cannot read `{voice}` as audio: {error.error_string}") from error
    if len(audio) == 0:
        raise ValueError(f"`{voice}` holds no samples")
    if audio.shape[1] > 1:
        _note(f"{voice} has {audio.shape[1]} channels; their mean is used")
    return {"prompt_audio": audio.mean(axis=1), "prompt_text": voice_text.strip(), "sampling_rate": sampling_rate}


def _check_target(path: Path, option: str, suffixes: tuple[str, ...]) -> None:
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"`{option}` must end in {' or '.join(suffixes)}, got `{path}`")
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"`{option}` must name a file in a folder that exists, got `{path}`")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"`{option}`: the folder of `{path}` is not writable")


def _find_model(model: str | None) -> str:
    if model is not None:
        return model
    # In an editable installation this file is <clone>/src/ditar_hf/cli.py.
    folder = Path(__file__).resolve().parents[2] / DEFAULT_MODEL
    if not (folder / "config.json").is_file():
        raise ValueError(f"there is no model at `{folder}`; pass one with `--model FOLDER_OR_HUB_ID`")
    return str(folder)


def _synthesize(
    text: str,
    model: str,
    device: str | None,
    seed: int,
    preprocess_params: dict[str, Any],
    generate_kwargs: dict[str, Any],
) -> tuple["np.ndarray", int, float]:
    """The waveform of shape `(num_samples,)`, its sampling rate, and the seconds it took without loading the model."""
    import numpy as np
    import torch
    from transformers import pipeline

    import ditar_hf  # noqa: F401  registers the model with the Auto classes

    try:
        device = None if device is None else torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"`--device` must be a device of torch such as `cpu` or `cuda:1`, got `{device}`") from error
    pipe = pipeline("text-to-speech", model=model, device=device)
    # On the CPU whatever the device is, so that a seed gives the same noise on each.
    generator = torch.Generator().manual_seed(seed)
    start = time.perf_counter()
    with PatchProgress() as progress:
        output = pipe(
            text,
            preprocess_params=preprocess_params,
            generate_kwargs={**generate_kwargs, "generator": generator, "streamer": progress},
        )
    seconds = time.perf_counter() - start
    waveform = np.atleast_1d(output["audio"])
    if waveform.size == 0 or not np.isfinite(waveform).all():
        raise RuntimeError(
            f"`{model}` made {waveform.size} samples after {progress.num_patches} patches, not all finite"
        )
    return waveform, output["sampling_rate"], seconds


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A path to write to, in the folder of `path`; what was written there takes its place only if all went well."""
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _write_wav(waveform: "np.ndarray", sampling_rate: int, path: Path) -> None:
    import numpy as np
    import soundfile

    peak = float(np.abs(waveform).max())
    if peak > 1:
        _note(f"the speech peaks at {peak:.2f} and was made quieter, so that it does not clip")
        waveform = waveform / peak
    with _replacing(path) as partial:
        soundfile.write(partial, waveform, sampling_rate, subtype="PCM_16")


def _draw(waveform: "np.ndarray", sampling_rate: int, path: Path, title: str) -> None:
    from ditar_hf.plotting import save_spectrogram

    try:
        with _replacing(path) as partial:
            save_spectrogram(waveform, sampling_rate, partial, title)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "matplotlib":
            raise
        _note('no picture without matplotlib: pip install "ditar-hf[plot]"')
    else:
        typer.echo(f"{path}: its spectrogram")


if __name__ == "__main__":
    app()
