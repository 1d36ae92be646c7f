"""The paper's formulas give the paper's numbers, and with what they leave out they are what torch counts."""

import pytest

from ditar_hf import DiTARConfig
from ditar_hf.evaluation.cost_model import (
    CostSetting,
    baseline_flops,
    causal_flops,
    further_flops,
    paper_flops,
    transformer_flops,
)
from ditar_hf.evaluation.flop_counter import measure_flops

TERA = 1e12


def test_the_setting_of_the_paper():
    """Appendix A.4 for 0.6B, of which Table 1 prints the sum as about 2.75, with its two slips corrected."""
    config, setting = DiTARConfig.from_preset("0.6B"), CostSetting()
    parts = {name: round(flops / TERA, 3) for name, flops in paper_flops(config, setting).items()}
    assert parts == {"encoder": 0.098, "language_model": 0.205, "locdit": 2.419}
    total = sum(paper_flops(config, setting).values())
    assert total / TERA == pytest.approx(2.722, abs=5e-4)
    ninth = further_flops(config, setting)["condition as a token of LocDiT"]
    assert (total + ninth) / TERA == pytest.approx(3.025, abs=5e-4)


def test_baselines_are_those_of_table_1():
    printed = {"VALL-E": 2.99, "Voicebox (NFE=32)": 60.89, "E2TTS (NFE=32)": 56.46, "F5TTS (NFE=32)": 37.36}
    flops = baseline_flops(CostSetting())
    assert flops.keys() == printed.keys()
    for name, expected in printed.items():
        assert flops[name] / TERA == pytest.approx(expected, abs=0.015)


def test_position_by_position_costs_half_the_attention_of_all_at_once():
    """A causal transformer reads only what is before; all else is the same."""
    sizes, length = (3, 64, 128), 50
    at_once = transformer_flops(*sizes, length)
    stepwise = causal_flops(*sizes, prefix=0, length=length)
    assert at_once - stepwise == 3 * 4 * 64 * (length**2 - length * (length + 1) / 2)
    assert causal_flops(*sizes, prefix=length, length=0) == at_once


@pytest.mark.parametrize("history", [0, 1, 2])
@pytest.mark.parametrize(
    "sizes, setting",
    [
        ({}, CostSetting(0.5, 0.7, 9, 3)),
        ({}, CostSetting(0.0, 0.5, 4, 2, has_guidance=False)),
        ({"patch_size": 2}, CostSetting(0.3, 0.4, 5, 1)),
    ],
)
def test_formulas_are_exactly_what_is_counted(make_model, history, sizes, setting):
    model = make_model(num_history_patches=history, attn_implementation="eager", **sizes)
    flops = {**paper_flops(model.config, setting), **further_flops(model.config, setting)}
    counted = measure_flops(model, setting)
    assert counted["generate"] == sum(flops.values())
    assert counted["vocoder"] > 0


def test_guidance_doubles_locdit_and_nothing_else():
    config = DiTARConfig.from_preset("0.1B")
    one, two = (paper_flops(config, CostSetting(has_guidance=guidance)) for guidance in (False, True))
    assert two.pop("locdit") == 2 * one.pop("locdit") and one == two


def test_fused_attention_is_refused(make_model):
    with pytest.raises(ValueError, match="whose operations torch does not count"):
        measure_flops(make_model(attn_implementation="sdpa"), CostSetting())


@pytest.mark.parametrize(
    "fields",
    [
        {"target_seconds": 0},
        {"target_seconds": float("nan")},
        {"target_seconds": float("inf")},
        {"num_text_tokens": 0},
        {"num_inference_steps": -1},
        {"prompt_seconds": -1},
        {"prompt_seconds": float("inf")},
    ],
)
def test_nonsense_is_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        CostSetting(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"lm_config": {"model_type": "llama", "vocab_size": 40, "pad_token_id": 0}},
        {"lm_config": {"num_key_value_heads": 2}},
        {"head_type": "mlp", "patch_size": 1, "num_history_patches": 0},
    ],
)
def test_models_that_the_formulas_do_not_know_are_refused(make_config, fields):
    with pytest.raises(ValueError, match="the formulas know"):
        paper_flops(make_config(**fields), CostSetting())
