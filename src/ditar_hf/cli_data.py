"""Commands of data before training: what is in it, and texts for speech without. Heavy packages are imported late."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .cli_common import describe_totals, errors_only, exits_with_2, find_device, given, note
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
from .cli_report import PICTURE_FILE, REPORT_FILE, report_lines, write_report

if TYPE_CHECKING:
    import torch

    from ditar_hf import DiTARProcessor

TOKENIZER_LOGGER = "ditar_hf.modeling.tokenization_ditar"
PREPARE_EXAMPLES = """
Examples:

ditar prepare path/to/recordings --out report

ditar prepare "Emilia/EN/*.tar" --languages en --min-dnsmos 3 --limit 10000

ditar prepare my_voice --model hub_cards/ditar-tiny-en --decode
"""

app = typer.Typer()


@app.command(epilog=PREPARE_EXAMPLES)
def prepare(
    data: DataArgument,
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
    max_seconds: Annotated[float | None, typer.Option(help="Longest recording that is used.")] = None,
    max_characters_per_second: MaxCharactersPerSecondOption = None,
    min_characters_per_second: MinCharactersPerSecondOption = None,
    min_sampling_rate: MinSamplingRateOption = None,
    require_text: RequireTextOption = True,
    model: Annotated[
        str | None,
        typer.Option(help="Folder or Hub id of a model, or of its processor: try its phonemizer, count its tokens."),
    ] = None,
    decode: Annotated[bool, typer.Option(help="Decode all audio, rather than read the files' headers.")] = False,
    limit: Annotated[
        int | None, typer.Option(help="Read so many rows, spread over a data set, or the first of a stream.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help=f"New folder for {REPORT_FILE} and {PICTURE_FILE}.")] = None,
) -> None:
    """Say what a source of speech holds, and which rows cannot be used and why; nothing in it is changed."""
    # data is read while it is inspected, so bad input shows only there
    with exits_with_2(ValueError, OSError):
        from .folders import new_folder
        from .training.data import AudioSource
        from .training.examples import ExampleArguments
        from .training.filters import FilterArguments
        from .training.inspection import inspect_source

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
        examples = ExampleArguments(**given(min_sampling_rate=min_sampling_rate))
        _refuse_inside(out, data)
        processor = None if model is None else _load_processor(model)
        with nullcontext() if out is None else new_folder(out) as folder:
            # the report names the symbols outside the vocabulary, all of them
            with errors_only(TOKENIZER_LOGGER):
                inspection = inspect_source(source, filters, processor, examples, decode=decode, limit=limit)
            report = inspection.summarize()
            if folder is not None:
                settings = {"source": vars(source), "filters": vars(filters), "examples": vars(examples)}
                write_report(folder, inspection, {**report, **settings, "model": model})
    for line in report_lines(data, report):
        typer.echo(line)
    if not report["num_usable_rows"]:
        note("no row can be used")
    if out is not None:
        typer.echo(f"{out}: {' and '.join(sorted(file.name for file in out.iterdir()))}")


@app.command()
def transcribe(
    data: DataArgument,
    out: Annotated[Path, typer.Argument(help="Folder of tar files: new, or one to be completed.")],
    asr: Annotated[
        str, typer.Option(help="Folder or Hub id of a speech recogniser, such as openai/whisper-large-v3.")
    ],
    format: FormatOption = None,
    name: NameOption = None,
    split: SplitOption = None,
    revision: RevisionOption = None,
    streaming: StreamingOption = False,
    audio_column: AudioColumnOption = None,
    speaker_column: SpeakerColumnOption = None,
    language_column: LanguageColumnOption = None,
    language: Annotated[
        str | None,
        typer.Option(
            help="Language of all rows that do not name their own, and what a multilingual recogniser hears."
        ),
    ] = None,
    audio_dir: AudioDirOption = None,
    min_seconds: Annotated[float | None, typer.Option(help="Shorter segments are left out; 0.5 if not given.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Longest segment; 30 if not given.")] = None,
    max_gap_seconds: Annotated[
        float | None, typer.Option(help="Longest pause within a segment of Libri-light; 1 if not given.")
    ] = None,
    min_sampling_rate: MinSamplingRateOption = None,
    segments_per_shard: Annotated[int | None, typer.Option(help="Segments of a tar file; 500 if not given.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Segments recognised at once; 8 if not given.")] = None,
    device: DeviceOption = None,
) -> None:
    """Make training data of speech without texts, by a recogniser; run it again to complete what was stopped."""
    # data is read while it is transcribed, so bad input shows only there
    with exits_with_2(ValueError, OSError):
        from .training.data import AudioSource
        from .training.transcription import transcribe_source

        of_source = given(
            format=format,
            name=name,
            split=split,
            revision=revision,
            audio_column=audio_column,
            speaker_column=speaker_column,
            language_column=language_column,
            language=language,
            audio_dir=audio_dir,
        )
        source = AudioSource(data, streaming=streaming, **of_source)
        _refuse_inside(out, data)
        source.resolve_format()  # before a recogniser is loaded for nothing
        settings = given(
            min_seconds=min_seconds,
            max_seconds=max_seconds,
            max_gap_seconds=max_gap_seconds,
            min_sampling_rate=min_sampling_rate,
            segments_per_shard=segments_per_shard,
            batch_size=batch_size,
        )
        recognizer = _load_recognizer(asr, find_device(device))
        options = _options_of(recognizer, asr, language)
        folder = transcribe_source(source, recognizer, out, asr_options=options, **settings)
    typer.echo(describe_totals(out, folder["totals"]))


def _refuse_inside(out: Path | None, data: str) -> None:
    if out is not None and Path(data).is_dir() and out.resolve().is_relative_to(Path(data).resolve()):
        raise ValueError(f"`out` is {out}, within {data}, where it would be taken for data: name another folder")


def _load_processor(name: str) -> "DiTARProcessor":
    from ditar_hf import DiTARProcessor

    try:
        return DiTARProcessor.from_pretrained(name)
    except Exception as error:
        # any exception: which one another folder ends in is up to the loaders of several libraries
        raise ValueError(f"`--model`: there is no processor of DiTAR in {name}: {error}") from error


def _load_recognizer(name: str, device: "torch.device") -> Callable[..., Any]:
    from transformers import pipeline

    # its path is written down, and shall be the same from whatever folder the command is called
    path = os.path.abspath(name) if os.path.isdir(name) else name
    try:
        return pipeline("automatic-speech-recognition", model=path, device=device)
    except (OSError, ValueError, KeyError) as error:
        # some of what the library says does not name the model
        raise ValueError(f"`--asr`: the recogniser {name} cannot be loaded: {error}") from error


def _options_of(recognizer: Any, name: str, language: str | None) -> dict[str, Any]:
    """What a call of the recogniser is told of the language: nothing where it does not ask for it."""
    config = getattr(recognizer.model, "generation_config", None)
    if language is None or not getattr(config, "is_multilingual", False):
        return {}
    code = language.lower().partition("-")[0]
    if f"<|{code}|>" not in getattr(config, "lang_to_id", {}):
        raise ValueError(f"`--language` is {language}, which {name} does not know: give a code such as `en`")
    return {"generate_kwargs": {"language": code, "task": "transcribe"}}
