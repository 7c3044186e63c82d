"""What paired seeds say: errors and discoveries come at the rates that evidence.py states."""

from collections import Counter
from collections.abc import Callable, Sequence
from math import inf, log, nan

import numpy as np
import pytest
from scipy import stats

from ablations import trend
from ablations.evidence import (
    Evidence,
    as_factor,
    at_least,
    at_most,
    better,
    counted,
    holm,
    no_difference,
    power,
)
from ablations.verdict import ALPHA, Outcome, Part, Verdict, correct

SEEDS, SERIES = 5, 1000
D = 1.0  # the smallest effect that matters
SPREAD = 1.0  # of one pair


def part(seen: Evidence) -> Part:
    return Part(name="a against b", unit="%", seen=seen)


def verdict(*seen: Evidence, finding: str = "made-up") -> Verdict:
    return Verdict(
        finding=finding, scale="cpu", parts=tuple(map(part, seen)), n_seeds=SEEDS, runs=10
    )


def series(effect: float, *, seed: int, spread: float = SPREAD) -> np.ndarray:
    """Return SERIES experiments of SEEDS paired differences."""
    return np.random.default_rng(seed).normal(effect, spread, (SERIES, SEEDS))


def rates(judge: Callable[[Sequence[float]], Evidence], samples: np.ndarray) -> Counter:
    return Counter(part(judge(list(sample))).outcome for sample in samples)


def like(count: int, rate: float) -> bool:
    """Whether `count` of SERIES is what a true rate gives, but for one chance in a thousand."""
    low, high = stats.binom.interval(0.999, SERIES, rate)
    return low <= count <= high


def no_more(count: int, rate: float) -> bool:
    return count <= stats.binom.ppf(0.9995, SERIES, rate)


def gain(sample: Sequence[float]) -> Evidence:
    return better(sample, matters=D)


def same(sample: Sequence[float]) -> Evidence:
    return no_difference(sample, within=D)


# ---- rates of error and of discovery ------------------------------------------------------------


def test_noise_is_inconclusive_at_the_stated_rate():
    seen = rates(gain, series(0.0, seed=1))
    denied = power(D, SPREAD, n=SEEDS)  # an effect of 0 is D below what matters
    assert no_more(seen[Outcome.HOLDS], ALPHA / 2)
    assert like(seen[Outcome.FAILS], denied)
    assert like(seen[Outcome.INCONCLUSIVE], 1 - denied - seen[Outcome.HOLDS] / SERIES)
    assert seen[Outcome.INCONCLUSIVE] > SERIES / 2


def test_a_planted_effect_is_found_at_the_stated_power():
    seen = rates(gain, series(3.0, seed=2))
    assert like(seen[Outcome.HOLDS], power(3.0, SPREAD, n=SEEDS))
    assert seen[Outcome.HOLDS] > 0.95 * SERIES
    assert no_more(seen[Outcome.FAILS], ALPHA / 2)


def test_a_planted_false_claim_is_denied_at_the_stated_power():
    seen = rates(gain, series(-2.0, seed=3))
    assert like(seen[Outcome.FAILS], power(D + 2.0, SPREAD, n=SEEDS))
    assert seen[Outcome.HOLDS] == 0


def test_an_effect_that_just_matters_is_rarely_denied():
    seen = rates(gain, series(D, seed=4))
    assert no_more(seen[Outcome.FAILS], ALPHA / 2)


def test_equivalence_is_rarely_claimed_where_a_difference_just_matters():
    for effect in (D, -D):
        assert no_more(rates(same, series(effect, seed=5))[Outcome.HOLDS], ALPHA)


def test_equivalence_needs_precision_and_a_missing_significance_is_not_enough():
    assert rates(same, series(0.0, seed=6, spread=0.2))[Outcome.HOLDS] > 0.99 * SERIES
    assert rates(same, series(0.0, seed=7, spread=3.0))[Outcome.HOLDS] < 0.05 * SERIES


@pytest.mark.parametrize("effect", [4.0, -4.0])
def test_a_planted_difference_refutes_that_there_is_none(effect):
    seen = rates(same, series(effect, seed=8))
    assert like(seen[Outcome.FAILS], power(4.0 - D, SPREAD, n=SEEDS))


def test_among_many_findings_any_false_reproduction_stays_rare():
    family, wrong = 10, 0
    rng = np.random.default_rng(9)
    for _ in range(200):
        samples = rng.normal(0.0, 2 * D, (family, SEEDS))
        alone = {str(i): verdict(gain(list(x)), finding=str(i)) for i, x in enumerate(samples)}
        verdicts = correct(alone, family=family)
        wrong += any(v.outcome is Outcome.HOLDS for v in verdicts.values())
    assert wrong <= stats.binom.ppf(0.9995, 200, ALPHA)


# ---- intervals and p-values agree ----------------------------------------------------------------


def test_a_rule_holds_exactly_where_its_interval_says_so():
    for sample in series(1.0, seed=10)[:300]:
        seen = gain(list(sample))
        low, high, level = seen.interval
        assert level == 0.95
        assert (part(seen).outcome is Outcome.HOLDS) == (low > 0 and seen.effect >= D)
        assert (part(seen).outcome is Outcome.FAILS) == (high < D)
        alike = same(list(sample / 3))
        low, high, level = alike.interval
        assert level == 0.90
        assert (part(alike).outcome is Outcome.HOLDS) == (low > -D and high < D)
        kept = at_most(list(sample), bound=D)
        low, high, _ = kept.interval
        assert (part(kept).outcome is Outcome.HOLDS) == (high < D)
        assert (part(kept).outcome is Outcome.FAILS) == (low > D)
        reached = at_least(list(sample), bound=D)
        assert reached.interval == kept.interval
        assert (part(reached).outcome is Outcome.HOLDS) == (low > D)
        assert (part(reached).outcome is Outcome.FAILS) == (high < D)


def test_the_interval_is_scipys():
    sample = [1.2, 0.9, 1.4, 1.1, 1.0]
    expected = stats.ttest_1samp(sample, 0).confidence_interval(0.95)
    assert gain(sample).interval[:2] == pytest.approx((expected.low, expected.high))
    assert gain(sample).p_holds == pytest.approx(stats.ttest_1samp(sample, 0).pvalue)


def test_a_small_but_sure_effect_does_not_hold():
    assert part(gain([0.10, 0.11, 0.09, 0.10, 0.12])).outcome is Outcome.FAILS


def test_values_without_noise_are_decided():
    assert part(gain([2.0] * 5)).outcome is Outcome.HOLDS
    assert part(gain([0.0] * 5)).outcome is Outcome.FAILS
    assert part(same([0.0] * 5)).outcome is Outcome.HOLDS


@pytest.mark.parametrize("lost", [nan, inf])
def test_a_run_that_diverged_leaves_its_part_inconclusive(lost):
    seen = gain([2.0, 2.1, 1.9, 2.0, lost])
    assert part(seen).outcome is Outcome.INCONCLUSIVE
    assert "1 of 5 pairs hold a run that diverged" in seen.how


def test_one_seed_makes_no_interval():
    with pytest.raises(ValueError, match="at least two seeds, got 1"):
        gain([2.0])


def test_logarithms_become_factors():
    seen = as_factor(better([log(3.0), log(3.1), log(2.9)], matters=log(2)))
    assert seen.effect == pytest.approx(3.0, rel=0.01)
    assert seen.interval.low < 3 < seen.interval.high


# ---- parts and families -------------------------------------------------------------------------

SURE, DENIED, VAGUE = [2.0, 2.1, 1.9, 2.0, 2.1], [-2.0, -2.1, -1.9, -2.0, -2.2], [3, -3, 1, 0, 2]


def test_a_conjunction_needs_every_part():
    assert verdict(gain(SURE), gain(SURE)).alone is Outcome.HOLDS
    assert verdict(gain(SURE), gain(VAGUE)).alone is Outcome.INCONCLUSIVE
    assert verdict(gain(SURE), gain(VAGUE), gain(DENIED)).alone is Outcome.FAILS
    assert verdict(counted(8.0, bar=4.0, under="batch 1"), gain(SURE)).alone is Outcome.HOLDS
    assert verdict(counted(1.0, bar=4.0, under="batch 1"), gain(SURE)).alone is Outcome.FAILS


def test_each_part_is_another_chance_of_a_false_refutation_and_is_paid_for():
    once, thrice = verdict(gain(DENIED)), verdict(gain(DENIED), gain(SURE), gain(SURE))
    assert thrice.p_fails == pytest.approx(3 * once.p_fails)


def test_the_deciding_part_is_one_that_fails_or_the_least_sure():
    assert verdict(gain(SURE), gain(DENIED)).deciding.seen.effect < 0
    assert verdict(gain(SURE), gain(VAGUE)).deciding.seen.effect == pytest.approx(0.6)


def test_holm_as_by_hand():
    assert holm([0.01, 0.04, 0.03], family=3) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.01, 0.03], family=5) == pytest.approx([0.05, 0.12])
    with pytest.raises(ValueError, match="family=1 is smaller than the 2"):
        holm([0.1, 0.2], family=1)


def test_what_does_not_survive_the_correction_is_inconclusive_and_says_so():
    barely = verdict(gain([2.0, 4.4, 0.8, 2.9, 1.2]))
    assert barely.alone is Outcome.HOLDS
    (corrected,) = correct({"made-up": barely}, family=20).values()
    assert corrected.outcome is Outcome.INCONCLUSIVE
    assert "alone: holds" in corrected.notes[-1]


# ---- trends -------------------------------------------------------------------------------------


def test_a_trend_finds_the_size_where_an_effect_matters():
    rng = np.random.default_rng(11)
    sizes = [size for size in (1e5, 1e6, 1e7) for _ in range(SEEDS)]
    effects = [0.2 * (np.log10(size) - 5) + rng.normal(0, 0.02) for size in sizes]
    line = trend.fit(sizes, effects)
    assert line.slope_interval.low < 0.2 < line.slope_interval.high
    assert line.reaches(1.0) == pytest.approx(1e10, rel=1.5)
    low, high, _ = line.at(1e6)
    assert low < 0.2 < high
    said = trend.sentence("gain", line, matters=1.0, unit="%", of="tokens")
    assert "the line is at 1 at about" in said


def test_the_interval_of_a_trend_is_scipys():
    sizes, effects = [1e5, 1e6, 1e7, 1e7], [0.0, 0.3, 0.4, 0.5]
    line, other = trend.fit(sizes, effects), stats.linregress(np.log10(sizes), effects)
    half = stats.t.isf(0.025, 2) * other.stderr
    assert line.slope_interval[:2] == pytest.approx((other.slope - half, other.slope + half))


def test_without_a_sure_rise_no_size_is_named():
    line = trend.fit([1e5, 1e6, 1e7, 1e8], [0.1, -0.1, 0.1, -0.1])
    assert line.reaches(1.0) is None
    said = trend.sentence("gain", line, matters=1.0, unit="%", of="tokens")
    assert "no size can be named" in said


def test_two_sizes_make_no_trend():
    with pytest.raises(ValueError, match="at least 3 sizes"):
        trend.fit([1e5, 1e5, 1e6], [0, 0, 1])
