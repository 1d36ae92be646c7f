import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from ditar_hf import cli

RATE = 24_000
TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE // 2) / RATE)).astype(np.float32)


class FakePipeline:
    """Stands for the stock pipeline: keeps what it is called with and answers half a second of a tone."""

    def __init__(self):
        self.calls = []
        self.loads = []
        self.audio = TONE
        self.error = None

    def load(self, task, model, device=None):
        self.loads.append(SimpleNamespace(task=task, model=model, device=device))
        return self

    def __call__(self, text, preprocess_params, generate_kwargs):
        self.calls.append(SimpleNamespace(text=text, preprocess=preprocess_params, generate=generate_kwargs))
        if self.error is not None:
            raise self.error
        streamer = generate_kwargs["streamer"]
        for _ in range(5):
            streamer.put(torch.zeros(1, 4, 64))
        streamer.end()
        return {"audio": self.audio, "sampling_rate": RATE}


@pytest.fixture
def fake(monkeypatch):
    from transformers import pipeline as _  # noqa: F401  loading it can put another `transformers` into sys.modules

    pipeline = FakePipeline()
    monkeypatch.setattr(sys.modules["transformers"], "pipeline", pipeline.load)
    return pipeline


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs `ditar` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    runner = CliRunner()

    def invoke(*arguments, stdin=None):
        return runner.invoke(cli.app, [str(argument) for argument in arguments], input=stdin)

    return invoke


def assert_refused(result, message):
    assert result.exit_code == 2, result.output
    assert re.search(message, result.stderr), result.stderr
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("error: ")


def test_speaks_an_argument(run, fake, tmp_path):
    result = run("speak", "It's  5 o'clock; $HOME!", "--model", "m")
    assert result.exit_code == 0, result.output
    assert fake.loads[0].task == "text-to-speech" and fake.loads[0].model == "m" and fake.loads[0].device is None
    assert fake.calls[0].text == "It's 5 o'clock; $HOME!"
    audio, rate = soundfile.read(tmp_path / "speech.wav", dtype="float32")
    assert rate == RATE and soundfile.info(tmp_path / "speech.wav").subtype == "PCM_16"
    np.testing.assert_allclose(audio, TONE, atol=1 / 2**15)
    assert re.search(r"speech\.wav: 0\.50 s of speech, made in .* s \(real-time factor .*, seed \d+\)", result.stdout)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["speech.wav"]


def test_what_is_not_given_is_left_to_the_model(run, fake):
    assert run("speak", "Hello.", "--model", "m").exit_code == 0
    assert fake.calls[0].preprocess == {}
    assert fake.calls[0].generate.keys() == {"generator", "streamer"}


def test_options_reach_model_and_processor(run, fake):
    options = "--model m --temperature 0 --guidance-scale 2.5 --steps 7 --seed 3 --language cmn --device cpu".split()
    assert run("speak", "Hello.", *options).exit_code == 0
    call = fake.calls[0]
    assert call.preprocess == {"language": "cmn"}
    assert (call.generate["temperature"], call.generate["guidance_scale"]) == (0.0, 2.5)
    assert call.generate["num_inference_steps"] == 7
    assert call.generate["generator"].initial_seed() == 3
    assert fake.loads[0].device == torch.device("cpu")


def test_the_printed_seed_is_the_one_used(run, fake):
    result = run("speak", "Hello.", "--model", "m")
    assert f"seed {fake.calls[0].generate['generator'].initial_seed()})" in result.stdout


def test_reads_standard_input(run, fake):
    assert run("speak", "-", "--model", "m", stdin="Zwei\nZeilen – 你好\n").exit_code == 0
    assert fake.calls[0].text == "Zwei Zeilen – 你好"


def test_reads_a_file(run, fake, tmp_path):
    (tmp_path / "text.txt").write_bytes("\ufeffFirst line.\r\n\r\nSecond line.\r\n".encode())
    assert run("speak", "--file", "text.txt", "--model", "m").exit_code == 0
    assert fake.calls[0].text == "First line. Second line."


def test_voice(run, fake, tmp_path):
    soundfile.write(tmp_path / "voice.flac", np.full((1600, 2), [0.5, 0.25]), 16_000)
    result = run("speak", "Hello.", "--model", "m", "--voice", "voice.flac", "--voice-text", " What I said. ")
    assert result.exit_code == 0, result.output
    given = fake.calls[0].preprocess
    assert given["prompt_text"] == "What I said." and given["sampling_rate"] == 16_000
    assert given["prompt_audio"].shape == (1600,) and given["prompt_audio"].dtype == np.float32
    np.testing.assert_allclose(given["prompt_audio"], 0.375, atol=1e-4)
    assert "note: voice.flac has 2 channels" in result.stderr


def test_loud_speech_is_made_quieter(run, fake, tmp_path):
    fake.audio = 4 * TONE
    result = run("speak", "Hello.", "--model", "m")
    assert result.exit_code == 0 and "note: the speech peaks at 2.00" in result.stderr
    audio, _ = soundfile.read(tmp_path / "speech.wav")
    np.testing.assert_allclose(audio, 2 * TONE, atol=1e-4)


def test_default_model_is_looked_for_in_the_clone(run, fake, tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "src" / "ditar_hf" / "cli.py"))
    assert_refused(run("speak", "Hello."), r"no model at .*ditar-tiny-en.*pass one with `--model")
    folder = tmp_path / "hub_cards" / "ditar-tiny-en"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert run("speak", "Hello.").exit_code == 0
    assert fake.loads[0].model == str(folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["speak"], "give the text either"),
        (["speak", "Hello.", "--file", "text.txt"], "give the text either"),
        (["speak", " \n "], "no text to speak in the argument"),
        (["speak", "-"], "no text to speak in standard input"),
        (["speak", "--file", "latin1.txt"], "`latin1.txt` is not UTF-8"),
        (["speak", "Hello.", "--out", "speech.mp3"], "`--out` must end in .wav"),
        (["speak", "Hello.", "--out", "missing/speech.wav"], "folder that exists"),
        (["speak", "Hello.", "--out", "folder.wav"], "folder that exists"),
        (["speak", "Hello.", "--plot", "speech.gif"], "`--plot` must end in .png or .pdf or .svg"),
        (["speak", "Hello.", "--voice", "tone.wav"], "`--voice` needs `--voice-text`"),
        (["speak", "Hello.", "--voice", "tone.wav", "--voice-text", " "], "`--voice` needs `--voice-text`"),
        (["speak", "Hello.", "--voice-text", "Hello."], "`--voice-text` needs `--voice`"),
        (["speak", "Hello.", "--voice", "text.txt", "--voice-text", "Hi."], "cannot read `text.txt` as audio"),
        (["speak", "Hello.", "--voice", "empty.wav", "--voice-text", "Hi."], "`empty.wav` holds no samples"),
        (["speak", "Hello.", "--device", "toaster"], "`--device` must be a device of torch"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, fake, tmp_path, arguments, message):
    (tmp_path / "text.txt").write_text("Hello.")
    (tmp_path / "latin1.txt").write_bytes("Größe".encode("latin-1"))
    (tmp_path / "folder.wav").mkdir()
    soundfile.write(tmp_path / "tone.wav", TONE, RATE)
    soundfile.write(tmp_path / "empty.wav", TONE[:0], RATE)
    assert_refused(run(*arguments, "--model", "m", stdin=""), message)
    assert fake.calls == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["speak", "Hello.", "--temperature", "1.5"],
        ["speak", "Hello.", "--guidance-scale", "0.5"],
        ["speak", "Hello.", "--steps", "0"],
        ["speak", "Hello.", "--seed", "-1"],
        ["speak", "--file", "missing.txt"],
        ["speak", "Hello.", "--voice", "missing.wav", "--voice-text", "Hi."],
        ["speak", "Hello.", "--no-such-option"],
        ["sing", "Hello."],
    ],
)
def test_usage_errors_have_exit_code_2(run, fake, arguments):
    assert run(*arguments).exit_code == 2
    assert fake.loads == []


@pytest.mark.parametrize("error", [ValueError("`language` 'xx'\nis unknown."), OSError("no such\n model")])
def test_what_model_and_processor_refuse_is_one_line(run, fake, error):
    fake.error = error
    assert_refused(run("speak", "Hello.", "--model", "m"), " ".join(str(error).split()))


@pytest.mark.parametrize("audio", [np.zeros(0, np.float32), np.full(100, np.nan, np.float32)])
def test_speech_that_is_none_is_unexpected(run, fake, tmp_path, audio):
    fake.audio = audio
    result = run("speak", "Hello.", "--model", "m")
    assert result.exit_code == 1 and isinstance(result.exception, RuntimeError)
    assert list(tmp_path.iterdir()) == []


def test_interruption_has_exit_code_130(run, fake, tmp_path):
    fake.error = KeyboardInterrupt()
    assert run("speak", "Hello.", "--model", "m").exit_code == 130
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_no_other(run, fake, tmp_path, monkeypatch):
    (tmp_path / "speech.wav").write_bytes(b"old")

    def write_half(path, *arguments, **options):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(soundfile, "write", write_half)
    assert_refused(run("speak", "Hello.", "--model", "m"), "No space left")
    assert (tmp_path / "speech.wav").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["speech.wav"]


@pytest.mark.parametrize("name", ["speech.png", "speech.svg"])
@pytest.mark.parametrize("num_samples", [1, 100, len(TONE)])
def test_plot(run, fake, tmp_path, name, num_samples):
    pytest.importorskip("matplotlib")
    fake.audio = TONE[:num_samples]
    result = run("speak", "From $5 to $6, " + "and so on " * 20, "--model", "m", "--plot", name)
    assert result.exit_code == 0, result.output
    assert (tmp_path / name).stat().st_size > 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["speech.wav", name])


def test_plot_without_matplotlib_is_a_note(run, fake, tmp_path, monkeypatch):
    for module in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run("speak", "Hello.", "--model", "m", "--plot", "speech.png")
    assert result.exit_code == 0, result.output
    assert 'pip install "ditar-hf[plot]"' in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["speech.wav"]


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
    options = "file voice voice-text language temperature guidance-scale steps seed model device out plot help"
    for option in options.split():
        assert f"--{option} " in result.stdout
    assert 'echo "Read from a pipe." | ditar speak -' in result.stdout
    assert "speak" in run("--help").stdout
    assert run("--version").stdout.startswith("ditar-hf ")


def test_the_module_itself_imports_nothing_heavy():
    """The package does as it must (it registers classes of transformers); the command adds nothing to that."""
    code = (
        "import sys, runpy, importlib.util as u; s = u.spec_from_file_location('ditar_cli_alone', sys.argv[1]);"
        "m = u.module_from_spec(s); s.loader.exec_module(m);"
        "sys.exit(bool({'torch', 'transformers', 'numpy', 'matplotlib', 'soundfile', 'rich'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code, cli.__file__], check=True)
