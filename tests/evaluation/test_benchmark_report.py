"""Figures, ratios, table and files of a benchmark."""

import json
import sys

import pytest

from ditar_hf.evaluation.benchmark import Benchmark, Measurement, SystemResult
from ditar_hf.evaluation.benchmark_figure import draw_benchmark
from ditar_hf.evaluation.benchmark_report import COLUMNS, markdown_table, read_report, write_report
from ditar_hf.evaluation.benchmark_summary import figures_of, paired_ratios, spread, summarize_benchmark
from ditar_hf.evaluation.benchmark_systems import Workload
from ditar_hf.evaluation.benchmark_timing import Run
from ditar_hf.evaluation.benchmark_workers import Memory

SETTINGS = {
    "command": "ditar bench",
    "environment": {
        **{"date": "2000-01-01", "device": "cpu", "device_name": None, "cpu": "abacus", "threads": 1},
        "packages": {"torch": "1", "transformers": "2"},
    },
}


def run_of(seconds, first=0.5, decode=1.0):
    return Run(seconds, decode, first, 0.25, 4.0)


def facts_of(name, reference):
    return {
        **{
            "name": name,
            "kind": "ditar",
            "about": f"About {name}.",
            "weights": "random",
            "num_parameters": 75_500_000,
        },
        **{"num_codec_parameters": 1, "num_bytes": 4, "step_seconds": 0.1, "num_steps": 40, "num_prompt_steps": 30},
        **{
            "num_inference_steps": 10,
            "num_branches": 2,
            "dtype": "float32",
            "attention": "sdpa",
            "compile": "all is compiled",
        },
        "reference": reference,
    }


@pytest.fixture
def result():
    ours = SystemResult(facts_of("ours", "ours"))
    ours.measurements = {
        1: Measurement([run_of(2.0), run_of(4.0), run_of(2.0)], Memory(2**30, 2**31)),
        8: Measurement([run_of(8.0)] * 3, Memory(2**30, 2**32)),
    }
    theirs = SystemResult(facts_of("theirs", "ours"))
    theirs.measurements = {
        1: Measurement([run_of(6.0, 6.0), run_of(12.0, 12.0), run_of(6.0, 6.0)], None),
        8: Measurement(failure="no memory"),
    }
    return Benchmark(Workload(4.0), [ours, theirs, SystemResult(facts_of("large", "ours"), "it does not fit")])


def test_spread():
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "low": 1.0, "high": 3.0}


def test_ratios_are_of_paired_rounds(result):
    ours, theirs = (system.measurements[1] for system in result.systems[:2])
    # in the second round all took twice as long: of medians and ranges alone one would see a spread
    ratios = paired_ratios(theirs, ours)
    assert ratios["seconds_ratio"] == {"median": 3.0, "low": 3.0, "high": 3.0}
    assert ratios["first_patch_seconds_ratio"] == {"median": 12.0, "low": 12.0, "high": 24.0}
    assert ratios["total_seconds_ratio"]["low"] == pytest.approx(7 / 3)
    assert paired_ratios(ours, ours)["seconds_ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert paired_ratios(theirs, Measurement()) == {}
    assert paired_ratios(Measurement(theirs.runs[:2]), ours) == {}


def test_figures_belong_together(result):
    figures = figures_of(result.systems[0].measurements[8], 8, 40)
    assert figures["real_time_factor"]["median"] == 2.0
    assert figures["total_real_time_factor"]["median"] == 9 / 4
    # speech of all rows in a second, times the seconds that one second of one row takes, are the rows
    assert figures["throughput"]["median"] * figures["real_time_factor"]["median"] == pytest.approx(8)
    assert figures["milliseconds_per_step"]["median"] == pytest.approx(1000 * 7.5 / 39)
    # where all comes at once there are no later steps
    assert figures_of(result.systems[1].measurements[1], 1, 40)["milliseconds_per_step"] is None
    assert figures_of(Measurement(), 1, 40) == {}


def test_the_table_has_all_that_was_measured_and_why_the_rest_was_not(result):
    table = markdown_table(result)
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| system")]
    assert all(row.count("|") == len(COLUMNS) + 1 for row in rows)
    assert [row.split(" | ")[0].strip("| ") for row in rows] == ["ours", "ours", "theirs"]
    assert "75.5M" in rows[0] and "10 × 2" in rows[0] and "2.00" in rows[0]
    assert rows[0].rstrip(" |").endswith("| 1 | 1")
    assert rows[2].rstrip(" |").endswith("| – | 3 (3–3) | 2.33 (2.33–2.6) | 12 (12–24)")
    assert "- theirs, batch 8: no memory" in table and "- large: it does not fit" in table


def test_a_report_can_be_read_again(result, tmp_path):
    assert write_report(tmp_path, result, SETTINGS) is None
    assert read_report(tmp_path / "report.json") == result
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["summary"] == json.loads(json.dumps(summarize_benchmark(result)))
    assert report["environment"]["cpu"] == "abacus"
    text = (tmp_path / "report.md").read_text()
    assert markdown_table(result) in text and "abacus" in text and "![figure.png](figure.png)" in text
    assert "**theirs**: About theirs. Random weights, float32, attention sdpa, all is compiled. Against ours." in text
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_there_is_no_picture(result, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "matplotlib is not installed" in write_report(tmp_path, result, SETTINGS)
    assert "figure.png" not in (tmp_path / "report.md").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "report.md"}


def test_the_picture_shows_throughput_and_latency(result):
    throughput, latency = draw_benchmark(result).axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in throughput.get_lines()}
    assert lines == {"ours": [[1, 2.0], [8, 4.0]], "theirs": [[1, pytest.approx(2 / 3)]]}
    assert [label.get_text() for label in latency.get_yticklabels()] == ["ours", "theirs"]
    assert [bar.get_width() for bar in latency.patches] == [500, 6000]


def test_nothing_measured_is_a_picture_too(result):
    result.systems = result.systems[2:]
    result.systems[0].facts["reference"] = "large"
    draw_benchmark(result)
    assert "- large: it does not fit" in markdown_table(result)
