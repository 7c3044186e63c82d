"""Trends: planted lines come back, seeds are the unit of the interval."""

from math import log10

import numpy as np
import pytest
from scipy import stats

from ablations.statistics.trend import fit_trend

SIZES = (1e6, 2e6, 4e6, 8e6)


def planted(slope, level, *, of_seed, scatter=0.0, seeds=4):
    generator = np.random.default_rng(0)
    centre = sum(map(log10, SIZES)) / len(SIZES)
    lines = slope + of_seed * generator.standard_normal(seeds)
    return [
        [
            level + line * (log10(size) - centre) + scatter * generator.standard_normal()
            for size in SIZES
        ]
        for line in lines
    ]


def test_exact_lines_come_back():
    trend = fit_trend(SIZES, planted(0.7, -0.2, of_seed=0.0))
    assert trend.slope == pytest.approx(0.7)
    assert trend.at(trend.centre).low == pytest.approx(-0.2)
    assert trend.chance_above_zero(1e9) == 1.0
    assert trend.chance_above_zero(1e3) == 0.0


def test_the_interval_is_students_over_the_seeds_own_lines():
    effects = planted(0.7, -0.2, of_seed=0.3, scatter=0.1)
    trend = fit_trend(SIZES, effects)
    slopes = [np.polyfit(np.log10(SIZES), row, 1)[0] for row in effects]
    expected = stats.ttest_1samp(slopes, 0).confidence_interval(0.95)
    assert (trend.slope_interval.low, trend.slope_interval.high) == pytest.approx(tuple(expected))
    at_ten = [np.polyval(np.polyfit(np.log10(SIZES), row, 1), log10(8e7)) for row in effects]
    assert trend.chance_above_zero(8e7) == pytest.approx(
        stats.t.cdf(np.mean(at_ten) / stats.sem(at_ten), len(at_ten) - 1)
    )


def test_the_interval_covers_the_true_slope_as_often_as_it_says():
    generator = np.random.default_rng(1)
    logs = np.log10(SIZES) - np.mean(np.log10(SIZES))
    covered = 0
    for _ in range(400):
        lines = 0.5 + 0.4 * generator.standard_normal(5)
        levels = generator.standard_normal(5)
        effects = levels[:, None] + lines[:, None] * logs + 0.2 * generator.standard_normal((5, 4))
        low, high, _ = fit_trend(SIZES, effects.tolist()).slope_interval
        covered += low <= 0.5 <= high
    assert 0.91 <= covered / 400 <= 0.985


@pytest.mark.parametrize(
    ("sizes", "effects", "message"),
    [
        ((1e6, 2e6), [[1, 2], [1, 2]], "3 sizes"),
        ((1e6, 1e6, 2e6), [[1, 2, 3], [1, 2, 3]], "3 sizes"),
        (SIZES, [[1, 2, 3, 4]], "2 or more seeds"),
        (SIZES, [[1, 2, 3], [1, 2, 3]], "shape"),
        (SIZES, [[1, 2, 3, float("nan")], [1, 2, 3, 4]], "finite"),
    ],
)
def test_what_is_no_trend_is_refused(sizes, effects, message):
    with pytest.raises(ValueError, match=message):
        fit_trend(sizes, effects)
