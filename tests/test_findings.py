"""What every finding owes its reader, run on every finding of the list; and how they are shown."""

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from ablations import catalog, moe, page, price, published, ratio, rows, run
from ablations.__main__ import app
from ablations.finding import RUN_SCALES, SCALES, Finding
from ablations.rows import NotRun
from ablations.tuned import tuning_sweep
from ablations.verdict import Outcome
from hybrid import cost
from hybrid.presets import JAMBA_V0_1
from sweeps import catalog as sweep_catalog
from sweeps.sweep import Sweep
from tests import made_up

ROOT = Path(__file__).parents[1]
SHOWN = (ROOT / "docs/commands.md").read_text()
WITHIN = 0.0101  # of the largest arm, total parameters

every_finding = pytest.mark.parametrize("finding", catalog.FINDINGS, ids=lambda f: f.name)


def imagined(finding: Finding, scale: str, holds: bool | None) -> pd.DataFrame:
    return _imagined(finding.name, scale, holds)


@cache
def _imagined(name: str, scale: str, holds: bool | None) -> pd.DataFrame:
    return made_up.trials(catalog.find(name), scale, holds)


# ---- the contract --------------------------------------------------------------------------------


@every_finding
def test_a_claim_is_complete(finding: Finding):
    claim = finding.claim
    assert claim.source in published.SOURCES
    assert claim.sentence.endswith(".")
    assert claim.refuted_by
    assert claim.matters.value > 0
    assert claim.matters.unit
    assert claim.matters.why
    assert re.fullmatch("[0-9a-f]{40}", finding.fixed_by)


@every_finding
def test_a_verdict_that_is_meant_has_five_paired_seeds(finding: Finding):
    for comparison in finding.comparisons:
        for scale in ("cpu", "gpu", "paper"):
            points = comparison.sweep.points(scale, rows.TEXT)
            seeds = {arm: {p.seed for p in points if p.arm == arm} for arm in comparison.sweep.arms}
            (shared,) = set(map(frozenset, seeds.values()))
            assert len(shared) >= 5


@every_finding
@pytest.mark.parametrize("scale", SCALES)
def test_arms_have_equal_parameters_or_say_why_not(finding: Finding, scale: str):
    for comparison in finding.comparisons:
        points = comparison.sweep.points(scale, rows.TEXT)
        counts = [cost.params(spec) for spec in {point.spec for point in points}]
        matched = max(counts) - min(counts) <= 2 * WITHIN * max(counts)  # each within 1% of one arm
        assert matched or comparison.unmatched


@every_finding
@pytest.mark.parametrize("scale", SCALES)
def test_tuning_and_comparison_share_no_seed_and_tuning_reads_no_test(finding: Finding, scale: str):
    for comparison in finding.comparisons:
        tuning = comparison.tuning(scale)
        if tuning is None:
            continue
        assert not set(tuning.seeds[scale]) & set(comparison.sweep.seeds[scale])
        for point in tuning.points(scale, rows.TEXT):
            assert not point.recipe.measure_test


@every_finding
def test_the_published_size_is_priced_without_being_run(finding: Finding):
    found = price.price(finding, "paper")
    assert found.least_params > 1e9
    assert found.flops > 1e18
    with pytest.raises(ValueError, match=r"is defined and not run.*FLOPs"):
        run.run(finding, "paper", Path("nowhere"), lambda file, folder: None)


@every_finding
def test_planted_effects_get_the_right_verdict(finding: Finding):
    for holds, outcome in ((True, Outcome.HOLDS), (False, Outcome.FAILS)):
        trials = imagined(finding, "cpu", holds)
        found = finding.verdict(trials, "cpu")
        assert found.alone is outcome, found.parts
        assert found.runs == len(trials)


@every_finding
@pytest.mark.parametrize("scale", RUN_SCALES)
def test_missing_records_say_what_to_run_first(finding: Finding, scale: str, tmp_path):
    with pytest.raises(NotRun, match=f"run `python -m ablations run {finding.name} --scale"):
        catalog.verdict(finding, scale, tmp_path)


@every_finding
def test_a_single_missing_run_is_enough_to_say_so(finding: Finding):
    trials = imagined(finding, "cpu", True)
    with pytest.raises(NotRun, match=r"1 of \d+ runs of .* have no record; run `python"):
        finding.verdict(trials.iloc[:-1], "cpu")


@every_finding
def test_seeds_that_the_design_does_not_name_change_nothing(finding: Finding):
    trials = imagined(finding, "cpu", True)
    more = trials[trials["seed"] == 0].copy()
    more["seed"] = 77
    more["recipe"] = [json.dumps({**json.loads(r), "seed": 77}) for r in more["recipe"]]
    assert finding.verdict(pd.concat([trials, more]), "cpu") == finding.verdict(trials, "cpu")


# ---- rows of a design ----------------------------------------------------------------------------


def test_a_run_of_another_recipe_is_not_of_the_design():
    trials = imagined(ratio.FINDING, "cpu", True).copy()
    whole = trials["sweep"] == ratio.WHOLE.name
    trials.loc[whole, "recipe"] = [
        json.dumps({**json.loads(r), "lr": 0.5}) for r in trials.loc[whole, "recipe"]
    ]
    with pytest.raises(NotRun, match="20 of 20 runs of finding-ratio have no record"):
        ratio.FINDING.verdict(trials, "cpu")


def test_two_records_of_one_run_are_an_error():
    trials = imagined(ratio.FINDING, "cpu", True)
    with pytest.raises(ValueError, match="has 2 records"):
        ratio.FINDING.verdict(pd.concat([trials, trials.tail(1)]), "cpu")


def test_one_text_for_all():
    trials = imagined(ratio.FINDING, "cpu", True).copy()
    recipe, last = json.loads(trials["recipe"].iloc[-1]), trials.index[-1]
    for path in ("my.txt", "elsewhere/my.txt"):  # of the same content: no other text
        other = {"kind": "TextFile", "path": path, "text_field": "text"}
        trials.loc[last, "recipe"] = json.dumps({**recipe, "source": other})
        ratio.FINDING.verdict(trials, "cpu")
    trials.loc[last, "text_sha256"] = "1" * 64
    with pytest.raises(ValueError, match="different texts"):
        ratio.FINDING.verdict(trials, "cpu")


def test_two_texts_of_one_path_are_two_records():
    trials = imagined(ratio.FINDING, "cpu", True)
    again = trials.tail(1).assign(text_sha256="1" * 64)
    with pytest.raises(ValueError, match="has 2 records"):
        ratio.FINDING.verdict(pd.concat([trials, again]), "cpu")


def test_a_diverged_run_of_the_comparison_leaves_it_inconclusive():
    trials = imagined(ratio.FINDING, "cpu", True).copy()
    lost = (trials["sweep"] == ratio.WHOLE.name) & (trials["arm"] == "1:0") & (trials["seed"] == 3)
    losses = [c for c in trials if "bits_per_byte" in c]
    trials.loc[lost, ["outcome", *losses]] = ["diverged", *[float("nan")] * len(losses)]
    found = ratio.FINDING.verdict(trials, "cpu")
    assert found.alone is Outcome.INCONCLUSIVE
    assert [part.outcome for part in found.parts] == ["inconclusive", "holds", "holds"]


def test_a_diverged_run_of_the_tuning_loses():
    trials = imagined(ratio.FINDING, "cpu", True).copy()
    lost = trials["arm"] == "1:0 lr 0.016"
    losses = [c for c in trials if "bits_per_byte" in c]
    trials.loc[lost, ["outcome", *losses]] = ["diverged", *[float("nan")] * len(losses)]
    assert ratio.FINDING.verdict(trials, "cpu").alone is Outcome.HOLDS


def test_without_a_test_loss_there_is_no_verdict():
    trials = imagined(ratio.FINDING, "cpu", True)
    test = [c for c in trials if c.startswith(rows.TEST)]
    with pytest.raises(NotRun, match=f"not every run of finding-ratio has a {rows.TEST}"):
        ratio.FINDING.verdict(trials.drop(columns=test), "cpu")


def test_a_best_rate_at_the_edge_is_said():
    trials = imagined(ratio.FINDING, "cpu", True).copy()
    low = trials["arm"] == "0:1 lr 0.001"
    for column in (c for c in trials if c.startswith(rows.VALID)):
        trials.loc[low, column] = 1.0
    # The comparison must then have used that rate.
    again = trials["sweep"].isin([c.sweep.name for c in ratio.FINDING.comparisons])
    mamba = again & (trials["arm"] == "0:1")
    trials.loc[mamba, "recipe"] = [
        json.dumps({**json.loads(r), "lr": 1e-3}) for r in trials.loc[mamba, "recipe"]
    ]
    notes = ratio.FINDING.verdict(trials, "cpu").notes
    assert "best learning rate at the edge of the grid: 0:1" in notes


def test_a_seed_of_the_comparison_cannot_be_tuned_on():
    rates = replace(ratio.RATES["cpu"], seed=0)
    with pytest.raises(ValueError, match="seed 0 is for tuning, and compared"):
        tuning_sweep(ratio.WHOLE, rates, "cpu")


# ---- single findings -----------------------------------------------------------------------------


def test_the_papers_effects_are_computed_from_its_rows():
    found = ratio.FINDING.verdict(imagined(ratio.FINDING, "cpu", True), "cpu")
    assert [part.paper for part in found.parts] == pytest.approx([1.89, 2.21, -0.07], abs=0.01)
    found = moe.FINDING.verdict(imagined(moe.FINDING, "cpu", True), "cpu")
    assert [part.paper for part in found.parts] == [pytest.approx(2.38, abs=0.01), None]


def test_equal_active_experts_are_equal_in_active_parameters():
    for scale in moe.SIZES.values():
        dense, two, one = (moe.SPECS[arm](scale) for arm in (moe.DENSE, moe.ACTIVE, moe.ONE))
        for spec in (two, one):
            assert cost.active_params(spec) == pytest.approx(cost.params(dense), rel=0.0101)
            assert cost.params(spec) > cost.params(dense)


def test_the_trend_over_tokens_is_told_for_both_pure_models():
    notes = ratio.FINDING.verdict(imagined(ratio.FINDING, "cpu", True), "cpu").notes
    assert sum("for ten times the training tokens" in note for note in notes) == 2


def test_a_source_names_what_it_has():
    with pytest.raises(LookupError, match="Table 4 has no 'Wiki' of 'Mamba'; rows Attention"):
        published.TABLE_4.number("Mamba", "Wiki")


def test_table_1_is_that_of_the_cost_model():
    kv = cost.cache_parts(JAMBA_V0_1, batch=1, tokens=2**18, itemsize=2).kv
    assert kv / 2**30 == published.TABLE_1.number("Jamba", "KV")


# ---- running, listing and the page ---------------------------------------------------------------


def test_running_tunes_first_and_writes_each_sweep_as_a_file(tmp_path, monkeypatch):
    trials = imagined(ratio.FINDING, "cpu", True)
    monkeypatch.setattr(catalog, "load", lambda finding, scale, folder: trials)
    done: list[Sweep] = []

    def execute(file: Path, folder: Path) -> None:
        sweep = sweep_catalog.find(str(file))
        assert isinstance(sweep, Sweep)
        assert folder == tmp_path / sweep.name == file.parent
        done.append(sweep)

    run.run(ratio.FINDING, "cpu", tmp_path, execute)
    names = ["finding-ratio-lr", "finding-ratio", "finding-ratio-half", "finding-ratio-quarter"]
    assert [sweep.name for sweep in done] == names
    chosen = ratio.FINDING.comparisons[0].chosen("cpu", trials)
    for sweep in done[1:]:
        for point in sweep.points("cpu", rows.TEXT):
            assert point.recipe.lr == chosen[point.arm].rate


def test_the_committed_page_is_what_the_committed_records_give():
    for path, text in page.pages(ROOT).items():
        assert (ROOT / path).read_text() == text, f"{path} is stale: run `make docs`"


def test_a_verdict_is_shown_with_interval_and_paper():
    found = ratio.FINDING.verdict(imagined(ratio.FINDING, "cpu", True), "cpu")
    text = page.one(ratio.FINDING, found)
    assert "**cpu: not testable at this length: G1, no bigram table is known" in text
    assert re.search(
        r"1:7 gains over attention, % of bits per byte \| at least 1 \| 1.89 \| [45].\d+ \| \[",
        text,
    )


@pytest.mark.parametrize(
    "command",
    re.findall(
        r"^python -m ablations(?! report| plan| power| calibrate| run --all)"
        r" *([^#\n]*?) *(?:#.*)?$",
        SHOWN,
        re.MULTILINE,
    ),
)
def test_every_command_that_is_shown_is_understood(command: str, tmp_path, monkeypatch):
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(run, "run", lambda finding, scale, *_: asked.append((finding.name, scale)))
    monkeypatch.chdir(tmp_path)  # no records: `run` and `judge` end by saying what to run first
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code == (2 if command else 0)
    if command:
        assert "run `python -m ablations run" in " ".join(result.stderr.split())
    assert asked == ([("ratio", "cpu")] if command.startswith("run") else [])


def test_the_command_line_lists_and_says_what_is_missing(tmp_path):
    shown = CliRunner().invoke(app, ["list", "--results", str(tmp_path)])
    assert shown.exit_code == 0
    assert all(finding.name in shown.output for finding in catalog.FINDINGS)
    missing = CliRunner().invoke(app, ["judge", "moe", "--results", str(tmp_path)])
    assert missing.exit_code == 2
    unknown = CliRunner().invoke(app, ["judge", "nothing"])
    assert unknown.exit_code == 2
