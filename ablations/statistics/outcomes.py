"""Outcomes of a claim: the interval of an effect held against the smallest effect that matters.

    estimate = estimate_mean([1.9, 2.2, 1.7, 2.4])                 # one difference for each seed
    outcome_of(estimate.interval, margin=1.0, kind=TestKind.ABOVE)  # Outcome.HOLDS

Letters: S seeds. An effect has the unit of its differences and is positive where the claim says so.
The module does not read records and does not choose learning rates (`tuning.py` does).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf, isfinite, sqrt
from statistics import fmean, stdev
from typing import NamedTuple

from scipy import special

LOOKS = (4, 8)  # seeds of the first and of the second look at text
# Pocock's constant for two looks (Biometrika 64, 1977): both intervals at this level are wrong in
# 5 % of cases together, so that a second look costs no honesty.
LOOK_LEVEL = 0.9706
FAMILY_ALPHA = 0.05  # of both looks together


class Outcome(StrEnum):
    HOLDS = "holds"
    TOO_SMALL = "too small"
    OPPOSITE = "opposite"
    INCONCLUSIVE = "inconclusive"
    NOT_TESTABLE = "not testable here"


class TestKind(StrEnum):
    """What a claim says of its effect. The margin d is the smallest effect that matters."""

    __test__ = False  # pytest collects classes whose name begins with Test

    ABOVE = "above"  # the effect is larger than d
    WITHIN = "within"  # the effect lies between -d and d


class Interval(NamedTuple):
    """The ends of an interval, in the unit of the effect, and its level, such as 0.95."""

    low: float
    high: float
    level: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The mean of one difference for each seed, with Student's interval."""

    effect: float
    interval: Interval
    deviation: float  # sample standard deviation of one difference
    n_seeds: int


@dataclass(frozen=True, kw_only=True)
class LookResult:
    """What the last look that was taken says."""

    outcome: Outcome
    estimate: Estimate
    look: int  # 1 or 2
    next_look: int | None  # seeds that the next look needs, None where no look is left to take


def estimate_mean(differences: Sequence[float], *, level: float = LOOK_LEVEL) -> Estimate:
    """Return the mean of `differences` (S,) with Student's t interval at `level`.

    Raises ValueError for fewer than two values and for values that are not finite. A run that
    diverged has no finite loss, and leaving it out would be choosing seeds.
    """
    n = len(differences)
    if n < 2:
        raise ValueError(f"an interval needs at least two seeds, got {n}")
    if not all(map(isfinite, differences)):
        raise ValueError(
            f"an interval needs finite differences, got {list(differences)}: a run diverged"
        )
    effect, deviation = fmean(differences), stdev(differences)
    half = quantile(level, n - 1) * deviation / sqrt(n)
    return Estimate(
        effect=effect,
        interval=Interval(effect - half, effect + half, level),
        deviation=deviation,
        n_seeds=n,
    )


def quantile(level: float, freedom: int) -> float:
    """Return Student's t that an interval at `level` reaches to, with `freedom` degrees."""
    return float(special.stdtrit(freedom, (1 + level) / 2))


def outcome_of(interval: Interval, *, margin: float, kind: TestKind) -> Outcome:
    """Return what an interval says of a claim. Raises ValueError for a margin of 0 or below."""
    if not margin > 0:
        raise ValueError(f"margin={margin!r} must be above 0: the smallest effect that matters")
    within = -margin < interval.low and interval.high < margin
    if kind is TestKind.WITHIN:
        if within:
            return Outcome.HOLDS
        outside = interval.low > margin or interval.high < -margin
        return Outcome.OPPOSITE if outside else Outcome.INCONCLUSIVE
    if interval.low > margin:
        return Outcome.HOLDS
    if interval.high < -margin:
        return Outcome.OPPOSITE
    return Outcome.TOO_SMALL if within else Outcome.INCONCLUSIVE


def take_looks(
    differences_of: Callable[[int], Sequence[float]],
    available: int,
    *,
    margin: float,
    kind: TestKind,
    largest_deviation: float = inf,
    looks: tuple[int, int] = LOOKS,
) -> LookResult:
    """Return what the first look says and, where it is inconclusive, what the second says.

    `differences_of(n)` returns the differences of the first n seeds, tuned among those n alone.
    `available` is the number of seeds that have records. Seeds between the two looks are not
    looked at, since stopping at a number of one's choice has no stated error. A look whose
    differences scatter by more than `largest_deviation` is inconclusive: the gate on power
    (`power.largest_deviation`). Raises ValueError for fewer seeds than the first look needs.
    """
    first, second = looks
    if available < first:
        raise ValueError(f"the first look needs {first} seeds, got {available}")

    def look(number: int, seeds: int, following: int | None) -> LookResult:
        estimate = estimate_mean(differences_of(seeds))
        outcome = outcome_of(estimate.interval, margin=margin, kind=kind)
        if estimate.deviation > largest_deviation:
            outcome = Outcome.INCONCLUSIVE
        more = following if outcome is Outcome.INCONCLUSIVE else None
        return LookResult(outcome=outcome, estimate=estimate, look=number, next_look=more)

    result = look(1, first, second)
    if result.outcome is not Outcome.INCONCLUSIVE or available < second:
        return result
    return look(2, second, None)


def p_value(estimate: Estimate, *, margin: float, kind: TestKind) -> float:
    """Return the p-value of "holds", corrected for two looks, for Benjamini-Hochberg's column.

    At most FAMILY_ALPHA exactly where the interval at LOOK_LEVEL gives "holds": for ABOVE twice the
    one-sided p-value of an effect of `margin`, for WITHIN the larger of both sides.
    """
    error = estimate.deviation / sqrt(estimate.n_seeds)
    distance = estimate.effect - margin
    if kind is TestKind.WITHIN:
        distance = margin - abs(estimate.effect)
    if error == 0:
        return 0.0 if distance > 0 else 1.0
    one_sided = float(special.stdtr(estimate.n_seeds - 1, -distance / error))
    return min(1.0, 2 * one_sided * FAMILY_ALPHA / (1 - LOOK_LEVEL))


def false_discovery_values(p_values: Sequence[float]) -> list[float]:
    """Return Benjamini and Hochberg's adjusted p-values, in the order given."""
    from scipy import stats  # here, since it takes a second to load and readers start with it

    return [float(p) for p in stats.false_discovery_control(p_values)] if len(p_values) else []


def seeds_to_decide(
    estimate: Estimate, *, margin: float, kind: TestKind, most: int = 64
) -> int | None:
    """Return how many seeds would decide, were effect and scatter as estimated.

    The result is None above `most`. The number says what more runs of the same design would cost.
    It promises nothing: a new estimate has its own error.
    """
    for n in range(max(2, estimate.n_seeds), most + 1):
        half = quantile(LOOK_LEVEL, n - 1) * estimate.deviation / sqrt(n)
        at_n = Interval(estimate.effect - half, estimate.effect + half, LOOK_LEVEL)
        if outcome_of(at_n, margin=margin, kind=kind) is not Outcome.INCONCLUSIVE:
            return n
    return None


@dataclass(frozen=True, kw_only=True)
class ExactResult:
    """A counted quantity held against the paper's, two-sided, with no seeds and no interval."""

    counted: float
    paper: float
    tolerance: float  # share of the paper's number

    def __post_init__(self):
        if not 0 < self.tolerance < inf:
            raise ValueError(f"tolerance={self.tolerance!r} must be a share above 0")
        if self.paper == 0:
            raise ValueError("an exact comparison needs a number of the paper that is not 0")

    @property
    def outcome(self) -> Outcome:
        agrees = abs(self.counted / self.paper - 1) <= self.tolerance
        return Outcome.HOLDS if agrees else Outcome.OPPOSITE
