"""Laws of `DiTARScheduler`: its path, its solvers, temperature, and what diffusers expects of a scheduler."""

import copy
import inspect
import json
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from diffusers.utils.torch_utils import randn_tensor

from ditar_hf.modeling.scheduling_ditar import (
    ALGORITHM_TYPES,
    PREDICTION_TYPES,
    DiTARScheduler,
    DiTARSchedulerOutput,
    cosine_path,
    original_sample_and_noise,
)

SHAPE = (3, 4, 5)  # (batch_size, frames, channels)
TIMES = (0.0, 1e-6, 0.01, 0.25, 0.5, 0.75, 0.99, 1 - 1e-6, 1.0)
# The data of the Gaussian whose ODE has a closed solution.
MEAN, STD = 1.5, 0.4


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, shape=SHAPE, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=dtype)


def make_scheduler(num_inference_steps=10, temperature=1.0, **config) -> DiTARScheduler:
    if config.get("prediction_type") == "epsilon":
        config.setdefault("start_timestep", 0.9)
    scheduler = DiTARScheduler(**config)
    scheduler.set_timesteps(num_inference_steps, temperature=temperature)
    return scheduler


def gaussian_output(prediction_type: str, sample: torch.Tensor, time: float) -> torch.Tensor:
    """What a perfect model says about a sample of N(MEAN, STD²) diffused to `time` (above 0)."""
    alpha, sigma = cosine_path(time)
    variance = (alpha * STD) ** 2 + sigma**2
    original = MEAN + alpha * STD**2 / variance * (sample - alpha * MEAN)
    noise = (sample - alpha * original) / sigma
    velocity = alpha * noise - sigma * original
    outputs = {"flow_prediction": math.pi / 2 * velocity, "v_prediction": velocity, "sample": original}
    return outputs.get(prediction_type, noise)


def grid(scheduler: DiTARScheduler) -> list[float]:
    steps = scheduler.num_inference_steps
    return [scheduler.config.start_timestep * (steps - index) / steps for index in range(steps + 1)]


def solve(scheduler: DiTARScheduler, sample: torch.Tensor, generator=None) -> torch.Tensor:
    """Run the whole plan with `step` on the Gaussian."""
    for index, timestep in enumerate(scheduler.timesteps):
        output = gaussian_output(scheduler.config.prediction_type, sample, grid(scheduler)[index])
        sample = scheduler.step(output, timestep, sample, generator=generator).prev_sample
    return sample


# The path


def test_path_ends_exactly_at_data_and_at_noise():
    data, noise = normal(0, dtype=torch.float32), normal(1, dtype=torch.float32)
    scheduler = DiTARScheduler()
    assert torch.equal(scheduler.add_noise(data, noise, torch.tensor(0.0)), data)
    assert torch.equal(scheduler.add_noise(data, noise, torch.tensor(1.0)), noise)
    assert cosine_path(0.0) == (1.0, 0.0)
    assert cosine_path(1.0) == (0.0, 1.0)


@pytest.mark.parametrize("time", TIMES)
def test_path_is_the_papers(time):
    alpha, sigma = cosine_path(time)
    assert alpha == pytest.approx(math.cos(math.pi * time / 2), abs=1e-15)
    assert sigma == pytest.approx(math.sin(math.pi * time / 2), abs=1e-15)
    data, noise = normal(0), normal(1)
    noisy = DiTARScheduler().add_noise(data, noise, torch.tensor(time, dtype=torch.float64))
    torch.testing.assert_close(noisy, alpha * data + sigma * noise, rtol=0, atol=1e-14)


# without noise in the sample none can be told from predicted data, and without data none from predicted noise
INVERTIBLE = [
    (prediction_type, time)
    for prediction_type in PREDICTION_TYPES
    for time in TIMES
    if (prediction_type, time) not in (("sample", 0.0), ("epsilon", 1.0))
]


@pytest.mark.parametrize(("prediction_type", "time"), INVERTIBLE)
def test_target_and_conversion_are_inverse(prediction_type, time):
    config = {"start_timestep": 0.9} if prediction_type == "epsilon" else {}
    scheduler = DiTARScheduler(prediction_type=prediction_type, **config)
    data, noise, timestep = normal(0), normal(1), torch.tensor(time, dtype=torch.float64)
    target = scheduler.get_target(data, noise, timestep)
    sample = scheduler.add_noise(data, noise, timestep)
    alpha, sigma = cosine_path(time)
    found_data, found_noise = original_sample_and_noise(target, sample, alpha, sigma, prediction_type)
    # A velocity gives both exactly at every time; the other two divide by a weight that is 1.6e-6 at the worst.
    atol = 1e-13 if "prediction" in prediction_type else 1e-8
    torch.testing.assert_close(found_data, data, rtol=0, atol=atol)
    torch.testing.assert_close(found_noise, noise, rtol=0, atol=atol)


def test_velocity_is_the_derivative_of_the_path():
    scheduler = DiTARScheduler()
    data, noise = normal(0), normal(1)
    for time in (0.1, 0.5, 0.9):
        low, here, high = (torch.tensor(time + shift, dtype=torch.float64) for shift in (-1e-5, 0.0, 1e-5))
        slope = (scheduler.add_noise(data, noise, high) - scheduler.add_noise(data, noise, low)) / 2e-5
        torch.testing.assert_close(scheduler.get_target(data, noise, here), slope, rtol=0, atol=1e-8)
        torch.testing.assert_close(scheduler.get_velocity(data, noise, here) * math.pi / 2, slope, rtol=0, atol=1e-8)


def test_targets_by_prediction_type():
    data, noise, times = normal(0), normal(1), torch.rand(3, generator=seeded(2), dtype=torch.float64)
    velocity = DiTARScheduler().get_velocity(data, noise, times)
    assert torch.equal(DiTARScheduler(prediction_type="v_prediction").get_target(data, noise, times), velocity)
    assert torch.equal(DiTARScheduler(prediction_type="sample").get_target(data, noise, times), data)
    assert torch.equal(
        DiTARScheduler(prediction_type="epsilon", start_timestep=0.9).get_target(data, noise, times), noise
    )
    torch.testing.assert_close(DiTARScheduler().get_target(data, noise, times), velocity * math.pi / 2)


@pytest.mark.parametrize("method", ["add_noise", "get_velocity", "get_target"])
def test_times_belong_to_leading_dimensions(method):
    function = getattr(DiTARScheduler(), method)
    data, noise = normal(0), normal(1)
    times = torch.rand(SHAPE[:2], generator=seeded(2), dtype=torch.float64)
    result = function(data, noise, times)
    for row in range(SHAPE[0]):
        torch.testing.assert_close(function(data[row], noise[row], times[row]), result[row])
        for frame in range(SHAPE[1]):
            torch.testing.assert_close(
                function(data[row, frame], noise[row, frame], times[row, frame]), result[row, frame]
            )
    torch.testing.assert_close(function(data, noise, times[:, 0])[1], function(data[1], noise[1], times[1, 0]))


def test_training_methods_keep_type_and_calculate_in_float32():
    data, noise, times = normal(0).bfloat16(), normal(1).bfloat16(), torch.tensor([0.001, 0.5, 0.999])
    scheduler = DiTARScheduler()
    for method in (scheduler.add_noise, scheduler.get_velocity, scheduler.get_target):
        assert method(data, noise, times).dtype == torch.bfloat16
        assert torch.equal(method(data, noise, times), method(data.float(), noise.float(), times).bfloat16())


# The solvers


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 37])
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_ddim_is_exact_for_constant_data_and_noise(prediction_type, steps):
    scheduler = make_scheduler(steps, prediction_type=prediction_type)
    data, noise = normal(0), normal(1)
    times = [torch.tensor(time, dtype=torch.float64) for time in grid(scheduler)]
    sample = scheduler.add_noise(data, noise, times[0])
    for index, timestep in enumerate(scheduler.timesteps):
        output = scheduler.get_target(data, noise, times[index])
        sample, original = scheduler.step(output, timestep, sample, return_dict=False)
        torch.testing.assert_close(original, data, rtol=0, atol=1e-12)
        torch.testing.assert_close(sample, scheduler.add_noise(data, noise, times[index + 1]), rtol=0, atol=1e-12)
    torch.testing.assert_close(sample, data, rtol=0, atol=1e-12)


def test_ddim_step_is_a_rotation():
    scheduler = make_scheduler(10, prediction_type="v_prediction")
    sample, velocity, angle = normal(0), normal(1), math.pi / 20
    for index in range(10):
        rotated = math.cos(angle) * sample - math.sin(angle) * velocity
        torch.testing.assert_close(scheduler.update(velocity, index, sample)[0], rotated, rtol=0, atol=1e-14)


def test_euler_step_follows_the_velocity():
    scheduler = make_scheduler(10, algorithm_type="euler")
    sample, velocity = normal(0), normal(1)
    for index in range(10):
        torch.testing.assert_close(
            scheduler.update(velocity, index, sample)[0], sample - 0.1 * velocity, rtol=0, atol=1e-14
        )


def gaussian_error(steps: int, algorithm_type: str, prediction_type: str = "flow_prediction") -> float:
    scheduler = make_scheduler(steps, algorithm_type=algorithm_type, prediction_type=prediction_type)
    sample = normal(0, (1000,))
    alpha, sigma = cosine_path(scheduler.config.start_timestep)
    exact = MEAN + STD * (sample - alpha * MEAN) / math.sqrt((alpha * STD) ** 2 + sigma**2)
    return (solve(scheduler, sample) - exact).abs().mean().item()


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_convergence(prediction_type):
    errors = {
        algorithm: [gaussian_error(steps, algorithm, prediction_type) for steps in (20, 40, 80)]
        for algorithm in ALGORITHM_TYPES
    }
    for algorithm in ("ddim", "euler"):
        for coarse, fine in zip(errors[algorithm], errors[algorithm][1:], strict=False):
            assert coarse / fine == pytest.approx(2, rel=0.15), algorithm
    for first_order, second_order in zip(errors["ddim"], errors["dpmsolver++"], strict=True):
        assert second_order < first_order / 3


def test_dpmsolver_is_nearly_of_second_order_on_fine_grids():
    # The steps of first order at the ends cost a logarithm.
    assert gaussian_error(160, "dpmsolver++") / gaussian_error(320, "dpmsolver++") > 2.8


def test_dpmsolver_steps_equal_those_of_diffusers():
    scheduler = make_scheduler(12, algorithm_type="dpmsolver++", prediction_type="sample", start_timestep=0.95)
    reference = DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", solver_order=2)
    reference.sigmas = torch.tensor([math.tan(math.pi * time / 2) for time in grid(scheduler)], dtype=torch.float64)
    sample, before, original = normal(0), normal(1), normal(2)
    for index in range(12):
        reference._step_index = index
        if index in (0, 11):
            expected = make_scheduler(12, prediction_type="sample", start_timestep=0.95).update(
                original, index, sample
            )[0]
        else:
            expected = reference.multistep_dpm_solver_second_order_update([before, original], sample=sample)
        found = scheduler.update(original, index, sample, previous_original_sample=before)[0]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_dpmsolver_forgets_history_where_noise_enters():
    first_order = make_scheduler(10, 0.6)
    scheduler = make_scheduler(10, 0.6, algorithm_type="dpmsolver++")
    sample, output, before, noise = (normal(seed) for seed in range(4))
    differs = []
    for index in range(10):
        expected = first_order.update(output, index, sample, variance_noise=noise)[0]
        assert torch.equal(scheduler.update(output, index, sample, variance_noise=noise)[0], expected)
        found = scheduler.update(output, index, sample, before, noise)[0]
        differs.append(not torch.equal(found, expected))
        assert found.isfinite().all()
    assert scheduler.renoise_index == 3
    # The ends, the step after the one from time 1, the one that lands on the noise and the one after it.
    assert [index for index in range(10) if not differs[index]] == [0, 1, 3, 4, 9]


# Temperature


def temperature_point(scheduler: DiTARScheduler) -> int:
    if scheduler.starts_from_noise:
        assert scheduler.renoise_index is None
        return 0
    return scheduler.num_inference_steps if scheduler.renoise_index is None else scheduler.renoise_index + 1


@pytest.mark.parametrize(
    "steps, temperature, time",
    [
        (10, 0.0, 0.0),
        (10, 0.04, 0.0),
        (10, 0.05, 0.0),
        (10, 0.06, 0.1),
        (10, 0.15, 0.1),
        (10, 0.25, 0.2),
        (10, 0.3, 0.3),
        (10, 0.35, 0.3),
        (10, 0.94, 0.9),
        (10, 0.95, 0.9),
        (10, 0.96, 1.0),
        (10, 1.0, 1.0),
        (1, 0.5, 0.0),
        (1, 0.51, 1.0),
        (2, 0.75, 0.5),
        (3, 0.5, 1 / 3),
    ],
)
def test_temperature_counts_as_nearest_grid_point(steps, temperature, time):
    scheduler = make_scheduler(steps, temperature)
    assert grid(scheduler)[temperature_point(scheduler)] == pytest.approx(time)


def test_temperature_ties_go_to_the_lower_time_on_every_grid():
    for steps in range(1, 33):
        times = [Fraction(steps - index, steps) for index in range(steps + 1)]
        for hundredths in range(0, 101):
            exact = Fraction(hundredths, 100)
            expected = min(times, key=lambda time: (abs(time - exact), time))  # noqa: B023
            scheduler = make_scheduler(steps, hundredths / 100)
            assert times[temperature_point(scheduler)] == expected, (steps, exact)


def test_temperature_on_a_grid_that_starts_lower():
    assert make_scheduler(9, 1.0, start_timestep=0.9).starts_from_noise
    assert make_scheduler(9, 0.86, start_timestep=0.9).starts_from_noise
    assert make_scheduler(9, 0.84, start_timestep=0.9).renoise_index == 0


@pytest.mark.parametrize("algorithm_type", ALGORITHM_TYPES)
def test_temperature_one_is_the_plain_ode(algorithm_type):
    scheduler = make_scheduler(10, 1.0, algorithm_type=algorithm_type)
    generator = seeded(0)
    sample = scheduler.init_noise(SHAPE, generator=generator)
    assert torch.equal(sample, torch.randn(SHAPE, generator=seeded(0)))
    assert scheduler.init_noise_sigma == 1.0
    state = generator.get_state()
    result = solve(scheduler, sample, generator)
    assert torch.equal(generator.get_state(), state)
    scheduler.set_timesteps(10)
    assert torch.equal(solve(scheduler, sample), result)


@pytest.mark.parametrize("algorithm_type", ALGORITHM_TYPES)
@pytest.mark.parametrize("temperature", [0.0, 0.05])
def test_temperature_zero_draws_nothing(monkeypatch, algorithm_type, temperature):
    def poisoned(*args, **kwargs):
        raise AssertionError("noise was drawn")

    scheduler = make_scheduler(10, temperature, algorithm_type=algorithm_type)
    monkeypatch.setattr(inspect.getmodule(DiTARScheduler), "randn_tensor", poisoned)
    results = []
    for seed in (0, 1):
        generator = seeded(seed)
        states = generator.get_state(), torch.get_rng_state()
        sample = scheduler.init_noise(SHAPE, generator=generator)
        assert not sample.any() and scheduler.init_noise_sigma == 0.0
        results.append(solve(scheduler, sample, generator))
        assert torch.equal(generator.get_state(), states[0]) and torch.equal(torch.get_rng_state(), states[1])
        scheduler.set_timesteps(10, temperature=temperature)
    assert torch.equal(*results)
    # The greedy path of a Gaussian stays at its mean.
    assert (results[0] - MEAN).abs().max() < 0.1


@pytest.mark.parametrize("algorithm_type", ALGORITHM_TYPES)
@pytest.mark.parametrize("temperature", [0.1, 0.25, 0.5, 0.94])
def test_temperature_between_renoises_on_landing(algorithm_type, temperature):
    scheduler = make_scheduler(10, temperature, algorithm_type=algorithm_type)
    sample, generator = scheduler.init_noise(SHAPE, generator=seeded(0)), seeded(1)
    assert not sample.any()
    for index, timestep in enumerate(scheduler.timesteps):
        state = generator.get_state()
        output = gaussian_output("flow_prediction", sample, grid(scheduler)[index])
        sample, original = scheduler.step(output, timestep, sample, generator, return_dict=False)
        drew = not torch.equal(generator.get_state(), state)
        assert drew == (index == scheduler.renoise_index)
        if drew:
            alpha, sigma = cosine_path(grid(scheduler)[index + 1])
            expected = alpha * original + sigma * torch.randn(SHAPE, generator=seeded(1))
            torch.testing.assert_close(sample, expected, rtol=0, atol=1e-6)


def test_higher_temperature_gives_more_diversity():
    deviations = []
    for temperature in (0.0, 0.1, 0.3, 0.5, 1.0):
        scheduler, generator = make_scheduler(10, temperature), seeded(0)
        sample = scheduler.init_noise((20_000,), generator)
        deviations.append(solve(scheduler, sample, generator).std().item())
    # Kernels of torch may round the ends of a tensor otherwise than its middle.
    assert deviations[0] < 1e-5
    assert deviations == sorted(deviations)


@pytest.mark.parametrize("temperature", [0.0, 0.3, 0.9, 1.0])
def test_stock_initialisation_agrees_with_init_noise(temperature):
    """Pipelines of diffusers scale noise by `init_noise_sigma`."""
    scheduler = make_scheduler(10, temperature)
    stock = torch.randn(SHAPE, generator=seeded(0)) * scheduler.init_noise_sigma
    assert torch.equal(stock, scheduler.init_noise(SHAPE, generator=seeded(0)))


# `step` and `update`


@pytest.mark.parametrize("temperature", [0.0, 0.25, 0.94, 1.0])
@pytest.mark.parametrize("algorithm_type", ALGORITHM_TYPES)
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_step_agrees_with_update(prediction_type, algorithm_type, temperature):
    config = {"prediction_type": prediction_type, "algorithm_type": algorithm_type}
    scheduler = make_scheduler(10, temperature, **config)
    start = scheduler.init_noise(SHAPE, seeded(0))
    by_step = solve(scheduler, start, seeded(1))
    noise = randn_tensor(SHAPE, generator=seeded(1))
    sample, original = start, None
    for index in range(10):
        output = gaussian_output(prediction_type, sample, grid(scheduler)[index])
        sample, original = scheduler.update(output, index, sample, original, noise)
    assert torch.equal(by_step, sample)
    assert scheduler.step_index == 10


def test_step_with_given_noise_equals_drawn_noise():
    drawn, given = make_scheduler(4, 0.5), make_scheduler(4, 0.5)
    sample, output = normal(0).float(), normal(1).float()
    for timestep in drawn.timesteps[:2]:
        first = drawn.step(output, timestep, sample, generator=seeded(2)).prev_sample
        second = given.step(output, timestep, sample, variance_noise=randn_tensor(SHAPE, seeded(2))).prev_sample
        assert torch.equal(first, second)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_each_generator_of_a_list_serves_its_row(temperature):
    def synthesize(seeds):
        scheduler, generators = make_scheduler(6, temperature), [seeded(seed) for seed in seeds]
        sample = scheduler.init_noise((len(seeds), *SHAPE[1:]), generators)
        return solve(scheduler, sample, generators)

    batch = synthesize([3, 4, 5])
    for row, seed in enumerate((3, 4, 5)):
        assert torch.equal(synthesize([seed])[0], batch[row])


def test_seed_gives_the_same_noise_in_every_precision():
    full = make_scheduler(4, 0.5)
    half = make_scheduler(4, 0.5)
    full.set_begin_index(1)
    half.set_begin_index(1)
    zeros = torch.zeros(SHAPE)
    first = full.step(zeros, 0.75, zeros, seeded(0)).prev_sample
    second = half.step(zeros.bfloat16(), 0.75, zeros.bfloat16(), seeded(0)).prev_sample
    assert torch.equal(first.bfloat16(), second)
    full.set_timesteps(4)
    assert torch.equal(full.init_noise(SHAPE, seeded(0)).half(), full.init_noise(SHAPE, seeded(0), dtype=torch.half))


def test_second_plan_forgets_the_first():
    scheduler = make_scheduler(7, 0.4, algorithm_type="dpmsolver++")
    start = scheduler.init_noise(SHAPE)
    for timestep in scheduler.timesteps[:5]:
        scheduler.step(start, timestep, start, seeded(0))
    scheduler.set_begin_index(2)
    scheduler.set_timesteps(10)
    assert scheduler.step_index is None and scheduler.begin_index is None
    start = normal(0)
    assert torch.equal(solve(scheduler, start), solve(make_scheduler(10, algorithm_type="dpmsolver++"), start))


def test_failed_set_timesteps_leaves_the_plan():
    scheduler = make_scheduler(4, 0.5)
    scheduler.step(torch.zeros(SHAPE), 1.0, torch.zeros(SHAPE))
    with pytest.raises(ValueError, match="`temperature`"):
        scheduler.set_timesteps(8, temperature=2.0)
    assert len(scheduler) == 4 and scheduler.step_index == 1 and scheduler.renoise_index == 1


def test_start_in_the_middle_of_the_plan():
    sample, output = normal(0), normal(1)
    found, begun = make_scheduler(10), make_scheduler(10)
    begun.set_begin_index(4)
    assert begun.begin_index == 4
    expected = found.update(output, 4, sample)[0]
    assert torch.equal(found.step(output, found.timesteps[4], sample).prev_sample, expected)
    assert torch.equal(begun.step(output, begun.timesteps[4], sample).prev_sample, expected)
    assert found.step_index == begun.step_index == 5


def test_copy_continues_the_trajectory():
    scheduler = make_scheduler(6, 0.5, algorithm_type="dpmsolver++")
    sample = scheduler.init_noise(SHAPE)
    for index, timestep in enumerate(scheduler.timesteps):
        twin = copy.deepcopy(scheduler)
        output = gaussian_output("flow_prediction", sample, grid(scheduler)[index])
        first, second = (one.step(output, timestep, sample, seeded(index)) for one in (scheduler, twin))
        assert torch.equal(first.prev_sample, second.prev_sample)
        sample = first.prev_sample


def compiled_loop(scheduler: DiTARScheduler, **options):
    @torch.compile(fullgraph=True, **options)
    def loop(sample, noise):
        original = None
        for index in range(scheduler.num_inference_steps):
            output = sample * (0.3 + index)
            sample, original = scheduler.update(output, index, sample, original, noise)
        return sample, original

    return loop


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("algorithm_type", ALGORITHM_TYPES)
def test_update_compiles_to_one_graph(algorithm_type, temperature):
    torch.compiler.reset()
    scheduler = make_scheduler(5, temperature, algorithm_type=algorithm_type)
    sample, noise = normal(0).bfloat16(), normal(1).bfloat16()
    loop = compiled_loop(scheduler, backend="eager")
    for found, expected in zip(loop(sample, noise), inspect.unwrap(loop)(sample, noise), strict=True):
        assert torch.equal(found, expected)


def test_update_compiles_alone_and_follows_a_new_plan():
    torch.compiler.reset()
    scheduler = make_scheduler(3, 0.3)
    update = torch.compile(scheduler.update, fullgraph=True, backend="eager")
    sample, output, noise = normal(0), normal(1), normal(2)
    for steps, temperature in ((3, 0.3), (4, 1.0)):
        scheduler.set_timesteps(steps, temperature=temperature)
        for index in range(steps):
            found = update(output, index, sample, variance_noise=noise)
            assert torch.equal(found[0], scheduler.update(output, index, sample, variance_noise=noise)[0])


def test_training_methods_compile_to_one_graph():
    torch.compiler.reset()
    scheduler = DiTARScheduler()
    data, noise, times = normal(0), normal(1), torch.rand(3, generator=seeded(2))
    for method in (scheduler.add_noise, scheduler.get_velocity, scheduler.get_target):
        compiled = torch.compile(method, fullgraph=True, backend="eager")
        assert torch.equal(compiled(data, noise, times), method(data, noise, times))


@pytest.mark.slow
def test_update_compiles_with_the_default_backend():
    torch.compiler.reset()
    scheduler = make_scheduler(10, 0.5, algorithm_type="dpmsolver++")
    sample, noise = normal(0).float(), normal(1).float()
    loop = compiled_loop(scheduler)
    for found, expected in zip(loop(sample, noise), inspect.unwrap(loop)(sample, noise), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


# What diffusers expects of every scheduler


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("algorithm_type", ALGORITHM_TYPES)
def test_step_keeps_shape_type_and_device(algorithm_type, dtype):
    scheduler = make_scheduler(5, 0.4, algorithm_type=algorithm_type)
    sample = scheduler.init_noise(SHAPE, dtype=dtype)
    for timestep in scheduler.timesteps:
        # Under autocast a model answers in another type than that of the sample.
        output = scheduler.step(torch.ones(SHAPE, dtype=torch.bfloat16), timestep, sample)
        for tensor in (output.prev_sample, output.pred_original_sample):
            assert (tensor.shape, tensor.dtype, tensor.device) == (sample.shape, dtype, sample.device)
        sample = output.prev_sample


@pytest.mark.gpu
def test_step_on_an_accelerator():
    scheduler = make_scheduler(5, 0.4, algorithm_type="dpmsolver++")
    start = scheduler.init_noise(SHAPE, seeded(0))
    expected = solve(scheduler, start, seeded(1))
    scheduler.set_timesteps(5, device="cuda", temperature=0.4)
    found = solve(scheduler, scheduler.init_noise(SHAPE, seeded(0), device="cuda"), seeded(1))
    assert found.device.type == scheduler.timesteps.device.type == "cuda"
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-5)


def test_bfloat16_step_is_the_rounded_float32_step():
    sample, output = normal(0).bfloat16(), normal(1).bfloat16()
    scheduler = make_scheduler(10)
    for index in range(10):
        exact = scheduler.update(output.float(), index, sample.float())[0]
        assert torch.equal(scheduler.update(output, index, sample)[0], exact.bfloat16())


def test_step_returns_output_or_the_same_as_tuple():
    sample, output = normal(0), normal(1)
    result = make_scheduler().step(output, 1.0, sample)
    assert isinstance(result, DiTARSchedulerOutput)
    assert list(result) == ["prev_sample", "pred_original_sample"]
    for value, same in zip(
        result.to_tuple(), make_scheduler().step(output, 1.0, sample, return_dict=False), strict=True
    ):
        assert torch.equal(value, same)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"prediction_type": "epsilon", "start_timestep": 0.8},
        {"prediction_type": "v_prediction", "algorithm_type": "dpmsolver++"},
        {"algorithm_type": "euler", "start_timestep": 0.5},
    ],
)
def test_save_and_load(tmp_path, config):
    scheduler = DiTARScheduler(**config)
    scheduler.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "scheduler_config.json").read_text())
    assert {key for key in saved if not key.startswith("_")} == {
        "prediction_type",
        "algorithm_type",
        "start_timestep",
    }
    loaded = DiTARScheduler.from_pretrained(tmp_path)
    own = {key: value for key, value in scheduler.config.items() if key != "_use_default_values"}
    assert own == {key: value for key, value in loaded.config.items() if key != "_use_default_values"}
    assert own == own | config
    for one in (scheduler, loaded):
        one.set_timesteps(5, temperature=0.3)
    assert torch.equal(solve(scheduler, torch.zeros(SHAPE), seeded(0)), solve(loaded, torch.zeros(SHAPE), seeded(0)))


def test_from_config_round_trip_and_override():
    scheduler = DiTARScheduler(prediction_type="v_prediction", start_timestep=0.7)
    twin = DiTARScheduler.from_config(scheduler.config)
    assert (twin.config.prediction_type, twin.config.start_timestep) == ("v_prediction", 0.7)
    assert twin.config.algorithm_type == "ddim"
    assert DiTARScheduler.from_config(scheduler.config, algorithm_type="euler").config.algorithm_type == "euler"
    assert DiTARScheduler.from_config({"prediction_type": "sample"}).config.prediction_type == "sample"


def test_from_config_takes_notes_of_the_hub():
    config = {"_class_name": "DiTARScheduler", "_diffusers_version": "0.42.1", "auto_map": {"AutoModel": "a.B"}}
    DiTARScheduler.from_config(config)


def test_from_config_refuses_what_it_would_ignore(tmp_path):
    with pytest.raises(ValueError, match="unknown keys: predicton_type.*algorithm_type, prediction_type, start"):
        DiTARScheduler.from_config({"predicton_type": "sample"})
    with pytest.raises(ValueError, match="unknown keys: temperature"):
        DiTARScheduler.from_config({}, temperature=0.5)
    with pytest.raises(ValueError, match="unknown keys: beta_end, beta_schedule"):
        DiTARScheduler.from_config(DDIMScheduler().config)
    (tmp_path / "scheduler_config.json").write_text('{"_class_name": "DiTARScheduler", "beta_start": 0.1}')
    with pytest.raises(ValueError, match="unknown keys: beta_start"):
        DiTARScheduler.from_pretrained(tmp_path)
    _, unused = DiTARScheduler.from_config({}, return_unused_kwargs=True, temperature=0.5)
    assert unused == {"temperature": 0.5}
    with pytest.raises(TypeError):
        DiTARScheduler(num_train_timesteps=1000)
    # By position it would pass, and be lost in the copy.
    with pytest.raises(TypeError):
        DiTARScheduler("sample")


def test_public_interface():
    scheduler = DiTARScheduler()
    assert scheduler.order == 1 and scheduler._compatibles == [] and scheduler.compatibles == []
    assert scheduler.init_noise_sigma == 1.0
    assert scheduler.num_inference_steps is None and scheduler.timesteps is None
    assert scheduler.step_index is None and scheduler.begin_index is None
    assert len(scheduler) == 0 and bool(scheduler)
    sample = normal(0)
    assert scheduler.scale_model_input(sample, 0.5) is sample
    assert "kwargs" not in inspect.signature(DiTARScheduler.__init__).parameters
    assert not DiTARScheduler._deprecated_kwargs
    wanted = ["model_output", "timestep", "sample", "generator", "variance_noise", "return_dict"]
    assert list(inspect.signature(scheduler.step).parameters) == wanted
    scheduler.set_timesteps(np.int64(8), temperature=np.float32(0.5))
    assert len(scheduler) == scheduler.num_inference_steps == 8
    assert scheduler.timesteps.dtype == torch.float32
    assert scheduler.timesteps.tolist() == [1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]


# Misuse


@pytest.mark.parametrize(
    "config, message",
    [
        ({"prediction_type": "velocity"}, "`prediction_type` is 'velocity'; choose one of flow_prediction"),
        ({"algorithm_type": "heun"}, "`algorithm_type` is 'heun'; choose one of ddim, euler"),
        ({"prediction_type": "epsilon"}, "`start_timestep` is 1.0.*'epsilon'.*pass a lower one"),
        ({"start_timestep": 0.0}, "`start_timestep` is 0.0; pass a number above 0"),
        ({"start_timestep": 1.5}, "`start_timestep` is 1.5; pass"),
        ({"start_timestep": math.nan}, "`start_timestep` is nan; pass"),
        ({"start_timestep": True}, "`start_timestep` is True; pass"),
        ({"start_timestep": "1"}, "`start_timestep` is '1'; pass"),
    ],
)
def test_wrong_configuration_raises(config, message):
    with pytest.raises(ValueError, match=message):
        DiTARScheduler(**config)


@pytest.mark.parametrize("steps", [0, -1, 2.0, 2.5, True, None, "10"])
def test_wrong_number_of_steps_raises(steps):
    with pytest.raises(ValueError, match=f"`num_inference_steps` is {steps!r}; pass a whole number of 1 or more"):
        DiTARScheduler().set_timesteps(steps)


@pytest.mark.parametrize("temperature", [-0.1, 1.1, math.nan, math.inf, True, None, "0.5"])
def test_wrong_temperature_raises(temperature):
    with pytest.raises(ValueError, match=f"`temperature` is {temperature!r}; pass a number from 0"):
        DiTARScheduler().set_timesteps(10, temperature=temperature)


@pytest.mark.parametrize(
    "use",
    [
        lambda scheduler: scheduler.step(torch.zeros(2), 1.0, torch.zeros(2)),
        lambda scheduler: scheduler.update(torch.zeros(2), 0, torch.zeros(2)),
        lambda scheduler: scheduler.init_noise((2,)),
        lambda scheduler: scheduler.renoise_index,
        lambda scheduler: scheduler.starts_from_noise,
    ],
)
def test_use_before_a_plan_raises(use):
    with pytest.raises(ValueError, match="no plan yet; call `set_timesteps` first"):
        use(DiTARScheduler())


@pytest.mark.parametrize("timestep", [0.0, 0.97, 1.1, math.nan, torch.tensor(0.55)])
def test_time_off_the_grid_raises(timestep):
    with pytest.raises(ValueError, match="`timestep` is .* but the next step begins at one of `timesteps`"):
        make_scheduler(10).step(torch.zeros(2), timestep, torch.zeros(2))


def test_steps_out_of_order_or_after_the_last_raise():
    scheduler, sample = make_scheduler(2), torch.zeros(2)
    scheduler.step(sample, scheduler.timesteps[0], sample)
    with pytest.raises(ValueError, match="`timestep` is 1.0, but the next step begins at 0.5"):
        scheduler.step(sample, scheduler.timesteps[0], sample)
    scheduler.step(sample, scheduler.timesteps[1], sample)
    with pytest.raises(ValueError, match="no step 2: it ends after 2; call `set_timesteps`"):
        scheduler.step(sample, scheduler.timesteps[1], sample)
    scheduler.set_timesteps(2)
    scheduler.set_begin_index(2)
    with pytest.raises(ValueError, match="no step 2"):
        scheduler.step(sample, 0.5, sample)


def test_rounded_time_is_taken_for_its_grid_point():
    scheduler, sample = make_scheduler(10), normal(0)
    found = scheduler.step(sample, scheduler.timesteps[3].half(), sample).prev_sample
    assert torch.equal(found, scheduler.update(sample, 3, sample)[0])
    # a bfloat16 is as coarse as a fine grid, and good enough where the step is known
    scheduler.set_timesteps(10)
    for index, timestep in enumerate(scheduler.timesteps.bfloat16()):
        found = scheduler.step(sample, timestep, sample).prev_sample
        assert torch.equal(found, scheduler.update(sample, index, sample)[0])


@pytest.mark.parametrize("index", [-1, 10])
def test_index_outside_the_plan_raises(index):
    with pytest.raises(ValueError, match=f"`index` is {index}; pass a step of this plan, 0 to 9"):
        make_scheduler(10).update(torch.zeros(2), index, torch.zeros(2))


def test_tensors_that_do_not_fit_raise():
    scheduler, sample, other = make_scheduler(10, 0.9), torch.zeros(2, 3), torch.zeros(2, 1)
    with pytest.raises(ValueError, match=r"`model_output` has shape \(2, 1\); pass the sample's, \(2, 3\)"):
        scheduler.step(other, 1.0, sample)
    with pytest.raises(ValueError, match="`previous_original_sample` has shape"):
        scheduler.update(sample, 3, sample, other)
    with pytest.raises(ValueError, match="`variance_noise` has shape"):
        scheduler.update(sample, 0, sample, None, other)
    with pytest.raises(ValueError, match="`sample` has type torch.int64; pass a floating type"):
        scheduler.step(sample.long(), 1.0, sample.long())
    assert scheduler.step_index is None


def test_missing_or_ambiguous_noise_raises():
    scheduler, sample = make_scheduler(10, 0.9), torch.zeros(2, 3)
    with pytest.raises(ValueError, match="`variance_noise` is None, but step 0 needs it"):
        scheduler.update(sample, 0, sample)
    with pytest.raises(ValueError, match="`generator` and `variance_noise` are both set"):
        scheduler.step(sample, 1.0, sample, generator=seeded(0), variance_noise=sample)
    with pytest.raises(ValueError, match="`generator` is a list of 3 for 2 rows"):
        scheduler.step(sample, 1.0, sample, generator=[seeded(0)] * 3)


@pytest.mark.parametrize("method", ["add_noise", "get_velocity", "get_target"])
@pytest.mark.parametrize(
    "change, message",
    [
        ({"timesteps": torch.tensor([0.5, 1.5])}, r"`timesteps` is tensor\(\[0.5000, 1.5000\]\); pass times from 0"),
        ({"timesteps": torch.tensor([-0.1, 0.5])}, "`timesteps` is .*; pass times from 0"),
        ({"timesteps": torch.tensor([math.nan, 0.5])}, "`timesteps` is .*; pass times from 0"),
        ({"timesteps": torch.tensor([0, 1])}, "`timesteps` has type torch.int64; pass a floating type"),
        ({"timesteps": torch.full((3,), 0.5)}, r"`timesteps` has shape \(3,\) for data of shape \(2, 3\)"),
        ({"timesteps": torch.full((2, 3, 1), 0.5)}, r"`timesteps` has shape \(2, 3, 1\) for data"),
        ({"noise": torch.zeros(2, 4)}, r"`noise` has shape \(2, 4\); pass the sample's, \(2, 3\)"),
        ({"data": torch.zeros(2, 3).long()}, "`original_samples` has type torch.int64"),
    ],
)
def test_wrong_training_arguments_raise(method, change, message):
    arguments = {"data": torch.zeros(2, 3), "noise": torch.zeros(2, 3), "timesteps": torch.tensor([0.5, 0.1])} | change
    with pytest.raises(ValueError, match=message):
        getattr(DiTARScheduler(), method)(*arguments.values())
