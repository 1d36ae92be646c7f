"""`DiTARConfig`: sizes of the paper's table, strictness, checks across fields, round trips."""

import copy
import json

import pytest
import torch
from transformers import ArceeConfig, AutoConfig, BertConfig, Qwen3Config

from ditar_hf import DiTARConfig, DiTARForTextToSpeech, DiTARScheduler, DiTARTransformerConfig, DiTARVAEConfig
from ditar_hf.modeling.configuration_ditar import PRESETS

QWEN = {
    "model_type": "qwen3",
    "vocab_size": 40,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "bos_token_id": None,
    "eos_token_id": None,
}


def write(folder, **values):
    """A `config.json` with these keys."""
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def transformer_matrices(config: DiTARConfig) -> int:
    """Entries of the matrices in the blocks of LM, patch encoder and LocDiT."""
    with torch.device("meta"):
        model = DiTARForTextToSpeech(config)
    stacks = (model.model.language_model, model.model.patch_encoder.transformer, model.locdit.transformer)
    return sum(p.numel() for stack in stacks for p in stack.layers.parameters() if p.ndim == 2)


class TestPresets:
    @pytest.mark.parametrize(("name", "millions"), [("0.1B", 75.5), ("0.4B", 402.7), ("0.6B", 604.0), ("1B", 880.8)])
    def test_transformer_matrices_add_up_to_table_8(self, name, millions):
        assert round(transformer_matrices(DiTARConfig.from_preset(name)) / 1e6, 1) == millions

    def test_tiny_is_the_smallest(self):
        counts = {name: transformer_matrices(DiTARConfig.from_preset(name)) for name in ("tiny", "0.1B")}
        assert 0 < counts["tiny"] < counts["0.1B"] / 5

    @pytest.mark.parametrize("name", PRESETS)
    def test_heads_are_as_wide_in_all_sizes(self, name):
        config = DiTARConfig.from_preset(name)
        assert {config.lm_config.head_dim, config.encoder_config.head_dim, config.locdit_config.head_dim} == {64}

    def test_default_is_0_6b(self):
        assert DiTARConfig().to_dict() == DiTARConfig.from_preset("0.6B").to_dict()

    def test_a_dict_for_a_part_changes_fields_of_the_preset(self):
        parts = {
            "lm_config": {"vocab_size": 99},
            "encoder_config": {"num_hidden_layers": 1},
            "locdit_config": {"num_hidden_layers": 3},
            "vae_config": {"decoder_lookahead_frames": 2},
        }
        config, preset = DiTARConfig.from_preset("tiny", patch_size=2, **parts), DiTARConfig.from_preset("tiny")
        assert (config.patch_size, preset.patch_size) == (2, 4)
        for part, fields in parts.items():
            assert getattr(config, part).to_dict() == {**getattr(preset, part).to_dict(), **fields}

    @pytest.mark.parametrize(
        ("part", "other"),
        [
            ("lm_config", QWEN),
            ("lm_config", {"model_type": "qwen3"}),
            ("lm_config", Qwen3Config(vocab_size=40)),
            ("encoder_config", DiTARTransformerConfig(num_hidden_layers=1)),
            ("vae_config", DiTARVAEConfig()),
        ],
    )
    def test_another_family_or_a_configuration_takes_the_place_of_the_preset_s(self, part, other):
        config = DiTARConfig.from_preset("tiny", **{part: other})
        expected = AutoConfig.for_model(**other) if isinstance(other, dict) else other
        assert getattr(config, part).to_dict() == expected.to_dict()

    def test_the_whole_tiny_model_fits_into_32_mb(self):
        with torch.device("meta"):
            model = DiTARForTextToSpeech(DiTARConfig.from_preset("tiny"))
        assert sum(tensor.numel() for tensor in model.state_dict().values()) < 16e6

    def test_the_tiny_model_can_be_streamed(self):
        assert DiTARConfig.from_preset("tiny").vae_config.lookahead_seconds <= 0.1

    def test_unknown_name_is_refused_with_the_known_ones(self):
        with pytest.raises(ValueError, match="'2B'.*tiny, 0.1B, 0.4B, 0.6B, 1B"):
            DiTARConfig.from_preset("2B")


class TestLanguageModel:
    def test_default_is_two_matrix_arcee_with_gelu(self):
        lm_config = DiTARConfig().lm_config
        assert isinstance(lm_config, ArceeConfig) and lm_config.hidden_act == "gelu"

    def test_a_dict_without_model_type_changes_fields_of_the_default(self):
        whole, part = (
            DiTARConfig().lm_config.to_dict(),
            DiTARConfig(lm_config={"rms_norm_eps": 1e-3}).lm_config.to_dict(),
        )
        assert {key for key in whole if whole[key] != part[key]} == {"rms_norm_eps"}

    def test_any_decoder_config_goes_in_as_dict_or_object(self, make_config):
        as_dict, as_object = (make_config(lm_config=QWEN), make_config(lm_config=AutoConfig.for_model(**QWEN)))
        assert isinstance(as_dict.lm_config, Qwen3Config)
        assert as_dict.to_dict() == as_object.to_dict()
        assert as_dict.get_text_config() is as_dict.lm_config

    def test_given_dicts_are_not_changed(self):
        given = {"lm_config": {"vocab_size": 50}, "scheduler_config": {"algorithm_type": "euler"}}
        before = copy.deepcopy(given)
        DiTARConfig(**given)
        assert given == before

    @pytest.mark.parametrize("model_type", ["arcee", "llama", "qwen3", "mistral", "gpt2", "gpt_neox"])
    def test_causal_decoders_are_taken(self, model_type):
        assert DiTARConfig(lm_config={"model_type": model_type}).lm_config.model_type == model_type

    @pytest.mark.parametrize(
        ("lm_config", "message"),
        [
            ({"model_type": "bert"}, "type 'bert', but its attention sees what follows: take .* 'llama'"),
            ({"model_type": "arcee", "is_causal": False}, "its attention sees what follows"),
            ({"model_type": "gemma2", "use_bidirectional_attention": True}, "its attention sees what follows"),
            ({"model_type": "mamba"}, "its `forward` does not take `position_ids`"),
            ({"model_type": "bloom"}, "its `forward` does not take `position_ids`"),
            ({"model_type": "bart"}, "its `forward` does not take"),
            ({"model_type": "t5"}, "transformers has no causal language model of this type"),
            ({"model_type": "vit"}, "transformers has no causal language model of this type"),
            ({"model_type": "gemma3"}, "only its text part is a language model"),
        ],
        ids=lambda value: value["model_type"] if isinstance(value, dict) else "",
    )
    def test_what_cannot_speak_on_from_a_cache_is_refused(self, lm_config, message):
        with pytest.raises(ValueError, match=message):
            DiTARConfig(lm_config=lm_config)

    @pytest.mark.parametrize("dtype", ["float33", "int8", "float64", [], "nn"])
    def test_a_precision_that_no_part_runs_in_is_refused(self, dtype):
        with pytest.raises(ValueError, match="`lm_config.dtype` is .* but the model runs in float32"):
            DiTARConfig(lm_config={"dtype": dtype})
        with pytest.raises(ValueError, match="`dtype`"):
            DiTARConfig(dtype=dtype)

    def test_an_encoder_that_is_set_to_decode_is_taken(self):
        assert DiTARConfig(lm_config={"model_type": "bert", "is_decoder": True}).lm_config.is_decoder


class TestRoundTrips:
    @pytest.mark.parametrize(
        "overrides",
        [
            {},
            {"lm_config": QWEN},
            {"num_history_patches": 2, "scheduler_config": {"prediction_type": "epsilon", "start_timestep": 0.99}},
            {"timestep_distribution": "logit_normal", "alignment_loss_weight": 0.5, "stop_positive_weight": 2.0},
        ],
        ids=["plain", "qwen3", "scheduler", "losses"],
    )
    def test_saved_equals_loaded(self, make_config, tmp_path, overrides):
        config = make_config(**overrides)
        config.save_pretrained(tmp_path)
        for loaded in (DiTARConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
            assert type(loaded) is DiTARConfig and type(loaded.lm_config) is type(config.lm_config)
            assert loaded.to_diff_dict() == config.to_diff_dict()

    @pytest.mark.parametrize("name", PRESETS)
    def test_presets_survive(self, name, tmp_path):
        DiTARConfig.from_preset(name).save_pretrained(tmp_path)
        assert DiTARConfig.from_pretrained(tmp_path).to_dict() == DiTARConfig.from_preset(name).to_dict()

    def test_a_scheduler_s_own_config_is_taken_and_saved(self, make_config, tmp_path):
        scheduler = DiTARScheduler(algorithm_type="euler", prediction_type="sample")
        make_config(scheduler_config=scheduler.config).save_pretrained(tmp_path)
        scheduler_config = DiTARConfig.from_pretrained(tmp_path).scheduler_config
        assert {key: scheduler.config[key] for key in scheduler_config} == scheduler_config
        assert DiTARScheduler.from_config(scheduler_config).config.algorithm_type == "euler"

    def test_patch_length_is_a_tenth_of_a_second(self, make_config):
        for config in (DiTARConfig.from_preset("tiny"), make_config()):
            assert config.patch_length == config.sampling_rate / 10 == 2400


class TestUnknownKeys:
    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"patch_sise": 3}, "`patch_sise`.*did you mean `patch_size`"),
            ({"encoder_config": {"hiden_size": 64}}, "`hiden_size`.*DiTARTransformerConfig.*`hidden_size`"),
            ({"locdit_config": {"num_layers": 2}}, "`num_layers` is not a field of DiTARTransformerConfig"),
            ({"vae_config": {"encoder_stride": [600]}}, "`encoder_stride`.*did you mean `encoder_strides`"),
            ({"lm_config": {"model_type": "arcee", "hiden_size": 64}}, "`lm_config.hiden_size`.*`hidden_size`"),
            ({"lm_config": {"vocab_sizes": 64}}, "`lm_config.vocab_sizes`.*`vocab_size`"),
            ({"scheduler_config": {"algorithm": "euler"}}, "`scheduler_config`.*algorithm.*algorithm_type"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_misspelt_key_in_a_file_is_refused(self, tmp_path, values, message):
        write(tmp_path, model_type="ditar", **values)
        for load in (DiTARConfig.from_pretrained, AutoConfig.from_pretrained):
            with pytest.raises(ValueError, match=message):
                load(tmp_path)

    def test_misspelt_key_of_the_lm_in_a_preset_is_refused(self):
        with pytest.raises(ValueError, match="`lm_config.vocab_sise`"):
            DiTARConfig.from_preset("tiny", lm_config={"vocab_sise": 99})

    def test_keys_of_old_files_of_other_models_are_no_misspellings(self, make_config):
        config = make_config(lm_config={**QWEN, "rope_theta": 1e6, "rope_scaling": None, "house_style": 1})
        assert config.lm_config.rope_parameters["rope_theta"] == 1e6 and config.lm_config.house_style == 1

    def test_keys_that_the_library_adds_are_known(self, make_config, tmp_path):
        added = {"architectures": ["X"], "auto_map": {"AutoConfig": "x--y.Z"}, "torch_dtype": "float32"}
        write(tmp_path, **{**make_config().to_diff_dict(), **added})
        loaded = DiTARConfig.from_pretrained(tmp_path, attn_implementation="eager")
        assert loaded._attn_implementation == "eager" and loaded.dtype == torch.float32

    @pytest.mark.parametrize("config", [BertConfig(), ArceeConfig(bos_token_id=1, eos_token_id=2)])
    def test_another_model_s_file_is_refused(self, tmp_path, config):
        config.save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=f"'{config.model_type}'.*another model's.*DiTARConfig reads 'ditar'"):
            DiTARConfig.from_pretrained(tmp_path)

    def test_another_model_s_file_without_further_keys_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="another model's"):
            DiTARConfig.from_pretrained(write(tmp_path, model_type="bert"))


class TestChecks:
    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"latent_dim": 16}, r"`latent_dim` \(16\) differs from `vae_config.latent_dim` \(8\)"),
            ({"sampling_rate": 16000}, r"`sampling_rate` \(16000\) differs"),
            ({"vae_config": {"latent_dim": 16}}, r"`latent_dim` \(8\) differs from `vae_config.latent_dim` \(16\)"),
            ({"num_history_patches": 3}, "`num_history_patches` must be 0, 1 or 2, got 3"),
            ({"num_history_patches": -1}, "`num_history_patches`"),
            ({"patch_size": 0}, "`patch_size` must be at least 1"),
            ({"num_noise_samples": 0}, "`num_noise_samples` must be at least 1"),
            ({"condition_dropout": 1.0}, r"`condition_dropout` must lie in \[0, 1\)"),
            ({"condition_dropout": float("nan")}, "`condition_dropout`"),
            ({"timestep_logit_std": -1.0}, "`timestep_logit_std` must not be negative"),
            ({"history_noise_std": float("nan")}, "`history_noise_std` must not be negative"),
            ({"stop_loss_weight": -0.5}, "`stop_loss_weight`"),
            ({"alignment_loss_weight": -0.5}, "`alignment_loss_weight`"),
            ({"stop_positive_weight": 0.0}, "`stop_positive_weight` must be positive"),
            ({"audio_patch_token_id": 40}, r"different ids below `lm_config.vocab_size` \(40\)"),
            ({"audio_patch_token_id": 2}, "three different ids"),
            ({"pad_token_id": None}, "three different ids"),
            ({"audio_bos_token_id": -1}, "three different ids"),
            (
                {"scheduler_config": {"prediction_type": "velocity"}},
                "`scheduler_config`.*`prediction_type` is 'velocity'",
            ),
            ({"scheduler_config": {"prediction_type": "epsilon"}}, "`scheduler_config`.*`start_timestep`"),
            ({"encoder_config": {"num_attention_heads": 5}}, r"`hidden_size` \(32\).*`num_attention_heads` \(5\)"),
            ({"locdit_config": {"num_attention_heads": 32}}, "multiple of twice"),
            ({"locdit_config": {"num_hidden_layers": 0}}, "`num_hidden_layers` must be positive"),
        ],
        ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
    )
    def test_contradiction_is_refused(self, make_config, values, message):
        with pytest.raises(ValueError, match=message):
            make_config(**values)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"patch_size": "four"}, "`patch_size` of DiTARConfig cannot be 'four'.*expected int, got str.*Change it"),
            ({"timestep_distribution": "normal"}, "`timestep_distribution`.*expected one of .*'logit_normal'"),
            ({"num_history_patches": 1.5}, "`num_history_patches`.*cannot be 1.5.*expected int"),
            ({"locdit_config": {"hidden_size": "32"}}, "`hidden_size` of DiTARTransformerConfig cannot be '32'"),
            ({"vae_config": {"kernel_size": "big"}}, "`kernel_size` of DiTARVAEConfig cannot be 'big'"),
            ({"vae_config": "tiny"}, "`vae_config` of DiTARConfig cannot be 'tiny'"),
            ({"lm_config": {"num_attention_heads": 5}}, r"`lm_config`.*hidden size \(\d+\).*attention heads \(5\)"),
            ({"lm_config": {"hidden_size": "32"}}, "`lm_config`.*'hidden_size' expected int, got str"),
        ],
        ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
    )
    def test_wrong_type_or_choice_is_refused(self, tmp_path, values, message):
        with pytest.raises(ValueError, match=message):
            DiTARConfig(**values)
        with pytest.raises(ValueError, match=message):
            DiTARConfig.from_pretrained(write(tmp_path, model_type="ditar", **values))

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"num_history_patches": 7}, "`num_history_patches` must be 0, 1 or 2, got 7"),
            ({"condition_dropout": 1.5}, r"`condition_dropout` must lie in \[0, 1\), got 1.5"),
            ({"patch_size": "four"}, "`patch_size`.*expected int"),
            ({"vae_config": {"latent_dim": 16}}, r"`latent_dim` \(8\) differs from `vae_config.latent_dim` \(16\)"),
            ({"vae_config": {"kernel_size": 4}}, "must be odd"),
            ({"lm_config": {"vocab_size": 3}}, r"below `lm_config.vocab_size` \(3\)"),
            ({"lm_config": BertConfig()}, "its attention sees what follows"),
        ],
        ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
    )
    def test_overrides_are_checked_like_arguments(self, make_config, tmp_path, values, message):
        make_config().save_pretrained(tmp_path)
        for load in (DiTARConfig.from_pretrained, AutoConfig.from_pretrained):
            with pytest.raises(ValueError, match=message):
                load(tmp_path, **values)
            with pytest.raises(ValueError, match=message):
                load(tmp_path, return_unused_kwargs=True, **values)
        config, unused = DiTARConfig.from_pretrained(tmp_path, patch_size=2, num_beams=3, return_unused_kwargs=True)
        assert config.patch_size == 2 and unused["num_beams"] == 3

    def test_overrides_of_a_part_are_checked(self, tmp_path):
        DiTARTransformerConfig().save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="multiple of twice"):
            DiTARTransformerConfig.from_pretrained(tmp_path, num_attention_heads=5)

    def test_a_contradiction_is_not_saved(self, make_config, tmp_path):
        config = make_config()
        with pytest.raises(ValueError, match="`patch_size`.*expected int"):
            config.patch_size = "four"
        config.num_history_patches = 7
        with pytest.raises(ValueError, match="`num_history_patches` must be 0, 1 or 2, got 7"):
            config.save_pretrained(tmp_path)

    def test_limits_are_allowed(self, make_config):
        for history in (0, 1, 2):
            assert make_config(num_history_patches=history).num_history_patches == history
        make_config(patch_size=1, condition_dropout=0.0, timestep_logit_std=0.0, stop_loss_weight=0.0)

    def test_transformer_config_defaults_are_valid_and_survive(self, tmp_path):
        config = DiTARTransformerConfig(hidden_size=48, num_attention_heads=6)
        config.save_pretrained(tmp_path)
        assert DiTARTransformerConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()
        assert config.head_dim == 8
