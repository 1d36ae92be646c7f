"""Which systems a benchmark compares, and with which."""

from fractions import Fraction

import pytest
from transformers import BertConfig

from ditar_hf.evaluation.benchmark_plan import changed, plan_systems, skeleton
from ditar_hf.evaluation.benchmark_systems import Workload
from ditar_hf.modeling.transformer_ditar import DiTARTransformer


@pytest.fixture
def plan():
    return lambda seconds=2.0, **options: plan_systems(
        Workload(seconds), **{"transformer_class": DiTARTransformer, **options}
    )


def test_baselines_stand_beside_each_size_and_peers_at_the_end(plan):
    specs = plan(sizes=["tiny", "0.1B"], others=["vibevoice", "mar", "nar", "pocket_tts"])
    assert [(spec.name, spec.reference) for spec in specs] == [
        ("DiTAR tiny", None),
        ("NAR tiny", "DiTAR tiny"),
        ("MAR tiny", "DiTAR tiny"),
        ("DiTAR 0.1B", None),
        ("NAR 0.1B", "DiTAR 0.1B"),
        ("MAR 0.1B", "DiTAR 0.1B"),
        ("pocket_tts", "DiTAR 0.1B"),
        ("vibevoice", "DiTAR 0.1B"),
    ]


def test_peers_have_their_published_sizes(plan):
    pocket, vibevoice = plan(sizes=["0.1B"], others=["pocket_tts", "vibevoice"])[1:]
    assert 85e6 < skeleton(pocket).num_parameters < 95e6
    # a language model of 1.5B, a head of 0.1B, a semantic encoder of 0.3B
    assert 1.9e9 < skeleton(vibevoice).num_parameters < 2.2e9
    assert (skeleton(pocket).step_seconds, skeleton(vibevoice).step_seconds) == (Fraction(2, 25), Fraction(2, 15))


def test_other_patches_are_compared_with_the_usual_ones(plan):
    specs = plan(sizes=["0.1B"], patch_sizes=[4, 2])
    assert [spec.name for spec in specs] == ["DiTAR 0.1B", "DiTAR 0.1B P=2"]
    assert specs[1].config.patch_size == 2 and specs[0].config.patch_size == 4
    assert specs[1].reference == "DiTAR 0.1B"


def test_a_trained_model_keeps_its_weights_and_its_baselines_have_none(plan, make_model, tmp_path):
    make_model().save_pretrained(tmp_path / "mine")
    ours, mar = plan(models=[str(tmp_path / "mine")], others=["mar"])
    assert (ours.name, ours.folder) == ("DiTAR mine", str(tmp_path / "mine"))
    assert (mar.name, mar.folder, mar.config.head_type) == ("MAR mine", None, "mlp")


def test_a_changed_configuration_leaves_the_first_alone(make_config):
    config = make_config()
    assert changed(config, patch_size=2).patch_size == 2 and config.patch_size == 4
    with pytest.raises(ValueError, match="`patch_size` must be at least 1"):
        changed(config, patch_size=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": ["0.2B"]}, "'0.2B'.*0.1B"),
        ({}, "`sizes` and `models` are both empty"),
        ({"sizes": ["tiny", "tiny"]}, "name one twice"),
        ({"sizes": ["tiny"], "others": ["f5"]}, "no system 'f5'; there are nar, mar, pocket_tts, vibevoice"),
        ({"sizes": ["tiny"], "others": ["nar", "nar"]}, "`others` names one twice"),
        ({"sizes": ["tiny"], "dtype": "int8"}, "`dtype` is 'int8'"),
        ({"sizes": ["tiny"], "patch_sizes": [0]}, "`patch_sizes` must be positive"),
        ({"sizes": ["tiny"], "seconds": 0.25}, "multiples of 0.1 s: take 0.2 or 0.3"),
        ({"sizes": ["tiny"], "seconds": 5.0, "others": ["pocket_tts"]}, "pocket_tts makes at a time.* 4.8 or 5.2"),
        ({"sizes": ["tiny"], "seconds": 0.1, "others": ["vibevoice"]}, "of 0.4 s: take 0.4"),
    ],
)
def test_bad_input_is_refused(plan, options, message):
    with pytest.raises(ValueError, match=message):
        plan(**options)


def test_another_kind_of_model_is_refused(plan, tmp_path):
    BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match="is of the type `bert`, not `ditar`"):
        plan(models=[str(tmp_path / "bert")])


def test_no_model_is_refused(plan, tmp_path):
    with pytest.raises(ValueError, match="cannot load .*missing"):
        plan(models=[str(tmp_path / "missing")])
