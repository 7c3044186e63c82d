"""What notebooks show: tables and figures from made-up rows and from specs that can be counted."""

import numpy as np
import pandas as pd
import pytest

from ablations import effects, figures
from ablations.table import gains
from hybrid import cost
from hybrid.cost import Weights
from hybrid.presets import PRESETS
from sweeps import moe_grid, ratio
from sweeps.show import anatomy, choice, experts, explore
from tests.test_figures import made_up

SPECS = {name: PRESETS[name] for name in ("jamba-v0.1", "mixtral-8x7b")}


def test_the_front_is_taken_at_each_context_apart():
    rows = {
        "arm": ["a", "b", "a", "b"],
        "context": [1, 1, 2, 2],
        "bits_per_byte": [2.0, 3.0, 2.0, 3.0],
        "decode_tokens_per_s": [10.0, 20.0, 10.0, 5.0],
    }
    marked = choice.front(pd.DataFrame(rows), choice.LOSS_AND_DECODING)
    assert list(marked["on_front"]) == [True, True, True, False]


def test_points_have_the_mean_loss_and_every_context():
    trials = made_up()
    points = choice.points(trials, trials, ratio.ARMS)
    assert len(points) == 2 * len(ratio.ARMS)
    first = explore.with_loss(trials[trials["arm"] == "1:0"])
    assert points["bits_per_byte"][0] == pytest.approx(first["bits_per_byte"].mean())
    assert len(choice.figure(points.assign(on_front=True)).axes) == 2


def test_an_arm_that_is_another_model_is_refused():
    trials = made_up()
    with pytest.raises(ValueError, match="another model"):
        choice.points(trials, trials.assign(spec="other"), ratio.ARMS)


def test_parts_sum_to_all_parameters():
    totals = anatomy.parameters(SPECS).sum(axis=1)
    assert totals.to_dict() == {name: cost.params(spec) for name, spec in SPECS.items()}


def test_what_does_not_fit_is_missing():
    longest = anatomy.longest_contexts(SPECS, [10**9], weights=Weights.INT8, chunk=0)
    assert longest.isna().all(axis=None)


def test_an_even_load_is_one_and_dense_models_have_none():
    trials = pd.DataFrame({"arm": ["moe", "dense"], "seed": 0, "expert_load": [[[0.5, 0.5]], None]})
    assert list(experts.shares(trials)["share"]) == [1.0, 1.0]


def test_settings_hold_the_formulas():
    trials = made_up(moe_grid.SWEEP).assign(baseline_bytes=0)
    row = experts.settings(trials, moe_grid.SETTINGS).set_index("setting").loc["n8 K2 e4"]
    assert (row["(n/e) K"], row["K/e"], row["n/e"]) == (4, 0.5, 2)


def test_pairs_are_of_the_same_seed():
    rows = pd.DataFrame(
        {"arm": ["a", "a", "b", "b"], "seed": [0, 1, 1, 0], "x": [1.0, 2.0, 2.2, 1.1]}
    ).assign(outcome="complete")
    seen = explore.paired(rows, "x", over="a").loc["b"]
    assert seen["percent"] == pytest.approx(10)
    assert seen["high"] - seen["low"] == pytest.approx(0, abs=1e-9)


def test_gains_show_every_seed_and_the_papers_number():
    losses = pd.DataFrame({"hybrid": [1.9, 1.8], "other": [2.0, 2.0]})
    table = gains(losses, [("hybrid", "other")])
    assert table["hybrid over other"].to_list() == pytest.approx([5, 10])
    axes = effects.gains(table, {"hybrid over other": 7.0}, matters=1.0).axes[0]
    drawn = np.concatenate([np.ravel(line.get_xdata()) for line in axes.lines])
    for value in (5, 10, 7.5, 7):
        assert np.isclose(drawn, value).any()


def test_a_line_for_each_model_goes_through_its_medians():
    arms = ("a lr 0.1", "a lr 0.2", "b lr 0.1", "b lr 0.2")
    rows = [
        {"arm": arm, "seed": seed, "outcome": "complete", "x": 10.0**place + seed}
        for place, arm in enumerate(arms)
        for seed in range(3)
    ]
    (axes,) = figures.by_rate(pd.DataFrame(rows), arms, {"x": "unit"}).axes
    lines = [list(line.get_ydata()) for line in axes.lines if line.get_linestyle() == "-"]
    assert lines == [[2, 11], [101, 1001]]
    assert axes.get_yscale() == "log"


def timed(speeds: dict[str, tuple[float, ...]]) -> pd.DataFrame:
    """Return a complete trial for each arm and speed, as fast in prefill and decode as it says."""
    rows = [
        {"arm": arm, "seed": seed, "outcome": "complete", "train_tokens_per_s": speed}
        | {f"{column}.256": speed for column in ("prefill_tokens_per_s", "decode_ms")}
        | {"cache_bytes.256": 2**20}
        for arm, of_seeds in speeds.items()
        for seed, speed in enumerate(of_seeds)
    ]
    return pd.DataFrame(rows)


def test_costs_have_a_geometric_mean_with_its_interval_and_every_seed():
    (prefill, _, cache) = figures.cost(timed({"a": (90.0, 100.0, 1e4 / 90)}), ("a",)).axes
    drawn = [list(np.ravel(line.get_ydata())) for line in prefill.lines]
    assert drawn[:3] == [[90], [100], [1e4 / 90]]
    assert any(np.allclose(y, 100) for y in drawn[3:])
    (interval,) = prefill.collections
    low, high = interval.get_segments()[0][:, 1]
    assert low * high == pytest.approx(100**2)
    assert any(np.allclose(line.get_ydata(), 1) for line in cache.lines)


def test_training_speeds_have_every_seed_and_a_black_mean():
    (axes,) = figures.speeds(timed({"a": (10.0, 30.0), "b": (5.0, 7.0)}), ("a", "b")).axes
    drawn = [list(np.ravel(line.get_ydata())) for line in axes.lines]
    assert [10, 5] in drawn
    assert [30, 7] in drawn
    assert [20, 6] in drawn


def test_pairs_join_the_arms_of_a_seed():
    rows = pd.DataFrame({"arm": ["a", "a", "b", "b"], "seed": [0, 1, 1, 0], "x": [1, 2, 4, 3]})
    (axes,) = figures.pairs(rows, ("a", "b"), {"x": "name"}).axes
    joined = [list(line.get_ydata()) for line in axes.lines if line.get_linestyle() == "-"]
    assert joined == [[1, 3], [2, 4]]


def test_a_thick_line_is_the_median_of_seeds_at_each_step():
    rows = pd.DataFrame({"step": [0, 1] * 3, "seed": [0, 0, 1, 1, 2, 2], "x": [1, 2, 3, 4, 8, 9]})
    (axes,) = figures.over_steps(rows.assign(arm="a"), ("a",), "x", "unit").axes
    thick = [list(line.get_ydata()) for line in axes.lines if line.get_linewidth() > 1]
    assert thick == [[3, 4]]


def test_a_line_of_training_is_the_completed_attempt_alone():
    trials = pd.DataFrame(
        {
            "run_id": ["r", "r"],
            "attempt": [0, 1],
            "arm": "a",
            "seed": 0,
            "outcome": ["crashed", "complete"],
        }
    )
    steps = pd.DataFrame(
        {
            "run_id": "r",
            "attempt": [0] * 6 + [1] * 40,
            "step": [*range(1, 7), *range(1, 41)],
            "tokens": [*range(1, 7), *range(1, 41)],
            "nats_per_token": [9.0] * 6 + [4.0] * 40,
        }
    )
    (line,) = explore.training(steps, trials).axes[0].lines
    assert len(line.get_ydata()) == 40
    assert set(line.get_ydata()[~np.isnan(line.get_ydata())]) == {4.0}
