"""README and docs do as they say: their Python runs, in order, where tiny models stand in for the shipped ones."""

import ast
import json
import re
from pathlib import Path

import numpy as np
import pytest

from ditar_hf import DiTARGenerationConfig, DiTARProcessor, DiTARTokenizer, DiTARVAE
from ditar_hf.modeling.generation_config_ditar import DEFAULTS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted((ROOT / "docs").rglob("*.md"))


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)


def add_voices(folder: Path):
    """The named voices of the shipped model, as half a second of noise."""
    processor = DiTARProcessor.from_pretrained(folder)
    for name in ("ada", "ben", "carl"):
        processor.add_voice(name, np.random.uniform(-0.5, 0.5, 12_000), 24_000, "The rain has stopped.")
    processor.default_voice = "ben"
    processor.save_pretrained(folder)
    # random weights may stop at once: speech shall be as long as a prompt has to be
    DiTARGenerationConfig(num_inference_steps=2, min_patches_per_token=0.5).save_pretrained(folder)


@pytest.fixture
def clone(save_tiny, make_vae_config, tmp_path, monkeypatch):
    """The current folder, with tiny models of random weights in the places of those that README and docs load."""
    tokenizer = DiTARTokenizer.from_texts({"en": ["The quick brown fox jumps over the lazy dog. Good morning!"]})
    folder = save_tiny(tmp_path / "hub_cards" / "ditar-tiny-en", tokenizer)
    add_voices(folder)
    vae = DiTARVAE(make_vae_config(decoder_causal=True, decoder_lookahead_frames=3))
    vae.save_pretrained(tmp_path / "hub_cards" / "ditar-vae-tiny")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(page: Path) -> dict:
    """What the Python of a page leaves in the session of whoever types it in."""
    session = {}
    for number, block in enumerate(blocks("python", page.read_text(encoding="utf-8")), start=1):
        exec(compile(block, f"{page.name}, Python block {number}", "exec"), session)
    return session


def test_python_runs_as_printed(clone):
    session = run(ROOT / "README.md")
    assert session["speech"]["sampling_rate"] == 24_000
    assert session["speech"]["audio"].ndim == 1 and np.isfinite(session["speech"]["audio"]).all()
    assert len(session["output"].audio) == len(session["output"].reached_limit) == 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_of_the_docs_runs_as_printed(clone, page):
    session = run(page)
    if check := CHECKS.get(page.name):
        check(session)


def check_quickstart(session: dict):
    assert {path.name for path in Path().glob("*.*")} == {"one.wav", "morning.flac"}
    assert session["output"].num_patches.shape == session["output"].reached_limit.shape == (2,)


def check_voices(session: dict):
    assert len(session["speeches"]) == 3
    again = DiTARProcessor.from_pretrained("runs/with-dora")
    assert sorted(again.voices) == ["ada", "ben", "carl", "dora"] and again.default_voice == "ben"


def check_scheduler(session: dict):
    printed = {0.0: 1.0, 0.25: 0.996, 0.5: 0.874, 0.75: 0.777, 1.0: 0.765}
    assert session["shares"] == pytest.approx(printed, abs=0.01)
    printed = {"ddim": [0.339, 0.074, 0.027], "euler": [0.368, 0.106, 0.023], "dpmsolver++": [0.339, 0.058, 0.010]}
    assert all(session["errors"][solver] == pytest.approx(values, abs=0.01) for solver, values in printed.items())
    learnt = session["learnt"]
    assert 0.7 < (learnt > 0).float().mean() < 0.8 and (learnt.abs() - 1).abs().mean() < 0.1


CHECKS = {"quickstart.md": check_quickstart, "voices.md": check_voices, "scheduler.md": check_scheduler}


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


def test_every_setting_of_generation_is_in_the_docs_with_its_value():
    page = (ROOT / "docs" / "generation.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+? \| .+?) \|", page, flags=re.MULTILINE))
    shipped = json.loads((ROOT / "hub_cards" / "ditar-tiny-en" / "generation_config.json").read_text(encoding="utf-8"))
    assert rows == {name: f"{value} | {shipped[name]}" for name, value in DEFAULTS.items()}


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    links = set(re.findall(r"\]\(([^)#]+)", index))
    assert links >= {page.relative_to(ROOT / "docs").as_posix() for page in PAGES} - {"README.md"}
    assert "(docs/README.md)" in README


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for path, section in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
        target = page if not path else page.parent / path
        assert target.exists(), path
        if section:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
            # as GitHub makes names of headings
            assert section in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
