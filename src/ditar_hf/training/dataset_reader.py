"""Reader of the format `"datasets"` of [`AudioSource`]: whatever the library `datasets` reads, columns renamed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import (
    Audio,
    Dataset,
    DatasetInfo,
    Features,
    IterableDataset,
    concatenate_datasets,
    load_dataset,
    load_from_disk,
)
from datasets.exceptions import DatasetGenerationError

from .folder_readers import require_column
from .schema import EXAMPLE_FEATURES, TEXT_FIELDS, as_number, as_text, make_example

if TYPE_CHECKING:
    from .data import AudioSource

# by what names a column goes: ours, and that of Emilia and many others
ID_COLUMNS = ("id", "_id")
NUMBER_COLUMNS = {
    "start_seconds": ("start_seconds",),
    "duration_seconds": ("duration_seconds", "duration"),
    "dnsmos": ("dnsmos",),
}


def read_dataset(source: "AudioSource") -> Dataset | IterableDataset:
    """
    Rows of a data set.

    Args:
        source ([`AudioSource`]): Its path, configuration, split, revision and names of columns.

    Returns:
        `datasets.Dataset`, or with `streaming` a `datasets.IterableDataset`, in the columns of `EXAMPLE_FEATURES`.

    Raises:
        ValueError: If a split or the column of the audio is missing, there is no row, or `datasets` needs torchcodec
            for it.
    """
    rows = _load(source)
    columns = rows.column_names or list(rows.features or next(iter(rows)))
    require_column(source.audio_column, columns, source.path)
    # one that was saved with a format would come back in it
    rows = rows.with_format(None).cast_column(source.audio_column, Audio(decode=False))
    names = {name: getattr(source, f"{name}_column") for name in TEXT_FIELDS}
    for name, candidates in {"id": ID_COLUMNS, **NUMBER_COLUMNS}.items():
        names[name] = next((column for column in candidates if column in columns), candidates[0])
    if isinstance(rows, Dataset):
        return _rename_columns(rows, names, source)

    def to_schema(row: dict[str, Any], index: int) -> dict[str, Any]:
        fields = {name: row.get(column) for name, column in names.items()}
        fields["language"] = as_text(fields["language"]) or source.language
        audio = row[source.audio_column] or {}
        # numbers alone would repeat where several processes share the stream
        identifier = as_text(fields.pop("id")) or audio.get("path") or f"{index:08d}"
        return make_example(identifier, path=audio.get("path"), content=audio.get("bytes"), **fields)

    return rows.map(to_schema, with_indices=True, remove_columns=columns, features=EXAMPLE_FEATURES)


def _load(source: "AudioSource") -> Dataset | IterableDataset:
    folder = Path(source.path)
    if not any((folder / name).is_file() for name in ("dataset_info.json", "dataset_dict.json")):
        with _naming_torchcodec(source.path):
            rows = load_dataset(
                source.path, source.name, split=source.split, revision=source.revision, streaming=source.streaming
            )
            # of a stream only the first row tells; what is in Parquet needs no torchcodec
            if source.streaming and rows.info.builder_name != "parquet":
                next(iter(rows), None)
        return rows
    rows = load_from_disk(source.path)
    if not isinstance(rows, dict):
        return rows
    if source.split not in rows:
        splits = ", ".join(f"`{name}`" for name in rows)
        raise ValueError(f"{source.path} has no split `{source.split}`; it has {splits}.")
    return rows[source.split]


@contextmanager
def _naming_torchcodec(path: str) -> Iterator[None]:
    """Where `datasets` itself makes rows of audio files it wants torchcodec, though nothing is decoded."""
    try:
        yield
    except (DatasetGenerationError, ImportError) as error:
        if "torchcodec" not in f"{error} {error.__cause__}":
            raise
        raise ValueError(
            f"`format` is 'datasets', and of {path} the library `datasets` makes rows by torchcodec, which is not "
            "installed. Leave `format` out for a folder on the disk with a metadata.csv or for tar files, or use a "
            "data set in Parquet."
        ) from error


def _rename_columns(rows: Dataset, names: dict[str, str], source: "AudioSource") -> Dataset:
    """The rows in the columns of `EXAMPLE_FEATURES`; audio stays where it is on the disk, and is not copied."""
    if not len(rows):
        raise ValueError(f"`path`: there is no speech in {source.path}.")
    stated = {
        name: rows[column][:] if column in rows.column_names else [None] * len(rows) for name, column in names.items()
    }
    fields = {name: map(as_number if name in NUMBER_COLUMNS else as_text, values) for name, values in stated.items()}
    fields["language"] = (value or source.language for value in fields["language"])
    fields["id"] = (value or f"{index:08d}" for index, value in enumerate(fields["id"]))
    features = Features({name: EXAMPLE_FEATURES[name] for name in fields})
    table = Dataset.from_dict({name: list(values) for name, values in fields.items()}, features=features)
    audio = rows.select_columns([source.audio_column]).rename_columns({source.audio_column: "audio"})
    joined = concatenate_datasets([table, audio], axis=1).select_columns(list(EXAMPLE_FEATURES))
    # an undecoded audio column is stored as bytes and path: only what the table says of itself differs
    return Dataset(joined.data.replace_schema_metadata(None), info=DatasetInfo(features=EXAMPLE_FEATURES))
