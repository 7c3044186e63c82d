"""Outcomes: intervals against a peer, the five rules at their bounds, and two looks."""

from math import inf, nan

import numpy as np
import pytest
from scipy import stats

from ablations.statistics.outcomes import (
    FAMILY_ALPHA,
    LOOK_LEVEL,
    ExactResult,
    Interval,
    Outcome,
    TestKind,
    estimate_mean,
    false_discovery_values,
    outcome_of,
    p_value,
    seeds_to_decide,
    take_looks,
)

ABOVE, WITHIN = TestKind.ABOVE, TestKind.WITHIN


def test_interval_is_scipys():
    values = [1.9, 2.2, 1.7, 2.6]
    estimate = estimate_mean(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(LOOK_LEVEL)
    assert estimate.interval == pytest.approx((*expected, LOOK_LEVEL))
    assert estimate.effect == pytest.approx(np.mean(values))
    assert estimate.deviation == pytest.approx(np.std(values, ddof=1))


@pytest.mark.parametrize("values", [[1.0], [], [1.0, inf], [1.0, nan, 2.0]])
def test_interval_of_too_few_or_diverged_is_refused(values):
    with pytest.raises(ValueError, match="an interval needs"):
        estimate_mean(values)


@pytest.mark.parametrize(
    ("low", "high", "kind", "outcome"),
    [
        (1.1, 2.0, ABOVE, Outcome.HOLDS),
        (-0.9, 0.9, ABOVE, Outcome.TOO_SMALL),
        (0.2, 0.9, ABOVE, Outcome.TOO_SMALL),  # surely above 0, and surely below what matters
        (-2.0, -1.1, ABOVE, Outcome.OPPOSITE),
        (0.5, 1.5, ABOVE, Outcome.INCONCLUSIVE),
        (-1.5, 0.5, ABOVE, Outcome.INCONCLUSIVE),
        (-3.0, 3.0, ABOVE, Outcome.INCONCLUSIVE),
        (1.0, 2.0, ABOVE, Outcome.INCONCLUSIVE),  # the margin itself is not above the margin
        (-0.9, 0.9, WITHIN, Outcome.HOLDS),
        (1.1, 2.0, WITHIN, Outcome.OPPOSITE),
        (-2.0, -1.1, WITHIN, Outcome.OPPOSITE),
        (0.5, 1.5, WITHIN, Outcome.INCONCLUSIVE),
    ],
)
def test_rules(low, high, kind, outcome):
    assert outcome_of(Interval(low, high, LOOK_LEVEL), margin=1.0, kind=kind) is outcome


@pytest.mark.parametrize("margin", [0.0, -1.0, nan])
def test_a_margin_that_decides_nothing_is_refused(margin):
    with pytest.raises(ValueError, match="margin"):
        outcome_of(Interval(-1, 1, 0.95), margin=margin, kind=ABOVE)


SURE = [3.0, 3.1, 2.9, 3.0]
UNSURE = [0.0, 3.0, 0.5, 2.5]


def looks(values, available=None, **options):
    asked = []

    def differences_of(n):
        asked.append(n)
        return values[:n]

    available = len(values) if available is None else available
    return take_looks(differences_of, available, margin=1.0, kind=ABOVE, **options), asked


def test_a_first_look_that_decides_is_the_last():
    result, asked = looks([*SURE, *UNSURE])
    assert (result.outcome, result.look, result.next_look, asked) == (Outcome.HOLDS, 1, None, [4])


def test_the_second_look_is_taken_where_the_first_is_inconclusive():
    result, asked = looks([*UNSURE, 3.0, 3.0, 3.0, 3.0])
    assert (result.outcome, result.look, asked) == (Outcome.HOLDS, 2, [4, 8])


@pytest.mark.parametrize("available", [4, 5, 7])
def test_seeds_between_the_looks_are_not_looked_at(available):
    result, asked = looks([*UNSURE, 3.0, 3.0, 3.0, 3.0], available)
    assert (result.outcome, result.next_look, asked) == (Outcome.INCONCLUSIVE, 8, [4])


def test_too_few_seeds_for_a_look_are_refused():
    with pytest.raises(ValueError, match="needs 4 seeds, got 3"):
        looks(SURE[:3])


def test_a_look_without_power_decides_nothing():
    result, asked = looks([*SURE, *SURE], largest_deviation=0.01)
    assert (result.outcome, asked) == (Outcome.INCONCLUSIVE, [4, 8])


@pytest.mark.parametrize("kind", TestKind)
def test_the_p_value_is_at_most_alpha_exactly_where_the_claim_holds(kind):
    generator = np.random.default_rng(0)
    seen = set()
    for centre in np.linspace(-2.5, 2.5, 201):
        estimate = estimate_mean(list(centre + 0.3 * generator.standard_normal(4)))
        holds = outcome_of(estimate.interval, margin=1.0, kind=kind) is Outcome.HOLDS
        p = p_value(estimate, margin=1.0, kind=kind)
        if kind is ABOVE:
            assert (p <= FAMILY_ALPHA) is holds
        else:  # the interval is that of two sides, which asks for a little more than the test
            assert p <= FAMILY_ALPHA or not holds
        seen.add(holds)
    assert seen == {True, False}


def test_false_discovery_values_are_benjamini_hochbergs():
    assert false_discovery_values([0.01, 0.04, 0.03, 0.5]) == pytest.approx(
        [0.04, 0.16 / 3, 0.16 / 3, 0.5]
    )
    assert false_discovery_values([]) == []


def test_more_seeds_decide_and_how_many_depends_on_the_scatter():
    near = estimate_mean([1.3, 1.7, 1.4, 1.6])
    far = estimate_mean([0.3, 2.7, 1.4, 1.6])
    few, many = (seeds_to_decide(e, margin=1.0, kind=ABOVE) for e in (near, far))
    assert few is not None
    assert many is not None
    assert few < many
    assert seeds_to_decide(estimate_mean([0, 2, 0, 2]), margin=1.0, kind=ABOVE) is None


def test_exact_agreement_is_two_sided():
    def outcome(counted):
        return ExactResult(counted=counted, paper=2.0, tolerance=0.05).outcome

    assert outcome(2.05) is Outcome.HOLDS
    assert outcome(1.95) is Outcome.HOLDS
    assert outcome(6.83) is Outcome.OPPOSITE  # more than the paper's is no agreement either
    assert outcome(1.25) is Outcome.OPPOSITE


@pytest.mark.parametrize(("paper", "tolerance"), [(0.0, 0.1), (2.0, 0.0), (2.0, inf)])
def test_exact_agreement_without_a_scale_is_refused(paper, tolerance):
    with pytest.raises(ValueError, match=r"tolerance|not 0"):
        ExactResult(counted=1.0, paper=paper, tolerance=tolerance)
