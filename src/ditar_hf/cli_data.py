"""Commands of data before training: what is in it, and texts for speech without. Heavy packages are imported late."""

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .cli_common import exits_with_2, find_device, given, note
from .cli_vae import (
    AudioColumnOption,
    AudioDirOption,
    DataArgument,
    DeviceOption,
    FormatOption,
    LanguageColumnOption,
    LanguageOption,
    NameOption,
    RevisionOption,
    SpeakerColumnOption,
    SplitOption,
    StreamingOption,
    TextColumnOption,
)

if TYPE_CHECKING:
    import torch

    from ditar_hf import DiTARProcessor

    from .training.inspection import Inspection

REPORT_FILE, PICTURE_FILE = "report.json", "histogram.png"
MOST_LISTED = 12  # of languages, rates and phones in the printed report; report.json has them all
LENGTHS = {
    "headers": "by the files' headers",
    "decoded": "as decoded",
    "trimmed": "as decoded, without the silence at their ends",
}
MinSamplingRateOption = Annotated[
    int | None, typer.Option(help="Recordings of a lower rate, in Hz, are left out; 16000 if not given.")
]
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
    languages: Annotated[
        list[str] | None, typer.Option(help="Use rows of this language only; give it once for each.")
    ] = None,
    min_dnsmos: Annotated[float | None, typer.Option(help="Lowest DNSMOS, from 1 to 5, that is used.")] = None,
    min_seconds: Annotated[float | None, typer.Option(help="Shortest recording that is used.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Longest recording that is used.")] = None,
    max_characters_per_second: Annotated[
        float | None, typer.Option(help="Longest text for its audio; 50 if not given.")
    ] = None,
    min_sampling_rate: MinSamplingRateOption = None,
    require_text: Annotated[bool, typer.Option(help="Leave out rows without a text.")] = True,
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
        from .evaluation.vae_report import new_folder
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
        )
        filters = FilterArguments(require_text=require_text, **of_filters)
        examples = ExampleArguments(**given(min_sampling_rate=min_sampling_rate))
        _refuse_inside(out, data)
        processor = None if model is None else _load_processor(model)
        with nullcontext() if out is None else new_folder(out) as folder:
            inspection = inspect_source(source, filters, processor, examples, decode=decode, limit=limit)
            report = inspection.summarize()
            if folder is not None:
                settings = {"source": vars(source), "filters": vars(filters), "examples": vars(examples)}
                _write_report(folder, inspection, {**report, **settings, "model": model})
    for line in _report_lines(data, report):
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
        totals = transcribe_source(source, recognizer, out, asr_options=options, **settings)["totals"]
    rejected = f"; {totals['num_rejected']} rejected, see rejected.jsonl" if totals["num_rejected"] else ""
    typer.echo(f"{out}: {totals['num_rows']} rows, {totals['hours']:.2f} hours of speech{rejected}")


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


def _report_lines(name: str, report: Mapping[str, Any]) -> Iterator[str]:
    """The report to be read: short, and the most important first."""
    num_rows, of_source = report["num_rows"], report["num_source_rows"]
    read = f"{num_rows:,}" if of_source in (None, num_rows) else f"{num_rows:,} of {of_source:,}"
    yield f"{name}: {read} rows read, {report['num_usable_rows']:,} usable: {_duration(report['hours'])} of speech"
    if report["num_usable_rows"]:
        yield from _usable_lines(report)
    if report["unknown_phones"]:
        parts = (f"{_with_codes(phone)} {count:,}" for phone, count in report["unknown_phones"].items())
        yield f"outside the vocabulary: {_listed(parts)}"
    if report["num_rejected"]:
        yield f"rejected: {report['num_rejected']:,} rows"
        for entry in report["rejected"]:
            # a reason with numbers or names is told in full for the example
            detail = "" if entry["example_reason"] == entry["reason"] else f" ({entry['example_reason']})"
            yield f"  {entry['num_rows']:>9,}  {entry['reason']}; such as {entry['example_id']}{detail}"


def _usable_lines(report: Mapping[str, Any]) -> Iterator[str]:
    speakers = report["speakers"]
    without = f"; {speakers['num_rows_without']:,} rows name none" if speakers["num_rows_without"] else ""
    if speakers["num_speakers"]:
        largest = f"; the largest, {speakers['largest']}, has {speakers['largest_share']:.1%} of the hours"
        yield f"speakers: {speakers['num_speakers']:,}{largest}{without}"
    else:
        yield "speakers: no row names one"
    yield "languages: " + _listed(
        f"{entry['language'] or 'not named'} {entry['num_rows']:,} rows, {_duration(entry['hours'])}"
        for entry in report["languages"]
    )
    yield "sampling rates: " + _listed(
        f"{entry['sampling_rate']:,} Hz {entry['num_rows']:,} rows" for entry in report["sampling_rates"]
    )
    names = ("seconds", "characters_per_second", "tokens_per_second")
    tables = {name.replace("_", " "): report[name] for name in names if report[name] is not None}
    yield f"{'':21}" + "".join(f"{quantile:>9}" for quantile in report["seconds"])
    for label, quantiles in tables.items():
        yield f"{label:21}" + "".join(f"{value:>9.2f}" for value in quantiles.values())
    yield f"lengths are {LENGTHS[report['lengths']]}"


def _with_codes(phone: str) -> str:
    # some are marks that cannot be seen alone
    return f"{phone!r} ({' '.join(f'U+{ord(char):04X}' for char in phone)})"


def _duration(hours: float) -> str:
    return f"{hours:,.2f} hours" if hours >= 1 else f"{hours * 60:.2f} minutes"


def _listed(parts: Iterator[str]) -> str:
    parts = list(parts)
    more = f"; and {len(parts) - MOST_LISTED:,} more" if len(parts) > MOST_LISTED else ""
    return "; ".join(parts[:MOST_LISTED]) + more


def _write_report(folder: Path, inspection: "Inspection", report: Mapping[str, Any]) -> None:
    report = {"command": shlex.join(["ditar", *sys.argv[1:]]), **report}
    (folder / REPORT_FILE).write_text(f"{json.dumps(report, ensure_ascii=False, indent=2)}\n", encoding="utf-8")
    if not inspection.seconds:
        return  # nothing to draw
    from .plotting import draw_histograms

    title = f"{report['num_usable_rows']:,} recordings, {_duration(report['hours'])}"
    speaker_hours = [seconds / 3600 for seconds in inspection.speaker_seconds.values()]
    try:
        draw_histograms(inspection.seconds, speaker_hours, title).savefig(folder / PICTURE_FILE, dpi=120)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "matplotlib":
            raise
        note('no picture without matplotlib: pip install "ditar-hf[plot]"')
