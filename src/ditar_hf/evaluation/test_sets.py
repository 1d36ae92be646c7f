"""Test sets of zero-shot speech synthesis: what is to be said, in whose voice, as published lists have it."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER_COLUMNS = ("id", "text", "prompt_audio", "prompt_text", "target_audio")


@dataclass(frozen=True)
class TestItem:
    """
    One utterance to be synthesised.

    Args:
        id (`str`): Names it and its files.
        text (`str`): What is to be said.
        prompt_audio (`Path`, *optional*): A recording of the voice to say it in.
        prompt_text (`str`, *optional*): What is said in that recording.
        target_audio (`Path`, *optional*): The text as that person really says it.
    """

    __test__ = False  # is no test of pytest's

    id: str
    text: str
    prompt_audio: Path | None = None
    prompt_text: str | None = None
    target_audio: Path | None = None


@dataclass(frozen=True)
class TestSet:
    """
    A format of lists, and what the figures of the set are measured by.

    Args:
        read (`Callable`): From the list and the folder that its recordings lie in to rows of `(line number, item)`.
        protocol (`str`): Of word error, a name of `WORD_ERROR_PROTOCOLS`.
        encoder (`str`): Of speaker similarity, a name of `SPEAKER_ENCODERS`.
        about (`str`): What it is, in one line.
    """

    __test__ = False

    read: Callable[[Path, Path], Iterator[tuple[int, TestItem]]]
    protocol: str
    encoder: str
    about: str


def read_test_set(name: str, path: str | Path, audio_root: str | Path | None = None) -> list[TestItem]:
    """
    The items of a test set; all their recordings are there.

    Args:
        name (`str`): One of `TEST_SETS`.
        path (`str` or `Path`): The list.
        audio_root (`str` or `Path`, *optional*): Where its recordings lie; beside the list by default.

    Returns:
        `list[TestItem]` in the order of the list.

    Raises:
        ValueError: If the set is not known, the list is missing or empty, or a line has another number of fields, no
            text, an id that cannot name a file or was there before, or a recording that is missing; the message names
            the line.
    """
    if name not in TEST_SETS:
        raise ValueError(f"`name` {name!r} is no test set. Name one of {', '.join(TEST_SETS)}.")
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"`path`: there is no list {path}.")
    items, lines = [], {}
    try:
        for line, item in TEST_SETS[name].read(path, Path(audio_root or path.parent)):
            problem = _problem(item, lines)
            if problem is not None:
                raise ValueError(f"`path`: {path}, line {line}: {problem}. Mend the line or leave it out.")
            lines[item.id.casefold()] = line
            items.append(item)
    except UnicodeDecodeError as error:
        raise ValueError(f"`path`: {path} is no text in UTF-8 ({error.reason}). Convert it first.") from error
    if not items:
        raise ValueError(f"`path`: {path} is empty.")
    return items


def _problem(item: TestItem, lines: dict[str, int]) -> str | None:
    if not item.text.strip():
        return "there is no text to say"
    is_name = item.id == Path(item.id).name and item.id.isprintable() and len(item.id.encode()) <= 200
    if not item.id or not is_name or item.id.startswith("."):
        return f"the id {item.id!r} cannot name a file"
    if item.id.casefold() in lines:  # not every disk tells capital letters
        return f"the id {item.id!r} was there in line {lines[item.id.casefold()]}"
    if (item.prompt_audio is None) != (item.prompt_text is None):
        return "a prompt needs both its recording and its text"
    for audio in (item.prompt_audio, item.target_audio):
        if audio is not None and not audio.is_file():
            return f"there is no recording {audio}"
    return None


def _fields(path: Path, separator: str, counts: tuple[int, ...]) -> Iterator[tuple[int, list[str]]]:
    with open(path, encoding="utf-8-sig") as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            fields = [field.strip() for field in text.rstrip("\r\n").split(separator)]
            if len(fields) not in counts:
                expected = " or ".join(map(str, counts))
                raise ValueError(
                    f"`path`: {path}, line {line}: it has {len(fields)} fields between {separator!r} and should have "
                    f"{expected}. Mend the line or leave it out."
                )
            yield line, fields


def _read_librispeech_pc(path: Path, audio_root: Path) -> Iterator[tuple[int, TestItem]]:
    """`ref_utt, ref_dur, ref_txt, gen_utt, gen_dur, gen_txt` between tabs; audio as LibriSpeech has it."""

    def audio(utterance: str) -> Path:
        speaker, chapter = (utterance.split("-") + ["", ""])[:2]
        return audio_root / speaker / chapter / f"{utterance}.flac"

    for line, (prompt, _, prompt_text, target, _, text) in _fields(path, "\t", (6,)):
        # an utterance may be said in more than one voice prompt
        yield line, TestItem(f"{prompt}_{target}", text, audio(prompt), prompt_text, audio(target))


def _read_seed(path: Path, audio_root: Path) -> Iterator[tuple[int, TestItem]]:
    """`utt|prompt_text|prompt_wav|text[|target_wav]`; without the last, `wavs/<utt>.wav` if it is there."""
    for line, (utterance, prompt_text, prompt, text, *target) in _fields(path, "|", (4, 5)):
        if target:
            target_audio = audio_root / target[0]
        else:
            target_audio = audio_root / "wavs" / f"{utterance}.wav"
            target_audio = target_audio if target_audio.is_file() else None
        yield line, TestItem(utterance, text, audio_root / prompt, prompt_text, target_audio)


def _read_folder(path: Path, audio_root: Path) -> Iterator[tuple[int, TestItem]]:
    """A CSV file with the columns `id` and `text`; `prompt_audio`, `prompt_text`, `target_audio` may be there too."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            columns = reader.fieldnames or []
        except csv.Error as error:
            raise ValueError(f"`path`: {path}, line 1: {error}. Mend the line.") from error
        for name in ("id", "text"):
            if name not in columns:
                raise ValueError(f"`path`: {path} has no column `{name}`.")
        if len(set(columns)) < len(columns):
            raise ValueError(f"`path`: {path} has a column twice: {', '.join(columns)}. Take one out.")
        if unknown := [name for name in columns if name not in FOLDER_COLUMNS]:
            # a misspelt one would change what is measured
            raise ValueError(
                f"`path`: {path} has a column {unknown[0]!r}, which is not known. Take it out, or name it as one of "
                f"{', '.join(FOLDER_COLUMNS)}."
            )
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise csv.Error("it has another number of fields than the first line")
                prompt, target = (row.get(name) or None for name in ("prompt_audio", "target_audio"))
                yield (
                    reader.line_num,
                    TestItem(
                        row["id"],
                        row["text"],
                        None if prompt is None else audio_root / prompt,
                        row.get("prompt_text") or None,
                        None if target is None else audio_root / target,
                    ),
                )
        except csv.Error as error:
            raise ValueError(
                f"`path`: {path}, line {reader.line_num}: {error}. Mend the line or leave it out."
            ) from error


def _read_sentences(path: Path, audio_root: Path) -> Iterator[tuple[int, TestItem]]:
    """A sentence in each line, said in the model's own voice."""
    for line, (text,) in _fields(path, "\n", (1,)):
        yield line, TestItem(f"{line:04d}", text)


TEST_SETS: dict[str, TestSet] = {
    "librispeech-pc": TestSet(
        _read_librispeech_pc,
        "librispeech-pc",
        "wavlm-large-sv",
        "LibriSpeech-PC test-clean, subset B of the paper: the cross-sentence list of F5-TTS",
    ),
    "librispeech-a": TestSet(
        _read_seed,
        "librispeech-a",
        "wavlm-large-sv",
        "as subset A of the paper, whose list is not public: a list of yours, in the format of seed-tts-eval",
    ),
    "seed-en": TestSet(_read_seed, "seed-en", "wavlm-large-sv", "seed-tts-eval, English: en/meta.lst"),
    "seed-zh": TestSet(
        _read_seed, "seed-zh", "wavlm-large-sv", "seed-tts-eval, Mandarin: zh/meta.lst, or zh/hardcase.lst"
    ),
    "folder": TestSet(_read_folder, "offline-en", "resemblyzer", "a CSV file of yours, with or without voice prompts"),
    "sentences": TestSet(_read_sentences, "offline-en", "resemblyzer", "a text file of yours, a sentence a line"),
}
