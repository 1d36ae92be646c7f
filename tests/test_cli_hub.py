"""`ditar export` and `ditar push`: what they print, and what they refuse before anything is sent."""

import os
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from ditar_hf import DiTARTokenizer, DiTARVAE
from ditar_hf.cli import app


@pytest.fixture
def folder(save_tiny, tmp_path):
    return save_tiny(tmp_path / "tiny", DiTARTokenizer.from_texts({"en": ["The quick brown fox."]}))


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_export_says_what_it_wrote(folder, tmp_path):
    out = tmp_path / "deep" / "out"
    result = invoke("export", folder, out, "--name", "org/tiny", "--license", "mit", "--language", "en")
    assert result.exit_code == 0, result.output
    num_files = len(list(out.glob("*.py")))
    assert re.fullmatch(rf"{re.escape(str(out))}: {num_files} files of code, [0-9.]+ MB in all\n", result.stdout)
    card = (out / "README.md").read_text()
    assert "license: mit" in card and "org/tiny" in card


def test_a_speech_tokenizer_is_exported(make_vae_config, tmp_path):
    DiTARVAE(make_vae_config()).save_pretrained(tmp_path / "vae")
    result = invoke("export", tmp_path / "vae", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "modeling_ditar_vae.py").is_file()


def test_without_a_network_it_says_so(folder, tmp_path):
    code = "from ditar_hf.cli import app; app()"
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_dummy"}
    command = [sys.executable, "-c", code, "push", str(folder), "org/tiny"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "error: http://127.0.0.1:9 cannot be reached" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("export", "missing folder", "out"), "`model` is 'missing folder', but there is no such folder"),
        (("export", "{folder}", "{folder}"), "there is something at"),
        (("export", "{folder}", "out", "--report", "none"), "none"),
        (("export", "{folder}", "out", "--name", "a/b/c"), "a/b/c"),
        (("push", "{folder}", "not a name"), "not a name"),
        (("push", "missing folder", "org/name"), "there is no such folder"),
    ],
)
def test_what_will_not_do_is_one_line(folder, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = invoke(*(argument.format(folder=folder) for argument in arguments))
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1 and message in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"tiny"}
