"""Systems of the benchmark: each says exactly what it is asked to, and what it tells about itself is so."""

import math
from dataclasses import replace

import pytest
import torch
from transformers import PocketTTSAudioTokenizerConfig, PocketTTSConfig, VibeVoiceConfig

from ditar_hf import DiTARConfig
from ditar_hf.evaluation.benchmark_nar import NonAutoregressiveTransformer, matched_config
from ditar_hf.evaluation.benchmark_plan import build_system, changed, skeleton
from ditar_hf.evaluation.benchmark_systems import SystemSpec, Workload
from ditar_hf.modeling.transformer_ditar import DiTARTransformer

KINDS = ("ditar", "nar", "mar", "pocket_tts", "vibevoice")


@pytest.fixture
def make_spec(make_config):
    """Factory of specifications of tiny systems: `make_spec(kind, seconds=0.4, **fields)`."""
    codec = {"hidden_size": 8, "num_filters": 4, "depths": [1] * 7}
    peers = {
        "pocket_tts": {
            "config": PocketTTSConfig(
                **{"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
                **{"intermediate_size": 48, "latent_dim": 8, "audio_prompt_token_id": 36, "audio_latent_token_id": 37},
                **{"audio_prompt_bos_token_id": 38, "audio_bos_token_id": 39},
                flow_head_config={"hidden_size": 16, "num_hidden_layers": 2, "latent_dim": 8, "condition_dim": 32},
            ),
            "codec_config": PocketTTSAudioTokenizerConfig(
                **{"hidden_size": 16, "num_filters": 4, "upsample_groups": 16, "num_hidden_layers": 1},
                **{"intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2, "latent_dim": 8},
                encoder_config=None,
            ),
        },
        "vibevoice": {
            "config": VibeVoiceConfig(
                audio_config={"model_type": "vibevoice_acoustic_tokenizer", **codec},
                semantic_model_config={"model_type": "vibevoice_acoustic_tokenizer_encoder", **codec},
                text_config={"model_type": "qwen2", "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48}
                | {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
                diffusion_head_config={"num_hidden_layers": 1, "intermediate_size": 48},
                **{"pad_token_id": 35, "eos_token_id": 35, "audio_bos_token_id": 36, "audio_eos_token_id": 37},
                audio_token_id=38,
            )
        },
    }

    def make(kind, seconds=0.4, prompt_seconds=0.3, num_inference_steps=2, guidance_scale=2.0, **fields):
        workload = Workload(seconds, prompt_seconds, None, num_inference_steps, guidance_scale)
        values = {"config": make_config(), "transformer_class": DiTARTransformer, **peers.get(kind, {}), **fields}
        if kind == "mar":
            values["config"] = changed(values["config"], head_type="mlp", patch_size=1, num_history_patches=0)
        return SystemSpec(f"{kind} tiny", kind, workload=workload, **values)

    return make


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level("ERROR", "ditar_hf")


class TestWorkload:
    def test_text_is_as_long_as_in_the_paper(self):
        assert Workload(10.0).text_length == 91
        assert Workload(10.0, num_text_tokens=5).text_length == 5
        assert Workload(0.01, 0.0).text_length == 1

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"seconds": 0}, "`seconds` must be a finite number above 0, got 0"),
            ({"seconds": float("nan")}, "`seconds`"),
            ({"seconds": float("inf")}, "`seconds`"),
            ({"seconds": 1, "prompt_seconds": -1}, "`prompt_seconds` must be a finite number 0 or more"),
            ({"seconds": 1, "num_text_tokens": 0}, "`num_text_tokens`"),
            ({"seconds": 1, "num_inference_steps": 0}, "`num_inference_steps`"),
            ({"seconds": 1, "num_inference_steps": 1.5}, "`num_inference_steps`"),
            ({"seconds": 1, "guidance_scale": 0.5}, "`guidance_scale`"),
        ],
    )
    def test_nonsense_is_refused(self, values, message):
        with pytest.raises(ValueError, match=message):
            Workload(**values)


@pytest.mark.parametrize("kind", KINDS)
class TestEachSystem:
    @pytest.mark.parametrize(("seconds", "prompt_seconds"), [(0.4, 0.3), (0.8, 0.0)])
    def test_it_makes_the_seconds_that_are_asked_for(self, make_spec, kind, seconds, prompt_seconds):
        system = build_system(make_spec(kind, seconds, prompt_seconds))
        for batch_size in (1, 2):
            run = system.speak(batch_size)
            # `check_length` has seen each row
            assert math.isclose(run.speech_seconds, seconds)
            assert 0 < run.first_patch_seconds and 0 < run.seconds
            assert 0 < run.decode_seconds and 0 < run.first_decode_seconds

    def test_it_tells_the_same_with_and_without_weights(self, make_spec, kind):
        spec = make_spec(kind)
        assert skeleton(spec).describe() == build_system(spec).describe()
        assert skeleton(spec).describe()["compile"] is None
        assert "compile" in skeleton(replace(spec, compile=True)).describe()["compile"]

    def test_its_patches_fill_the_speech(self, make_spec, kind):
        facts = skeleton(make_spec(kind, 0.8)).describe()
        assert math.isclose(facts["num_steps"] * facts["step_seconds"], 0.8)
        assert facts["num_prompt_steps"] * facts["step_seconds"] >= 0.3 - 1e-9

    def test_a_length_between_patches_is_refused(self, make_spec, kind):
        # even for single frames of 25 ms
        with pytest.raises(ValueError, match=r"`seconds` \(0.41\) is no whole number of the .* s that"):
            skeleton(make_spec(kind, 0.41)).describe()

    def test_it_leaves_torch_s_generator_alone(self, make_spec, kind):
        before = torch.get_rng_state()
        build_system(make_spec(kind)).speak(1)
        assert torch.equal(torch.get_rng_state(), before)

    def test_in_half_precision_weights_take_half(self, make_spec, kind):
        full, half = (skeleton(make_spec(kind, dtype=dtype)) for dtype in ("float32", "bfloat16"))
        assert half.num_parameters == full.num_parameters
        assert half.num_bytes < full.num_bytes
        assert math.isclose(build_system(make_spec(kind, dtype="bfloat16")).speak(1).speech_seconds, 0.4)


def test_speech_of_another_length_is_an_error(make_spec):
    system = skeleton(make_spec("ditar"))
    system.check_length(0.4)
    with pytest.raises(RuntimeError, match="made 0.3 s of speech where 0.4 s were asked for"):
        system.check_length(0.3)


def test_ditar_that_wants_to_stop_goes_on(make_spec):
    system = build_system(make_spec("ditar"))
    with torch.no_grad():
        system.model.stop_head.bias.fill_(100.0)
    assert math.isclose(system.speak(2).speech_seconds, 0.4)


def test_pocket_tts_that_wants_to_stop_goes_on(make_spec):
    system = build_system(make_spec("pocket_tts"))
    with torch.no_grad():
        system.model.eos_head.bias.fill_(100.0)
    assert math.isclose(system.speak(2).speech_seconds, 0.4)


def test_the_first_patch_of_ditar_comes_from_a_call_that_ends_with_it(make_spec):
    system = build_system(make_spec("ditar"))
    calls = []
    system.model.stop_head.register_forward_hook(lambda *arguments: calls.append(1))
    system.speak(1)
    assert len(calls) == 1 + 4


def test_a_trained_model_is_measured_as_it_is(make_spec, make_model, tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path / "model")
    spec = make_spec("ditar", folder=str(tmp_path / "model"))
    system = build_system(spec)
    assert torch.equal(system.model.stop_head.weight, model.stop_head.weight)
    assert system.describe()["weights"] == str(tmp_path / "model")
    assert skeleton(spec).describe() == system.describe()


def test_only_weights_that_speak_are_counted(make_spec, make_model):
    model, facts = make_model(), skeleton(make_spec("ditar")).describe()
    speaking = sum(p.numel() for part in (model.model, model.locdit, model.stop_head) for p in part.parameters())
    assert facts["num_parameters"] == speaking
    assert facts["num_codec_parameters"] == sum(p.numel() for p in model.vae.decoder.parameters())


class TestNonAutoregressive:
    @pytest.mark.parametrize("preset", ["tiny", "0.1B", "0.4B", "0.6B", "1B"])
    def test_it_has_as_many_weights_as_ours(self, make_spec, preset):
        config = DiTARConfig.from_preset(preset)
        ours, theirs = (skeleton(make_spec(kind, config=config)).num_parameters for kind in ("ditar", "nar"))
        assert abs(theirs / ours - 1) < 0.01

    def test_so_it_has_where_blocks_are_small(self, make_spec):
        ours, theirs = (skeleton(make_spec(kind)).num_parameters for kind in ("ditar", "nar"))
        assert abs(theirs / ours - 1) < 0.01

    @pytest.mark.parametrize("preset", ["0.1B", "0.4B", "0.6B", "1B"])
    def test_its_sizes_suit_matrix_kernels(self, preset):
        assert matched_config(DiTARConfig.from_preset(preset), DiTARTransformer).intermediate_size % 32 == 0

    def test_it_is_as_wide_and_as_deep_as_ours(self):
        config = matched_config(DiTARConfig.from_preset("0.6B"), DiTARTransformer)
        assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (48, 1024, 16)
        assert config.intermediate_size == 4096  # all blocks of this size are alike

    def test_what_cannot_be_matched_is_refused(self, make_config):
        config = make_config(lm_config={"hidden_size": 512, "num_hidden_layers": 1})
        with pytest.raises(ValueError, match="leave out the system `nar`"):
            matched_config(config, DiTARTransformer)

    @pytest.mark.parametrize(("guidance_scale", "rows"), [(1.0, 3), (2.0, 6)])
    def test_guidance_is_two_rows(self, make_spec, guidance_scale, rows):
        system = build_system(make_spec("nar", guidance_scale=guidance_scale, num_inference_steps=5))
        shapes = []
        system.model.transformer.register_forward_pre_hook(lambda module, inputs: shapes.append(inputs[0].shape))
        system.speak(3)
        # a step each, over the frames of 0.3 s of prompt and 0.4 s of target
        assert shapes == [torch.Size((rows, 28, 32))] * 5
        assert system.describe()["num_branches"] == rows // 3

    def test_nothing_is_there_before_the_end(self, make_spec):
        run = build_system(make_spec("nar")).speak(1)
        assert run.first_patch_seconds == run.seconds

    def test_text_prompt_and_noise_matter(self, make_spec):
        model: NonAutoregressiveTransformer = build_system(make_spec("nar")).model

        def speak(ids=3, prompt=0.0, seed=0, guidance_scale=2.0):
            with torch.random.fork_rng():
                torch.manual_seed(1)
                with torch.no_grad():
                    for weight in model.parameters():
                        weight.uniform_(-0.3, 0.3)
            arguments = (torch.full((1, 4), ids), torch.full((1, 4, 8), prompt), 8, 2, guidance_scale)
            return model.generate(*arguments, torch.Generator().manual_seed(seed))

        first = speak()
        assert first.shape == (1, 8, 8) and first.isfinite().all()
        assert torch.equal(first, speak())
        for other in ({"ids": 4}, {"prompt": 1.0}, {"seed": 1}, {"guidance_scale": 1.0}):
            assert not torch.allclose(first, speak(**other)), other

    def test_more_text_than_frames_is_refused(self, make_spec):
        spec = make_spec("nar")
        long = replace(spec, workload=replace(spec.workload, num_text_tokens=29))
        with pytest.raises(ValueError, match=r"`num_text_tokens` \(29\) is more than the 28 frames"):
            skeleton(long)


def test_mar_draws_single_frames_by_an_mlp(make_spec):
    system = build_system(make_spec("mar"))
    assert type(system.model.locdit.transformer).__name__ == "DiTARMLPHead"
    assert system.num_steps == 16


def test_vibevoice_reads_each_frame_again(make_spec):
    system = build_system(make_spec("vibevoice", num_inference_steps=3))
    calls = {"head": 0, "semantic": 0}
    model = system.model.model
    model.diffusion_head.register_forward_hook(lambda *a: calls.update(head=calls["head"] + 1))
    model.semantic_tokenizer_encoder.register_forward_hook(lambda *a: calls.update(semantic=calls["semantic"] + 1))
    system.speak(2)
    assert calls == {"head": 3 * 3, "semantic": 3}


def test_compiled_systems_make_the_same_length(make_spec, monkeypatch):
    # what is compiled is the compiler's affair; here it must only be asked for
    asked = []
    monkeypatch.setattr(torch, "compile", lambda function=None, **options: asked.append(1) or function)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: asked.append(1))
    for kind in KINDS:
        before = len(asked)
        system = build_system(make_spec(kind, compile=True))
        assert math.isclose(system.speak(1).speech_seconds, 0.4)
        assert len(asked) > before or kind in ("pocket_tts", "vibevoice")
