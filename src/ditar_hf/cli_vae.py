"""Commands of the speech tokenizer. Heavy packages are imported by the commands that need them."""

import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .cli_common import exits_with_2, find_device, given, note

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

    from ditar_hf import DiTARVAE

    from .evaluation.vae_metrics import Clip, UnusableClip

# recognisers and trackers of pitch need some frames
SHORTEST_CLIP_SECONDS = 0.1

app = typer.Typer()


@app.command("train-vae")
def train_vae(
    config: Annotated[Path, typer.Argument(help="YAML file of the run.", exists=True, dir_okay=False)],
    resume: Annotated[bool, typer.Option(help="Continue from the last checkpoint of the output folder.")] = False,
) -> None:
    """Train a speech tokenizer as a YAML file describes it; continue it with `--resume`."""
    with exits_with_2(ValueError, OSError):
        from .training.audio import UnusableAudioError
        from .training.vae_arguments import VAETrainingArguments
        from .training.vae_checkpoint import RunError
        from .training.vae_trainer import VAETrainer

        trainer = VAETrainer(VAETrainingArguments.from_yaml(config))
    # a ValueError of another kind in a long run is an error of ours, and shown whole
    with exits_with_2(RunError, UnusableAudioError, ArithmeticError, OSError):
        trainer.train(resume=resume)
    trainer.accelerator.end_training()


@app.command()
def encode(
    data: Annotated[
        str, typer.Argument(help="A folder, tar files (a pattern in quotes), or with `--format datasets` a Hub id.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder of latents: new, or one to be completed.")],
    vae: Annotated[str, typer.Option(help="Folder or Hub id of a speech tokenizer, or of a DiTAR model with one.")],
    format: Annotated[
        str | None,
        typer.Option(
            help="metadata, ljspeech, libritts, librilight, files, webdataset or datasets. Not given: looked up."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Configuration of a Hub data set.")] = None,
    split: Annotated[str | None, typer.Option(help="Split of a Hub data set; `train` if not given.")] = None,
    revision: Annotated[str | None, typer.Option(help="Revision of a Hub data set.")] = None,
    streaming: Annotated[bool, typer.Option(help="Read a Hub data set as it arrives, without a copy.")] = False,
    audio_column: Annotated[str | None, typer.Option(help="Column of the audio, if not `audio`.")] = None,
    text_column: Annotated[str | None, typer.Option(help="Column of the text, if not `text`.")] = None,
    speaker_column: Annotated[str | None, typer.Option(help="Column of the speaker, if not `speaker`.")] = None,
    language_column: Annotated[str | None, typer.Option(help="Column of the language, if not `language`.")] = None,
    language: Annotated[str | None, typer.Option(help="Language of all rows that do not name their own.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Longer recordings are left out; 40 if not given.")] = None,
    rows_per_shard: Annotated[int | None, typer.Option(help="Rows of a file; 500 if not given.")] = None,
    batch_seconds: Annotated[
        float | None, typer.Option(help="Most seconds that are encoded at once; 100 if not given.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Precision of the computation: float32 (if not given), bfloat16 or float16.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where to compute: cpu, cuda, mps … Not given: a GPU if there is one.")
    ] = None,
) -> None:
    """Encode a data set into latents for training; run it again to complete what was stopped."""
    with exits_with_2(ValueError, OSError):
        from .training.data import AudioSource
        from .training.latents import encode_source

        columns = given(
            audio_column=audio_column,
            text_column=text_column,
            speaker_column=speaker_column,
            language_column=language_column,
        )
        options = given(format=format, name=name, split=split, revision=revision, language=language)
        source = AudioSource(data, streaming=streaming, **columns, **options)
        settings = given(
            max_seconds=max_seconds, rows_per_shard=rows_per_shard, batch_seconds=batch_seconds, dtype=dtype
        )
        target_device = find_device(device)
        totals = encode_source(_load_vae(vae), source, out, device=target_device, **settings)["totals"]
        rejected = f"; {totals['num_rejected']} rejected, see rejected.jsonl" if totals["num_rejected"] else ""
        typer.echo(f"{out}: {totals['num_rows']} rows, {totals['hours']:.2f} hours of speech{rejected}")


@app.command("evaluate-vae")
def evaluate_vae(
    vae: Annotated[str, typer.Argument(help="Folder or Hub id of a speech tokenizer, or of a DiTAR model with one.")],
    data: Annotated[
        str, typer.Argument(help="A folder, tar files (a pattern in quotes), or with `--format datasets` a Hub id.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the report, a new one.")],
    asr: Annotated[
        str | None,
        typer.Option(
            help="Also measure word errors: `pocketsphinx` (English, offline), or folder or Hub id of a recogniser."
        ),
    ] = None,
    max_clips: Annotated[
        int | None,
        typer.Option(min=1, help="Read so many recordings, spread over a folder, or the first of a stream."),
    ] = None,
    max_seconds: Annotated[
        float, typer.Option(min=0.1, help="Of longer recordings only the beginning is used, without its text.")
    ] = 30.0,
    save_audio: Annotated[bool, typer.Option(help="Also write originals and reconstructions as WAV files.")] = False,
    pictures: Annotated[int, typer.Option(min=0, help="Draw so many of the first clips; needs matplotlib.")] = 5,
    device: Annotated[
        str | None, typer.Option(help="Where to compute: cpu, cuda, mps … Not given: a GPU if there is one.")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            help="metadata, ljspeech, libritts, librilight, files, webdataset or datasets. Not given: looked up."
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of a Hub data set; `train` if not given.")] = None,
) -> None:
    """Measure how well a speech tokenizer reconstructs recordings, and write a report of it."""
    with exits_with_2(ValueError, OSError):
        from .evaluation import vae_report
        from .evaluation.summary import NotMeasuredError, unavailable
        from .evaluation.vae_evaluation import evaluate_vae as evaluate
        from .evaluation.word_error import load_recognizer
        from .modeling.loss_ditar_vae import limit_bandwidth
        from .training.data import AudioSource

        with vae_report.new_folder(out) as folder:
            target_device = find_device(device)
            rows = _spread_rows(AudioSource(data, **given(format=format, split=split)).read(), max_clips)
            try:
                recognize = None if asr is None else load_recognizer(asr, str(target_device))
            except NotMeasuredError as error:
                recognize = unavailable(str(error))
            model = _load_vae(vae).to(target_device)
            writer = vae_report.ComparisonWriter(folder, pictures, save_audio)
            clips = _read_clips(rows, model.config.sampling_rate, max_seconds)
            evaluation = evaluate(model, clips, limit_bandwidth, recognize, writer)
            settings = {
                "command": shlex.join(["ditar", *sys.argv[1:]]),
                "model": vae_report.describe_vae(model, vae),
                "environment": vae_report.environment(target_device),
                "data": data,
                "options": {"format": format, "split": split, "asr": asr}
                | {"max_clips": max_clips, "max_seconds": max_seconds},
            }
            vae_report.write_report(folder, evaluation, settings, writer)
    typer.echo(vae_report.markdown_table(evaluation))
    if evaluation.unusable:
        note(f"{len(evaluation.unusable)} clips could not be used; the report names them")
    if writer.no_pictures is not None:
        note(f"no pictures: {writer.no_pictures}")
    typer.echo(f"{out}: the report, in report.md and report.json")


def _spread_rows(rows: "Dataset | IterableDataset", max_clips: int | None) -> "Iterable[dict[str, Any]]":
    if max_clips is None:
        return rows
    if not hasattr(rows, "select"):
        return rows.take(max_clips)
    # the first ones of a folder would be one speaker's
    num_clips = min(max_clips, len(rows))
    return rows.select([index * len(rows) // num_clips for index in range(num_clips)])


def _read_clips(
    rows: "Iterable[dict[str, Any]]", sampling_rate: int, max_seconds: float
) -> "Iterator[Clip | UnusableClip]":
    """Clips at the rate of a speech tokenizer, behind a bar on the terminal."""
    from tqdm import tqdm

    from .evaluation.vae_metrics import Clip, UnusableClip
    from .training.audio import UnusableAudioError, decode_audio, resample_audio

    # where standard error is no terminal there is no bar
    for row in tqdm(rows, "evaluating", unit=" clips", leave=False, disable=None):
        try:
            # a little more, which tells whether it goes on
            samples, rate = decode_audio(row["audio"], seconds=max_seconds + 0.01)
            length = len(samples) / rate
            if length < SHORTEST_CLIP_SECONDS:
                raise UnusableAudioError(f"it lasts {length:.3f} s, less than {SHORTEST_CLIP_SECONDS} s")
        except UnusableAudioError as error:
            yield UnusableClip(row["id"], str(error))
            continue
        waveform = resample_audio(samples[: round(max_seconds * rate)], rate, sampling_rate)
        bandwidth = rate / 2 if rate < sampling_rate else None
        yield Clip(row["id"], waveform, bandwidth, row["text"], is_cut=length > max_seconds)


def _load_vae(name: str) -> "DiTARVAE":
    """A speech tokenizer, or that of a whole model."""
    from transformers import AutoConfig

    from ditar_hf import DiTARForTextToSpeech, DiTARVAE

    model_type = AutoConfig.from_pretrained(name, trust_remote_code=False).model_type
    if model_type == "ditar":
        return DiTARForTextToSpeech.from_pretrained(name).vae
    if model_type == "ditar_vae":
        return DiTARVAE.from_pretrained(name)
    raise ValueError(f"`{name}` is of the type `{model_type}`: name a `ditar_vae` or a `ditar` model")
