"""Trend of an effect over the logarithm of a size, from runs that are seen at several sizes.

    line = fit_trend(tokens=[1e6, 2e6, 4e6], effects_SN=[[0.1, 0.3, 0.4], ...])   # a row a seed
    line.slope, line.slope_interval, line.chance_above_zero(4e7)

Letters: S seeds, N sizes. Each seed's run is seen at every size, so the points of one seed are not
independent. The model has seed as a random effect, in intercept and in slope. In a design where
each seed has every size its estimate is the mean of the seeds' own least-squares lines, and the
interval is Student's t over those lines (the two-stage estimate, Laird and Ware 1982).

A trend says how an effect changes between the sizes that were run. It does not say where the line
reaches a value: nothing shows that it stays straight.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ablations.statistics.outcomes import Interval, quantile

LEVEL = 0.95
LEAST_SIZES = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Trend:
    """effect = level + slope x log10(size / centre), a line for each seed."""

    slopes: NDArray[np.float64]  # (S,) change of the effect for ten times the size
    levels: NDArray[np.float64]  # (S,) effect at the centre
    centre: float  # geometric mean of the sizes

    @property
    def slope(self) -> float:
        return float(self.slopes.mean())

    @property
    def slope_interval(self) -> Interval:
        return _interval(self.slopes)

    def at(self, size: float) -> Interval:
        """Return the interval of the mean effect at `size`, were the lines straight to there."""
        return _interval(self._effects(size))

    def chance_above_zero(self, size: float) -> float:
        """Return the probability that the mean effect at `size` is above 0, given the lines.

        Student's distribution about the mean of the seeds' lines, with a flat prior.
        """
        effects = self._effects(size)
        error = effects.std(ddof=1) / sqrt(len(effects))
        if error == 0:
            return float(effects.mean() > 0)
        return float(special.stdtr(len(effects) - 1, effects.mean() / error))

    def _effects(self, size: float) -> NDArray[np.float64]:
        return self.levels + self.slopes * log10(size / self.centre)


def fit_trend(sizes: Sequence[float], effects_SN: Sequence[Sequence[float]]) -> Trend:
    """Return the trend of effects, one row for each seed and one column for each size.

    Raises ValueError for fewer than three sizes or two seeds, and for effects that are not finite.
    """
    effects = np.asarray(effects_SN, np.float64)
    if len(set(sizes)) < LEAST_SIZES:
        raise ValueError(f"a trend needs {LEAST_SIZES} sizes or more, got {sorted(set(sizes))}")
    if effects.ndim != 2 or effects.shape[1] != len(sizes) or len(effects) < 2:
        raise ValueError(
            f"a trend needs effects of shape (2 or more seeds, {len(sizes)} sizes), "
            f"got {effects.shape}"
        )
    if not np.isfinite(effects).all():
        raise ValueError("a trend needs finite effects: a run diverged or was not measured")
    logs = np.log10(np.asarray(sizes, np.float64))
    centred = logs - logs.mean()
    return Trend(
        slopes=effects @ centred / (centred @ centred),
        levels=effects.mean(axis=1),
        centre=float(10 ** logs.mean()),
    )


def _interval(values: NDArray[np.float64]) -> Interval:
    half = quantile(LEVEL, len(values) - 1) * values.std(ddof=1) / sqrt(len(values))
    return Interval(float(values.mean() - half), float(values.mean() + half), LEVEL)
