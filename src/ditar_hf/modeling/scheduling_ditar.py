"""The diffusion of DiTAR: its path, the solvers of its ODE, and temperature (sections 3.4 and 3.5.3, appendix A.3)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor

from .path_ditar import at_least_float32, check_like, cosine_path, original_sample_and_noise, path_at, target_of

PREDICTION_TYPES = ("flow_prediction", "v_prediction", "sample", "epsilon")
ALGORITHM_TYPES = ("ddim", "euler", "dpmsolver++")
# One source of noise for a batch, or one for each row.
Generators = torch.Generator | list[torch.Generator]
# Grid points whose distances to the temperature differ by no more than this are equally near to it.
TEMPERATURE_TIE = 1e-9
# How far a `timestep` may lie from its grid point: rounding it to float16 is forgiven, another time is not; nor is
# rounding to bfloat16 where the position is known, so that the time only confirms it.
TIMESTEP_TOLERANCE, ROUNDED_TIMESTEP_TOLERANCE = 1e-3, 4e-3


@dataclass
class DiTARSchedulerOutput(BaseOutput):
    """
    Output of [`DiTARScheduler.step`].

    Args:
        prev_sample (`torch.Tensor`): Sample at the next, lower time, in the shape of the input.
        pred_original_sample (`torch.Tensor`, *optional*): Data predicted from the model output, in the same shape.
    """

    prev_sample: torch.Tensor
    pred_original_sample: torch.Tensor | None = None


class DiTARScheduler(SchedulerMixin, ConfigMixin):
    """
    Solves DiTAR's diffusion ODE, with temperature as the time at which noise enters (sections 3.4 and 3.5.3).

    Time runs from 1 (noise) to 0 (data). [`~DiTARScheduler.set_timesteps`] makes a plan: a uniform grid of
    `num_inference_steps + 1` times from `start_timestep` to 0, where step `i` leads from point `i` to point `i + 1`.
    [`~DiTARScheduler.step`] remembers the position in the plan, as diffusers' schedulers do;
    [`~DiTARScheduler.update`] below it is stateless and compiles with `fullgraph=True`.

    Args:
        prediction_type (`str`, *optional*, defaults to `"flow_prediction"`):
            What the model predicts. "flow_prediction": the paper's velocity dx/dt = (π/2)(alpha · noise − sigma ·
            data); "v_prediction": diffusers' velocity, without π/2; "sample": the data; "epsilon": the noise, which
            does not determine the data at time 1 and so needs a lower `start_timestep`.
        algorithm_type (`str`, *optional*, defaults to `"ddim"`):
            Solver. "ddim": the paper's, a rotation of the pair (data, noise); "euler": Euler's method in time, as in
            Eq. 4; "dpmsolver++": second-order multistep in log-SNR on predicted data.
        start_timestep (`float`, *optional*, defaults to 1.0): Time in (0, 1] at which the grid begins.
    """

    _compatibles = []
    order = 1

    # By keyword only: diffusers notes values passed by position as defaults, and `from_config` would drop them.
    @register_to_config
    def __init__(
        self, *, prediction_type: str = "flow_prediction", algorithm_type: str = "ddim", start_timestep: float = 1.0
    ):
        if prediction_type not in PREDICTION_TYPES:
            raise ValueError(f"`prediction_type` is {prediction_type!r}; choose one of {', '.join(PREDICTION_TYPES)}.")
        if algorithm_type not in ALGORITHM_TYPES:
            raise ValueError(f"`algorithm_type` is {algorithm_type!r}; choose one of {', '.join(ALGORITHM_TYPES)}.")
        if not _is_number(start_timestep, Real) or not 0 < start_timestep <= 1:
            raise ValueError(f"`start_timestep` is {start_timestep!r}; pass a number above 0 and up to 1.")
        if prediction_type == "epsilon" and start_timestep == 1:
            told = "where a model with `prediction_type` 'epsilon' cannot tell the data"
            raise ValueError(f"`start_timestep` is {start_timestep!r}, {told}; pass a lower one, such as 0.99.")
        self.timesteps: torch.Tensor | None = None
        self.num_inference_steps: int | None = None
        # The plan lies in host floats of double precision: reading them needs no synchronisation.
        self._points: list[tuple[float, float, float]] = []  # time, alpha, sigma
        self._second_order_weights: list[float] = []
        self._noise_point = 0
        self._forget_trajectory()

    @classmethod
    def from_config(cls, config=None, return_unused_kwargs: bool = False, **kwargs):
        """
        Make a scheduler like [`ConfigMixin.from_config`], but refuse settings that would be ignored.

        Raises:
            ValueError: If `config` or `kwargs` has unknown keys, unless `return_unused_kwargs` asks for them.
        """
        known = cls._get_init_keys(cls) - {"self"}
        given = {**config, **kwargs} if isinstance(config, dict) else kwargs
        # Notes of diffusers begin with an underscore; `auto_map` names code on the Hub.
        unknown = sorted(key for key in given if key not in known | {"auto_map"} and not key.startswith("_"))
        if unknown and not return_unused_kwargs:
            known_keys = ", ".join(sorted(known))
            raise ValueError(f"`config` has unknown keys: {', '.join(unknown)}; remove them. Known are {known_keys}.")
        return super().from_config(config, return_unused_kwargs=return_unused_kwargs, **kwargs)

    @property
    def step_index(self) -> int | None:
        """Position of the next step, or `None` before the first."""
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        """Position of the first step, or `None` if its `timestep` shall tell it."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Set the position (`int`, 0 by default) of the first step, between `set_timesteps` and that step."""
        self._begin_index = begin_index

    @property
    def starts_from_noise(self) -> bool:
        """Whether the plan starts from N(0, I); otherwise it starts from zeros (Eq. 3)."""
        self._require_plan()
        return self._noise_point == 0

    @property
    def draws_noise(self) -> bool:
        """Whether the plan has a place for noise; otherwise all that it makes follows from the model alone."""
        return self.starts_from_noise or self.renoise_index is not None

    @property
    def renoise_index(self) -> int | None:
        """The step that lands on the temperature's grid point and needs noise there, or `None` (Eq. 4)."""
        self._require_plan()
        return None if self._noise_point in (0, self.num_inference_steps) else self._noise_point - 1

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of the first sample: 0 under a plan that starts from zeros, otherwise 1."""
        return 1.0 if self.num_inference_steps is None or self.starts_from_noise else 0.0

    def set_timesteps(
        self, num_inference_steps: int, device: str | torch.device | None = None, temperature: float = 1.0
    ) -> None:
        """
        Make a plan, and forget the trajectory of an earlier one.

        The temperature stands for the nearest point of the whole grid, the lower one of two (Algorithm 1). If that is
        the start, the plan starts from N(0, I) and is the plain ODE. Otherwise it starts from zeros and takes noise
        on landing there, except at time 0, where noise has no weight: that plan is deterministic.

        Args:
            num_inference_steps (`int`): Number of steps, 1 or more.
            device (`str` or `torch.device`, *optional*): Device of `timesteps`, by default the CPU.
            temperature (`float`, *optional*, defaults to 1.0): The paper's τ, from 0 to 1.

        Raises:
            ValueError: If a value is out of range or of another type.
        """
        if not _is_number(num_inference_steps, Integral) or num_inference_steps < 1:
            raise ValueError(f"`num_inference_steps` is {num_inference_steps!r}; pass a whole number of 1 or more.")
        # NaN fails the comparison too.
        if not _is_number(temperature, Real) or not 0 <= temperature <= 1:
            raise ValueError(f"`temperature` is {temperature!r}; pass a number from 0 (deterministic) to 1 (the ODE).")
        steps = self.num_inference_steps = int(num_inference_steps)
        grid = [self.config.start_timestep * (steps - index) / steps for index in range(steps + 1)]
        self._points = [(time, *cosine_path(time)) for time in grid]
        distances = [abs(time - temperature) for time in grid]
        farthest = min(distances) + TEMPERATURE_TIE
        # Time falls along the grid, so the last of the nearest points is the lowest.
        self._noise_point = max(index for index, distance in enumerate(distances) if distance <= farthest)
        self._second_order_weights = [self._second_order_weight(index) for index in range(steps)]
        self.timesteps = torch.tensor(grid[:-1], dtype=torch.float32, device=device)
        self._forget_trajectory()

    def _second_order_weight(self, index: int) -> float:
        """What "dpmsolver++" adds to a step of DDIM, per change of the predicted data since the step before."""
        # First order at both ends, and after noise, where the prediction before belongs to another trajectory. Log-SNR
        # is minus infinity at time 1, which makes the step from there infinitely long and the weight after it 0.
        if index in (0, self.num_inference_steps - 1, self._noise_point) or self._points[index - 1][0] == 1:
            return 0.0
        points = self._points[index - 1 : index + 2]
        before, here, after = (math.log(alpha / sigma) for _, alpha, sigma in points)
        (_, alpha, sigma), (_, next_alpha, next_sigma) = points[1:]
        data_weight = next_alpha - next_sigma * alpha / sigma
        return data_weight * (after - here) / (here - before) / 2

    def init_noise(
        self,
        shape: Sequence[int],
        generator: Generators | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        """
        Make the first sample of the plan (Eq. 3).

        Args:
            shape (`Sequence[int]`): Its shape, `(batch_size, ...)`.
            generator (`torch.Generator` or a list of them, *optional*): Source of noise, or one per row.
            device (`str` or `torch.device`, *optional*): Its device, by default the CPU.
            dtype (`torch.dtype`, *optional*): Its type, by default `torch.float32`.

        Returns:
            `torch.Tensor`: Noise from N(0, I) if the plan starts from noise, otherwise zeros.
        """
        dtype = dtype or torch.float32
        if not self.starts_from_noise:
            return torch.zeros(tuple(shape), device=device, dtype=dtype)
        return _draw_noise(shape, generator, device, dtype).to(dtype)

    def scale_model_input(self, sample: torch.Tensor, timestep: float | torch.Tensor | None = None) -> torch.Tensor:
        """Return `sample` (`torch.Tensor`) as it is at every `timestep`; some schedulers of diffusers scale it."""
        return sample

    def update(
        self,
        model_output: torch.Tensor,
        index: int,
        sample: torch.Tensor,
        previous_original_sample: torch.Tensor | None = None,
        variance_noise: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Take one step of the plan without any state of a trajectory, in float32 or, for such samples, float64.

        Args:
            model_output (`torch.Tensor`): Output of the model at `timesteps[index]`, in the shape of `sample`.
            index (`int`): Position of the step, from 0 to `num_inference_steps - 1`.
            sample (`torch.Tensor`): Sample at `timesteps[index]`, of any shape and floating type.
            previous_original_sample (`torch.Tensor`, *optional*):
                Predicted data of the step before. Counts for "dpmsolver++" only, whose step is of first order without.
            variance_noise (`torch.Tensor`, *optional*):
                Noise from N(0, I) in the shape of `sample`. Step `renoise_index` needs it, the others ignore it.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: Sample at the next time and predicted data, both like `sample`.

        Raises:
            ValueError: If there is no plan, `index` lies outside it, a tensor does not fit or noise is missing.
        """
        self._require_plan()
        if not 0 <= index < self.num_inference_steps:
            raise ValueError(f"`index` is {index}; pass a step of this plan, 0 to {self.num_inference_steps - 1}.")
        others = {"previous_original_sample": previous_original_sample, "variance_noise": variance_noise}
        check_like("sample", sample, model_output=model_output, **others)
        if variance_noise is None and index == self.renoise_index:
            raise ValueError(f"`variance_noise` is None, but step {index} needs it; pass noise in the sample's shape.")

        dtype = at_least_float32(sample.dtype)
        (time, alpha, sigma), (next_time, next_alpha, next_sigma) = self._points[index : index + 2]
        pred_original_sample, pred_noise = original_sample_and_noise(
            model_output.to(dtype), sample.to(dtype), alpha, sigma, self.config.prediction_type
        )
        if index == self.renoise_index:
            prev_sample = next_alpha * pred_original_sample + next_sigma * variance_noise.to(dtype)
        elif self.config.algorithm_type == "euler":
            velocity = target_of(pred_original_sample, pred_noise, alpha, sigma, "flow_prediction")
            prev_sample = sample.to(dtype) + (next_time - time) * velocity
        else:
            prev_sample = next_alpha * pred_original_sample + next_sigma * pred_noise
            weight = self._second_order_weights[index]
            if self.config.algorithm_type == "dpmsolver++" and weight and previous_original_sample is not None:
                prev_sample = prev_sample + weight * (pred_original_sample - previous_original_sample.to(dtype))
        return prev_sample.to(sample.dtype), pred_original_sample.to(sample.dtype)

    def step(
        self,
        model_output: torch.Tensor,
        timestep: float | torch.Tensor,
        sample: torch.Tensor,
        generator: Generators | None = None,
        variance_noise: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> DiTARSchedulerOutput | tuple[torch.Tensor, torch.Tensor]:
        """
        Take the next step of the plan (Eq. 4, Algorithm 1).

        Args:
            model_output (`torch.Tensor`): Output of the model at `timestep`, in the shape of `sample`.
            timestep (`float` or `torch.Tensor`): Time of the sample: the elements of `timesteps`, in their order.
            sample (`torch.Tensor`): Sample at `timestep`, of shape `(batch_size, ...)` and any floating type.
            generator (`torch.Generator` or a list of them, *optional*):
                Source of the noise of step `renoise_index`, or one per row. The other steps draw nothing.
            variance_noise (`torch.Tensor`, *optional*): That noise itself, in place of `generator`.
            return_dict (`bool`, *optional*, defaults to `True`): Return a [`DiTARSchedulerOutput`], not a `tuple`.

        Returns:
            [`DiTARSchedulerOutput`] or `tuple`: Sample at the next time, and predicted data, as in `update`.

        Raises:
            ValueError: If there is no plan, no step of it is left, or an argument does not fit.
        """
        # Notation (<variable name> -> <symbol in the paper>)
        # - sample, prev_sample -> x_{t+Δt}, x_t
        # - model_output -> v_θ (x_θ or ε_θ under other prediction types)
        # - pred_original_sample -> x_θ in Eq. 4, x̂ in Algorithm 1
        # - alpha, sigma, next_alpha, next_sigma -> α and σ at t+Δt, α and σ at t
        # - variance_noise -> ε in Eq. 4, z in Algorithm 1
        # - temperature, its grid point -> τ, η
        # Where noise enters, Algorithm 1 prints α and σ at t+Δt. The sample lands on t, so Eq. 4 is followed.
        if generator is not None and variance_noise is not None:
            raise ValueError("`generator` and `variance_noise` are both set; pass one of them.")
        index = self._find_step(timestep)
        if index == self.renoise_index and variance_noise is None:
            variance_noise = _draw_noise(sample.shape, generator, sample.device, sample.dtype)
        prev_sample, pred_original_sample = self.update(
            model_output, index, sample, self._previous_original_sample, variance_noise
        )
        self._step_index = index + 1
        self._previous_original_sample = pred_original_sample
        if not return_dict:
            return prev_sample, pred_original_sample
        return DiTARSchedulerOutput(prev_sample=prev_sample, pred_original_sample=pred_original_sample)

    def _find_step(self, timestep: float | torch.Tensor) -> int:
        """Position of the step that begins at `timestep`; once a trajectory has begun, this must be its next step."""
        self._require_plan()
        expected = self._begin_index if self._step_index is None else self._step_index
        if expected is not None and not 0 <= expected < self.num_inference_steps:
            raise ValueError(
                f"`timestep` is {timestep}, but this plan has no step {expected}: it ends after "
                f"{self.num_inference_steps}; call `set_timesteps` to begin again."
            )
        # A known position is not checked against a time on an accelerator: reading it makes the host wait.
        if expected is not None and isinstance(timestep, torch.Tensor) and timestep.device.type != "cpu":
            return expected
        time = float(timestep)
        distances = [abs(point[0] - time) for point in self._points[:-1]]
        nearest = min(range(len(distances)), key=distances.__getitem__)
        # A known position needs no more than the nearest time, which a bfloat16 keeps; `not <=` refuses NaN as well.
        tolerance = TIMESTEP_TOLERANCE if expected is None else ROUNDED_TIMESTEP_TOLERANCE
        if not distances[nearest] <= tolerance or expected not in (None, nearest):
            begins = "at one of `timesteps`" if expected is None else f"at {self._points[expected][0]}"
            raise ValueError(
                f"`timestep` is {time}, but the next step begins {begins}; pass the elements of `timesteps` in their "
                "order, or call `set_timesteps` to begin again."
            )
        return nearest

    def add_noise(self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """
        Diffuse data to given times (Eq. 5, 6).

        Args:
            original_samples (`torch.Tensor`): Data, of shape `(batch_size, ...)` and any floating type.
            noise (`torch.Tensor`): Noise from N(0, I), in the same shape.
            timesteps (`torch.Tensor`):
                Times in [0, 1], in floating point, for the leading dimensions of the data: `()` for one time,
                `(batch_size,)` for one per row, `(batch_size, num_patches)` for one per patch, and so on.

        Returns:
            `torch.Tensor`: Noisy samples, in the shape and type of `original_samples`.

        Raises:
            ValueError: If a shape or type does not fit, or a time lies outside [0, 1]. Times on an accelerator are
                not compared with these bounds, because reading them makes the host wait.
        """
        alpha, sigma = path_at(timesteps, original_samples, noise)
        return (alpha * original_samples + sigma * noise).to(original_samples.dtype)

    def get_velocity(self, sample: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """
        Velocity in diffusers' unit, alpha · noise − sigma · data: the paper's (below Eq. 7) divided by π/2.

        Takes the arguments of [`~DiTARScheduler.add_noise`], and returns the shape and type of `sample`, the data.
        """
        alpha, sigma = path_at(timesteps, sample, noise)
        return target_of(sample, noise, alpha, sigma, "v_prediction").to(sample.dtype)

    def get_target(self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """
        What the model learns to predict under `prediction_type` (Eq. 7 for "flow_prediction").

        Takes the arguments of [`~DiTARScheduler.add_noise`], and returns the shape and type of `original_samples`.
        """
        alpha, sigma = path_at(timesteps, original_samples, noise)
        target = target_of(original_samples, noise, alpha, sigma, self.config.prediction_type)
        return target.to(original_samples.dtype)

    def _forget_trajectory(self) -> None:
        self._step_index: int | None = None
        self._begin_index: int | None = None
        self._previous_original_sample: torch.Tensor | None = None

    def _require_plan(self) -> None:
        if self.num_inference_steps is None:
            raise ValueError("`num_inference_steps` is None, so there is no plan yet; call `set_timesteps` first.")

    def __len__(self) -> int:
        return self.num_inference_steps or 0

    # Without a plan the length is 0, and `noise_scheduler or default` would drop the scheduler.
    def __bool__(self) -> bool:
        return True


def _is_number(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _draw_noise(
    shape: Sequence[int], generator: Generators | None, device: str | torch.device | None, dtype: torch.dtype
) -> torch.Tensor:
    """Noise from N(0, I), at least in float32, so that a seed gives the same noise in every lower precision."""
    if isinstance(generator, list) and len(generator) != shape[0]:
        raise ValueError(f"`generator` is a list of {len(generator)} for {shape[0]} rows; pass one, or one per row.")
    return randn_tensor(tuple(shape), generator=generator, device=device, dtype=at_least_float32(dtype))
