"""What all measurements share: how a value is missing, and how values of clips become a mean with its uncertainty."""

import importlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import numpy as np

CONFIDENCE = 0.95
NUM_RESAMPLES = 1000
# what brings the packages that only the papers' protocols need
PAPERS_EXTRA = '-e ".[evaluate-papers]"'


class NotMeasuredError(Exception):
    """A quantity that cannot be measured, for the reason that the message gives; reports list it as such."""


def require_package(name: str, requirement: str = '-e ".[evaluate]"') -> Any:
    """
    An optional package.

    Args:
        name (`str`): Its module.
        requirement (`str`, *optional*, defaults to `-e ".[evaluate]"`): What pip is told to install, in a clone.

    Returns:
        The module.

    Raises:
        NotMeasuredError: If it, or what it needs, is not installed; the message has the command of pip.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or name).split(".")[0]
        raise NotMeasuredError(f"{missing} is not installed: pip install {requirement}") from error


def one_line(error: Exception) -> str:
    """
    What an error says, in one line, for lists and tables; libraries write paragraphs.

    Args:
        error (`Exception`): An error.

    Returns:
        `str`: Its message without line breaks, or its kind if it has none.
    """
    return " ".join(str(error).split()) or type(error).__name__


def unavailable(reason: str) -> Callable[..., NoReturn]:
    """
    Stands in for a function that cannot be had.

    Args:
        reason (`str`): Why not.

    Returns:
        A function that takes anything and raises [`NotMeasuredError`] with the reason.
    """

    def refuse(*arguments: Any, **options: Any) -> NoReturn:
        raise NotMeasuredError(reason)

    return refuse


def mean_with_interval(
    values: Sequence[float], weights: Sequence[float] | None = None, seed: int = 0
) -> tuple[float, tuple[float, float] | None]:
    """
    Weighted mean over clips, with a percentile bootstrap interval (Efron, 1979): clips are drawn with replacement.

    Args:
        values (`list[float]` of length `num_clips`): One for each clip.
        weights (`list[float]` of length `num_clips`, *optional*):
            Their weights, not negative, such as the words of a clip for its word error; all alike by default.
        seed (`int`, *optional*, defaults to 0): Of the draws, so that a report can be repeated.

    Returns:
        The mean, and the bounds between which it lies with 95% confidence; `None` for a single clip.

    Raises:
        ValueError: If there are no values, another number of weights, or no weight.
    """
    values = np.asarray(values, np.float64)
    weights = np.ones_like(values) if weights is None else np.asarray(weights, np.float64)
    if values.ndim != 1 or not values.size or weights.shape != values.shape:
        raise ValueError(
            f"`values` {values.shape} and `weights` {weights.shape} must be of one length, and not empty."
        )
    if (weights < 0).any() or not weights.sum() > 0:
        raise ValueError("`weights` must not be negative, and their sum must be positive.")
    mean = float((values * weights).sum() / weights.sum())
    if values.size == 1:
        return mean, None
    generator = np.random.default_rng(seed)
    means = []
    # one draw at a time: all at once would take gigabytes for a large data set
    for _ in range(NUM_RESAMPLES):
        drawn = generator.integers(values.size, size=values.size)
        total = weights[drawn].sum()
        if total > 0:
            means.append((values[drawn] * weights[drawn]).sum() / total)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return mean, (float(low), float(high))


def summarize(
    values: Sequence[float], weights: Sequence[float] | None = None, reasons: Iterable[str] = ()
) -> dict[str, Any]:
    """
    One quantity over all clips, as reports write it.

    Args:
        values (`list[float]`): Of the clips for which it was measured; may be empty.
        weights (`list[float]`, *optional*): As for [`mean_with_interval`].
        reasons (`list[str]`, *optional*): Of the clips for which it was not, one for each.

    Returns:
        `dict` with `clips`, their number, and `not_measured`, a count for each reason; if there are values, also
        `mean` and `interval`.
    """
    summary = {"clips": len(values), "not_measured": dict(Counter(reasons).most_common())}
    if len(values):
        mean, interval = mean_with_interval(values, weights)
        summary = {"mean": mean, "interval": None if interval is None else list(interval), **summary}
    return summary
