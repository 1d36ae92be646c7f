"""Commands of the speech tokenizer. Heavy packages are imported by the commands that need them."""

import atexit
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .cli_common import describe_totals, exits_with_2, find_device, given, note
from .cli_options import (
    AudioColumnOption,
    AudioDirOption,
    DataArgument,
    DeviceOption,
    FormatOption,
    LanguageColumnOption,
    LanguageOption,
    LanguagesOption,
    MaxCharactersPerSecondOption,
    MinCharactersPerSecondOption,
    MinDnsmosOption,
    MinSamplingRateOption,
    MinSecondsOption,
    NameOption,
    RequireTextOption,
    RevisionOption,
    SpeakerColumnOption,
    SplitOption,
    StreamingOption,
    TextColumnOption,
)

if TYPE_CHECKING:
    from ditar_hf import DiTARVAE

    from .evaluation.vae_metrics import Clip, UnusableClip

# recognisers and trackers of pitch need some frames
SHORTEST_CLIP_SECONDS = 0.1

VAE_HELP = "Folder or Hub id of a speech tokenizer, or of a DiTAR model with one."

app = typer.Typer()


@app.command("train-vae")
def train_vae(
    config: Annotated[
        Path, typer.Argument(help="YAML file of the run, such as examples/tiny/vae.yaml.", exists=True, dir_okay=False)
    ],
    resume: Annotated[bool, typer.Option(help="Continue from the last checkpoint of the output folder.")] = False,
) -> None:
    """Train a speech tokenizer as a YAML file describes it; continue it with `--resume`."""
    with exits_with_2(ValueError, OSError):
        from .training.audio import UnusableAudioError
        from .training.checkpoints import RunError
        from .training.process_group import leave_process_group
        from .training.vae_arguments import VAETrainingArguments
        from .training.vae_trainer import VAETrainer

        atexit.register(leave_process_group)
        trainer = VAETrainer(VAETrainingArguments.from_yaml(config))
    # a ValueError of another kind in a long run is an error of ours, and shown whole
    with exits_with_2(RunError, UnusableAudioError, ArithmeticError, OSError):
        trainer.train(resume=resume)
    if trainer.accelerator.is_main_process:
        typer.echo(f"{trainer.folder}: the trained tokenizer")


@app.command()
def encode(
    data: DataArgument,
    out: Annotated[Path, typer.Argument(help="Folder of latents: new, or one to be completed.")],
    vae: Annotated[str, typer.Option(help=VAE_HELP)],
    format: FormatOption = None,
    name: NameOption = None,
    split: SplitOption = None,
    revision: RevisionOption = None,
    streaming: StreamingOption = False,
    audio_column: AudioColumnOption = None,
    text_column: TextColumnOption = None,
    speaker_column: SpeakerColumnOption = None,
    language_column: LanguageColumnOption = None,
    language: LanguageOption = None,
    audio_dir: AudioDirOption = None,
    languages: LanguagesOption = None,
    min_dnsmos: MinDnsmosOption = None,
    min_seconds: MinSecondsOption = None,
    max_seconds: Annotated[float | None, typer.Option(help="Longest recording that is used; 40 if not given.")] = None,
    max_characters_per_second: MaxCharactersPerSecondOption = None,
    min_characters_per_second: MinCharactersPerSecondOption = None,
    min_sampling_rate: MinSamplingRateOption = None,
    require_text: RequireTextOption = True,
    trim: Annotated[
        bool, typer.Option(help="Leave out the silence at the end of recordings, all but 0.1 seconds of it.")
    ] = True,
    patch_size: Annotated[
        int | None, typer.Option(help="Frames in a patch of the model that the latents are for; 4 if not given.")
    ] = None,
    rows_per_shard: Annotated[int | None, typer.Option(help="Rows of a file; 500 if not given.")] = None,
    batch_seconds: Annotated[
        float | None, typer.Option(help="Most seconds that are encoded at once; 100 if not given.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Precision of the computation: float32 (if not given), bfloat16 or float16.")
    ] = None,
    device: DeviceOption = None,
) -> None:
    """Encode a data set into latents for training; run it again to complete what was stopped."""
    # data is read while it is encoded, so bad input shows only there
    with exits_with_2(ValueError, OSError):
        from .training.data import AudioSource
        from .training.examples import ExampleArguments
        from .training.filters import FilterArguments
        from .training.latents import encode_source

        of_source = given(
            format=format,
            name=name,
            split=split,
            revision=revision,
            audio_column=audio_column,
            text_column=text_column,
            speaker_column=speaker_column,
            language_column=language_column,
            language=language,
            audio_dir=audio_dir,
        )
        source = AudioSource(data, streaming=streaming, **of_source)
        of_filters = given(
            languages=languages or None,
            min_dnsmos=min_dnsmos,
            min_seconds=min_seconds,
            max_seconds=max_seconds,
            max_characters_per_second=max_characters_per_second,
            min_characters_per_second=min_characters_per_second,
        )
        filters = FilterArguments(require_text=require_text, **of_filters)
        of_examples = given(min_sampling_rate=min_sampling_rate) | ({} if trim else {"trim_margin_seconds": None})
        settings = given(
            patch_size=patch_size,
            rows_per_shard=rows_per_shard,
            batch_seconds=batch_seconds,
            dtype=dtype,
        )
        target_device = find_device(device)
        examples = ExampleArguments(**of_examples)
        tokenizer = _load_vae(vae)
        store = encode_source(tokenizer, source, out, filters, examples, device=target_device, **settings)
    typer.echo(describe_totals(out, store["totals"]))


@app.command("evaluate-vae")
def evaluate_vae(
    vae: Annotated[str, typer.Argument(help=VAE_HELP)],
    data: DataArgument,
    out: Annotated[Path, typer.Option(help="Folder of the report, a new one.")],
    asr: Annotated[
        str | None,
        typer.Option(
            help="Also measure word errors: `pocketsphinx` (English, offline), or folder or Hub id of a recogniser."
        ),
    ] = None,
    max_clips: Annotated[
        int | None,
        typer.Option(min=1, help="Read so many recordings, spread over a data set, or the first of a stream."),
    ] = None,
    max_seconds: Annotated[
        float, typer.Option(min=0.1, help="Of longer recordings only the beginning is used, without its text.")
    ] = 30.0,
    save_audio: Annotated[bool, typer.Option(help="Also write originals and reconstructions as WAV files.")] = False,
    pictures: Annotated[int, typer.Option(min=0, help="Draw so many of the first clips; needs matplotlib.")] = 5,
    device: DeviceOption = None,
    format: FormatOption = None,
    name: NameOption = None,
    split: SplitOption = None,
    revision: RevisionOption = None,
    streaming: StreamingOption = False,
    audio_column: AudioColumnOption = None,
    text_column: TextColumnOption = None,
) -> None:
    """Measure how well a speech tokenizer reconstructs recordings, and write a report of it."""
    # data is read while it is measured, so bad input shows only there
    with exits_with_2(ValueError, OSError):
        from .evaluation import vae_report
        from .evaluation.recognizers import load_recognizer
        from .evaluation.summary import NotMeasuredError, unavailable
        from .evaluation.vae_evaluation import evaluate_vae as evaluate
        from .folders import new_folder
        from .modeling.loss_ditar_vae import limit_bandwidth
        from .training.data import AudioSource, spread_rows

        of_source = given(
            format=format,
            name=name,
            split=split,
            revision=revision,
            audio_column=audio_column,
            text_column=text_column,
        )
        with new_folder(out) as folder:
            target_device = find_device(device)
            rows = AudioSource(data, streaming=streaming, **of_source).read()
            rows = rows if max_clips is None else spread_rows(rows, max_clips)
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
                "options": {**of_source, "streaming": streaming, "asr": asr}
                | {"max_clips": max_clips, "max_seconds": max_seconds},
            }
            vae_report.write_report(folder, evaluation, settings, writer)
    typer.echo(vae_report.markdown_table(evaluation))
    if evaluation.unusable:
        note(f"{len(evaluation.unusable)} clips could not be used; the report names them")
    if writer.no_pictures is not None:
        note(f"no pictures: {writer.no_pictures}")
    typer.echo(f"{out}: the report, in report.md and report.json")


def _read_clips(
    rows: "Iterable[dict[str, Any]]", sampling_rate: int, max_seconds: float
) -> "Iterator[Clip | UnusableClip]":
    """Clips at the rate of a speech tokenizer, behind a bar on the terminal."""
    from tqdm import tqdm

    from .evaluation.vae_metrics import Clip, UnusableClip
    from .training.audio import UnusableAudioError, decode_audio, resample_audio, segment_of

    # where standard error is no terminal there is no bar
    for row in tqdm(rows, "evaluating", unit=" clips", leave=False, disable=None):
        try:
            # a little more, which tells whether it goes on
            samples, rate = decode_audio(row["audio"], seconds=max_seconds + 0.01, **segment_of(row))
            length = len(samples) / rate
            if length < SHORTEST_CLIP_SECONDS:
                raise UnusableAudioError(f"it lasts {length:.3f} s, less than {SHORTEST_CLIP_SECONDS} s")
            waveform = resample_audio(samples[: round(max_seconds * rate)], rate, sampling_rate)
        except UnusableAudioError as error:
            yield UnusableClip(row["id"], str(error))
            continue
        bandwidth = rate / 2 if rate < sampling_rate else None
        yield Clip(row["id"], waveform, bandwidth, row["text"], is_cut=length > max_seconds)


def _load_vae(name: str) -> "DiTARVAE":
    """A speech tokenizer, or that of a whole model, in float32 whatever it was saved in."""
    import torch
    from transformers import AutoConfig

    from ditar_hf import DiTARForTextToSpeech, DiTARVAE

    model_type = AutoConfig.from_pretrained(name, trust_remote_code=False).model_type
    if model_type == "ditar":
        return DiTARForTextToSpeech.from_pretrained(name, dtype=torch.float32).vae
    if model_type == "ditar_vae":
        return DiTARVAE.from_pretrained(name, dtype=torch.float32)
    raise ValueError(f"`{name}` is of the type `{model_type}`: name a `ditar_vae` or a `ditar` model")
