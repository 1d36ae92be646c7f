"""Options that several commands have; what is not given is left to `AudioSource` and `FilterArguments`."""

from typing import Annotated

import typer

DataArgument = Annotated[
    str, typer.Argument(help="A folder, tar files (a pattern in quotes), or with `--format datasets` a Hub id.")
]
FormatOption = Annotated[
    str | None,
    typer.Option(
        help="metadata, ljspeech, libritts, librilight, libriheavy, files, webdataset, datasets; by default looked up."
    ),
]
NameOption = Annotated[str | None, typer.Option(help="Configuration of a Hub data set.")]
SplitOption = Annotated[str | None, typer.Option(help="Split of a Hub data set; `train` if not given.")]
RevisionOption = Annotated[str | None, typer.Option(help="Revision of a Hub data set.")]
StreamingOption = Annotated[bool, typer.Option(help="Read a Hub data set as it arrives, without a copy.")]
AudioColumnOption = Annotated[str | None, typer.Option(help="Column of the audio, if not `audio`.")]
TextColumnOption = Annotated[str | None, typer.Option(help="Column of the text, if not `text`.")]
SpeakerColumnOption = Annotated[str | None, typer.Option(help="Column of the speaker, if not `speaker`.")]
LanguageColumnOption = Annotated[str | None, typer.Option(help="Column of the language, if not `language`.")]
LanguageOption = Annotated[str | None, typer.Option(help="Language of all rows that do not name their own.")]
AudioDirOption = Annotated[
    str | None, typer.Option(help="Folder of Libri-light, for the paths in manifests of libriheavy.")
]
DeviceOption = Annotated[
    str | None, typer.Option(help="Where to compute: cpu, cuda, mps … Not given: a GPU if there is one.")
]
LanguagesOption = Annotated[
    list[str] | None, typer.Option(help="Use rows of this language only; give it once for each.")
]
MinDnsmosOption = Annotated[float | None, typer.Option(help="Lowest DNSMOS, from 1 to 5, that is used.")]
MinSecondsOption = Annotated[float | None, typer.Option(help="Shortest recording that is used.")]
MaxCharactersPerSecondOption = Annotated[
    float | None, typer.Option(help="Longest text for its audio; 50 if not given.")
]
MinCharactersPerSecondOption = Annotated[
    float | None, typer.Option(help="Shortest text for its audio; 2 if not given.")
]
RequireTextOption = Annotated[bool, typer.Option(help="Leave out rows without a text.")]
MinSamplingRateOption = Annotated[
    int | None, typer.Option(help="Recordings of a lower rate, in Hz, are left out; 16000 if not given.")
]
