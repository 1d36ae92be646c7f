"""`ditar speak` on a tiny model in a folder: what it writes, what reaches the model, and how it refuses."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import ditar_hf
from ditar_hf import DiTARForTextToSpeech, DiTARProcessor, DiTARTokenizer, cli, cli_models
from ditar_hf.modeling.generation_ditar import DiTARGenerateOutput

RATE, PATCH_LENGTH = 24_000, 2400
TEXTS = {"en": ["The quick brown fox.", "Hello!", "Who jumps over the lazy dog, please?"], "de": ["Guten Tag!"]}
TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE // 2) / RATE)).astype(np.float32)


@pytest.fixture(scope="module")
def known() -> dict:
    return {}


@pytest.fixture
def folder(save_tiny, tmp_path_factory, known):
    """A tiny model and its processor, saved together; made once, since no test changes it."""
    if not known:
        known["path"] = save_tiny(tmp_path_factory.mktemp("tiny"), DiTARTokenizer.from_texts(TEXTS))
    return known["path"]


@pytest.fixture
def copy(folder, tmp_path_factory):
    """A copy of the folder that a test may change."""
    return shutil.copytree(folder, tmp_path_factory.mktemp("copy") / "model")


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs `ditar` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    runner = CliRunner()

    def invoke(*arguments, stdin=None):
        return runner.invoke(cli.app, [str(argument) for argument in arguments], input=stdin)

    return invoke


@pytest.fixture
def speak(run, folder):
    """Runs `ditar speak` with the tiny model in an empty folder."""
    return lambda *arguments, model=folder, stdin=None: run("speak", *arguments, "--model", model, stdin=stdin)


@pytest.fixture
def spy(monkeypatch):
    """
    Keeps what the processor is first called with and what the pipeline hands to `generate`, which answers half a
    second of a tone.
    """
    kept = SimpleNamespace(text=None, inputs=None, settings=None, devices=[], audio=TONE, error=None)
    process, move = DiTARProcessor.__call__, DiTARForTextToSpeech.to

    def call(self, text, **inputs):
        if kept.text is None:
            kept.text, kept.inputs = text, inputs
        return process(self, text, **inputs)

    def generate(self, input_ids, attention_mask, prompt_values=None, prompt_mask=None, **settings):
        kept.settings = settings
        if kept.error is not None:
            raise kept.error
        for _ in range(5):
            settings["streamer"].put(torch.zeros(1, 4, 8))
        settings["streamer"].end()
        return DiTARGenerateOutput(audio=[torch.from_numpy(kept.audio)], reached_limit=torch.tensor([False]))

    def to(self, device):
        kept.devices.append(device)
        return move(self, device)

    monkeypatch.setattr(DiTARProcessor, "__call__", call)
    monkeypatch.setattr(DiTARForTextToSpeech, "generate", generate)
    monkeypatch.setattr(DiTARForTextToSpeech, "to", to)
    return kept


def names_in(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_refused(result, message):
    assert result.exit_code == 2, result.output
    assert re.search(message, result.stderr), result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert len(result.stderr) < 450 and "Traceback" not in result.stderr


# What is written


def test_speaks_with_the_model_of_a_folder(speak, folder, tmp_path):
    pytest.importorskip("matplotlib")
    result = speak("The quick fox.", "--seed", 3, "--plot", "speech.png")
    assert result.exit_code == 0, result.output
    model, processor = DiTARForTextToSpeech.from_pretrained(folder), DiTARProcessor.from_pretrained(folder)
    expected = model.generate(**processor("The quick fox."), generator=torch.Generator().manual_seed(3)).audio[0]
    audio, rate = soundfile.read(tmp_path / "speech.wav", dtype="float32")
    assert rate == RATE and soundfile.info(tmp_path / "speech.wav").subtype == "PCM_16"
    np.testing.assert_allclose(audio, expected.numpy(), atol=1e-4)
    assert names_in(tmp_path) == ["speech.png", "speech.wav"]


def test_says_what_it_wrote(speak, spy, tmp_path):
    result = speak("It's  5 o'clock; $HOME!")
    assert result.exit_code == 0, result.output
    assert spy.text == "It's 5 o'clock; $HOME!"
    pattern = r"speech\.wav: 0\.50 s of speech, made in .* s \(real-time factor .*, seed (\d+)\)"
    assert int(re.search(pattern, result.stdout)[1]) == spy.settings["generator"].initial_seed()
    assert result.stderr == "" and names_in(tmp_path) == ["speech.wav"]
    np.testing.assert_allclose(soundfile.read(tmp_path / "speech.wav")[0], TONE, atol=1e-4)


@pytest.mark.parametrize("name", ["speech.png", "speech.svg"])
@pytest.mark.parametrize("num_samples", [1, 100, len(TONE)])
def test_plot(speak, spy, tmp_path, name, num_samples):
    pytest.importorskip("matplotlib")
    spy.audio = TONE[:num_samples]
    result = speak("From $5 to $6, " + "and so on " * 20, "--plot", name)
    assert result.exit_code == 0, result.output
    assert (tmp_path / name).stat().st_size > 1000
    assert names_in(tmp_path) == sorted(["speech.wav", name])


def test_plot_without_matplotlib_is_a_note(speak, spy, tmp_path, monkeypatch):
    for module in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = speak("Hello!", "--plot", "speech.png")
    assert result.exit_code == 0, result.output
    assert 'pip install -e ".[plot]"' in result.stderr
    assert names_in(tmp_path) == ["speech.wav"]


def test_a_failed_write_leaves_the_old_file_and_no_other(speak, spy, tmp_path, monkeypatch):
    (tmp_path / "speech.wav").write_bytes(b"old")

    def write_half(path, *arguments, **options):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(soundfile, "write", write_half)
    assert_refused(speak("Hello!"), "No space left")
    assert (tmp_path / "speech.wav").read_bytes() == b"old" and names_in(tmp_path) == ["speech.wav"]


# What reaches processor and model


def test_what_is_not_given_is_left_to_the_model(speak, spy):
    assert speak("Hello!").exit_code == 0
    assert spy.inputs == {} and not spy.settings.keys() & {"temperature", "guidance_scale", "num_inference_steps"}


def test_options_reach_model_and_processor(speak, spy):
    options = "--temperature 0 --guidance-scale 2.5 --steps 7 --seed 3 --language de --device cpu".split()
    assert speak("Hello!", *options).exit_code == 0
    assert spy.inputs == {"language": "de"}
    assert (spy.settings["temperature"], spy.settings["guidance_scale"]) == (0.0, 2.5)
    assert spy.settings["num_inference_steps"] == 7
    assert spy.settings["generator"].initial_seed() == 3
    assert spy.devices == [torch.device("cpu")]


def test_reads_standard_input(speak, spy):
    assert speak("-", stdin="Zwei\nZeilen – 你好\n").exit_code == 0
    assert spy.text == "Zwei Zeilen – 你好"


def test_reads_a_file(speak, spy, tmp_path):
    (tmp_path / "text.txt").write_bytes("\ufeffFirst line.\r\n\r\nSecond line.\r\n".encode())
    assert speak("--file", "text.txt").exit_code == 0
    assert spy.text == "First line. Second line."


def test_voice(speak, spy, tmp_path):
    soundfile.write(tmp_path / "voice.flac", np.stack([TONE, TONE / 2], axis=1), 16_000)
    result = speak("Hello!", "--voice", "voice.flac", "--voice-text", " What I said. ")
    assert result.exit_code == 0, result.output
    assert spy.inputs["prompt_text"] == "What I said." and spy.inputs["sampling_rate"] == 16_000
    assert spy.inputs["prompt_audio"].dtype == np.float32
    np.testing.assert_allclose(spy.inputs["prompt_audio"], 0.75 * TONE, atol=1e-4)


@pytest.fixture
def voiced(copy):
    """A copy of the folder with two voices."""
    processor = DiTARProcessor.from_pretrained(copy)
    processor.add_voice("ada", TONE, RATE, "Hello!")
    processor.add_voice("bob-2", -TONE, RATE, "The fox.")
    processor.save_pretrained(copy)
    return copy


@pytest.mark.parametrize("voice", ["ada", "random"])
def test_a_named_voice_wins_over_a_file_of_its_name(speak, spy, voiced, tmp_path, voice):
    soundfile.write(tmp_path / voice, TONE, RATE, format="WAV")
    result = speak("Hello!", "--voice", voice, model=voiced)
    assert result.exit_code == 0, result.output
    assert spy.inputs == {"voice": voice}
    assert speak("Hello!", "--voice", f"./{voice}", "--voice-text", "Hello!", model=voiced).exit_code == 0


@pytest.mark.parametrize("voice", ["ada", "random", None])
def test_speaks_in_a_named_voice(speak, voiced, tmp_path, voice):
    options = ["--voice", voice] if voice else []
    assert speak("The quick fox.", "--seed", 3, *options, model=voiced).exit_code == 0
    model, processor = DiTARForTextToSpeech.from_pretrained(voiced), DiTARProcessor.from_pretrained(voiced)
    inputs = processor("The quick fox.", voice=voice)
    assert ("prompt_values" in inputs) == (voice == "ada")
    expected = model.generate(**inputs, generator=torch.Generator().manual_seed(3)).audio[0]
    audio, _ = soundfile.read(tmp_path / "speech.wav", dtype="float32")
    np.testing.assert_allclose(audio, expected.numpy(), atol=1e-4)


def test_lists_the_voices(speak, voiced):
    (voiced / "model.safetensors").unlink()  # which takes long to load
    result = speak("--list-voices", model=voiced)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "ada\nbob-2\nrandom (default)\n", "")
    processor = DiTARProcessor.from_pretrained(voiced)
    processor.default_voice = "bob-2"
    processor.save_pretrained(voiced)
    assert speak("--list-voices", model=voiced).stdout == "ada\nbob-2 (default)\nrandom\n"
    assert speak("--list-voices").stdout == "random (default)\n"
    assert_refused(speak("--list-voices", model="missing"), "there is no folder `missing`, and no model of that name")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--voice", "eve"], "audio file, `random` or a name, and the voices are ada, bob-2; got `eve`"),
        (["--voice", "ada", "--voice-text", "Hello!"], "`--voice-text` goes with a recording, and `ada` is a name"),
        (["--voice", "random", "--voice-text", "Hello!"], "`random` is a name; write `./random` for a file"),
    ],
)
def test_names_that_are_refused(speak, voiced, options, message):
    (voiced / "model.safetensors").unlink()
    assert_refused(speak("Hello!", *options, model=voiced), message)


def test_a_seed_is_told_where_it_has_an_effect(speak, copy):
    settings = json.loads((copy / "generation_config.json").read_text())
    fixed = {**settings, "temperature": 0.0, "num_inference_steps": 10, "max_new_tokens": 2, "stop_threshold": 1.0}
    (copy / "generation_config.json").write_text(json.dumps(fixed))
    # 0.05 is as near to the end of the grid as to the point before it, and the lower of two is taken
    for options, has_effect in (
        ([], False),
        (["--temperature", "0.05"], False),
        (["--temperature", "0.05", "--steps", "20"], True),
        (["--temperature", "0.06"], True),
        (["--temperature", "1"], True),
    ):
        result = speak("Hello!", *options, model=copy)
        assert ("seed" in result.stdout) == has_effect, (options, result.output)
        assert ("try another --seed" in result.stderr) == has_effect
        assert ("try a higher --temperature" in result.stderr) != has_effect
        for named in (["--seed", "7"], ["--voice", "random"]):
            result = speak("Hello!", *options, *named, model=copy)
            assert ("note: at this temperature nothing is drawn" in result.stderr) != has_effect
            assert ("seed 7)" in result.stdout) == (has_effect and "7" in named)


def test_default_model_is_looked_for_in_the_clone(run, spy, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(cli_models, "__file__", str(tmp_path / "src" / "ditar_hf" / "cli_models.py"))
    assert_refused(run("speak", "Hello!"), r"no model at .*ditar-tiny-en.*pass one with `--model")
    shutil.copytree(folder, tmp_path / "hub_cards" / "ditar-tiny-en")
    assert run("speak", "Hello!").exit_code == 0 and spy.settings is not None


# While it speaks


@pytest.mark.parametrize("with_voice", [False, True])
def test_speech_that_runs_into_its_limit_is_noted(speak, copy, tmp_path, monkeypatch, caplog, with_voice):
    settings = json.loads((copy / "generation_config.json").read_text())
    (copy / "generation_config.json").write_text(json.dumps({**settings, "stop_threshold": 1.0}))
    limits, bar = [], cli.PatchProgress
    monkeypatch.setattr(cli, "PatchProgress", lambda most: limits.append(most) or bar(most))
    soundfile.write(tmp_path / "voice.wav", TONE, RATE)
    voice = ["--voice", "voice.wav", "--voice-text", "The fox."] if with_voice else []
    result = speak("Hello!", *voice, model=copy)
    assert result.exit_code == 0, result.output
    length = len(soundfile.read(tmp_path / "speech.wav")[0])
    assert limits == [length // PATCH_LENGTH]
    assert f"note: the speech ran into its limit of {length / RATE:.2f} s" in result.stderr
    # the library's warning names settings that are no options of the command
    assert "--seed" in result.stderr and "max_new_tokens" not in result.stderr + caplog.text


def test_the_bar_counts_patches_towards_their_limit(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with cli.PatchProgress(7) as bar:
        for _ in range(3):
            bar.put(torch.zeros(1, 4, 8))
        bar.end()
    output = capsys.readouterr()
    assert output.out == "" and "3 patches (at most 7)" in re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", output.err)


# How it refuses


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give the text either"),
        (["Hello!", "--file", "text.txt"], "give the text either"),
        ([" \n "], "no text to speak in the argument"),
        (["-"], "no text to speak in standard input"),
        (["--file", "latin1.txt"], "`latin1.txt` is not UTF-8"),
        (["Hello!", "--out", "speech.mp3"], "`--out` must end in .wav"),
        (["Hello!", "--out", "missing/speech.wav"], "folder that exists"),
        (["Hello!", "--out", "folder.wav"], "folder that exists"),
        (["Hello!", "--plot", "speech.gif"], "`--plot` must end in .png or .pdf or .svg"),
        (["Hello!", "--voice", "tone.wav"], "`--voice` needs `--voice-text`"),
        (["Hello!", "--voice", "tone.wav", "--voice-text", " "], "`--voice` needs `--voice-text`"),
        (["Hello!", "--voice-text", "Hello!"], "`--voice-text` needs `--voice`"),
        (["Hello!", "--voice", "missing.wav", "--voice-text", "Hi."], "there are no named voices; got `missing.wav`"),
        (["Hello!", "--voice", "folder.wav", "--voice-text", "Hi."], "must be an audio file.*got `folder.wav`"),
        (
            ["Hello!", "--voice", "text.txt", "--voice-text", "Hi."],
            "`--voice` is 'text.txt', which cannot be read",
        ),
        (
            ["Hello!", "--voice", "empty.wav", "--voice-text", "Hi."],
            "`--voice` is 'empty.wav', which holds no",
        ),
        (["Hello!", "--device", "toaster"], "`--device` must be one of this machine's .* got `toaster`"),
        (["Hello!", "--device", "cuda:99"], "`--device` must be one of this machine's .* got `cuda:99`"),
        (["Hello!", "--device", "meta"], "`--device` must be"),
        (["?!"], r"`text\[0\]` has nothing to speak"),
        (["Hello!", "--language", "tlh"], "`language` is 'tlh'"),
        (["Hello!", "--voice", "short.wav", "--voice-text", "Hi."], r"`prompt_audio\[0\]` lasts 0.01 seconds"),
    ],
)
def test_bad_input_is_refused_before_the_weights_are_loaded(speak, copy, tmp_path, arguments, message):
    (copy / "model.safetensors").unlink()
    (tmp_path / "text.txt").write_text("Hello!")
    (tmp_path / "latin1.txt").write_bytes("Größe".encode("latin-1"))
    (tmp_path / "folder.wav").mkdir()
    soundfile.write(tmp_path / "tone.wav", TONE, RATE)
    soundfile.write(tmp_path / "short.wav", TONE[:240], RATE)
    soundfile.write(tmp_path / "empty.wav", TONE[:0], RATE)
    assert_refused(speak(*arguments, model=copy, stdin=""), message)


@pytest.mark.parametrize(
    "arguments",
    [
        ["speak", "Hello!", "--temperature", "1.5"],
        ["speak", "Hello!", "--temperature", "nan"],
        ["speak", "Hello!", "--guidance-scale", "0.5"],
        ["speak", "Hello!", "--guidance-scale", "nan"],
        ["speak", "Hello!", "--guidance-scale", "inf"],
        ["speak", "Hello!", "--steps", "0"],
        ["speak", "Hello!", "--seed", "-1"],
        ["speak", "--file", "missing.txt"],
        ["speak", "Hello!", "--no-such-option"],
        ["sing", "Hello!"],
    ],
)
def test_usage_errors_have_exit_code_2(run, arguments):
    result = run(*arguments)
    assert result.exit_code == 2 and "Usage: " in result.stderr
    assert "cannot load the model" not in result.stderr


def changed(name, **values):
    """A damage: other values in a JSON file of the folder."""

    def damage(path):
        (path / name).write_text(json.dumps({**json.loads((path / name).read_text()), **values}))

    return damage


def other_shapes(path):
    config = json.loads((path / "config.json").read_text())
    config["lm_config"]["vocab_size"] += 1
    (path / "config.json").write_text(json.dumps(config))


def cut_off(path):
    (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:-5000])


def without_locdit(path):
    weights = load_file(path / "model.safetensors")
    weights = {name: value for name, value in weights.items() if not name.startswith("locdit")}
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "config.json").unlink(), "has no config.json"),
        (lambda path: (path / "config.json").write_text("{"), "JSON file"),
        (lambda path: (path / "config.json").write_text("[]"), ""),
        (changed("config.json", model_type="bert"), "it is of the type `bert`, not `ditar`"),
        (changed("config.json", latent_dim="eight"), "latent_dim.*expected int, got str"),
        (other_shapes, "shapes"),
        (lambda path: (path / "processor_config.json").unlink(), ""),
        (changed("processor_config.json", max_text_length="long"), ""),
        (lambda path: (path / "model.safetensors").unlink(), "model.safetensors"),
        (cut_off, "cut off or damaged"),
        (without_locdit, "locdit"),
    ],
    ids=[
        "no config",
        "config is no JSON",
        "config is a list",
        "another model",
        "wrong type in the config",
        "other shapes",
        "no processor",
        "wrong type in the processor",
        "no weights",
        "cut off",
        "without LocDiT",
    ],
)
def test_a_bad_model_folder_is_one_short_line(speak, copy, tmp_path, damage, message):
    damage(copy)
    assert_refused(speak("Hello!", model=copy), f"cannot load the model `{re.escape(str(copy))}`: .*{message}")
    assert names_in(tmp_path) == []


def test_a_folder_that_is_not_there_is_one_short_line(speak, tmp_path):
    assert_refused(speak("Hello!", model=tmp_path / "none"), "there is no folder '.*none'")
    assert names_in(tmp_path) == []


def test_nothing_else_reaches_the_terminal(copy, tmp_path):
    """In a process of its own, with the log and the progress bars of the libraries as users have them."""
    other_shapes(copy)
    environment = {name: value for name, value in os.environ.items() if "PROGRESS_BARS" not in name}
    command = [sys.executable, "-m", "ditar_hf.cli", "speak", "Hello!", "--model", str(copy)]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("error: cannot load") and result.stderr.count("\n") == 1, result.stderr


@pytest.mark.parametrize("error", [OSError("ours"), RuntimeError("ours")])
def test_an_error_of_ours_is_shown_whole(speak, spy, tmp_path, error):
    spy.error = error
    result = speak("Hello!")
    assert result.exit_code == 1 and result.exception is error
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("audio", [np.zeros(0, np.float32), np.full(100, np.nan, np.float32)])
def test_speech_that_is_none_is_unexpected(speak, spy, tmp_path, audio):
    spy.audio = audio
    result = speak("Hello!")
    assert result.exit_code == 1 and isinstance(result.exception, RuntimeError)
    assert names_in(tmp_path) == []


def test_interruption_has_exit_code_130(speak, spy, tmp_path):
    spy.error = KeyboardInterrupt()
    assert speak("Hello!").exit_code == 130
    assert names_in(tmp_path) == []


# The rest


def test_spectrogram_peaks_at_the_tone():
    from ditar_hf.plotting import log_spectrogram

    spectrogram = log_spectrogram(TONE, RATE)
    frequencies = np.linspace(0, RATE / 2, spectrogram.shape[0])
    loudest = frequencies[spectrogram[:, spectrogram.shape[1] // 2].argmax()]
    assert abs(loudest - 440) < frequencies[1]
    assert spectrogram.max() == 0 and spectrogram.min() >= -80
    assert np.all(log_spectrogram(np.zeros(RATE, np.float32), RATE) == -80)


def test_help_names_every_option(run):
    result = run("speak", "--help")
    assert result.exit_code == 0
    options = (
        "file voice voice-text list-voices language temperature guidance-scale steps seed model device out plot help"
    )
    for option in options.split():
        assert f"--{option} " in result.stdout
    assert 'echo "Read from a pipe." | ditar speak -' in result.stdout
    assert "speak" in run("--help").stdout
    assert run("--version").stdout == f"ditar-hf {ditar_hf.__version__}\n"


def test_the_module_itself_imports_nothing_heavy():
    """The package does as it must (it registers classes of transformers); the command adds nothing to that."""
    # a package of that name which imports nothing, with the real one's files
    code = (
        "import sys, types; package = types.ModuleType('ditar_hf'); package.__path__ = [sys.argv[1]];"
        "sys.modules['ditar_hf'] = package; import ditar_hf.cli;"
        "sys.exit(bool({'torch', 'transformers', 'numpy', 'matplotlib', 'soundfile', 'rich'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code, str(Path(cli.__file__).parent)], check=True)
