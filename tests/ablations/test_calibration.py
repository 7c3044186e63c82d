"""Calibration in short: the bounds of docs/calibration.md hold, and would be seen broken."""

from dataclasses import replace
from pathlib import Path

import pytest

from ablations import calibration
from ablations.statistics import simulation
from ablations.statistics.outcomes import Outcome, TestKind
from ablations.statistics.simulation import Planted, Protocol, outcome_rates
from ablations.statistics.tuning import TunedValues


@pytest.fixture(scope="module")
def cells():
    return list(calibration.cells((0.54,), n_findings=300, protocols=(Protocol.LEAVE_ONE_OUT,)))


def test_the_rules_keep_their_bounds(cells):
    allowed = 0.02  # 300 findings: what chance adds to a share of 5 % in one case of twenty
    broken = [
        (cell, bound)
        for cell in cells
        for bound in calibration.BOUNDS
        if cell.effect in bound.effects and cell.rates[bound.outcome] > bound.most + allowed
    ]
    assert not broken


def test_effects_that_matter_are_seen(cells):
    seen = {cell.effect: cell.rates for cell in cells if cell.tuning_noise == 0}
    assert seen[2.0][Outcome.HOLDS] > 0.4
    assert seen[0.0][Outcome.TOO_SMALL] > 0.3


def test_a_rate_chosen_by_the_test_loss_breaks_the_bounds(monkeypatch):
    """Judging each run at the rate where it itself is best is what the tuning is there against."""

    def best_of_each(valid, test):
        return TunedValues(values=test.min(axis=0), chosen=(1,), best=1, n_rates=len(test))

    honest = Planted(effect=0.0, scatter=0.54, curvature=0.0, kind=TestKind.WITHIN, margin=0.3)
    flat, sharp = honest, replace(honest, curvature=50.0)

    def mean_value(planted):
        return (
            sum(
                simulation.leave_one_seed_out(
                    *simulation._losses(planted, generator, 4, 0.0)
                ).values.mean()
                for generator in [simulation.np.random.default_rng(n) for n in range(200)]
            )
            / 200
        )

    gap = mean_value(sharp) - mean_value(flat)
    assert abs(gap) < 0.001  # three equal rates are no better than one
    monkeypatch.setattr(simulation, "leave_one_seed_out", best_of_each)
    assert mean_value(sharp) - mean_value(flat) > 0.003


def test_equal_questions_have_equal_answers():
    planted = Planted(effect=1.0)
    first, again = (outcome_rates(planted, n_findings=20, seed=5) for _ in range(2))
    assert first == again
    assert sum(first.values()) == pytest.approx(1)


def test_the_page_is_committed_and_says_that_no_bound_is_broken():
    text = (Path(__file__).parents[2] / calibration.PAGE).read_text()
    assert "0 of 36 cells break a bound." in text


def test_scatter_is_read_from_records():
    low, middle, high = calibration.seen_scatter()
    assert 0 < low < middle < high < 5


def test_records_without_a_test_loss_are_refused(tmp_path):
    with pytest.raises(LookupError, match="test_bits_per_byte"):
        calibration.seen_scatter(tmp_path)
