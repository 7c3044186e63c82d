"""What paired seeds say of a claim: an effect, its interval, and two p-values. Only numbers here.

    better([1.2, 0.9, 1.4, 1.1, 1.0], matters=1.0)       # one difference a seed, in any unit

A claim is held against the smallest effect that matters, d, fixed before the runs. Where no rule
holds it is inconclusive.

- `better`, the effect is there: holds if the 95% interval lies above 0 and the estimate reaches d,
  and does not if the 95% interval lies below d.
- `no_difference`, it is not: holds if the 90% interval lies within -d..d, and does not if the 95%
  interval lies outside.
- `at_most`, an error keeps to d: holds if the 95% interval lies below d, and does not if above.
- `at_least`, a score reaches d: the same, the other way round.

So for `better` a claim holds when the effect's sign is sure and its size is, at the best guess, one
that matters. It does not hold when the effect is surely smaller than what matters, whether or not
it is 0. An effect of exactly d is falsely denied in at most 2.5% of cases, an effect of 0 falsely
confirmed in at most 2.5%, a difference of exactly d called none in at most 5% (two one-sided tests,
Schuirmann 1987, whose interval is by convention that of 90%).

Each has an `Asked`, the range that the claim wants the effect in: a bar to pass, or a band to lie
in.

Each rule is also a p-value, which is at most 0.05 exactly where the rule holds; `verdict.py`
corrects those for the number of findings. Intervals are shown uncorrected.

All intervals are Student's t over seeds. Five pairs are too few for anything else: resampling them
gives intervals that are too short, and a rank test of five pairs cannot go below p = 1/16. Whether
differences are normal cannot be seen from five either; an interval says how it was made.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import exp, inf, isfinite, sqrt
from statistics import fmean, stdev
from typing import NamedTuple

from scipy import special, stats

LEVEL = 0.95  # of intervals
EQUIVALENCE_LEVEL = 0.90  # two one-sided tests at 5%


class Interval(NamedTuple):
    low: float
    high: float
    level: float


class Asked(NamedTuple):
    """The range that a claim wants an effect in: bounded on both sides it is a band, else a bar."""

    low: float
    high: float

    @property
    def text(self) -> str:
        if isfinite(self.high) and self.low == 0:  # of factors, which are never below 0
            return f"at most {self.high:.3g}"
        if isfinite(self.low) and isfinite(self.high):
            return f"within {self.low:.3g} to {self.high:.3g}"
        return f"at least {self.low:.3g}" if isfinite(self.low) else f"at most {self.high:.3g}"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was seen, and how surely it speaks for the claim and against it."""

    effect: float
    asked: Asked
    interval: Interval
    how: str  # the interval was made
    under: str = ""  # the assumption of what was counted
    n: int  # values that it was made from
    p_holds: float  # of what was seen, if the claim were false
    p_fails: float  # of what was seen, if the claim were true


def better(differences: Sequence[float], *, matters: float) -> Evidence:
    """Return the evidence that the mean difference is above 0, by an amount that matters.

    One difference for each seed, positive where the claim says so. A value that is not finite is a
    run that diverged: then nothing is concluded, since leaving it out would be choosing seeds.
    Raises ValueError for fewer than two values.
    """

    def weigh(sample: "_Sample") -> tuple[float, float]:
        above_zero = 2 * sample.p_above(0) if sample.mean >= matters else 1.0
        return above_zero, 2 * sample.p_below(matters)

    asked = Asked(matters, inf)
    return _evidence(differences, weigh, asked, LEVEL, "Student's t over {n} paired seeds")


def no_difference(differences: Sequence[float], *, within: float) -> Evidence:
    """Return the evidence that the mean difference lies within -within..within; see `better`."""

    def weigh(sample: "_Sample") -> tuple[float, float]:
        inside = max(sample.p_above(-within), sample.p_below(within))
        return inside, 2 * min(sample.p_above(within), sample.p_below(-within))

    how = "two one-sided t-tests over {n} paired seeds"
    return _evidence(differences, weigh, Asked(-within, within), EQUIVALENCE_LEVEL, how)


def at_most(values: Sequence[float], *, bound: float) -> Evidence:
    """Return the evidence that the mean of `values`, one a seed, is below `bound`; see `better`."""

    def weigh(sample: "_Sample") -> tuple[float, float]:
        return 2 * sample.p_below(bound), 2 * sample.p_above(bound)

    return _evidence(values, weigh, Asked(-inf, bound), LEVEL, "Student's t over {n} seeds")


def at_least(values: Sequence[float], *, bound: float) -> Evidence:
    """Return the evidence that the mean of `values`, one a seed, is above `bound`; see `better`."""

    def weigh(sample: "_Sample") -> tuple[float, float]:
        return 2 * sample.p_above(bound), 2 * sample.p_below(bound)

    return _evidence(values, weigh, Asked(bound, inf), LEVEL, "Student's t over {n} seeds")


def counted(effect: float, *, bar: float, under: str) -> Evidence:
    """Return the evidence of arithmetic, which has no noise, that `effect` is at least `bar`.

    It is exact only under an assumption, which `under` names.
    """
    holds = effect >= bar
    return Evidence(
        effect=effect,
        asked=Asked(bar, inf),
        interval=Interval(effect, effect, 1.0),
        how=f"counted, exact: {under}",
        under=under,
        n=1,
        p_holds=0.0 if holds else 1.0,
        p_fails=1.0 if holds else 0.0,
    )


def as_factor(seen: Evidence) -> Evidence:
    """Return evidence on natural logarithms as a factor: 0.69 becomes 2."""
    low, high, level = seen.interval
    return replace(
        seen,
        effect=exp(seen.effect),
        asked=Asked(*map(exp, seen.asked)),
        interval=Interval(exp(low), exp(high), level),
    )


def power(effect: float, spread: float, *, n: int, alpha: float = 1 - LEVEL) -> float:
    """Return how often `n` pairs show a true `effect` to be above 0, one-sided at alpha / 2.

    `spread` is the standard deviation of one pair's difference. It is the power of `better` where
    the effect is well above what matters, and of its refutation where `effect` is d less the truth.
    """
    critical = stats.t.isf(alpha / 2, n - 1)
    return float(stats.nct.sf(critical, n - 1, sqrt(n) * effect / spread))


def holm(p_values: Sequence[float], *, family: int) -> list[float]:
    """Return p-values corrected for `family` tests by Holm's steps (1979), in the order given.

    Tests of the family that are not given count as p = 1: what has not been run yet is not left
    out, and running more can only lower a corrected p-value. Raises ValueError for a family
    smaller than the list.
    """
    if family < len(p_values):
        raise ValueError(f"holm: family={family} is smaller than the {len(p_values)} p-values")
    corrected, highest = [0.0] * len(p_values), 0.0
    for step, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (family - step) * p_values[index]))
        corrected[index] = highest
    return corrected


class _Sample(NamedTuple):
    mean: float
    error: float  # of the mean
    n: int

    def p_above(self, x: float) -> float:
        """Return the one-sided p-value of a true mean at most x."""
        return self._tail(self.mean - x)

    def p_below(self, x: float) -> float:
        return self._tail(x - self.mean)

    def interval(self, level: float) -> Interval:
        half = float(special.stdtrit(self.n - 1, (1 + level) / 2)) * self.error
        return Interval(self.mean - half, self.mean + half, level)

    def _tail(self, distance: float) -> float:
        if self.error == 0:
            return 0.0 if distance > 0 else 1.0
        return float(special.stdtr(self.n - 1, -distance / self.error))


def _evidence(
    values: Sequence[float],
    weigh: Callable[[_Sample], tuple[float, float]],
    asked: Asked,
    level: float,
    how: str,
) -> Evidence:
    n = len(values)
    if n < 2:
        raise ValueError(f"an interval needs at least two seeds, got {n}")
    if not all(map(isfinite, values)):
        nothing = Interval(float("-inf"), float("inf"), level)
        lost = sum(not isfinite(x) for x in values)
        how = f"none: {lost} of {n} pairs hold a run that diverged"
        return Evidence(
            effect=float("nan"),
            asked=asked,
            interval=nothing,
            how=how,
            n=n,
            p_holds=1.0,
            p_fails=1.0,
        )
    sample = _Sample(fmean(values), stdev(values) / sqrt(n), n)
    holds, fails = weigh(sample)
    return Evidence(
        effect=sample.mean,
        asked=asked,
        interval=sample.interval(level),
        how=how.format(n=n),
        n=n,
        p_holds=min(1.0, holds),
        p_fails=min(1.0, fails),
    )
