"""Checks every finding of the registry for what a reader needs."""

import re

import numpy as np
import pandas as pd
import pytest

from ablations import published as paper
from ablations.protocol import registry
from ablations.protocol.comparison import RecordsMissingError
from ablations.protocol.finding import Finding
from ablations.protocol.judge import judge
from ablations.statistics.outcomes import Outcome, TestKind
from hybrid import cost
from tests.ablations.protocol import simulated_runs

every_finding = pytest.mark.parametrize("finding", registry.FINDINGS, ids=lambda f: f.name)
SCALE = "smoke"


@every_finding
def test_a_claim_is_complete(finding: Finding):
    assert finding.claim.source in paper.SOURCES
    assert finding.claim.sentence.endswith(".")
    assert finding.claim.row
    for test in (finding.primary, *finding.secondary):
        assert test.margin.value > 0
        assert test.margin.unit
        assert test.margin.why
    assert re.fullmatch("[a-z0-9_]+", finding.name)


@every_finding
@pytest.mark.parametrize("scale", ["smoke", "small", "large", "paper"])
def test_arms_have_equal_parameters_or_equal_active_ones(finding: Finding, scale: str):
    for reading in finding.reads:
        if scale not in reading.comparison.scales:
            continue
        specs = [
            reading.comparison.point(
                scale, (arm, reading.comparison.base_rates[scale][arm][0], 0)
            ).spec
            for arm in reading.arms
        ]
        counts = [cost.active_params(spec) for spec in specs]
        assert max(counts) - min(counts) <= 0.021 * max(counts)


@every_finding
def test_a_planted_effect_is_called_what_it_is(finding: Finding):
    true = judge(finding, SCALE, simulated_runs.of_finding(finding, SCALE, holds=True))
    false = judge(finding, SCALE, simulated_runs.of_finding(finding, SCALE, holds=False))
    assert true.outcome is Outcome.HOLDS
    assert false.outcome is Outcome.OPPOSITE


@every_finding
def test_equal_arms_are_too_small_or_alike(finding: Finding):
    result = judge(finding, SCALE, simulated_runs.of_finding(finding, SCALE))
    alike = finding.primary.kind is TestKind.WITHIN
    allowed = {Outcome.HOLDS if alike else Outcome.TOO_SMALL, Outcome.NOT_TESTABLE}
    assert result.outcome in allowed


@every_finding
def test_a_missing_run_is_named_with_the_command_that_makes_it(finding: Finding):
    rows = simulated_runs.of_finding(finding, SCALE, holds=True)
    for trials in (rows.iloc[1:], rows.iloc[:0], pd.DataFrame()):
        with pytest.raises(RecordsMissingError, match=re.escape(finding.command(SCALE))):
            judge(finding, SCALE, trials)


@every_finding
def test_arms_worse_than_a_bigram_are_not_testable(finding: Finding):
    rows = simulated_runs.of_finding(finding, SCALE, holds=True)
    losses = [c for c in rows if str(c).startswith(("test_bits_per_byte.", "valid_bits_per_byte."))]
    result = judge(finding, SCALE, rows.assign(**{c: 2 * rows[c] for c in losses}))
    assert result.outcome is Outcome.NOT_TESTABLE
    assert "G1 learned" in {gate.gate for gate in result.failed_gates}
    assert result.p is None


@every_finding
def test_a_gate_that_cannot_be_computed_does_not_pass(finding: Finding):
    rows = simulated_runs.of_finding(finding, SCALE, holds=True)
    unknown = [c for c in rows if str(c).startswith("test_bits_per_byte_bigram")]
    result = judge(finding, SCALE, rows.drop(columns=unknown))
    assert result.outcome is Outcome.NOT_TESTABLE
    assert any("cannot be computed" in gate.figure for gate in result.failed_gates)


@every_finding
@pytest.mark.parametrize("column", ["bigram", "bigram_domain", "bigram_windows"])
def test_a_table_that_lacks_a_domain_does_not_pass(finding: Finding, column: str):
    rows = simulated_runs.of_finding(finding, SCALE, holds=True)
    result = judge(finding, SCALE, rows.assign(**{f"test_bits_per_byte_{column}.web": np.nan}))
    assert result.outcome is Outcome.NOT_TESTABLE
    assert any("cannot be computed" in gate.figure for gate in result.failed_gates)


@every_finding
def test_records_of_two_texts_are_refused(finding: Finding):
    rows = simulated_runs.of_finding(finding, SCALE, holds=True)
    mixed = rows.assign(text_sha256=np.where(rows.index == 0, "f" * 64, rows["text_sha256"]))
    with pytest.raises(ValueError, match="2 different texts"):
        judge(finding, SCALE, mixed)


@every_finding
def test_an_arm_that_diverged_everywhere_is_not_testable(finding: Finding):
    rows = simulated_runs.of_finding(finding, SCALE, holds=True)
    arm = finding.reads[0].arms[0]
    lost = rows["arm"].str.startswith(f"{arm} lr")
    result = judge(finding, SCALE, rows.assign(outcome=np.where(lost, "diverged", rows["outcome"])))
    assert result.outcome is Outcome.NOT_TESTABLE


@every_finding
def test_rows_of_another_design_are_not_looked_at(finding: Finding):
    rows = simulated_runs.of_finding(finding, SCALE, holds=True)
    other = rows.assign(
        recipe=rows["recipe"].str.replace('"weight_decay": 0.1', '"weight_decay": 0.2')
    )
    assert not other["recipe"].equals(rows["recipe"])
    before = judge(finding, SCALE, rows)
    after = judge(finding, SCALE, pd.concat([rows, other], ignore_index=True))
    assert (before.outcome, before.primary) == (after.outcome, after.primary)
