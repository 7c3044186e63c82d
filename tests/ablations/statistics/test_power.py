"""Power: against the exact power of one look, and its inverses."""

from math import inf, sqrt

import pytest
from scipy import stats

from ablations.statistics.outcomes import LOOK_LEVEL, TestKind
from ablations.statistics.power import (
    ENOUGH,
    largest_deviation,
    power,
    seeds_needed,
    smallest_visible,
)


@pytest.mark.parametrize("seeds", [4, 8])
@pytest.mark.parametrize("effect", [1.5, 2.0, 3.0])
def test_power_of_one_look_is_that_of_the_noncentral_t(seeds, effect):
    critical = stats.t.isf((1 - LOOK_LEVEL) / 2, seeds - 1)
    exact = stats.nct.sf(critical, seeds - 1, sqrt(seeds) * (effect - 1.0) / 0.7)
    found = power(effect, margin=1.0, deviation=0.7, kind=TestKind.ABOVE, looks=(seeds,))
    assert found == pytest.approx(exact, abs=0.012)  # four deviations of 20,000 draws


def test_a_second_look_adds_power_and_no_scatter_is_certain():
    one = power(2.0, margin=1.0, deviation=0.7, kind=TestKind.ABOVE, looks=(4,))
    two = power(2.0, margin=1.0, deviation=0.7, kind=TestKind.ABOVE)
    assert one < two
    assert power(2.0, margin=1.0, deviation=0.0, kind=TestKind.ABOVE) == 1.0
    assert power(1.0, margin=1.0, deviation=0.0, kind=TestKind.ABOVE) == 0.0
    assert power(0.0, margin=1.0, deviation=0.0, kind=TestKind.WITHIN) == 1.0


def test_the_smallest_visible_effect_has_the_power_that_is_asked():
    effect = smallest_visible(margin=1.0, deviation=0.5)
    found = power(effect, margin=1.0, deviation=0.5, kind=TestKind.ABOVE)
    assert found == pytest.approx(ENOUGH, abs=0.005)
    assert smallest_visible(margin=1.0, deviation=0.0) == 1.0


@pytest.mark.parametrize(("effect", "kind"), [(2.0, TestKind.ABOVE), (0.0, TestKind.WITHIN)])
def test_the_largest_deviation_has_the_power_that_is_asked(effect, kind):
    deviation = largest_deviation(effect, margin=1.0, kind=kind)
    assert power(effect, margin=1.0, deviation=deviation, kind=kind) == pytest.approx(
        ENOUGH, abs=0.005
    )


def test_an_effect_of_the_margin_is_never_seen_often_enough():
    assert largest_deviation(1.0, margin=1.0, kind=TestKind.ABOVE) == 0.0
    assert largest_deviation(1.0, margin=1.0, kind=TestKind.WITHIN) == 0.0


def test_seeds_needed_is_the_least_number():
    def of(seeds):
        return power(2.0, margin=1.0, deviation=0.7, kind=TestKind.ABOVE, looks=(seeds,))

    n = seeds_needed(2.0, margin=1.0, deviation=0.7, kind=TestKind.ABOVE)
    assert n is not None
    assert of(n) >= ENOUGH > of(n - 1)
    assert seeds_needed(1.01, margin=1.0, deviation=2.0, kind=TestKind.ABOVE, most=16) is None


@pytest.mark.parametrize(("margin", "deviation"), [(0.0, 1.0), (1.0, -1.0), (1.0, inf)])
def test_what_has_no_power_is_refused(margin, deviation):
    with pytest.raises(ValueError, match="power needs"):
        power(1.0, margin=margin, deviation=deviation, kind=TestKind.ABOVE)
