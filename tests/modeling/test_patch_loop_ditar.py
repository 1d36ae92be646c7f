"""
Laws of the patch loop, against a reference that follows the definition: no cache, no batch, no padding.

For each patch the reference reads the whole sequence anew, calls LocDiT once with and once without its condition in
each step, and lets the scheduler's public `step` go on.
"""

import copy
import functools
import itertools
import math

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode

from ditar_hf import DiTARScheduler
from ditar_hf.modeling import patch_loop_ditar
from ditar_hf.modeling.patch_loop_ditar import DiTARPatchLoop

BOS, PATCH = 2, 3
TEXTS = ([11, 12, 13, 14, 15], [21, 8], [31, 32, 33, 34, 35, 36, 37, 38, 39], [9, 17, 29, 5])
NUM_PATCHES = 8
NUM_STEPS = 3
TOLERANCE = 1e-4
CACHES = ("dynamic", "static")


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def speak(model, texts, prompts=None, num_patches=NUM_PATCHES, padding=0, **arguments):
    """`generate` for texts of token ids and prompts of shape `(num_frames, latent_dim)`, always `num_patches` long."""
    prompts = prompts or [torch.zeros(0, model.config.latent_dim)] * len(texts)
    counts = [len(prompt) // model.config.patch_size for prompt in prompts]
    rows = [[*text, BOS, *[PATCH] * count] for text, count in zip(texts, counts, strict=True)]
    width = max(map(len, rows)) + padding
    if any(counts):
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        arguments["prompt_latents"] = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True)
        arguments["prompt_latents_mask"] = torch.arange(max(lengths)) < lengths[:, None]
    defaults = {"max_new_tokens": num_patches, "min_new_tokens": num_patches, "num_inference_steps": NUM_STEPS}
    input_ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    return model.generate(input_ids, **{**defaults, **arguments})


@torch.no_grad()
def reference(
    model,
    text,
    generator,
    temperature=1.0,
    guidance_scale=2.0,
    prompt=None,
    num_patches=NUM_PATCHES,
    num_steps=NUM_STEPS,
):
    """Latents `(num_frames, latent_dim)` of new patches, and the logit of "no patch follows" after each of them."""
    config = model.config
    frames = config.num_history_patches * config.patch_size
    scheduler = DiTARScheduler(**config.scheduler_config)
    patches = [] if prompt is None else list(prompt.unflatten(0, (-1, config.patch_size)))
    num_prompt_patches = len(patches)

    def last_state():
        input_ids = torch.tensor([[*text, BOS, *[PATCH] * len(patches)]])
        return model.model(input_ids, patches=torch.stack(patches) if patches else None).last_hidden_state[:, -1]

    logits = []
    for _ in range(num_patches):
        condition = last_state()
        past = torch.cat((torch.zeros(frames, config.latent_dim), *patches))
        history = past[len(past) - frames :][None]
        scheduler.set_timesteps(num_steps, temperature=temperature)
        shape = (1, config.patch_size, config.latent_dim)
        noise = None
        if scheduler.starts_from_noise or scheduler.renoise_index is not None:
            noise = torch.randn(shape, generator=generator)
        sample = noise if scheduler.starts_from_noise else torch.zeros(shape)
        for timestep in scheduler.timesteps:
            conditioned = model.locdit(sample, timestep[None], condition, history)
            free = model.locdit(sample, timestep[None], torch.zeros_like(condition), history)
            weight = guidance_scale - 1  # w of Eq. 2
            output = (1 + weight) * conditioned - weight * free
            sample = scheduler.step(output, timestep, sample, variance_noise=noise).prev_sample
        patches.append(sample[0])
        logits.append(model.stop_head(last_state()).item())
    return torch.cat(patches[num_prompt_patches:]), logits


def assert_close(one: torch.Tensor, other: torch.Tensor, tolerance: float = TOLERANCE):
    assert one.shape == other.shape
    assert (one - other).abs().max() < tolerance


def prompt_latents(num_patches: int, seed: int = 5, patch_size: int = 4, latent_dim: int = 8) -> torch.Tensor:
    return torch.randn(num_patches * patch_size, latent_dim, generator=torch.Generator().manual_seed(seed))


# Cached equals uncached


@pytest.mark.parametrize("temperature", [0, 0.5, 1])
@pytest.mark.parametrize("guidance_scale", [1, 2.5])
@pytest.mark.parametrize("num_history_patches", [0, 1, 2])
def test_cached_equals_uncached(make_model, num_history_patches, guidance_scale, temperature):
    model = make_model(num_history_patches=num_history_patches)
    settings = {"temperature": temperature, "guidance_scale": guidance_scale}
    expected, _ = reference(model, TEXTS[0], *seeded(1), **settings)
    for cache in CACHES:
        output = speak(model, TEXTS[:1], generator=seeded(1), cache_implementation=cache, **settings)
        assert_close(output.latents[0], expected)
        assert output.num_patches.tolist() == [NUM_PATCHES]


def test_cached_equals_uncached_with_an_mlp_as_head(make_model):
    model = make_model(head_type="mlp", patch_size=1, num_history_patches=0)
    expected, _ = reference(model, TEXTS[0], *seeded(1))
    for cache in CACHES:
        assert_close(speak(model, TEXTS[:1], generator=seeded(1), cache_implementation=cache).latents[0], expected)


def test_all_that_a_patch_depends_on_is_seen_in_the_result(make_model):
    """Without this, the equalities of this file would say little."""
    results = {
        "plain": speak(make_model(num_history_patches=1), TEXTS[:1], generator=seeded(1)),
        "text": speak(make_model(num_history_patches=1), TEXTS[1:2], generator=seeded(1)),
        "noise": speak(make_model(num_history_patches=1), TEXTS[:1], generator=seeded(2)),
        "guidance": speak(make_model(num_history_patches=1), TEXTS[:1], generator=seeded(1), guidance_scale=1),
        "temperature": speak(make_model(num_history_patches=1), TEXTS[:1], generator=seeded(1), temperature=0.5),
        "prompt": speak(make_model(num_history_patches=1), TEXTS[:1], [prompt_latents(1)], generator=seeded(1)),
        "prompt before its last patch": speak(
            make_model(num_history_patches=1),
            TEXTS[:1],
            [torch.cat((prompt_latents(1, seed=6), prompt_latents(1)))],
            generator=seeded(1),
        ),
    }
    for (name, one), (other_name, other) in itertools.combinations(results.items(), 2):
        difference = (one.latents[0] - other.latents[0]).abs().max()
        assert difference > 100 * TOLERANCE, f"{name} and {other_name} differ by {difference}"


TINY_LM = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
MIXED_LAYERS = ["full_attention", "sliding_attention", "full_attention"]


@pytest.mark.parametrize(
    "lm_config",
    [
        {"model_type": "qwen3"},
        {"model_type": "llama"},
        {"model_type": "mistral", "sliding_window": 5},
        {"model_type": "qwen3", "use_sliding_window": True, "sliding_window": 4, "layer_types": MIXED_LAYERS},
    ],
    ids=["qwen3", "llama", "mistral with a window", "qwen3 with windows in some layers"],
)
@pytest.mark.parametrize("cache", CACHES)
def test_other_language_models(make_model, lm_config, cache):
    model = make_model(lm_config={**TINY_LM, **lm_config})
    generators = seeded(1, 2, 3)
    output = speak(model, TEXTS[:3], generator=generators, cache_implementation=cache)
    for text, generator, latents in zip(TEXTS[:3], seeded(1, 2, 3), output.latents, strict=True):
        assert_close(latents, reference(model, text, generator)[0])


@pytest.mark.parametrize("cache", CACHES)
def test_attention_written_out(make_model, cache):
    model = make_model()
    model.set_attn_implementation("eager")
    output = speak(model, TEXTS[:2], generator=seeded(1, 2), cache_implementation=cache)
    for text, generator, latents in zip(TEXTS[:2], seeded(1, 2), output.latents, strict=True):
        assert_close(latents, reference(model, text, generator)[0])


@pytest.mark.parametrize(
    "scheduler_config",
    [
        {"prediction_type": "v_prediction"},
        {"prediction_type": "sample", "algorithm_type": "euler"},
        {"prediction_type": "epsilon", "start_timestep": 0.9},
        {"algorithm_type": "dpmsolver++"},
    ],
    ids=str,
)
@pytest.mark.parametrize("temperature", [0, 0.5, 1])
def test_what_the_model_predicts_and_how_it_is_solved(make_model, scheduler_config, temperature):
    model = make_model(scheduler_config=scheduler_config)
    # enough steps for those of second order, which are neither first nor last nor next to noise
    settings = {"temperature": temperature, "num_patches": 4}
    expected, _ = reference(model, TEXTS[0], *seeded(1), **settings, num_steps=6)
    output = speak(model, TEXTS[:1], generator=seeded(1), **settings, num_inference_steps=6)
    assert_close(output.latents[0], expected, TOLERANCE * max(1, expected.abs().max().item()))


# Batches


@pytest.mark.parametrize("num_history_patches", [0, 1, 2])
def test_batch_equals_single(make_model, num_history_patches):
    model = make_model(num_history_patches=num_history_patches)
    # shorter than, as long as and longer than the history; and none
    prompts = [prompt_latents(1), prompt_latents(0), prompt_latents(5, seed=6), prompt_latents(2, seed=7)]
    batches = [
        speak(model, TEXTS, prompts, generator=seeded(1, 2, 3, 4), cache_implementation=cache) for cache in CACHES
    ]
    for row, (text, prompt) in enumerate(zip(TEXTS, prompts, strict=True)):
        alone = speak(model, [text], [prompt], generator=seeded(row + 1))
        assert_close(alone.latents[0], reference(model, text, *seeded(row + 1), prompt=prompt)[0])
        for batch in batches:
            assert_close(batch.latents[row], alone.latents[0])
            assert_close(batch.audio[row], alone.audio[0])


@pytest.mark.parametrize("cache", CACHES)
def test_padding_changes_nothing(make_model, cache):
    model = make_model()
    prompts = [prompt_latents(1), prompt_latents(0), prompt_latents(3)]
    settings = {"generator": seeded(1, 2, 3), "cache_implementation": cache}
    narrow = speak(model, TEXTS[:3], prompts, **settings)
    wide = speak(model, TEXTS[:3], prompts, padding=7, **{**settings, "generator": seeded(1, 2, 3)})
    for one, other in zip(narrow.latents, wide.latents, strict=True):
        assert_close(one, other)


# Prompts


@pytest.mark.parametrize("num_history_patches", [1, 2])
def test_the_prompts_tail_is_the_history_of_the_first_patch(make_model, num_history_patches):
    model = make_model(num_history_patches=num_history_patches)
    histories = []
    model.locdit.history_proj.register_forward_pre_hook(lambda _, inputs: histories.append(inputs[0].clone()))
    prompts = [prompt_latents(1), prompt_latents(0), prompt_latents(3, seed=6)]
    output = speak(model, TEXTS[:3], prompts, num_patches=2, generator=seeded(1, 2, 3))
    frames = 4 * num_history_patches
    padded = [torch.cat((torch.zeros(frames, 8), prompt)) for prompt in prompts]
    assert torch.equal(histories[0], torch.stack([past[-frames:] for past in padded]))
    padded = [torch.cat((past, latents[:4])) for past, latents in zip(padded, output.latents, strict=True)]
    assert torch.equal(histories[1], torch.stack([past[-frames:] for past in padded]))


def test_the_prompt_is_no_part_of_the_output(make_model):
    model = make_model()
    with_prompt = speak(model, TEXTS[:1], [prompt_latents(6)], num_patches=3, generator=seeded(1))
    assert with_prompt.latents[0].shape == (3 * 4, 8) and with_prompt.audio[0].shape == (3 * 2400,)
    assert with_prompt.num_patches.tolist() == [3]
    with torch.no_grad():
        assert_close(with_prompt.audio[0], model.vae.decode(with_prompt.latents[0][None])[0].clamp(-1, 1))


# Stopping


def make_stopping_model(make_model, **overrides):
    """A model whose stop logits are spread widely around 0, so that thresholds can tell patches apart."""
    model = make_model(**overrides)
    with torch.no_grad():
        model.stop_head.weight.mul_(40)
        model.stop_head.bias.fill_(-7)
    return model


def first_above(logits: list[float], threshold: float) -> int | None:
    """Patches that are drawn until the logit after one of them exceeds the threshold."""
    return next((place + 1 for place, logit in enumerate(logits) if logit > threshold), None)


def thresholds(traces: list[list[float]]) -> list[float]:
    """Logits in the middle of wide gaps, so that rounding does not decide."""
    ordered = sorted(itertools.chain(*traces))
    return [(low + high) / 2 for low, high in itertools.pairwise(ordered) if high - low > 0.01]


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


@pytest.mark.parametrize("seed", [9, 20])
def test_a_row_stops_after_the_first_patch_whose_state_says_so(make_model, seed):
    model = make_stopping_model(make_model)
    expected, logits = reference(model, TEXTS[0], *seeded(seed))
    lengths = set()
    for threshold in [*thresholds([logits]), max(logits) + 1]:
        output = speak(model, TEXTS[:1], generator=seeded(seed), min_new_tokens=1, stop_threshold=sigmoid(threshold))
        length = first_above(logits, threshold)
        assert output.num_patches.tolist() == [length or NUM_PATCHES]
        assert output.reached_limit.tolist() == [length is None]
        assert_close(output.latents[0], expected[: 4 * (length or NUM_PATCHES)])
        lengths.add(length)
    assert len(lengths) > 4


def test_min_new_tokens_outvotes_the_stop_head(make_model):
    model = make_stopping_model(make_model)
    _, logits = reference(model, TEXTS[0], *seeded(1))
    for fewest in (1, 3, 6):
        threshold = min(logits[fewest - 1 :]) - 1
        output = speak(model, TEXTS[:1], generator=seeded(1), min_new_tokens=fewest, stop_threshold=sigmoid(threshold))
        assert output.num_patches.tolist() == [fewest] and output.reached_limit.tolist() == [False]


MANY_TEXTS = [[first, *TEXTS[2][: 1 + first % 7]] for first in range(5, 11)]
SEEDS = range(100, 106)


@pytest.fixture(scope="module")
def rows_apart():
    """
    References of `MANY_TEXTS`, and a stop threshold at which they have as many different lengths as can be.

    The model is always that of `make_stopping_model`, so what it gives is kept.
    """
    known = {}

    def find(model, guidance_scale):
        if guidance_scale not in known:
            pairs = zip(MANY_TEXTS, seeded(*SEEDS), strict=True)
            references = [reference(model, text, source, guidance_scale=guidance_scale) for text, source in pairs]
            traces = [logits for _, logits in references]
            choices = thresholds(traces)
            best = max(choices, key=lambda choice: len({first_above(logits, choice) for logits in traces}))
            lengths = [first_above(logits, best) for logits in traces]
            assert len(set(lengths)) >= 4 and None in lengths, lengths
            known[guidance_scale] = [latents for latents, _ in references], lengths, sigmoid(best)
        return known[guidance_scale]

    return find


class Streamer:
    """Keeps what it gets."""

    def __init__(self):
        self.patches = []
        self.ended = 0

    def put(self, value):
        assert not self.ended
        self.patches.append(value.clone())

    def end(self):
        self.ended += 1


@pytest.mark.parametrize(("delay", "cache"), [(0, "dynamic"), (0, "static"), (1, "static")])
@pytest.mark.parametrize("guidance_scale", [1, 2])
def test_rows_that_end_leave_the_others_alone(make_model, monkeypatch, rows_apart, cache, delay, guidance_scale):
    model = make_stopping_model(make_model)
    expected, lengths, threshold = rows_apart(model, guidance_scale)
    locdit_rows, encoder_rows, streamer = [], [], Streamer()
    model.locdit.transformer.register_forward_pre_hook(lambda _, inputs: locdit_rows.append(len(inputs[0])))
    model.model.patch_encoder.transformer.register_forward_pre_hook(
        lambda _, inputs: encoder_rows.append(len(inputs[0]))
    )
    monkeypatch.setattr(model, "_draw_patches", functools.partial(model._draw_patches, delay=delay))
    output = speak(
        model,
        MANY_TEXTS,
        generator=seeded(*SEEDS),
        min_new_tokens=1,
        stop_threshold=threshold,
        guidance_scale=guidance_scale,
        cache_implementation=cache,
        streamer=streamer,
    )
    ends = [length or NUM_PATCHES for length in lengths]
    assert output.num_patches.tolist() == ends
    assert output.reached_limit.tolist() == [length is None for length in lengths]
    for latents, reference_latents, end in zip(output.latents, expected, ends, strict=True):
        assert_close(latents, reference_latents[: 4 * end])

    # compacted away: of the rows in a patch, more than half still speak, as far as the host knows by then
    rows = [count // (2 if guidance_scale > 1 else 1) for count in locdit_rows[::NUM_STEPS]]
    assert rows == encoder_rows
    assert locdit_rows == [count for count in locdit_rows[::NUM_STEPS] for _ in range(NUM_STEPS)]
    for index, count in enumerate(rows):
        speaking = sum(end > max(0, index - delay) for end in ends)
        assert speaking <= count < 2 * speaking
    assert rows[-1] < rows[0] == len(MANY_TEXTS)

    # the streamer got each patch in time, and zeros from rows that had ended
    assert len(streamer.patches) == max(ends) and streamer.ended == 1
    for row, (latents, end) in enumerate(zip(output.latents, ends, strict=True)):
        streamed = torch.cat([patch[row] for patch in streamer.patches])
        assert torch.equal(streamed[: 4 * end], latents) and not streamed[4 * end :].any()


def test_with_one_generator_rows_that_end_leave_the_others_alone(make_model):
    model = make_stopping_model(make_model)
    whole = speak(model, MANY_TEXTS, generator=seeded(1)[0], stop_threshold=1)
    lengths = {}
    for threshold in (0.5, 0.8, 0.9):
        output = speak(model, MANY_TEXTS, generator=seeded(1)[0], min_new_tokens=1, stop_threshold=threshold)
        for one, other in zip(output.latents, whole.latents, strict=True):
            assert_close(one, other[: len(one)])
        lengths[threshold] = output.num_patches.tolist()
    assert any(1 < len(set(ends)) for ends in lengths.values()), lengths


# What is done how often


@pytest.mark.parametrize("guidance_scale", [1, 1.0, 2])
def test_work_for_one_patch(make_model, guidance_scale):
    """Guidance is one call of LocDiT on twice as many rows; the language model never runs twice."""
    model = make_model()
    calls = {"locdit": [], "lm": [], "encoder": [], "time": []}
    for name, module in {
        "locdit": model.locdit.transformer,
        "encoder": model.model.patch_encoder.transformer,
        "time": model.locdit.time_embedding,
    }.items():
        module.register_forward_pre_hook(lambda _, inputs, name=name: calls[name].append(len(inputs[0])))
    model.model.language_model.register_forward_pre_hook(
        lambda _, inputs, kwargs: calls["lm"].append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    speak(model, TEXTS[:3], guidance_scale=guidance_scale)
    branches = 1 if guidance_scale == 1 else 2
    assert calls == {
        "locdit": [branches * 3] * NUM_STEPS * NUM_PATCHES,
        "lm": [(3, 10), *[(3, 1)] * NUM_PATCHES],
        "encoder": [3] * NUM_PATCHES,
        "time": [NUM_STEPS],
    }


class Operations(TorchDispatchMode):
    """Names of the operations that ran."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.overloadpacket._qualified_op_name)
        return function(*args, **(kwargs or {}))


# They read a value on the host, or have a shape that depends on values.
WAITING = {"aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::equal", "aten::masked_select"}


def test_operations_that_wait_are_noticed():
    for wait in (lambda ones: ones.item(), lambda ones: ones.nonzero(), lambda ones: bool(ones > 0)):
        with Operations() as operations:
            wait(torch.ones(1))
        assert operations.names & WAITING


@pytest.mark.parametrize("temperature", [0, 0.5, 1])
def test_a_patch_step_neither_waits_nor_draws_nor_moves_its_buffers(make_model, monkeypatch, temperature):
    model = make_model()
    original, operations, buffers = model._patch_step, Operations(), set()

    def watched(state, *arguments):
        before = torch.get_rng_state()
        with operations:
            result = original(state, *arguments)
        assert torch.equal(torch.get_rng_state(), before)
        layers = state.past_key_values.layers
        kept = [state.tokens, state.history, state.attention_mask]
        kept += [tensor for layer in layers for tensor in (layer.keys, layer.values)]
        buffers.add(tuple(tensor.data_ptr() for tensor in kept))
        return result

    monkeypatch.setattr(model, "_patch_step", watched)
    speak(model, TEXTS[:2], cache_implementation="static", temperature=temperature)
    assert "aten::linear" in operations.names or "aten::mm" in operations.names
    assert not operations.names & WAITING
    assert len(buffers) == 1


def test_what_runs_in_each_solver_step_concatenates_nothing(make_model):
    model, operations = make_model(), Operations()
    locdit, encoder = model.locdit, model.model.patch_encoder
    tokens = torch.randn(2, 9, 32), encoder.blank_tokens(2)
    with operations, torch.no_grad():
        locdit.read_out(locdit.transformer(tokens[0]))
        encoder.read_out(tokens[1])
    assert "aten::cat" not in operations.names and "aten::stack" not in operations.names


@pytest.mark.parametrize(
    ("num_rows", "kept", "expected"),
    [
        (8, [0, 1, 2, 5, 6], [0, 1, 2, 3, 4, 5, 6, 7]),
        (8, [1, 5, 6, 7], [1, 5, 6, 7]),
        (8, [2, 5, 6], [0, 2, 5, 6]),
        (8, [6], [6]),
        (5, [1, 2, 4], [1, 2, 4]),
        (5, [1, 4], [1, 4]),
        (1, [0], [0]),
    ],
)
def test_rows_are_kept_in_halves_of_the_batch(num_rows, kept, expected):
    assert DiTARPatchLoop._bucket(kept, num_rows) == expected


# Compilation


@pytest.fixture
def compile_counter(monkeypatch):
    """`torch.compile` with a backend that runs graphs as they are, and counts them."""
    counter = CompileCounter()
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter))
    yield counter
    torch._dynamo.reset()


COMPILED = {"compile_patch_step": True, "cache_implementation": "static", "num_inference_steps": 2}


def test_a_patch_step_is_one_graph_for_all_patches(make_model, compile_counter):
    model = make_model()
    eager = speak(model, TEXTS[:2], generator=seeded(1, 2), num_inference_steps=2)
    for _ in range(2):
        compiled = speak(model, TEXTS[:2], generator=seeded(1, 2), **COMPILED)
        for one, other in zip(compiled.latents, eager.latents, strict=True):
            assert_close(one, other)
        assert compile_counter.frame_count == 1
    assert compile_counter.op_count > 100


@pytest.mark.slow
def test_compiled_rows_are_compacted_away(make_model, compile_counter, rows_apart):
    model = make_stopping_model(make_model)
    expected, lengths, threshold = rows_apart(model, 2)
    settings = {**COMPILED, "num_inference_steps": NUM_STEPS, "min_new_tokens": 1, "stop_threshold": threshold}
    output = speak(model, MANY_TEXTS, generator=seeded(*SEEDS), **settings)
    for latents, reference_latents, length in zip(output.latents, expected, lengths, strict=True):
        assert_close(latents, reference_latents[: 4 * (length or NUM_PATCHES)])
    assert compile_counter.frame_count <= 3  # the whole batch, parts of it, one row


def test_beyond_torchs_limit_of_graphs_patches_are_drawn_all_the_same(make_model, compile_counter, caplog):
    model = make_model()
    patch_loop_ditar.logger.warning_once.cache_clear()
    with torch._dynamo.config.patch(recompile_limit=1):
        for steps in (1, 2):
            settings = {"num_inference_steps": steps, "num_patches": 2}
            eager = speak(model, TEXTS[:1], generator=seeded(1), **settings)
            compiled = speak(model, TEXTS[:1], generator=seeded(1), **{**COMPILED, **settings})
            assert_close(compiled.latents[0], eager.latents[0])
            assert ("recompile_limit" in caplog.text) == (steps == 2)
    assert compile_counter.frame_count == 1


def test_a_copy_of_a_compiled_model_speaks_with_its_own_weights(make_model, compile_counter):
    model = make_model()
    settings = {**COMPILED, "num_patches": 2, "num_inference_steps": 1}
    before = speak(model, TEXTS[:1], generator=seeded(1), **settings)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.locdit.parameters():
            parameter.zero_()
    copied = speak(other, TEXTS[:1], generator=seeded(1), **settings)
    eager = speak(other, TEXTS[:1], generator=seeded(1), **{**settings, "compile_patch_step": False})
    assert_close(copied.latents[0], eager.latents[0])
    assert (copied.latents[0] - before.latents[0]).abs().max() > 100 * TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(("num_history_patches", "temperature"), [(0, 0), (1, 0.5), (1, 1), (2, 1)])
def test_compiled_to_machine_code_equals_eager(make_model, num_history_patches, temperature):
    torch._dynamo.reset()
    model = make_model(num_history_patches=num_history_patches)
    settings = {**COMPILED, "num_inference_steps": NUM_STEPS, "temperature": temperature}
    eager = speak(model, TEXTS[:2], generator=seeded(1, 2), **{**settings, "compile_patch_step": False})
    compiled = speak(model, TEXTS[:2], generator=seeded(1, 2), **settings)
    for one, other in zip(compiled.latents, eager.latents, strict=True):
        assert_close(one, other)
