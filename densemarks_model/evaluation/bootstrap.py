"""95 % intervals under drawing the people, or the clips, anew (Efron & Tibshirani 1993).

SciPy's ``bootstrap`` has no interval once a single draw cannot tell (nobody drawn shows a landmark), and names its source of
random numbers otherwise from version to version.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from jaxtyping import Float


@lru_cache(maxsize=8)
def draws(number: int, rounds: int, seed: int = 0) -> Float[np.ndarray, "rounds number"]:
    """How often each of ``number`` things comes up in each of ``rounds`` draws with replacement; not to be written to."""
    drawn = np.random.default_rng(seed).integers(0, number, (rounds, number))
    rows = np.repeat(np.arange(rounds), number)
    counts = np.bincount(rows * number + drawn.ravel(), minlength=rounds * number).reshape(rounds, number).astype(float)
    counts.flags.writeable = False
    return counts


def percentile_interval(drawn: Float[np.ndarray, "rounds"]) -> tuple[float, float]:
    """The middle 95 % of what a statistic came to in the draws, those that cannot tell (NaN) left out; NaN when none can."""
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return float("nan"), float("nan")
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def bootstrap_interval(
    statistic: Callable[[Float[np.ndarray, "people"]], float], people: int, rounds: int = 500, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of a statistic under drawing the people anew.

    Args:
        statistic: of how often each person was drawn.
        people: how many there are. rounds: how many draws. seed: of the draws.

    Returns:
        Its ends; NaN with fewer than two people.
    """
    if people < 2 or rounds < 1:
        return float("nan"), float("nan")
    return percentile_interval(np.array([statistic(counts) for counts in draws(people, rounds, seed)], float))


def mean_and_interval(values: Float[np.ndarray, "n"], rounds: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """Mean of ``values`` and its interval; those that cannot tell (NaN) are left out, and one alone has no width."""
    array = np.asarray(values, np.float64)
    array = array[np.isfinite(array)]
    if len(array) == 0:
        return float("nan"), float("nan"), float("nan")
    return float(array.mean()), *percentile_interval(draws(len(array), rounds, seed) @ array / len(array))
