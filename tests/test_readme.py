"""README and docs do as they say: their Python runs, in order, where tiny models stand in for the shipped ones."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest

from ditar_hf import DiTARTokenizer, DiTARVAE

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted((ROOT / "docs").rglob("*.md"))


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def clone(save_tiny, make_vae_config, tmp_path, monkeypatch):
    """The current folder, with tiny models of random weights in the places of those that README and docs load."""
    tokenizer = DiTARTokenizer.from_texts({"en": ["The quick brown fox jumps over the lazy dog. Good morning!"]})
    save_tiny(tmp_path / "hub_cards" / "ditar-tiny-en", tokenizer)
    vae = DiTARVAE(make_vae_config(decoder_causal=True, decoder_lookahead_frames=3))
    vae.save_pretrained(tmp_path / "hub_cards" / "ditar-vae-tiny")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python_runs_as_printed(clone):
    session = {}
    for number, block in enumerate(blocks("python"), start=1):
        exec(compile(block, f"README.md, Python block {number}", "exec"), session)
    assert session["speech"]["sampling_rate"] == 24_000
    assert session["speech"]["audio"].ndim == 1 and np.isfinite(session["speech"]["audio"]).all()
    assert len(session["output"].audio) == len(session["output"].reached_limit) == 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_of_the_docs_runs_as_printed(clone, page):
    session = {}
    for number, block in enumerate(blocks("python", page.read_text(encoding="utf-8")), start=1):
        exec(compile(block, f"{page.name}, Python block {number}", "exec"), session)


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_python_leaves_nothing_out(page):
    for block in blocks("python", page.read_text(encoding="utf-8")):
        constants = [node.value for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Constant)]
        assert ... not in constants, block


def test_make_knows_its_targets():
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    commands = "\n".join([*blocks("bash"), *re.findall(r"`([^`\n]+)`", README)])
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", commands))
    assert {"speak", "test"} <= named <= targets
