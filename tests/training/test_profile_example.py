"""The examples that measure a training do as they say: what it costs beside a plain loop, and what a plan rests on."""

import importlib.util
import re
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def example():
    """Loads an example as a module."""

    def load(name):
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def test_a_profile_compares_updates_of_both_kinds(example, capsys):
    example("profile_training").main(["--max-positions", "200", "--steps", "2", "--skip", "1"])
    printed = capsys.readouterr().out
    rates = dict(re.findall(r"(trainer|plain loop): ([\d.]+) patches a second", printed))
    assert float(rates["trainer"]) > 0 and float(rates["plain loop"]) > 0
    assert printed.count("the median of 2 updates") == 2 and re.search(r"overhead: -?[\d.]+% by the medians", printed)


@pytest.fixture
def config(make_config):
    """Three layers of each kind, of a width at which activations are more than what surrounds them."""
    blocks = {"num_hidden_layers": 3, "hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128}
    return make_config(lm_config=blocks, encoder_config=blocks, locdit_config=blocks)


def test_costs_grow_by_the_same_amount_with_each_layer(example, config):
    plan = example("plan_training")
    whole, _ = plan.extrapolate(config)
    measured = plan.measure(plan.build(config, dict.fromkeys(plan.PARTS, 3)))
    assert vars(whole) == pytest.approx(vars(measured), rel=1e-3)
    assert measured.recomputed_bytes < measured.saved_bytes / 3


def test_operations_are_six_for_each_weight_and_token(example, config):
    """Forward and backward; the rest is attention and what surrounds the blocks."""
    plan = example("plan_training")
    per_position = plan.extrapolate(config)[0].flops
    blocks = 3 * (4 * 64 * 64 + 2 * 64 * 128)
    # of a patch, the encoder reads its frames and one token more, LocDiT those of the patch before as well
    tokens_per_patch = (1 + config.patch_size) + (1 + 2 * config.patch_size)
    tokens = 1 + plan.PATCHES_PER_ROW / plan.POSITIONS_PER_ROW * tokens_per_patch
    assert 6 * blocks * tokens < per_position < 1.5 * 6 * blocks * tokens


def test_a_plan_has_a_row_for_each_run(example, capsys):
    plan = example("plan_training")
    plan.main(["--preset", "tiny", "--max-positions", "2000", "--gpus", "4", "--utilisation", "0.5"])
    tables = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| tiny")]
    assert len(tables) == len(plan.TABLES) and "| 2,000 |" in tables[0] and "| 4 |" in tables[1]
