"""Power of a design: how often it says "holds", and the smallest effect that it can see.

    power(2.0, margin=1.0, deviation=0.4, kind=TestKind.ABOVE)      # share of designs, two looks

Power is simulated, since the second look depends on the first. The draws are fixed, so equal
questions have equal answers.
"""

from functools import lru_cache
from math import inf

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from ablations.statistics.outcomes import LOOK_LEVEL, LOOKS, TestKind, quantile

ENOUGH = 0.8
DRAWS = 20_000
SEED = 2403_19887


def power(
    effect: float,
    *,
    margin: float,
    deviation: float,
    kind: TestKind,
    looks: tuple[int, ...] = LOOKS,
) -> float:
    """Return how often a design of `looks` (seeds of each look) says "holds" of a true `effect`.

    `deviation` is the standard deviation of one seed's difference. All three have one unit. Raises
    ValueError for a margin of 0 or below and a negative deviation.
    """
    if not margin > 0 or not 0 <= deviation < inf:
        raise ValueError(
            f"power needs margin above 0 and deviation of 0 or more, got {margin!r}, {deviation!r}"
        )
    sample = effect + deviation * _draws(max(looks))
    held = np.zeros(len(sample), bool)
    undecided = np.ones(len(sample), bool)
    for seeds in looks:
        low, high = _interval(sample[:, :seeds])
        inside = (-margin < low) & (high < margin)
        above, below = low > margin, high < -margin
        held |= undecided & (inside if kind is TestKind.WITHIN else above)
        undecided &= ~(inside | above | below)
    return float(held.mean())


def smallest_visible(
    *, margin: float, deviation: float, looks: tuple[int, ...] = LOOKS, enough: float = ENOUGH
) -> float:
    """Return the smallest effect of which a design says "holds" (ABOVE) in `enough` of cases."""

    def lacking(effect: float) -> float:
        found = power(effect, margin=margin, deviation=deviation, kind=TestKind.ABOVE, looks=looks)
        return found - enough

    if deviation == 0:
        return margin
    highest = margin + 20 * deviation  # 20 deviations are seen by any design of two seeds or more
    return float(optimize.brentq(lacking, margin, highest, xtol=deviation / 1000))


@lru_cache(maxsize=64)
def largest_deviation(
    effect: float,
    *,
    margin: float,
    kind: TestKind,
    looks: tuple[int, ...] = LOOKS,
    enough: float = ENOUGH,
) -> float:
    """Return the largest deviation with which a design says "holds" of `effect` often enough.

    Returns 0.0 where no scatter at all would still be too little, as for an effect of the margin.
    """

    def spare(deviation: float) -> float:
        found = power(effect, margin=margin, deviation=deviation, kind=kind, looks=looks)
        return found - enough

    room = abs(effect - margin) if kind is TestKind.ABOVE else margin - abs(effect)
    least, most = room / 1000, 20 * room  # no design sees what scatters by 20 times its effect
    if room <= 0 or spare(least) < 0:
        return 0.0
    return float(optimize.brentq(spare, least, most, xtol=room / 1000))


def seeds_needed(
    effect: float,
    *,
    margin: float,
    deviation: float,
    kind: TestKind,
    most: int = 64,
    enough: float = ENOUGH,
) -> int | None:
    """Return the seeds with which one look says "holds" often enough. None above `most`."""
    for seeds in range(2, most + 1):
        if power(effect, margin=margin, deviation=deviation, kind=kind, looks=(seeds,)) >= enough:
            return seeds
    return None


def _interval(sample: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    n = sample.shape[1]
    half = quantile(LOOK_LEVEL, n - 1) * sample.std(axis=1, ddof=1) / np.sqrt(n)
    mean = sample.mean(axis=1)
    return mean - half, mean + half


@lru_cache(maxsize=8)
def _draws(seeds: int) -> NDArray[np.float64]:
    return np.random.default_rng(SEED).standard_normal((DRAWS, seeds))
