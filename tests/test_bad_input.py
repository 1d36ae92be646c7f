"""
What a user can get wrong, at each door, and the message for it; docs/bad_input.md is written from these cases.

`DITAR_WRITE_DOCS=1 python -m pytest tests/test_bad_input.py` writes the page anew.
"""

import io
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from transformers import pipeline
from typer.testing import CliRunner

from ditar_hf import DiTARForTextToSpeech, DiTARProcessor, DiTARTextToSpeechPipeline, DiTARTokenizer
from ditar_hf.cli import app
from ditar_hf.demo_speech import RECORDING, DemoSpeaker

PAGE = Path(__file__).resolve().parents[1] / "docs" / "bad_input.md"
RATE = 24_000
TEXT = "The quick brown fox."
FIXED = {"temperature": 0.0, "num_inference_steps": 2, "max_new_tokens": 3, "min_new_tokens": 3}


def tone(seconds: float, rate: int = RATE) -> np.ndarray:
    return (np.sin(2 * np.pi * 180 * np.arange(round(seconds * rate)) / rate) / 2).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """
    Something wrong with what is to be said.

    Args:
        what (`str`): In words.
        doors (`str`): Where it is tried: `model`, `processor`, `pipeline`, `command`, `demo`.
        text (`Any`): To speak.
        inputs (`dict`): Of the processor; files are those of `files`.
        settings (`dict`): Of `generate`.
    """

    what: str
    doors: str
    text: Any = TEXT
    inputs: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


ALL = "processor pipeline command demo"
LIBRARY = "processor pipeline"
SETTINGS = "model pipeline"
SAID = {"prompt_text": "The lazy fox."}


def recorded(audio: Any, **others: Any) -> dict[str, Any]:
    return {"prompt_audio": audio, "sampling_rate": RATE, **SAID, **others}


CASES = [
    Case("no text", ALL, ""),
    Case("a text of spaces", ALL, " \n "),
    Case("only punctuation", ALL, "?!"),
    Case("only an emoji", ALL, "🦊"),
    Case("a text that is too long", LIBRARY, "hello " * 500),
    Case("a text that is too long with its voice", LIBRARY, "hello " * 500, {"voice": "ada"}),
    Case("something that is no text", LIBRARY + " demo", 3.5),
    Case("a control token in the text", LIBRARY, "Hi <audio_patch>", {"phonemize": False}),
    Case("half of a surrogate pair", LIBRARY, "hi \ud800"),
    Case("a list of texts without any", "processor", []),
    Case("whether to phonemise, in words", LIBRARY, TEXT, {"phonemize": "no"}),
    Case("a language that espeak-ng does not know", ALL, TEXT, {"language": "tlh"}),
    Case("a language that the vocabulary was not built for", ALL, TEXT, {"language": "fr"}),
    Case("a voice that is not there", LIBRARY + " command", TEXT, {"voice": "eve"}),
    Case("a voice and a recording", LIBRARY, TEXT, {"voice": "ada", **recorded(tone(1))}),
    Case("a recording without its transcript", LIBRARY, TEXT, {"prompt_audio": "voice.wav"}),
    Case(
        "a recording with an empty transcript", "processor pipeline demo", TEXT, recorded("voice.wav", prompt_text="")
    ),
    Case("a transcript without its recording", LIBRARY + " command", TEXT, SAID),
    Case("a transcript of punctuation", ALL, TEXT, recorded("voice.wav", prompt_text="…")),
    Case("a recording that does not exist", LIBRARY + " command", TEXT, recorded("missing.wav")),
    Case("a file that is no audio", ALL, TEXT, recorded("letter.wav")),
    Case("a file that is cut off in its header", ALL, TEXT, recorded("torn.flac")),
    Case("a file without samples", LIBRARY + " command", TEXT, recorded("empty.wav")),
    Case("bytes that are no audio", LIBRARY, TEXT, recorded(b"Dear Sir")),
    Case("a recording of 0.1 s", ALL, TEXT, recorded("short.wav")),
    Case("a recording of 31 s", ALL, TEXT, recorded("long.wav")),
    Case("a silent recording", ALL, TEXT, recorded("silent.wav")),
    Case("a recording with NaN", ALL, TEXT, recorded("nan.wav")),
    Case("samples that reach ±2,000", LIBRARY, TEXT, recorded(4_000 * tone(1))),
    Case("samples of type int8", LIBRARY, TEXT, recorded(np.ones(RATE, np.int8))),
    Case("samples in two channels", LIBRARY, TEXT, recorded(np.stack([tone(1)] * 2))),
    Case("a sparse tensor", LIBRARY, TEXT, recorded(torch.from_numpy(tone(1)).to_sparse())),
    Case("a file that is open", LIBRARY, TEXT, recorded(io.BytesIO())),
    Case("samples without their rate", LIBRARY, TEXT, recorded(tone(1), sampling_rate=None)),
    Case("a rate of 0", LIBRARY, TEXT, recorded(tone(1), sampling_rate=0)),
    Case("a rate that makes it too short", LIBRARY, TEXT, recorded(tone(1), sampling_rate=96_000)),
    Case("another rate than the file's own", LIBRARY, TEXT, recorded("voice.wav", sampling_rate=16_000)),
    Case("an audio dictionary without samples", LIBRARY, TEXT, recorded({"samples": tone(1)})),
    Case("fewer recordings than texts", "processor", [TEXT] * 3, recorded([tone(1)])),
    Case("a row with half a prompt", "processor", [TEXT] * 2, recorded([tone(1), None], prompt_text=["The fox."] * 2)),
    Case("an item without a text", "pipeline", {"voice": "ada"}),
    Case("an item with an unknown key", "pipeline", {"text": TEXT, "speaker": "ada"}),
    Case("a seed that is no whole number", "pipeline demo", TEXT, {"seed": 1.5}),
    Case("a seed for `generate`", "model", settings={"seed": 1}),
    Case("a number for a generator", SETTINGS, settings={"generator": 1}),
    Case("a streamer that cannot take anything", SETTINGS, settings={"streamer": print}),
    Case("settings in a dictionary", "model", settings={"generation_config": {"temperature": 0.5}}),
    Case("ids in a list", "model", settings={"input_ids": [[4, 2]]}),
    Case("ids that are no whole numbers", "model", settings={"input_ids": torch.ones(1, 5)}),
    Case("an id that the model does not know", "model", settings={"input_ids": torch.tensor([[9_999, 2]])}),
    Case("samples of a prompt as whole numbers", "model", settings={"prompt_values": torch.ones(1, 2_400).long()}),
    Case("arguments that are no dictionary", "pipeline", settings={"preprocess_params": 5}),
    Case("an argument of no processor", "pipeline", settings={"preprocess_params": {"speaker": "ada"}}),
    Case("a negative seed", "pipeline command demo", TEXT, {"seed": -1}),
    Case("a seed and a generator", "pipeline", TEXT, {"seed": 1}, {"generator": torch.Generator()}),
    Case("a temperature above 1", SETTINGS + " command demo", settings={"temperature": 2.0}),
    Case("a temperature that is NaN", SETTINGS + " command demo", settings={"temperature": float("nan")}),
    Case("guidance below 1", SETTINGS + " command demo", settings={"guidance_scale": 0.5}),
    Case("guidance that nothing finite comes out of", SETTINGS + " command demo", settings={"guidance_scale": 1e30}),
    Case("no steps", SETTINGS + " command demo", settings={"num_inference_steps": 0}),
    Case("more steps than anybody waits for", SETTINGS + " command demo", settings={"num_inference_steps": 10**6}),
    Case("half a step", SETTINGS, settings={"num_inference_steps": 2.5}),
    Case("a longest speech of nothing", SETTINGS, settings={"max_new_tokens": 0}),
    Case("a shortest speech above the longest", SETTINGS, settings={"min_new_tokens": 9, "max_new_tokens": 3}),
    Case("more patches than positions", SETTINGS, settings={"min_new_tokens": 9_000, "max_new_tokens": 9_000}),
    Case("a setting of other models", SETTINGS, settings={"top_k": 50}),
    Case("a misspelt setting", SETTINGS, settings={"guidance": 2.0}),
    Case("a scheduler of other models", SETTINGS, settings={"noise_scheduler": object()}),
]


def edit(name: str, **changes: Any) -> Callable[[Path], None]:
    """Changes a JSON file of a folder."""

    def change(folder: Path):
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**values, **changes}))

    return change


def edit_weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    """Changes the weights of a folder."""

    def edited(folder: Path):
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return edited


def pickled(folder: Path):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def unlink(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def cut(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:1_000])


def write(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content) and None


def edit_prompts(**changes: Any) -> Callable[[Path], None]:
    """Changes what a folder says of prompts."""

    def change(folder: Path):
        values = json.loads((folder / "processor_config.json").read_text())["feature_extractor"]
        edit("processor_config.json", feature_extractor={**values, **changes})(folder)

    return change


# What is wrong with a folder: in words, where it shows (`model` and `processor` load by themselves), the change.
FOLDERS = [
    ("there is no such folder", "model processor pipeline command", lambda folder: shutil.rmtree(folder)),
    ("no config.json", "model command", unlink("config.json")),
    ("a config.json that is cut off", "model command", write("config.json", '{"model_type": "di')),
    ("a config.json that is a list", "model command", write("config.json", "[1]")),
    ("a precision that there is not", "model command", edit("config.json", dtype="float33")),
    ("a key that the configuration does not have", "model command", edit("config.json", patch_length=5)),
    ("a configuration of another model", "model command", edit("config.json", model_type="vits")),
    (
        "attention by code of the Hub in the configuration",
        "model command",
        edit("config.json", attn_implementation="kernels-community/flash-attn2"),
    ),
    ("parts that do not fit one another", "model command", edit("config.json", sampling_rate=16_000)),
    ("a file of a newer version, with a new key", "model command", edit("config.json", num_speakers=3)),
    ("no weights", "model command", unlink("model.safetensors")),
    ("weights in a pickle", "model command", pickled),
    ("weights that are cut off", "model command", cut("model.safetensors")),
    ("weights that are missing", "model", edit_weights(lambda weights: weights.pop("stop_head.weight"))),
    (
        "weights of another size",
        "model",
        edit_weights(lambda weights: weights.update({"stop_head.weight": torch.zeros(1, 9)})),
    ),
    ("settings that are cut off", "model", write("generation_config.json", '{"temp')),
    ("settings of other models", "model", edit("generation_config.json", top_k=5)),
    ("no processor", "processor pipeline command", unlink("processor_config.json")),
    ("a processor that is cut off", "processor", write("processor_config.json", '{"voi')),
    ("a processor that is null", "processor", write("processor_config.json", "null")),
    ("a key that prompts do not have", "processor", edit_prompts(loudness=1)),
    ("a word for a number", "processor", edit_prompts(hop_length="long")),
    ("a tokenizer that is a list", "processor", write("tokenizer_config.json", "[1]")),
    ("no vocabulary", "processor", unlink("vocab.json")),
    ("a vocabulary that is cut off", "processor", write("vocab.json", '{"<pad>": 0, ')),
    ("an empty vocabulary", "processor", write("vocab.json", "{}")),
    ("two tokens of one id", "processor", edit("vocab.json", **{"<pad>": 1, "<unk>": 1})),
    ("a voice whose recording was changed", "processor", lambda f: cut("voices/ada.wav")(f)),
]


@pytest.fixture(scope="module")
def known() -> dict:
    return {}


@pytest.fixture
def tiny(save_tiny, tmp_path_factory, known) -> dict[str, Any]:
    """A tiny model with a voice: its folder, and what is loaded from it; made once."""
    if not known:
        path = save_tiny(
            tmp_path_factory.mktemp("tiny"), DiTARTokenizer.from_texts({"en": [TEXT], "de": ["Guten Tag!"]})
        )
        processor = DiTARProcessor.from_pretrained(path)
        processor.add_voice("ada", tone(0.8), RATE, "Hello!")
        processor.save_pretrained(path)
        speak = pipeline("text-to-speech", model=str(path), pipeline_class=DiTARTextToSpeechPipeline)
        known.update(folder=path, speak=speak, demo=DemoSpeaker(speak.model, speak.processor))
    return known


@pytest.fixture
def files(tmp_path, monkeypatch) -> Path:
    """The current folder, with recordings good and bad."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "1000")
    nan = tone(1)
    nan[5] = np.nan
    recordings = {"voice": tone(1), "short": tone(0.1), "long": tone(31), "silent": 0 * tone(1), "nan": nan}
    for name, samples in {**recordings, "empty": tone(0)}.items():
        soundfile.write(f"{name}.wav", samples, RATE, subtype="FLOAT")
    Path("letter.wav").write_text("Dear Sir")
    soundfile.write("whole.flac", tone(1), RATE)
    Path("torn.flac").write_bytes(Path("whole.flac").read_bytes()[:20])
    return tmp_path


# The doors


def at_model(tiny, case):
    speak = tiny["speak"]
    speak.model.generate(**{**speak.processor(case.text), **FIXED, **case.settings})


def at_processor(tiny, case):
    tiny["speak"].processor(case.text, **case.inputs)


def at_pipeline(tiny, case):
    tiny["speak"](case.text, **case.inputs, **{**FIXED, **case.settings})


OPTIONS = {
    "voice": "--voice",
    "prompt_audio": "--voice",
    "prompt_text": "--voice-text",
    "language": "--language",
    "seed": "--seed",
    "temperature": "--temperature",
    "guidance_scale": "--guidance-scale",
    "num_inference_steps": "--steps",
}


def at_command(tiny, case):
    options = [
        part
        for name, value in {**case.inputs, **case.settings}.items()
        if name in OPTIONS
        for part in (f"{OPTIONS[name]}={value}",)
    ]
    say(["speak", *options, "--model", str(tiny["folder"]), "--", case.text])


def say(arguments):
    """A command that fails, whose message is raised; it is one line, and nothing is written."""
    before = set(Path.cwd().iterdir())
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output
    assert set(Path.cwd().iterdir()) == before
    if result.stderr.startswith("error: "):
        assert result.stderr.count("\n") == 1
        raise ValueError(result.stderr.removeprefix("error: ").strip())
    raise ValueError(re.search(r"Invalid value for .*?(?=\s*│)", result.stderr).group())


def at_demo(tiny, case):
    inputs = dict(case.inputs)
    recording, transcript = inputs.pop("prompt_audio", None), inputs.pop("prompt_text", None)
    inputs.pop("sampling_rate", None)
    voice = "ada" if recording is None else RECORDING
    tiny["demo"](case.text, voice, recording, transcript, True, **inputs, **case.settings)


DOORS = {
    "model": at_model,
    "processor": at_processor,
    "pipeline": at_pipeline,
    "command": at_command,
    "demo": at_demo,
}


def normalised(message: str, folder: str | Path) -> str:
    """Without what differs from machine to machine and from version to version of other packages."""
    message = message.replace(str(folder), "my-model").replace(str(Path.cwd()) + "/", "")
    message = re.sub(r"cannot be read \(.*?\): a file", "cannot be read (…): a file", message)
    message = re.sub(r"(cannot be read as audio): [^.]*\.( Take| Pass)", r"\1: ….\2", message)
    message = re.sub(
        r"(cannot load the model `./my-model`: )(?!'./my-model|`|it |the |there |in )[^`]*$", r"\1…", message
    )
    return re.sub(r"\s+", " ", message).strip()


def seen_of_case(tiny, case) -> dict[str, str]:
    """The message at each door."""
    seen = {}
    for door in case.doors.split():
        with pytest.raises(ValueError) as caught:
            DOORS[door](tiny, case)
        seen[door] = normalised(str(caught.value), tiny["folder"])
    return seen


def seen_of_folder(tiny, doors, change) -> dict[str, str]:
    """The message of each loader, of a copy of the folder with something wrong in it."""
    folder = "./my-model"  # as long everywhere, for `ditar speak` cuts messages off
    shutil.copytree(tiny["folder"], folder)
    change(Path(folder))
    loaders = {
        "model": lambda: DiTARForTextToSpeech.from_pretrained(folder),
        "processor": lambda: DiTARProcessor.from_pretrained(folder),
        "pipeline": lambda: pipeline("text-to-speech", model=folder, pipeline_class=DiTARTextToSpeechPipeline)(
            "Hello!"
        ),
        "command": lambda: say(["speak", "Hello!", "--model", folder]),
    }
    seen = {}
    for door in doors.split():
        # of what is not there the library does not know whether it is a folder
        with pytest.raises((ValueError, OSError)) as caught:
            loaders[door]()
        seen[door] = normalised(str(caught.value), Path.cwd())
    shutil.rmtree(folder, ignore_errors=True)
    return seen


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_each_door_says_what_is_wrong(tiny, files, case):
    assert all(len(message) > 20 for message in seen_of_case(tiny, case).values())


@pytest.mark.parametrize(("what", "doors", "change"), FOLDERS, ids=[what for what, *_ in FOLDERS])
def test_a_folder_that_will_not_do_says_why(tiny, files, what, doors, change):
    assert all(len(message) > 20 for message in seen_of_folder(tiny, doors, change).values())


# What one might doubt, but works: in words, what is passed, what is the same


def int16(samples):
    return (samples * 2**15).astype(np.int16)


BYTES = object()  # of voice.wav, which is not there yet
ACCEPTED = [
    ("samples of type int16", recorded(int16(tone(1))), recorded(int16(tone(1)).astype(np.float32) / 2**15)),
    ("samples of type float64", recorded(tone(1).astype(np.float64)), recorded(tone(1))),
    ("a tensor in half precision", recorded(torch.from_numpy(tone(1)).half()), recorded(tone(1).astype(np.float16))),
    ("a list of numbers", recorded(tone(1).tolist()), recorded(tone(1))),
    ("one channel in two dimensions", recorded(tone(1)[None]), recorded(tone(1))),
    ("a path", {"prompt_audio": "voice.wav", **SAID}, recorded(tone(1))),
    ("a stereo file: the mean of its channels", {"prompt_audio": "stereo.wav", **SAID}, recorded(0.75 * tone(1))),
    ("the bytes of a file", {"prompt_audio": BYTES, **SAID}, recorded(tone(1))),
    (
        "an audio dictionary of `datasets`",
        {"prompt_audio": {"array": tone(1), "sampling_rate": RATE}, **SAID},
        recorded(tone(1)),
    ),
]


@pytest.mark.parametrize(("what", "inputs", "same"), ACCEPTED, ids=[what for what, *_ in ACCEPTED])
def test_forms_of_a_recording_that_are_the_same(tiny, files, what, inputs, same):
    soundfile.write("stereo.wav", np.stack([tone(1), tone(1) / 2], axis=1), RATE, subtype="FLOAT")
    if inputs["prompt_audio"] is BYTES:
        inputs = {**inputs, "prompt_audio": Path("voice.wav").read_bytes()}
    processor = tiny["speak"].processor
    one, other = processor(TEXT, **inputs), processor(TEXT, **same)
    assert one.keys() == other.keys()
    assert all(torch.allclose(one[key].float(), other[key].float(), atol=1e-6) for key in one)
    heard = tiny["speak"](TEXT, **inputs, **FIXED)["audio"]
    assert np.abs(heard - tiny["speak"](TEXT, **same, **FIXED)["audio"]).max() < 1e-4


@pytest.mark.parametrize("rate", [8_000, 44_100, 96_000])
def test_any_rate_is_brought_to_the_models(tiny, rate):
    processor = tiny["speak"].processor
    one = processor(TEXT, **recorded(tone(1, rate), sampling_rate=rate))["prompt_values"]
    other = processor(TEXT, **recorded(tone(1)))["prompt_values"]
    assert one.shape == other.shape
    assert (one - other)[:, 2_400:-2_400].abs().max() < 1e-2


def test_batches_mix_rows_with_and_without_prompts(tiny):
    items = [{"text": TEXT}, {"text": "Hello!", **recorded(tone(1))}, {"text": "Guten Tag!", "language": "de"}]
    alone = [tiny["speak"](item, **FIXED)["audio"] for item in items]
    for one, other in zip(tiny["speak"](items, batch_size=3, **FIXED), alone, strict=True):
        assert np.abs(one["audio"] - other).max() < 1e-4


def test_a_configuration_of_an_older_version_has_the_defaults_of_new_fields(tiny, files):
    shutil.copytree(tiny["folder"], "older")
    values = json.loads(Path("older", "config.json").read_text())
    del values["head_type"], values["history_noise_std"], values["alignment_loss_weight"]
    Path("older", "config.json").write_text(json.dumps(values))
    model = DiTARForTextToSpeech.from_pretrained("older")
    assert model.config.to_diff_dict() == tiny["speak"].model.config.to_diff_dict()


# The page

INTRODUCTION = """\
# What is refused, and what one sees

Bad input raises a `ValueError` that names the argument, the value and a remedy; `ditar speak` prints the same in one
line and exits with 2; the page of `ditar demo` shows it. Nothing half-made is written. This page is written by
`tests/test_bad_input.py`, which tries each row at each door that it names: `model` is `generate`, in the second table
`from_pretrained`; `processor`, `pipeline` (of plain arguments), `command` (`ditar speak`) and `demo` are what they are
called.
"""
AFTERWORD = """\
## What works, though one might doubt it

The same speech comes out of each of these forms of a recording:

{accepted}

Recordings of any rate from 8 to 96 kHz are resampled, if their rate is known. A batch may mix items with and without
prompts, and items of several languages. The prompt may be in another language than the text: say which with
`prompt_language`, or use a named voice, which keeps its own. Emoji and control characters among words are left out. A
`config.json` of an older version has the defaults of what it does not say.
"""


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def table(seen: dict[str, dict[str, str]]) -> str:
    lines = ["| what is wrong | where | what one sees |", "|---|---|---|"]
    for name, messages in seen.items():
        by_message: dict[str, list[str]] = {}
        for door, message in messages.items():
            by_message.setdefault(message, []).append(door)
        for message, doors in by_message.items():
            lines.append(f"| {name} | {', '.join(doors)} | {cell(message)} |")
    return "\n".join(lines)


def test_the_page_says_what_is_seen(tiny, files):
    said = {case.what: seen_of_case(tiny, case) for case in CASES}
    folders = {what: seen_of_folder(tiny, doors, change) for what, doors, change in FOLDERS}
    accepted = "\n".join(f"- {what}" for what, *_ in ACCEPTED)
    page = "\n".join(
        [
            INTRODUCTION,
            "## What is said, and how\n",
            table(said) + "\n",
            "## The folder of a model\n",
            table(folders) + "\n",
            AFTERWORD.format(accepted=accepted),
        ]
    )
    if os.environ.get("DITAR_WRITE_DOCS"):
        PAGE.write_text(page, encoding="utf-8")
    remedy = "run DITAR_WRITE_DOCS=1 python -m pytest tests/test_bad_input.py, and read what changed"
    assert PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page, remedy
