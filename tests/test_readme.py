"""README does as it says: its Python runs, in order, where a tiny model stands in for the shipped one."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest

from ditar_hf import DiTARTokenizer

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def clone(save_tiny, tmp_path, monkeypatch):
    """The current folder, with a tiny model of random weights in the place of the model that README loads."""
    tokenizer = DiTARTokenizer.from_texts({"en": ["The quick brown fox jumps over the lazy dog. Good morning!"]})
    save_tiny(tmp_path / "hub_cards" / "ditar-tiny-en", tokenizer)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python_runs_as_printed(clone):
    session = {}
    for number, block in enumerate(blocks("python"), start=1):
        exec(compile(block, f"README.md, Python block {number}", "exec"), session)
    assert session["speech"]["sampling_rate"] == 24_000
    assert session["speech"]["audio"].ndim == 1 and np.isfinite(session["speech"]["audio"]).all()
    assert len(session["output"].audio) == len(session["output"].reached_limit) == 2


def test_python_leaves_nothing_out():
    for block in blocks("python"):
        constants = [node.value for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Constant)]
        assert ... not in constants, block


def test_make_knows_its_targets():
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    commands = "\n".join([*blocks("bash"), *re.findall(r"`([^`\n]+)`", README)])
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", commands))
    assert {"speak", "test"} <= named <= targets
