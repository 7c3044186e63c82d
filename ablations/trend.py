"""A straight line through an effect at several sizes: does it grow, and where would it matter?

Least squares over all pairs at all sizes, the size as its logarithm. The interval knows the noise
of seeds and what the line misses of the sizes that were run. It does not know whether the line goes
on beyond them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10, sqrt
from statistics import fmean

from scipy import stats

from ablations.evidence import LEVEL, Interval

SIZES = 3  # fewer make no trend


@dataclass(frozen=True, kw_only=True)
class Trend:
    """effect = level + slope log10(size / centre)"""

    slope: float  # for each factor of ten
    level: float
    centre: float
    spread: float  # of one pair about the line
    squares: float  # of the logarithms about their mean
    n: int

    @property
    def slope_interval(self) -> Interval:
        return self._interval(self.slope, self.spread / sqrt(self.squares))

    def at(self, size: float) -> Interval:
        """Return the interval of the mean effect at `size`."""
        x = log10(size / self.centre)
        error = self.spread * sqrt(1 / self.n + x * x / self.squares)
        return self._interval(self.level + self.slope * x, error)

    def reaches(self, effect: float) -> float | None:
        """Return the size at which the line has risen to `effect`; None if it surely does not rise.

        "Surely" is the slope's interval, which must lie above 0.
        """
        if self.slope_interval.low <= 0:
            return None
        return float(self.centre * 10 ** ((effect - self.level) / self.slope))

    def _interval(self, middle: float, error: float) -> Interval:
        half = float(stats.t.isf((1 - LEVEL) / 2, self.n - 2)) * error
        return Interval(middle - half, middle + half, LEVEL)


def fit(sizes: Sequence[float], effects: Sequence[float]) -> Trend:
    """Return the line through (size, effect) pairs; ValueError for fewer than three sizes."""
    if len(set(sizes)) < SIZES:
        raise ValueError(f"a trend needs at least {SIZES} sizes, got {sorted(set(sizes))}")
    logs = [log10(size) for size in sizes]
    x, y, n = fmean(logs), fmean(effects), len(logs)
    squares = sum((a - x) ** 2 for a in logs)
    slope = sum((a - x) * (b - y) for a, b in zip(logs, effects, strict=True)) / squares
    missed = sum((b - y - slope * (a - x)) ** 2 for a, b in zip(logs, effects, strict=True))
    return Trend(
        slope=slope, level=y, centre=10**x, spread=sqrt(missed / (n - 2)), squares=squares, n=n
    )


def sentence(name: str, trend: Trend, *, matters: float, unit: str, of: str) -> str:
    """Say how an effect changes with size (`of`: its unit), and from where on it matters."""
    low, high, _ = trend.slope_interval
    grown = f"{name}: the effect changes by {trend.slope:+.2g} [{low:.2g}, {high:.2g}] {unit}"
    reached = trend.reaches(matters)
    if reached is None:
        where = f"so no size can be named at which it reaches {matters:g}"
    else:
        where = f"and the line is at {matters:g} at about {reached:.1g} {of}"
    return f"{grown} for ten times the {of}, {where}"
