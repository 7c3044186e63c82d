"""Plans and the runs that follow from them: order, sharing, batches, commands."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from ablations.__main__ import app
from ablations.protocol import plan_page, registry
from ablations.protocol.comparison import Comparison, run_arm
from ablations.protocol.designs.text import TEXT
from ablations.protocol.plan import make_plan
from ablations.protocol.run import next_batch, run_missing
from sweeps import catalog, results
from tests.ablations.protocol import simulated_runs

SCALE = "smoke"


@pytest.fixture
def recorded(monkeypatch):
    """Rows that `results.load` returns, filled by `execute`, in place of a folder of records."""
    rows: list[dict] = []

    def load(name, *, folder, scale=None):
        if not rows:
            raise LookupError("no records")
        return pd.DataFrame(rows)

    monkeypatch.setattr(results, "load", load)
    return rows


def test_runs_that_findings_share_are_counted_once(tmp_path):
    plan = make_plan(registry.FINDINGS, SCALE, tmp_path)
    assert len(plan.missing) == len(set(plan.missing))
    assert sum(row.shared for row in plan.rows) > 0
    for row in plan.rows:
        assert len(row.missing) + row.shared == row.n_runs
        assert row.outcome == "not run"


def test_hours_are_flops_over_speed(tmp_path):
    plan = make_plan(registry.FINDINGS, SCALE, tmp_path, flops_per_s=1e9, workers=2)
    assert plan.hours == pytest.approx(sum(row.flops for row in plan.rows) / 1e9 / 3600 / 2)
    assert make_plan(registry.FINDINGS, SCALE, tmp_path).hours is None


def test_tokens_hold_the_decays_of_branches_and_no_trunk_twice(tmp_path):
    (row,) = make_plan(registry.FINDINGS[:1], SCALE, tmp_path).rows
    size = TEXT.scales[SCALE]
    branch = size.steps // 2
    decay = round(0.2 * branch)
    assert row.tokens == len(row.missing) * (size.steps + decay) * size.batch * size.seq_len


def test_everything_is_run_and_the_second_look_only_where_it_is_needed(tmp_path, recorded):
    seen: list[tuple[str, int]] = []

    def execute(file: Path, folder: Path) -> None:
        sweep = catalog.find(str(file))
        seeds = sweep.seeds[SCALE]
        seen.append((folder.name, len(sweep.arms) * len(seeds)))
        assert (folder / file.name).exists()
        for arm in sweep.arms:
            name, _, rate = arm.rpartition(" lr ")
            for seed in seeds:
                generator = simulated_runs.np.random.default_rng(seed)
                run = (name, float(rate), seed)
                recorded.append(simulated_runs.row_of(TEXT, SCALE, run, generator))

    run_missing(registry.FINDINGS[:1], SCALE, tmp_path, execute, command="x")
    assert seen == [("text", len(registry.FINDINGS[0].reads[0].arms) * 3 * 4)]
    again: list[tuple[str, int]] = []
    run_missing(registry.FINDINGS[:1], SCALE, tmp_path, lambda *a: again.append(a), command="x")
    assert not again


def test_a_sweep_that_leaves_no_record_ends_the_runs_with_what_to_look_at(tmp_path):
    with pytest.raises(RuntimeError, match="sweeps status text"):
        run_missing(registry.FINDINGS[:1], SCALE, tmp_path, lambda *_: None, command="x")


def test_a_batch_is_a_grid(tmp_path):
    plan = make_plan(registry.FINDINGS, SCALE, tmp_path)
    name, runs = next_batch(plan)
    sweep = registry.comparisons()[name].sweep(SCALE, runs)
    assert len(sweep.arms) * len(sweep.seeds[SCALE]) == len(runs)
    assert {run_arm(arm, rate) for arm, rate, _ in runs} == set(sweep.arms)


@pytest.mark.parametrize("scale", ["paper", "cpu", "nope"])
def test_a_scale_that_is_not_run_is_refused(scale, tmp_path):
    with pytest.raises(ValueError, match="smoke, small, large"):
        run_missing(registry.FINDINGS, scale, tmp_path, lambda *_: None, command="x")


def test_the_plan_is_printed_in_three_forms(tmp_path):
    def said(*words: str) -> str:
        at = ["plan", "--scale", SCALE, "--results", str(tmp_path), *words]
        result = CliRunner().invoke(app, at)
        assert result.exit_code == 0, result.output
        return result.output

    data = json.loads(said("--format", "json"))
    assert [row["finding"] for row in data["findings"]] == [f.name for f in registry.FINDINGS]
    assert data["hours"] is None
    assert "| ratio | not run |" in said("--format", "markdown")
    assert re.search(r"\d+ runs missing", " ".join(said().split()))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan", "--scale", "cpu"], "smoke, small, large"),
        (["run"], "or --all"),
        (["run", "ratio", "--all"], "or --all"),
        (["run", "--all", "--scale", "paper"], "smoke, small, large"),
        (["power", "nope", "--deviation", "1"], "there is no finding 'nope'"),
        (["power", "ratio", "--deviation", "-1"], "deviation of 0 or more"),
    ],
)
def test_what_is_wrong_is_one_sentence(words, message):
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_power_says_how_many_seeds(tmp_path):
    result = CliRunner().invoke(app, ["power", "ratio", "--deviation", "0.5"])
    assert result.exit_code == 0, result.output
    assert "seeds of a single look with 80% power:" in result.output


def test_hours_are_shown_where_the_speed_is_known(tmp_path):
    plan = make_plan(registry.FINDINGS, SCALE, tmp_path, flops_per_s=1e9)
    assert "hours of training with 2 workers" in plan_page.summary(plan)
    assert json.loads(plan_page.as_json(plan))["findings"][0]["hours"] > 0


def test_no_record_of_these_rules_is_published_before_they_are_fixed():
    published = [
        name
        for name in registry.comparisons()
        if (Path(__file__).parents[3] / results.PUBLISHED / name).exists()
    ]
    assert registry.FIXED_BY is not None or not published


def test_comparisons_are_found_by_name():
    assert all(isinstance(x, Comparison) for x in registry.comparisons().values())
