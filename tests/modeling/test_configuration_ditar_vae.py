"""`DiTARVAEConfig`: rates that follow from strides, strictness, checks across fields, round trips."""

import json

import pytest
from transformers import AutoConfig, DacConfig

from ditar_hf import DiTARVAE, DiTARVAEConfig

WAVEFORM = {
    "encoder_type": "conv",
    "encoder_strides": [6, 10, 10],
    "encoder_hidden_sizes": [4, 4, 4, 4],
    "encoder_num_layers": [1, 1, 1, 1],
    "decoder_type": "bigvgan",
    "decoder_strides": [10, 10, 6],
    "decoder_hidden_sizes": [4, 4, 4, 4],
    "decoder_num_layers": [0, 1, 1, 1],
    "decoder_kernel_sizes": [3],
}


class TestRates:
    def test_default_has_40_frames_a_second(self):
        config = DiTARVAEConfig()
        assert (config.hop_length, config.frame_rate, config.latent_dim) == (600, 40.0, 64)

    @pytest.mark.parametrize("strides", [[150, 4], [75, 4, 2], [600]])
    def test_hop_is_the_product_of_strides(self, make_vae_config, strides):
        sizes = {"encoder_hidden_sizes": [8] * len(strides), "encoder_num_layers": [1] * len(strides)}
        config = make_vae_config(encoder_strides=strides, mel_window_length=strides[0] + 2, **sizes)
        assert config.hop_length == 600 and config.frame_rate * config.hop_length == config.sampling_rate

    def test_lookahead_is_that_of_latents_and_of_overlapping_windows(self, make_vae_config):
        assert make_vae_config().lookahead_seconds is None
        # windows of 600 samples every 150 reach 225 samples ahead
        assert make_vae_config(decoder_causal=True).lookahead_seconds == 225 / 24000
        config = make_vae_config(decoder_causal=True, decoder_lookahead_frames=2)
        assert config.lookahead_seconds == (2 * 600 + 225) / 24000
        config = make_vae_config(**WAVEFORM, decoder_causal=True, decoder_lookahead_frames=1)
        assert config.lookahead_seconds == 600 / 24000


class TestRoundTrips:
    @pytest.mark.parametrize("overrides", [{}, WAVEFORM, {"decoder_causal": True, "decoder_lookahead_frames": 1}])
    def test_saved_equals_loaded(self, make_vae_config, tmp_path, overrides):
        config = make_vae_config(**overrides)
        config.save_pretrained(tmp_path)
        for loaded in (DiTARVAEConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
            assert type(loaded) is DiTARVAEConfig
            assert loaded.to_diff_dict() == config.to_diff_dict()

    def test_it_is_found_in_the_config_of_a_whole_model(self, make_config, tmp_path):
        config = make_config()
        config.save_pretrained(tmp_path)
        assert DiTARVAEConfig.from_pretrained(tmp_path).to_dict() == {
            **config.vae_config.to_dict(),
            "transformers_version": config.to_dict()["transformers_version"],
        }


class TestStrictness:
    def test_misspelt_key_in_a_file_is_refused(self, tmp_path):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "ditar_vae", "decoder_casual": True}))
        with pytest.raises(ValueError, match="`decoder_casual`.*did you mean `decoder_causal`"):
            DiTARVAEConfig.from_pretrained(tmp_path)

    def test_another_model_s_file_is_refused(self, tmp_path):
        DacConfig().save_pretrained(tmp_path)
        for load in (DiTARVAEConfig.from_pretrained, DiTARVAE.from_pretrained):
            with pytest.raises(ValueError, match="'dac'.*DiTARVAEConfig reads 'ditar_vae'"):
                load(tmp_path)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"decoder_strides": [2, 150]}, r"multiply to 300, but `encoder_strides` \(\[150, 4\]\) to 600"),
            ({"encoder_hidden_sizes": [16]}, "`encoder_hidden_sizes`.*must each have 2 entries"),
            ({"decoder_num_layers": [1, 1, 1]}, "`decoder_num_layers`.*must each have 2 entries"),
            ({**WAVEFORM, "encoder_hidden_sizes": [4, 4, 4]}, "must each have 4 entries"),
            ({"decoder_hidden_sizes": [16, 0]}, "must be positive"),
            ({"encoder_num_layers": [0, 0]}, "at least one block"),
            ({"decoder_num_layers": [0, 0]}, "at least one block"),
            ({"istft_window_length": 300}, r"`istft_window_length` \(300\) must be four times.*\(150\)"),
            ({"mel_window_length": 100}, "must not be shorter than the hop"),
            ({"mel_window_length": 301}, "must be even"),
            ({"kernel_size": 4}, "must be odd"),
            ({**WAVEFORM, "decoder_kernel_sizes": [3, 6]}, "must be odd"),
            ({"decoder_lookahead_frames": 1}, "is for `decoder_causal=True`"),
            ({"decoder_causal": True, "decoder_lookahead_frames": -1}, "not negative"),
            ({"latent_dim": 0}, "`latent_dim`"),
            ({"sampling_rate": 0}, "`sampling_rate`"),
        ],
        ids=lambda value: ", ".join(value) if isinstance(value, dict) and len(value) < 4 else "",
    )
    def test_contradiction_is_refused(self, make_vae_config, values, message):
        with pytest.raises(ValueError, match=message):
            make_vae_config(**values)

    @pytest.mark.parametrize(
        ("name", "value"),
        [("encoder_type", "mel2"), ("decoder_type", "vocos"), ("kernel_size", "big"), ("latent_dim", 0.5)],
    )
    def test_wrong_type_or_choice_is_refused(self, make_vae_config, tmp_path, name, value):
        message = f"`{name}` of DiTARVAEConfig cannot be {value!r}: .* expected .* Change it"
        with pytest.raises(ValueError, match=message):
            make_vae_config(**{name: value})
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "ditar_vae", name: value}))
        with pytest.raises(ValueError, match=message):
            DiTARVAEConfig.from_pretrained(tmp_path)

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [("kernel_size", 4, "must be odd"), ("decoder_lookahead_frames", 1, "is for `decoder_causal=True`")],
    )
    def test_overrides_are_checked_like_arguments(self, make_vae_config, tmp_path, name, value, message):
        DiTARVAE(make_vae_config()).save_pretrained(tmp_path)
        for load in (DiTARVAEConfig.from_pretrained, AutoConfig.from_pretrained, DiTARVAE.from_pretrained):
            with pytest.raises(ValueError, match=message):
                load(tmp_path, **{name: value})
