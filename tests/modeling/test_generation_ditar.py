"""Laws of `generate`: what it gives back, how long rows get, where its noise comes from, and what it refuses."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from transformers import GenerationConfig

from ditar_hf import DiTARGenerationConfig, DiTARScheduler

BOS, PATCH = 2, 3
TEXTS = ([11, 12, 13, 14, 15], [21, 8], [31, 32, 33, 34, 35, 36, 37, 38, 39])
RATE, PATCH_LENGTH = 24_000, 2400
# Four patches of two steps each: enough to see all that is tested here.
SHORT = {"max_new_tokens": 4, "min_new_tokens": 4, "num_inference_steps": 2}


def make_inputs(texts=TEXTS, prompt_patches=None, padding=0) -> dict[str, torch.Tensor]:
    """Left-padded `input_ids` and `attention_mask` for texts of token ids and numbers of prompt patches."""
    counts = prompt_patches or [0] * len(texts)
    rows = [[*text, BOS, *[PATCH] * count] for text, count in zip(texts, counts, strict=True)]
    width = max(map(len, rows)) + padding
    return {
        "input_ids": torch.tensor([[0] * (width - len(row)) + row for row in rows]),
        "attention_mask": torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows]),
    }


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def voice(num_patches: int, frequency: float = 180) -> torch.Tensor:
    times = torch.arange(num_patches * PATCH_LENGTH) / RATE
    return 0.5 * torch.sin(2 * torch.pi * frequency * times) * (0.6 + 0.4 * torch.sin(2 * torch.pi * 3 * times))


def set_stop(model, logit: float):
    """Lets the stop head say the same after each patch."""
    with torch.no_grad():
        model.stop_head.weight.zero_()
        model.stop_head.bias.fill_(logit)


def assert_same(one, other, tolerance: float = 0):
    """All rows of two outputs are the same."""
    assert one.num_patches.tolist() == other.num_patches.tolist()
    for name in ("latents", "audio"):
        for row, other_row in zip(one[name], other[name], strict=True):
            assert row.shape == other_row.shape
            assert (row - other_row).abs().max() <= tolerance


def differ(one, other) -> bool:
    return all((row - other_row).abs().max() > 1e-2 for row, other_row in zip(one.latents, other.latents, strict=True))


# What comes back


def test_fields_of_the_output(make_model):
    model = make_model()
    output = model.generate(**make_inputs(), **SHORT)
    assert list(output) == ["audio", "latents", "num_patches", "reached_limit"]
    assert output.num_patches.tolist() == [4, 4, 4] and output.reached_limit.dtype == torch.bool
    for audio, latents in zip(output.audio, output.latents, strict=True):
        assert audio.shape == (4 * PATCH_LENGTH,) and latents.shape == (16, 8)
        assert audio.dtype == latents.dtype == torch.float32
        assert audio.abs().max() <= 1 and audio.std() > 0
        assert not audio.requires_grad and not latents.requires_grad


def test_audio_is_the_decoded_latents_cut_to_the_range(make_model):
    model = make_model()
    with torch.no_grad():
        for parameter in model.vae.decoder.output_proj.parameters():
            parameter.mul_(20)  # loud enough that some samples leave the range
    output = model.generate(**make_inputs(), **SHORT)
    for audio, latents in zip(output.audio, output.latents, strict=True):
        with torch.no_grad():
            decoded = model.vae.decode(latents[None])[0]
        assert decoded.abs().max() > 1
        assert torch.allclose(audio, decoded.clamp(-1, 1), atol=1e-3)


def test_the_mask_is_found_where_it_is_not_given(make_model):
    model, inputs = make_model(), make_inputs()
    with_mask = model.generate(**inputs, **SHORT, temperature=0)
    assert_same(model.generate(inputs["input_ids"], **SHORT, temperature=0), with_mask)
    assert_same(
        model.generate(inputs["input_ids"], inputs["attention_mask"].bool(), **SHORT, temperature=0), with_mask
    )


def test_a_plain_config_and_single_values_reach_generate(make_model):
    model, inputs = make_model(), make_inputs()
    expected = model.generate(**inputs, **SHORT, temperature=0, guidance_scale=1)
    settings = {**SHORT, "temperature": 0, "guidance_scale": 1}
    ours = DiTARGenerationConfig(**settings)
    assert_same(model.generate(**inputs, generation_config=ours), expected)
    plain = GenerationConfig(max_new_tokens=4, temperature=0.0, guidance_scale=1.0)
    assert_same(model.generate(**inputs, generation_config=plain, min_new_tokens=4, num_inference_steps=2), expected)
    model.generation_config = ours
    assert_same(model.generate(**inputs), expected)


def test_training_mode_and_gradients_do_not_matter(make_model):
    model, inputs = make_model(condition_dropout=0.5, history_noise_std=1.0), make_inputs()
    expected = model.generate(**inputs, **SHORT, temperature=0)
    model.train()
    assert_same(model.generate(**inputs, **SHORT, temperature=0), expected)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_training_with_gradient_checkpointing_is_left_first(make_model):
    model, inputs = make_model(), make_inputs()
    expected = model.generate(**inputs, **SHORT, temperature=0)
    model.activation_checkpointing_enable()
    model.train()
    with pytest.raises(ValueError, match="gradient checkpointing, which drops the cache.*call `model.eval.*first"):
        model.generate(**inputs, **SHORT)
    model.eval()
    assert_same(model.generate(**inputs, **SHORT, temperature=0), expected)
    model.activation_checkpointing_disable()
    model.train()
    assert_same(model.generate(**inputs, **SHORT, temperature=0), expected)


# Prompts


def test_prompt_audio_equals_prompt_latents(make_model):
    model = make_model()
    inputs = make_inputs(prompt_patches=[3, 3, 3])
    values = torch.stack([voice(3, frequency) for frequency in (120, 180, 240)])
    from_audio = model.generate(**inputs, prompt_values=values, **SHORT, temperature=0)
    latents, _ = model.encode_waveforms(values)
    assert latents.shape == (3, 12, 8)
    assert_same(model.generate(**inputs, prompt_latents=latents, **SHORT, temperature=0), from_audio)
    assert differ(from_audio, model.generate(**inputs, prompt_latents=-latents, **SHORT, temperature=0))


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_with_and_without_prompts_share_a_batch(make_model, side):
    model, counts = make_model(), [2, 0, 5]
    values = torch.full((3, 5 * PATCH_LENGTH), 0.3)  # what stands in the padding must not matter
    mask = torch.zeros(3, 5 * PATCH_LENGTH, dtype=torch.long)
    for row, count in enumerate(counts):
        length = count * PATCH_LENGTH
        place = slice(length) if side == "right" else slice(5 * PATCH_LENGTH - length, None)
        values[row, place], mask[row, place] = voice(count), 1
    batch = model.generate(
        **make_inputs(prompt_patches=counts),
        prompt_values=values,
        prompt_mask=mask,
        **SHORT,
        generator=seeded(1, 2, 3),
    )
    for row, count in enumerate(counts):
        prompt = {"prompt_values": voice(count)[None]} if count else {}
        alone = model.generate(
            **make_inputs(TEXTS[row : row + 1], [count]), **prompt, **SHORT, generator=seeded(row + 1)
        )
        assert (batch.latents[row] - alone.latents[0]).abs().max() < 1e-4
        assert (batch.audio[row] - alone.audio[0]).abs().max() < 1e-4


def test_prompt_keys_without_any_prompt_are_as_no_prompt(make_model):
    model, inputs = make_model(), make_inputs()
    expected = model.generate(**inputs, **SHORT, temperature=0)
    empty = {"prompt_values": torch.zeros(3, PATCH_LENGTH), "prompt_mask": torch.zeros(3, PATCH_LENGTH)}
    assert_same(model.generate(**inputs, **empty, **SHORT, temperature=0), expected)
    empty = {"prompt_latents": torch.zeros(3, 4, 8), "prompt_latents_mask": torch.zeros(3, 4)}
    assert_same(model.generate(**inputs, **empty, **SHORT, temperature=0), expected)


# Length


BOUNDS = {
    "max_patches_per_token": 1.5,
    "min_patches_per_token": 0.5,
    "spare_patches": 2,
    "num_inference_steps": 1,
    "guidance_scale": 1,
}


@pytest.mark.parametrize("prompt_patches", [[0, 0, 0], [4, 0, 2], [9, 9, 9]])
def test_bounds_come_from_each_rows_text_less_its_prompt(make_model, prompt_patches, caplog):
    model = make_model()
    latents = torch.zeros(3, 4 * max(prompt_patches), 8)
    mask = torch.arange(4 * max(prompt_patches)) < 4 * torch.tensor(prompt_patches)[:, None]
    inputs = make_inputs(prompt_patches=prompt_patches)
    if any(prompt_patches):
        inputs |= {"prompt_latents": latents, "prompt_latents_mask": mask}
    lengths = [len(text) for text in TEXTS]

    set_stop(model, -10)
    output = model.generate(**inputs, **BOUNDS)
    most = [max(1, int(1.5 * length) + 2 - count) for length, count in zip(lengths, prompt_patches, strict=True)]
    assert output.num_patches.tolist() == most and output.reached_limit.tolist() == [True] * 3
    assert f"Rows [0, 1, 2] ran into their limit of {most} patches" in caplog.text
    caplog.clear()

    set_stop(model, 10)
    output = model.generate(**inputs, **BOUNDS)
    fewest = [max(1, int(0.5 * length) - count) for length, count in zip(lengths, prompt_patches, strict=True)]
    assert output.num_patches.tolist() == fewest and output.reached_limit.tolist() == [False] * 3
    assert not caplog.text


def test_bounds_in_patches_come_before_those_from_text(make_model):
    model, inputs = make_model(), make_inputs()
    set_stop(model, -10)
    assert model.generate(**inputs, **BOUNDS, max_new_tokens=6).num_patches.tolist() == [6, 5, 6]
    assert model.generate(**inputs, **BOUNDS, min_new_tokens=9).num_patches.tolist() == [9, 9, 15]
    set_stop(model, 10)
    assert model.generate(**inputs, **BOUNDS, min_new_tokens=3).num_patches.tolist() == [3, 3, 4]
    # a lower bound from the text yields to an upper one
    assert model.generate(**inputs, **BOUNDS, max_new_tokens=1).num_patches.tolist() == [1, 1, 1]


def test_padding_is_no_text(make_model):
    model = make_model()
    set_stop(model, -10)
    assert model.generate(**make_inputs(padding=20), **BOUNDS).num_patches.tolist() == [9, 5, 15]


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_text_and_speech_fit_into_the_positions_of_the_language_model(make_model, cache):
    # learnt positions: there is nothing beyond the last
    lm_config = {"model_type": "gpt2", "vocab_size": 40, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 16}
    model = make_model(lm_config={**lm_config, "bos_token_id": None, "eos_token_id": None})
    settings = {"num_inference_steps": 1, "stop_threshold": 1, "cache_implementation": cache}
    inputs = make_inputs(padding=3)  # padding has no positions
    assert model.generate(**inputs, **settings, max_new_tokens=6).num_patches.max() == 6
    message = "10 tokens and up to 7 patches of speech exceed the 16 positions of `lm_config.max_position_embeddings`"
    with pytest.raises(ValueError, match=f"{message}: shorten the text .* lower `max_new_tokens`"):
        model.generate(**inputs, **settings, max_new_tokens=7)


def test_only_rows_that_ran_into_their_limit_are_flagged(make_model, caplog):
    model = make_model()
    with torch.no_grad():
        model.stop_head.weight.mul_(40)
    seen = set()
    for bias in (-6, -7, -8, -9, -10, -11):
        caplog.clear()
        with torch.no_grad():
            model.stop_head.bias.fill_(bias)
        output = model.generate(**make_inputs(), max_new_tokens=3, num_inference_steps=2, generator=seeded(1, 2, 3))
        flags, counts = output.reached_limit.tolist(), output.num_patches.tolist()
        rows = [row for row, flag in enumerate(flags) if flag]
        assert all(counts[row] == 3 for row in rows)
        if rows:
            limits = [3 for _ in rows]
            assert f"Rows {rows} ran into their limit of {limits} patches" in caplog.text
            assert "`max_new_tokens`" in caplog.text
        else:
            assert not caplog.text
        seen.add(len(rows))
    assert {0, 3} < seen


def test_a_threshold_of_one_never_stops_and_of_zero_always(make_model):
    model, inputs = make_model(), make_inputs()
    settings = {"num_inference_steps": 1, "max_new_tokens": 4}
    set_stop(model, 30)
    assert model.generate(**inputs, **settings, stop_threshold=1).num_patches.tolist() == [4] * 3
    set_stop(model, -30)
    assert model.generate(**inputs, **settings, stop_threshold=0).num_patches.tolist() == [1] * 3


# Noise


def test_temperature_zero_draws_nothing(make_model):
    model, inputs = make_model(), make_inputs()
    before, generators = torch.get_rng_state(), seeded(1, 2, 3)
    states = [generator.get_state() for generator in generators]
    one = model.generate(**inputs, **SHORT, temperature=0)
    other = model.generate(**inputs, **SHORT, temperature=0, generator=generators)
    third = model.generate(**inputs, **SHORT, temperature=0, generator=generators[0])
    assert_same(one, other)
    assert_same(one, third)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(x.get_state(), state) for x, state in zip(generators, states, strict=True))


@pytest.mark.parametrize("temperature", [0.5, 1])
def test_above_temperature_zero_the_voice_depends_on_the_seed_alone(make_model, temperature):
    model, inputs = make_model(), make_inputs()
    settings = {**SHORT, "temperature": temperature}
    for make_generator in (lambda seed: seeded(seed)[0], lambda seed: seeded(seed, seed + 1, seed + 2)):
        before = torch.get_rng_state()
        one, same, other = (model.generate(**inputs, **settings, generator=make_generator(seed)) for seed in (1, 1, 7))
        assert torch.equal(torch.get_rng_state(), before)
        assert_same(one, same)
        assert differ(one, other)
    torch.manual_seed(3)
    one = model.generate(**inputs, **settings)
    other = model.generate(**inputs, **settings)
    torch.manual_seed(3)
    assert_same(one, model.generate(**inputs, **settings))
    assert differ(one, other)


def test_rows_with_one_text_have_voices_of_their_own(make_model):
    model = make_model()
    output = model.generate(**make_inputs([TEXTS[0]] * 2), **SHORT, generator=seeded(1)[0])
    assert (output.latents[0] - output.latents[1]).abs().max() > 1e-2
    output = model.generate(**make_inputs([TEXTS[0]] * 2), **SHORT, generator=seeded(1, 1))
    assert (output.latents[0] - output.latents[1]).abs().max() < 1e-4


def test_a_generator_list_must_fit(make_model):
    with pytest.raises(ValueError, match="`generator` is a list of 2 for 3 rows"):
        make_model().generate(**make_inputs(), **SHORT, generator=seeded(1, 2))


# Solvers


def test_another_solver_or_grid(make_model):
    model, inputs = make_model(), make_inputs()
    settings = {**SHORT, "num_inference_steps": 4}
    default = model.generate(**inputs, **settings, generator=seeded(1, 2, 3))
    for scheduler_config in ({"algorithm_type": "dpmsolver++"}, {"algorithm_type": "euler"}, {"start_timestep": 0.8}):
        scheduler = DiTARScheduler(**scheduler_config)
        other = model.generate(**inputs, **settings, generator=seeded(1, 2, 3), noise_scheduler=scheduler)
        assert differ(default, other)
        same_model = make_model(scheduler_config=scheduler_config)
        assert_same(same_model.generate(**inputs, **settings, generator=seeded(1, 2, 3)), other)
        assert scheduler.num_inference_steps is None, "a caller's scheduler must not be planned for"
        # a plan of the caller's has no say
        scheduler.set_timesteps(2, temperature=0)
        planned = model.generate(**inputs, **settings, generator=seeded(1, 2, 3), noise_scheduler=scheduler)
        assert_same(planned, other)
        assert scheduler.num_inference_steps == 2
    same = model.generate(**inputs, **settings, generator=seeded(1, 2, 3), noise_scheduler=DiTARScheduler())
    assert_same(same, default)
    assert model.noise_scheduler.num_inference_steps is None


def test_a_scheduler_for_another_prediction_is_refused(make_model):
    model = make_model()
    message = "expects a model with prediction_type 'v_prediction', this one gives 'flow_prediction'.*from_config"
    with pytest.raises(ValueError, match=message):
        model.generate(**make_inputs(), noise_scheduler=DiTARScheduler(prediction_type="v_prediction"))


@pytest.mark.parametrize("scheduler", [DDIMScheduler(), FlowMatchEulerDiscreteScheduler(), "ddim"], ids=str)
def test_schedulers_of_diffusers_are_refused(make_model, scheduler):
    with pytest.raises(ValueError, match=f"`noise_scheduler` is a {type(scheduler).__name__}.*pass a DiTARScheduler"):
        make_model().generate(**make_inputs(), noise_scheduler=scheduler)


# Sharing, streaming, precision


def test_threads_that_share_a_model_get_what_they_get_alone(make_model):
    model = make_model()
    jobs = [
        (row, temperature, steps, guidance)
        for row in range(3)
        for temperature, steps, guidance in ((0, 2, 1), (0.5, 3, 2), (1, 4, 3), (1, 5, 1))
    ]

    def speak(job):
        row, temperature, steps, guidance = job
        return model.generate(
            **make_inputs(TEXTS[row : row + 1]),
            max_new_tokens=6,
            temperature=temperature,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=seeded(row),
        )

    serial = [speak(job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(serial, pool.map(speak, jobs), strict=True):
            assert_same(one, other)


class Streamer:
    def __init__(self):
        self.events = []

    def put(self, value):
        self.events.append(value)

    def end(self):
        self.events.append("end")


@pytest.mark.parametrize("num_patches", [1, 4])
def test_a_streamer_gets_each_patch_and_then_the_end(make_model, num_patches):
    model, streamer = make_model(), Streamer()
    settings = {**SHORT, "max_new_tokens": num_patches, "min_new_tokens": num_patches}
    output = model.generate(**make_inputs(), **settings, streamer=streamer)
    *patches, end = streamer.events
    assert end == "end" and [patch.shape for patch in patches] == [(3, 4, 8)] * num_patches
    assert torch.equal(torch.cat(patches, dim=1), torch.stack(output.latents))


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_a_bfloat16_model_speaks(make_model, cache):
    model = make_model().to(torch.bfloat16)
    inputs = make_inputs(prompt_patches=[2, 2, 2])
    settings = {**SHORT, "cache_implementation": cache, "temperature": 0}
    values = torch.stack([voice(2, frequency) for frequency in (120, 180, 240)])
    output = model.generate(**inputs, prompt_values=values, **settings)
    exact = make_model().generate(**inputs, prompt_values=values, **settings)
    assert output.num_patches.tolist() == [4, 4, 4]
    for audio, latents, expected in zip(output.audio, output.latents, exact.latents, strict=True):
        assert audio.dtype == latents.dtype == torch.float32
        assert torch.isfinite(audio).all() and audio.std() > 0
        assert 0 < (latents - expected).abs().max() < 0.5 * expected.std()


def test_autocast_leaves_the_tokenizer_of_speech_alone(make_model):
    model, inputs = make_model(), make_inputs(prompt_patches=[1, 1, 1])
    with torch.autocast("cpu", torch.bfloat16):
        output = model.generate(**inputs, prompt_values=torch.stack([voice(1)] * 3), **SHORT)
    with torch.no_grad():
        for audio, latents in zip(output.audio, output.latents, strict=True):
            assert torch.allclose(audio, model.vae.decode(latents[None])[0].clamp(-1, 1), atol=1e-5)


@pytest.mark.parametrize("model_type", ["arcee", "llama", "qwen3"])
def test_a_pretrained_family_as_language_model_survives_saving(make_model, tmp_path, model_type):
    lm_config = {
        "model_type": model_type,
        "vocab_size": 40,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    model = make_model(lm_config=lm_config)
    output = model.generate(**make_inputs(), **SHORT, temperature=0)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert loaded.config.lm_config.model_type == model_type
    assert_same(loaded.generate(**make_inputs(), **SHORT, temperature=0), output)
    assert all(torch.isfinite(audio).all() and audio.std() > 0 for audio in output.audio)


# Wrong input

IDS = make_inputs()["input_ids"]
MASK = make_inputs()["attention_mask"]
NAN = float("nan")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_ids": None}, "`input_ids` must be .*got None: call the processor first"),
        ({"input_ids": torch.zeros(1, 0, dtype=torch.long)}, r"got \[1, 0\]"),
        ({"input_ids": IDS[0]}, r"got \[10\]"),
        ({"input_ids": torch.tensor([[5, 6, 7]])}, r"needs one audio_bos token \(id 2\) after its text"),
        ({"input_ids": torch.tensor([[5, 2, 6, 2]])}, "one audio_bos token"),
        ({"input_ids": torch.tensor([[2, 5, 6]])}, "behind it only placeholders"),
        ({"input_ids": torch.tensor([[5, 3, 6, 2]])}, "behind it only placeholders"),
        ({"input_ids": torch.tensor([[5, 6, 2], [5, 2, 0]])}, "padded on the left"),
        ({"input_ids": IDS, "attention_mask": MASK.flip(1)}, "padded on the left"),
        ({"input_ids": IDS, "attention_mask": torch.zeros_like(MASK)}, "one audio_bos token"),
        ({"input_ids": IDS, "attention_mask": MASK[:, 1:]}, r"`attention_mask` \[3, 9\] must have the shape"),
        (
            {"input_ids": torch.tensor([[5, 6, 2, 3, 3]])},
            r"`input_ids` has \[2\] placeholders for prompt patches, but the prompts have \[0\]",
        ),
        ({"input_ids": IDS, "prompt_latents": torch.zeros(3, 4, 8)}, r"\[0, 0, 0\] placeholders.*have \[1, 1, 1\]"),
        ({"input_ids": IDS, "prompt_values": torch.zeros(2, PATCH_LENGTH)}, r"prompts have \[1, 1\]"),
        ({"input_ids": IDS, "prompt_latents": torch.zeros(3, 5, 8)}, "multiple of 4 frames"),
        ({"input_ids": IDS, "prompt_values": torch.zeros(3, 2500)}, "multiple of 2400 samples a row: trim"),
        (
            {"input_ids": IDS, "prompt_values": torch.zeros(3, 2400), "prompt_latents": torch.zeros(3, 4, 8)},
            "both given",
        ),
        ({"input_ids": IDS, "prompt_values": torch.zeros(PATCH_LENGTH)}, r"`prompt_values` \[2400\] must be"),
        (
            {"input_ids": IDS, "prompt_values": torch.zeros(3, 2400), "prompt_mask": torch.ones(3, 1)},
            "`prompt_mask` the same",
        ),
        ({"input_ids": IDS, "prompt_latents": torch.zeros(3, 4, 9)}, r"must be \(batch_size, num_frames, 8\)"),
        (
            {"input_ids": IDS, "prompt_latents": torch.zeros(3, 4, 8), "prompt_latents_mask": torch.ones(2, 4)},
            "`prompt_latents_mask` the same",
        ),
        ({"input_ids": IDS, "temperature": 1.5}, "`temperature` must be"),
        ({"input_ids": IDS, "temperature": -0.1}, "`temperature` must be"),
        ({"input_ids": IDS, "temperature": NAN}, "`temperature` must be.*got nan"),
        ({"input_ids": IDS, "num_inference_steps": 0}, "`num_inference_steps` must be"),
        ({"input_ids": IDS, "guidance_scale": 0.5}, "`guidance_scale` must be"),
        ({"input_ids": IDS, "num_beams": 2}, "`num_beams` is not an argument"),
        ({"input_ids": IDS, "logits_processor": []}, "`logits_processor` is not an argument"),
        ({"input_ids": IDS, "do_sample": True}, "`do_sample` is not an argument"),
        ({"input_ids": IDS, "generation_config": GenerationConfig(num_beams=4)}, "`num_beams` is not an argument"),
        ({"input_ids": IDS, "generation_config": GenerationConfig(use_cache=False)}, "`use_cache` must be True"),
        ({"input_ids": IDS, "use_cache": False}, "`use_cache` must be True, got False"),
        ({"input_ids": IDS, "return_dict_in_generate": False}, "`return_dict_in_generate` must be True, got False"),
        ({"input_ids": IDS, "cache_implementation": "offloaded"}, "`cache_implementation` must be"),
    ],
)
def test_wrong_input(make_model, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_model().generate(**arguments)


def test_a_numpy_seed_or_number_will_do(make_model):
    model = make_model()
    settings = {"temperature": np.float64(0), "num_inference_steps": np.int64(2), "max_new_tokens": np.int64(3)}
    assert_same(
        model.generate(IDS, **settings), model.generate(IDS, temperature=0, num_inference_steps=2, max_new_tokens=3)
    )


@pytest.mark.parametrize(("temperature", "draws"), [(0.0, False), (0.2, False), (0.5, True), (1.0, True)])
def test_noise_is_drawn_where_it_is_said_to_be(make_model, temperature, draws):
    model, settings = make_model().eval(), {"temperature": temperature, "num_inference_steps": 2}
    assert model.draws_noise(**settings) is draws
    assert model.draws_noise(DiTARGenerationConfig(**settings)) is draws
    ids, length = torch.tensor([[11, 12, 2]]), {"max_new_tokens": 2, "min_new_tokens": 2}
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    one, other = (model.generate(ids, generator=generator, **settings, **length).audio[0] for generator in generators)
    assert torch.equal(one, other) is not draws
