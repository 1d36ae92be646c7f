"""`make speak` with a stub in place of the installed command: what is typed must arrive as typed, and run nothing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(shutil.which("make") is None or os.name != "posix", reason="needs make and sh")

# Writes its arguments and standard input to called.json, in place of `ditar`.
DITAR = """#!{python}
import json, os, sys
with open("called.json", "w") as called:
    json.dump({{"arguments": sys.argv[1:], "stdin": sys.stdin.buffer.read().decode()}}, called)
sys.exit(int(os.environ.get("STUB_EXIT", "0")))
"""

# `python3 -m venv DIR` puts a copy of itself there; what it is asked to do is added to log.txt.
PYTHON = """#!/bin/sh
printf '%s\\n' "$*" >> log.txt
case "$1$2" in
    -c*) exit "${{STUB_TOO_OLD:-0}}" ;;
    -mvenv) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && cp ditar.py "$3/bin/ditar" ;;
    -mpip) exit "${{STUB_PIP:-0}}" ;;
esac
"""


@pytest.fixture
def make(tmp_path):
    """Runs make in a copy of the repository's top, with stubs for Python and `ditar`; a space is in its path."""
    clone = tmp_path / "my clone"
    clone.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, clone)
    for name, source in (("ditar.py", DITAR), ("python-stub", PYTHON)):
        (clone / name).write_text(source.format(python=sys.executable))
        (clone / name).chmod(0o755)
    # As from a fresh shell, also when these tests are run by make.
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MAKE") and key != "MFLAGS"}

    def run(*arguments, **environment):
        return subprocess.run(
            ["make", "PYTHON=./python-stub", *arguments],
            cwd=clone,
            env=clean | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    run.folder = clone
    run.called = lambda: json.loads((clone / "called.json").read_text())
    run.log = lambda: (clone / "log.txt").read_text().splitlines() if (clone / "log.txt").exists() else []
    return run


TEXTS = [
    "Hello.",
    "It's five o'clock.",
    'She said "no".',
    "one; touch injected; echo two",
    "It costs $5, or $$5, or $HOME, or ${HOME}, or $(HOME).",
    "$(shell touch injected) $(eval X := 1) $(error no)",
    "`touch injected` $(touch injected) & touch injected | touch injected > injected",
    "Stop! Now!! *?[a-z] ~ # no comment % @ - + = : \\ \\\\ \\n",
    "-",
    "--help",
    "two\nlines",
    "ends with a backslash \\",
    "Grüße, 你好, ☃",
    "' \"; touch injected #",
    "), (",
    "endif",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("way", ["argument", "environment"])
def test_text_arrives_as_typed(make, text, way):
    result = make("speak", f"TEXT={text}") if way == "argument" else make("speak", TEXT=text)
    assert result.returncode == 0, result.stderr
    called = make.called()
    assert called["stdin"] == text + "\n"
    assert called["arguments"] == ["speak", "-", "--out", "speech.wav", "--plot", "speech.png"]
    assert not (make.folder / "injected").exists()


@pytest.mark.parametrize("text", TEXTS)
def test_voice_and_its_text_arrive_as_typed(make, text):
    result = make("speak", "TEXT=Hello.", f"VOICE={text}.wav", f"VOICE_TEXT={text}")
    assert result.returncode == 0, result.stderr
    assert make.called()["arguments"][-2:] == [f"--voice={text}.wav", f"--voice-text={text}"]
    assert not (make.folder / "injected").exists()


@pytest.mark.parametrize("text", TEXTS)
def test_a_name_for_a_voice_and_a_temperature_arrive_as_typed(make, text):
    result = make("speak", "TEXT=Hello.", f"VOICE={text}", f"TEMPERATURE={text}")
    assert result.returncode == 0, result.stderr
    assert make.called()["arguments"][-2:] == [f"--voice={text}", f"--temperature={text}"]
    assert not (make.folder / "injected").exists()


@pytest.mark.parametrize("arguments", [[], ["TEXT="], ["TEXT=  "], ["VOICE=voice.wav"]])
def test_a_missing_text_is_named_before_anything_is_installed(make, arguments):
    result = make("speak", *arguments)
    assert result.returncode == 2
    assert 'make speak TEXT="Hello there."' in result.stderr
    assert make.log() == [] and not (make.folder / ".venv").exists()


def test_a_failure_of_the_command_is_one_of_make(make):
    assert make("speak", "TEXT=Hello.", STUB_EXIT="2").returncode == 2


def test_installs_once_and_again_when_requirements_change(make):
    assert make("speak", "TEXT=Hello.").returncode == 0
    installs = [line for line in make.log() if line.startswith("-m pip install")]
    assert installs == ["-m pip install --quiet -c constraints.txt -e .[plot]"]
    assert make("speak", "TEXT=Hello.").returncode == 0
    assert len(make.log()) == 3  # version, venv, pip
    later = (make.folder / "pyproject.toml").stat().st_mtime + 10
    os.utime(make.folder / "constraints.txt", (later, later))
    assert make("speak", "TEXT=Hello.").returncode == 0
    assert make.log()[3:] == installs


def test_what_is_installed_for_tests_serves_speaking(make):
    assert make("test").returncode == 0
    assert make.log()[2:] == [
        "-m pip install --quiet -c constraints.txt -e .[dev,plot]",
        "-m pytest -n auto --maxprocesses 4 --dist loadfile",
    ]
    assert make("speak", "TEXT=Hello.").returncode == 0
    assert len(make.log()) == 4


def test_a_failed_installation_is_tried_again(make):
    assert make("speak", "TEXT=Hello.", STUB_PIP="1").returncode == 2
    assert not (make.folder / "called.json").exists()
    assert make("speak", "TEXT=Hello.").returncode == 0


def test_an_old_python_is_refused(make):
    result = make("speak", "TEXT=Hello.", STUB_TOO_OLD="1")
    assert result.returncode == 2
    assert "needs Python 3.11 or newer" in result.stderr
    assert not (make.folder / ".venv").exists()


def test_help_is_the_default(make):
    result = make()
    assert result.returncode == 0
    for target in ("speak", "test", "test-slow", "style", "quality"):
        assert f"make {target} " in result.stdout
    assert make.log() == []
