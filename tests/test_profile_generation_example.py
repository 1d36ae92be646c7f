"""The profile of `generate` adds up."""

import importlib.util
import re
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "profile_generation.py"


def test_shares_add_up(make_model, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("profile_generation", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    make_model().save_pretrained(tmp_path)
    example.main(["--model", str(tmp_path), "--patches", "3", "--steps", "2"])
    printed = capsys.readouterr().out
    wall, matrix, outside = map(
        float,
        re.search(r"profiled: ([\d.]+) s, in matrix kernels ([\d.]+) s, outside of them ([\d.]+)%", printed).groups(),
    )
    assert 0 < outside < 100 and matrix < wall
    listed = {
        name: (float(share), int(calls)) for share, calls, name in re.findall(r"([\d.]+)% +(\d+)  (\S+)", printed)
    }
    assert sum(share for share, _ in listed.values()) <= 100
    assert {"aten::mm", "aten::addmm"} & listed.keys()
