"""`ditar flops` prints what formulas and counter say, and writes it on request."""

import json
import re

import pytest
from typer.testing import CliRunner

from ditar_hf.cli import app

runner = CliRunner()


def test_the_table_of_a_size_with_baselines():
    result = runner.invoke(app, ["flops", "--size", "0.6B", "--baselines"])
    assert result.exit_code == 0
    assert re.search(r"by the paper's formulas\*\* \| 2\.722", result.output)
    assert re.search(r"Table 1: F5TTS .* \| 37\.35", result.output)


def test_a_model_is_counted(make_model, tmp_path):
    make_model().save_pretrained(tmp_path / "model")
    arguments = ["--model", str(tmp_path / "model"), "--target-seconds", "0.3", "--steps", "2", "--text-tokens", "5"]
    out = tmp_path / "flops.json"
    result = runner.invoke(app, ["flops", *arguments, "--prompt-seconds", "0.2", "--measure", "--json", str(out)])
    assert result.exit_code == 0, result.output
    assert "counted − formulas: +0.0000%" in result.output
    report = json.loads(out.read_text())
    assert report["measured"]["generate"] == sum(report["paper"].values()) + sum(report["further"].values())


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--size", "2B"], "there are only the presets"),
        (["--target-seconds", "0"], "target_seconds"),
        (["--json", "{folder}/there.json"], "there is a file"),
    ],
)
def test_bad_input_is_one_line(tmp_path, arguments, message):
    (tmp_path / "there.json").write_text("{}")
    result = runner.invoke(app, ["flops", *(argument.format(folder=tmp_path) for argument in arguments)])
    assert result.exit_code == 2
    assert message in result.stderr and len(result.stderr.splitlines()) == 1
