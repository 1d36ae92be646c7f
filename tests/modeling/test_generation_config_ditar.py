"""Laws of `DiTARGenerationConfig`: what is saved is loaded, what is merged over what, and what is refused."""

import copy
import json
import pickle

import numpy as np
import pytest
from transformers import GenerationConfig

from ditar_hf import DiTARForTextToSpeech, DiTARGenerationConfig
from ditar_hf.modeling.generation_config_ditar import DEFAULTS

NAMES = (*DEFAULTS, "cache_implementation")
# The base class's defaults where its own loop over tokens leaves a value open.
LIBRARY_DEFAULTS = {
    name: value for name, value in GenerationConfig._get_default_generation_params().items() if name in NAMES
}
SETTINGS = [
    {},
    {"temperature": 0},
    {"temperature": 0.0, "guidance_scale": 1.0},
    {"temperature": 0.5, "min_new_tokens": 3, "max_new_tokens": 3},
    LIBRARY_DEFAULTS,
    {"max_new_tokens": 256, "num_inference_steps": 1, "stop_threshold": 0, "spare_patches": 0},
    {"min_patches_per_token": 0, "max_patches_per_token": 2.25, "cache_implementation": "dynamic"},
    {"cache_implementation": "static", "compile_patch_step": True, "pad_token_id": 0},
]


def values(config: DiTARGenerationConfig) -> dict:
    return {name: getattr(config, name) for name in NAMES}


def test_defaults_are_the_documented_ones():
    assert values(DiTARGenerationConfig()) == {**DEFAULTS, "cache_implementation": None}
    for name, value in DEFAULTS.items():
        kind, shown = type(value).__name__, f"`{value}`" if isinstance(value, bool) else value
        assert f" {name} (`{kind}`, *optional*, defaults to {shown}):" in DiTARGenerationConfig.__doc__


# Round trips


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_saved_equals_loaded(settings, tmp_path):
    config = DiTARGenerationConfig(**settings)
    config.save_pretrained(tmp_path)
    loaded = DiTARGenerationConfig.from_pretrained(tmp_path)
    assert type(loaded) is DiTARGenerationConfig
    assert (
        values(loaded)
        == values(config)
        == {**DEFAULTS, "cache_implementation": None}
        | {name: value for name, value in settings.items() if name in NAMES}
    )
    loaded.save_pretrained(tmp_path / "again")
    first, again = (
        json.loads((folder / "generation_config.json").read_text()) for folder in (tmp_path, tmp_path / "again")
    )
    assert first == again
    # a reader that knows the base class's defaults only must find ours in the file
    assert DEFAULTS.keys() <= first.keys()


@pytest.mark.parametrize(
    "duplicate",
    [
        copy.deepcopy,
        lambda config: pickle.loads(pickle.dumps(config)),
        lambda config: DiTARGenerationConfig.from_dict(config.to_dict()),
        lambda config: DiTARGenerationConfig.from_dict(config.to_diff_dict()),
        lambda config: config.merged({}),
    ],
)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_copies_are_equal(duplicate, settings):
    config = DiTARGenerationConfig(**settings)
    other = duplicate(config)
    assert type(other) is DiTARGenerationConfig and other is not config
    assert values(other) == values(config)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_model_brings_its_settings_along(make_model, settings, tmp_path):
    model = make_model()
    model.generation_config = DiTARGenerationConfig(**settings)
    model.save_pretrained(tmp_path)
    loaded = DiTARForTextToSpeech.from_pretrained(tmp_path)
    assert type(loaded.generation_config) is DiTARGenerationConfig
    assert values(loaded.generation_config) == values(model.generation_config)


def test_a_fresh_model_has_the_defaults(make_model, tmp_path):
    model = make_model()
    assert type(model.generation_config) is DiTARGenerationConfig
    assert values(model.generation_config) == values(DiTARGenerationConfig())
    assert model.generation_config.pad_token_id == model.config.pad_token_id
    model.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    loaded = DiTARForTextToSpeech.from_pretrained(tmp_path)
    assert type(loaded.generation_config) is DiTARGenerationConfig
    assert values(loaded.generation_config) == values(DiTARGenerationConfig())


@pytest.mark.parametrize("kind", [GenerationConfig, DiTARGenerationConfig])
def test_a_model_is_loaded_with_other_settings(make_model, kind, tmp_path):
    make_model().save_pretrained(tmp_path)
    loaded = DiTARForTextToSpeech.from_pretrained(tmp_path, generation_config=kind(max_new_tokens=7))
    assert type(loaded.generation_config) is DiTARGenerationConfig
    assert values(loaded.generation_config) == values(DiTARGenerationConfig(max_new_tokens=7))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"temperature": 0.5', "generation_config.json' is no JSON file"),
        ("\ufeff\x00", "generation_config.json' is no JSON file"),
        ('{"temperature": 3.0}', "`temperature` must be a finite number in"),
        ('{"num_beams": 4}', "`num_beams` is not a setting of DiTARGenerationConfig"),
    ],
)
def test_a_broken_file_is_not_taken_for_a_missing_one(make_model, tmp_path, content, message):
    make_model().save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        DiTARForTextToSpeech.from_pretrained(tmp_path)


# Merging


def test_a_plain_config_changes_only_what_it_says(make_model):
    model = make_model()
    model.generation_config = DiTARGenerationConfig(temperature=0.3, guidance_scale=3.0, num_inference_steps=4)
    plain = GenerationConfig(max_new_tokens=5, guidance_scale=1.0)
    expected = {**values(model.generation_config), "max_new_tokens": 5, "guidance_scale": 1.0}
    assert values(model._merge_generation_config(plain, {})) == expected
    # the library's default is a choice like any other where it is made
    plain = GenerationConfig(temperature=1.0)
    assert model._merge_generation_config(plain, {}).temperature == 1.0


def test_a_config_of_ours_replaces_all(make_model):
    model = make_model()
    model.generation_config = DiTARGenerationConfig(temperature=0.3, cache_implementation="static")
    other = DiTARGenerationConfig(num_inference_steps=4)
    assert values(model._merge_generation_config(other, {})) == values(other)


@pytest.mark.parametrize("kind", [GenerationConfig, DiTARGenerationConfig])
def test_single_values_win(make_model, kind):
    model = make_model()
    merged = model._merge_generation_config(kind(max_new_tokens=5), {"max_new_tokens": 6, "temperature": 0})
    assert (merged.max_new_tokens, merged.temperature) == (6, 0)
    assert type(merged) is DiTARGenerationConfig


def test_merging_changes_neither(make_model):
    model, other = make_model(), GenerationConfig(max_new_tokens=5)
    before = values(model.generation_config), other.to_dict()
    model._merge_generation_config(other, {"temperature": 0.1})
    model.generation_config.merged({"temperature": 0.2})
    assert (values(model.generation_config), other.to_dict()) == before


@pytest.mark.parametrize(
    "name", ["num_beams", "logits_processor", "do_sample", "top_k", "max_length", "temprature", "prompt_audio"]
)
def test_unknown_arguments_are_refused(name):
    with pytest.raises(ValueError, match=f"`{name}` is not an argument of DiTAR's `generate`.*`guidance_scale`"):
        DiTARGenerationConfig().merged({name: 1, "temperature": 0.5})


def test_a_misspelt_setting_is_refused(tmp_path):
    message = "`temprature` is not a setting of DiTARGenerationConfig; it has `temperature`"
    with pytest.raises(ValueError, match=message):
        DiTARGenerationConfig(temprature=0.5)
    (tmp_path / "generation_config.json").write_text('{"temprature": 0.5}')
    with pytest.raises(ValueError, match=message):
        DiTARGenerationConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "overrides", [{"return_dict_in_generate": True}, {"pad_token_id": 0}, {"use_cache": True}], ids=str
)
def test_what_pipelines_pass_is_taken(overrides):
    assert values(DiTARGenerationConfig().merged(overrides)) == values(DiTARGenerationConfig())


NOTES = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "use_cache": True, "return_dict_in_generate": True}
UNSUPPORTED = [("num_beams", 4), ("do_sample", True), ("top_k", 5), ("max_length", 7), ("output_scores", True)]


@pytest.mark.parametrize("kind", [GenerationConfig, DiTARGenerationConfig])
def test_what_the_library_notes_in_a_config_is_taken(make_model, kind, tmp_path):
    model, config = make_model(), kind(**NOTES, max_new_tokens=5)
    assert values(model._merge_generation_config(config, {})) == values(DiTARGenerationConfig(max_new_tokens=5))
    model.generation_config = DiTARGenerationConfig(**NOTES, max_new_tokens=5)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).generation_config
    assert values(loaded) == values(model.generation_config)
    # a file that is read as the library's own class
    plain = GenerationConfig.from_pretrained(tmp_path)
    assert values(make_model()._merge_generation_config(plain, {})) == values(loaded)


@pytest.mark.parametrize(("name", "value"), UNSUPPORTED)
def test_what_only_token_models_know_is_refused_in_a_config(make_model, tmp_path, name, value):
    model = make_model()
    with pytest.raises(ValueError, match=f"`{name}` is not a setting of DiTARGenerationConfig; it has `temperature`"):
        DiTARGenerationConfig(**{name: value})
    with pytest.raises(ValueError, match=f"`{name}` is not an argument of DiTAR's `generate`"):
        model._merge_generation_config(GenerationConfig(**{name: value}), {})
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"`{name}` is not a setting"):
        type(model).from_pretrained(tmp_path, generation_config=GenerationConfig(**{name: value}))
    changed = DiTARGenerationConfig()
    setattr(changed, name, value)
    with pytest.raises(ValueError, match=f"`{name}` is not an argument of DiTAR's `generate`"):
        model._merge_generation_config(changed, {})
    with pytest.raises(ValueError, match=f"`{name}` is not a setting"):
        changed.merged({})
    with pytest.raises(ValueError, match=f"`{name}` is not a setting"):
        DiTARGenerationConfig().update(**{name: value})


@pytest.mark.parametrize("name", ["use_cache", "return_dict_in_generate"])
def test_what_cannot_be_switched_off_is_refused(make_model, name):
    message = f"`{name}` must be True, got False: .* Leave it out"
    for kind in (GenerationConfig, DiTARGenerationConfig):
        with pytest.raises(ValueError, match=message):
            make_model()._merge_generation_config(kind(**{name: False}), {})
    with pytest.raises(ValueError, match=message):
        DiTARGenerationConfig().merged({name: False})
    assert values(DiTARGenerationConfig().merged({name: None})) == values(DiTARGenerationConfig())


# Ranges

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("temperature", [-0.01, 1.01, NAN, INFINITY, -INFINITY, None, "0.5", True, 1j]),
        ("guidance_scale", [0.99, 0, -1, NAN, INFINITY, None, "2"]),
        ("num_inference_steps", [0, -1, 2.5, 10.0, NAN, True, None, "10"]),
        ("max_new_tokens", [0, -1, 2.5, None, INFINITY]),
        ("min_new_tokens", [0, -1, 2.5, None]),
        ("stop_threshold", [-0.1, 1.1, NAN, None, False]),
        ("min_patches_per_token", [-0.1, NAN, INFINITY, None]),
        ("max_patches_per_token", [-0.1, NAN, INFINITY, None]),
        ("spare_patches", [-1, 0.5, NAN, INFINITY, None]),
        ("cache_implementation", ["offloaded", "quantized", 1]),
    ],
)
def test_values_out_of_range_are_refused(name, wrong):
    for value in wrong:
        with pytest.raises(ValueError, match=f"`{name}` must be .*got {value!r}"):
            DiTARGenerationConfig(**{name: value})
        with pytest.raises(ValueError, match=f"`{name}` must be .*got {value!r}"):
            DiTARGenerationConfig().merged({name: value})


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("temperature", [0, 1, 0.0, 1.0, np.float32(0.5), np.float64(1)]),
        ("guidance_scale", [1, 1.0, 30]),
        ("num_inference_steps", [1, 1000, np.int64(3)]),
        ("stop_threshold", [0, 1, 0.5]),
        ("min_patches_per_token", [0]),
        ("max_patches_per_token", [0, 100]),
        ("spare_patches", [0, 100]),
        ("cache_implementation", [None, "dynamic", "static"]),
    ],
)
def test_bounds_belong_to_the_range(name, right):
    for value in right:
        assert getattr(DiTARGenerationConfig(**{name: value}), name) == value


def test_values_must_fit_one_another():
    with pytest.raises(ValueError, match=r"`min_new_tokens` \(5\) must not exceed `max_new_tokens` \(4\)"):
        DiTARGenerationConfig(min_new_tokens=5, max_new_tokens=4)
    for cache_implementation in (None, "dynamic"):
        with pytest.raises(ValueError, match="`compile_patch_step=True` needs `cache_implementation='static'`"):
            DiTARGenerationConfig(compile_patch_step=True, cache_implementation=cache_implementation)


def test_a_bad_value_is_not_saved(tmp_path):
    config = DiTARGenerationConfig()
    config.temperature = 2.0
    with pytest.raises(ValueError, match="`temperature`"):
        config.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
