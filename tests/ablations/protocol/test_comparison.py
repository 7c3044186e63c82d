"""Comparisons: what is missing, grids that grow, and what is refused."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ablations.protocol.comparison import MOST_GROWTH, RecordsMissingError
from ablations.protocol.designs.matched_models import MAMBA, SEVEN
from ablations.protocol.designs.text import TEXT
from tests.ablations.protocol import simulated_runs

SCALE, ARMS = "smoke", (SEVEN, MAMBA)
RATES = TEXT.base_rates[SCALE][SEVEN]


def rows(n_seeds=4, arms=ARMS):
    return pd.DataFrame(simulated_runs.of_comparison(TEXT, SCALE, arms, n_seeds))


def grown(rates, best):
    """Return complete rows of SEVEN over `rates`, whose loss is lowest at `best`."""
    generator = np.random.default_rng(1)
    table = []
    for rate in rates:
        for seed in range(4):
            loss = 1.8 * (1 + 0.02 * abs(np.log2(rate / best)))
            columns = {
                f"{name}.{d}": loss
                for name in ("valid_bits_per_byte", "test_bits_per_byte")
                for d in simulated_runs.DOMAINS
            }
            run = (SEVEN, rate, seed)
            table.append(simulated_runs.row_of(TEXT, SCALE, run, generator, **columns))
    return pd.DataFrame(table)


def test_everything_is_missing_where_nothing_was_run():
    missing = TEXT.missing(SCALE, ARMS, pd.DataFrame(), n_seeds=4)
    assert len(missing) == len(set(missing)) == len(ARMS) * len(RATES) * 4
    assert {seed for _, _, seed in missing[: len(ARMS) * len(RATES)]} == {0}  # first seeds first


def test_only_what_has_no_record_is_missing():
    table = rows()
    assert TEXT.missing(SCALE, ARMS, table, n_seeds=4) == []
    assert len(TEXT.missing(SCALE, ARMS, table, n_seeds=8)) == len(ARMS) * len(RATES) * 4
    (lost,) = TEXT.missing(SCALE, ARMS, table.iloc[1:], n_seeds=4)
    assert lost == (SEVEN, RATES[0], 0)
    with pytest.raises(RecordsMissingError, match="1 runs of text"):
        TEXT.runs(SCALE, ARMS, table.iloc[1:], n_seeds=4)


def test_branches_are_no_runs_of_the_design():
    table = rows()
    branch = table.iloc[[0]].assign(branch_of="trunk")
    assert TEXT.missing(SCALE, ARMS, branch, n_seeds=4)
    together = pd.concat([table, branch], ignore_index=True)
    assert set(TEXT.runs(SCALE, ARMS, together, n_seeds=4)) == set(ARMS)


@pytest.mark.parametrize(("best", "side"), [(RATES[0] / 4, -1), (RATES[-1] * 4, 1)])
def test_the_grid_grows_until_the_best_rate_lies_inside(best, side):
    rates = RATES
    for _ in range(3):
        table = grown(rates, best)
        new = TEXT.rates(SCALE, SEVEN, table)
        missing = TEXT.missing(SCALE, (SEVEN,), table, n_seeds=4)
        assert len(new) == len(rates) + 1
        added = new[0] if side < 0 else new[-1]
        assert added == pytest.approx(rates[0] / 2 if side < 0 else rates[-1] * 2)
        assert missing == [(SEVEN, added, seed) for seed in range(4)]
        rates = new
    assert TEXT.rates(SCALE, SEVEN, grown(rates, best)) == rates


def test_the_grid_grows_no_further_than_it_may():
    rates = RATES
    for _ in range(4 * MOST_GROWTH):
        rates = TEXT.rates(SCALE, SEVEN, grown(rates, 1e9))
    assert len(rates) <= 3 + 2 * MOST_GROWTH + 1


def test_a_run_with_two_records_is_refused():
    table = rows()
    twice = pd.concat([table, table.iloc[[0]]], ignore_index=True)
    with pytest.raises(ValueError, match="two records"):
        TEXT.runs(SCALE, ARMS, twice, n_seeds=4)


def test_a_sweep_holds_the_runs_that_it_is_asked_for():
    runs = [(SEVEN, 4e-3, 0), (SEVEN, 4e-3, 1), (MAMBA, 4e-3, 0), (MAMBA, 4e-3, 1)]
    sweep = TEXT.sweep(SCALE, runs)
    assert sweep.arms == ("1:7 lr 0.004", "0:1 lr 0.004")
    assert sweep.seeds == {SCALE: (0, 1)}
    spec, recipe = sweep.point("0:1 lr 0.004", 1, TEXT.scales[SCALE])
    assert (recipe.lr, recipe.seed) == (4e-3, 1)
    assert spec == TEXT.arms[MAMBA](TEXT.scales[SCALE])


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({}, "base rates"),
        (dict.fromkeys(TEXT.arms, (0.004, 0.002)), "must rise"),
        (dict.fromkeys(TEXT.arms, ()), "must rise"),
        (dict.fromkeys(TEXT.arms, (0.0, 0.001)), "above 0"),
    ],
)
def test_rates_that_are_no_grid_are_refused(rates, message):
    with pytest.raises(ValueError, match=message):
        replace(TEXT, base_rates={**TEXT.base_rates, "small": rates})
