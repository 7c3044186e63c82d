"""Outcome of a finding: gates first, then the looks at its primary test."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
import pandas as pd

from ablations.protocol.arm_runs import NotMeasuredError
from ablations.protocol.comparison import RecordsMissingError
from ablations.protocol.finding import Arms, ClaimTest, Finding
from ablations.protocol.gates import GateResult, has_power
from ablations.statistics.outcomes import (
    Estimate,
    LookResult,
    Outcome,
    estimate_mean,
    outcome_of,
    p_value,
    seeds_to_decide,
    take_looks,
)
from ablations.statistics.power import ENOUGH, largest_deviation, power, smallest_visible
from sweeps.trial.record import Outcome as RunOutcome


@dataclass(frozen=True, kw_only=True)
class TestResult:
    """What one test saw. `outcome` is that of its own interval, before any gate."""

    __test__ = False

    test: ClaimTest
    estimate: Estimate
    outcome: Outcome


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where the records of a finding come from."""

    n_runs: int
    n_diverged: int
    tokens_per_param: tuple[float, float]  # least and most over the runs
    commits: tuple[str, ...]
    machines: tuple[str, ...]
    texts: tuple[str, ...]  # sha256


@dataclass(frozen=True, kw_only=True)
class FindingResult:
    """A row of the findings table."""

    finding: Finding
    scale: str
    outcome: Outcome
    gates: tuple[GateResult, ...]
    primary: TestResult | None  # None where a gate that it needs could not be computed
    secondary: tuple[TestResult, ...]
    p: float | None  # of the primary test, None where no gate lets it be shown
    n_seeds: int
    look: int
    next_look: int | None  # seeds of a second look that is left to take
    seeds_to_decide: int | None
    provenance: Provenance
    notes: tuple[str, ...]

    @property
    def failed_gates(self) -> tuple[GateResult, ...]:
        return tuple(gate for gate in self.gates if not gate.passed)

    @property
    def direction(self) -> str | None:
        """Return where an inconclusive interval that leaves out 0 points, else None."""
        if self.primary is None or self.outcome is not Outcome.INCONCLUSIVE:
            return None
        low, high, _ = self.primary.estimate.interval
        if low > 0:
            return "with the claim"
        return "against the claim" if high < 0 else None


def judge(finding: Finding, scale: str, trials: pd.DataFrame) -> FindingResult:
    """Return the outcome of `finding` from `trials`, one row each (sweeps.results.load).

    Rows that are not of its design are not looked at. Raises RecordsMissingError that names the
    command which makes what is missing, and ValueError for records of different texts.
    """
    first, second = finding.looks
    at_first = _arms(finding, scale, trials, first)
    try:
        at_second = _arms(finding, scale, trials, second)
    except RecordsMissingError:
        at_second = None
    try:
        looks = _look(finding.primary, {first: at_first, second: at_second or {}}, first, second)
    except (NotMeasuredError, ValueError) as missing:
        return _not_testable(finding, scale, at_first, str(missing))
    arms = at_second if looks.look == 2 and at_second else at_first
    gates = (*finding.gates(arms), _power_gate(finding.primary, looks.estimate, finding.looks))
    blocking = [gate for gate in gates[:-1] if not gate.passed]
    outcome = Outcome.NOT_TESTABLE if blocking else looks.outcome
    inconclusive = outcome is Outcome.INCONCLUSIVE
    test = finding.primary
    return FindingResult(
        finding=finding,
        scale=scale,
        outcome=outcome,
        gates=gates,
        primary=_result(test, looks.estimate),
        secondary=tuple(_secondary(finding, arms)),
        p=None if blocking else p_value(looks.estimate, margin=test.margin.value, kind=test.kind),
        n_seeds=looks.estimate.n_seeds,
        look=looks.look,
        next_look=looks.next_look if inconclusive else None,
        seeds_to_decide=_seeds(test, looks.estimate) if inconclusive else None,
        provenance=provenance(arms),
        notes=finding.notes(arms),
    )


def provenance(arms: Arms) -> Provenance:
    """Return where the runs of `arms` come from."""
    rows = [row for runs in arms.values() for row in runs.rows.values()]
    complete = [row for row in rows if row["outcome"] == RunOutcome.COMPLETE.value]
    shares = [row["train_tokens"] / row["params"] for row in complete] or [float("nan")]
    return Provenance(
        n_runs=len(rows),
        n_diverged=len(rows) - len(complete),
        tokens_per_param=(float(min(shares)), float(max(shares))),
        commits=_distinct(rows, "git_commit"),
        machines=_distinct(rows, "machine"),
        texts=_distinct(complete, "text_sha256"),
    )


def _arms(finding: Finding, scale: str, trials: pd.DataFrame, n_seeds: int) -> Arms:
    try:
        return {
            arm: runs
            for reading in finding.reads
            for arm, runs in reading.comparison.runs(
                scale, reading.all_arms, trials, n_seeds=n_seeds
            ).items()
        }
    except RecordsMissingError as missing:
        raise RecordsMissingError(
            f"{finding.name}: {missing}; run `{finding.command(scale)}` first"
        ) from None


def _look(test: ClaimTest, arms: dict[int, Arms], first: int, second: int) -> LookResult:
    return take_looks(
        lambda n: test.differences(arms[n]),
        second if arms[second] else first,
        margin=test.margin.value,
        kind=test.kind,
        largest_deviation=_largest_deviation(test, (first, second)),
        looks=(first, second),
    )


def _largest_deviation(test: ClaimTest, looks: tuple[int, int]) -> float:
    return largest_deviation(
        test.paper_effect, margin=test.margin.value, kind=test.kind, looks=looks
    )


def _power_gate(test: ClaimTest, estimate: Estimate, looks: tuple[int, int]) -> GateResult:
    chance = power(
        test.paper_effect,
        margin=test.margin.value,
        deviation=estimate.deviation,
        kind=test.kind,
        looks=looks,
    )
    smallest = smallest_visible(margin=test.margin.value, deviation=estimate.deviation, looks=looks)
    return has_power(chance, smallest, test.margin.unit, enough=ENOUGH)


def _result(test: ClaimTest, estimate: Estimate) -> TestResult:
    outcome = outcome_of(estimate.interval, margin=test.margin.value, kind=test.kind)
    return TestResult(test=test, estimate=estimate, outcome=outcome)


def _secondary(finding: Finding, arms: Arms) -> list[TestResult]:
    """Return the secondary tests that the records allow. A diverged run leaves its test out."""
    found = []
    for test in finding.secondary:
        try:
            differences = test.differences(arms)
        except NotMeasuredError:
            continue
        if all(map(isfinite, differences)):
            found.append(_result(test, estimate_mean(differences)))
    return found


def _seeds(test: ClaimTest, estimate: Estimate) -> int | None:
    return seeds_to_decide(estimate, margin=test.margin.value, kind=test.kind)


def _not_testable(finding: Finding, scale: str, arms: Arms, why: str) -> FindingResult:
    gates = (*finding.gates(arms), GateResult(gate="primary test", passed=False, figure=why))
    return FindingResult(
        finding=finding,
        scale=scale,
        outcome=Outcome.NOT_TESTABLE,
        gates=gates,
        primary=None,
        secondary=(),
        p=None,
        n_seeds=finding.looks[0],
        look=1,
        next_look=None,
        seeds_to_decide=None,
        provenance=provenance(arms),
        notes=finding.notes(arms),
    )


def _distinct(rows: Sequence[pd.Series], column: str) -> tuple[str, ...]:
    values = pd.Series([row.get(column) for row in rows], dtype=object).dropna()
    return tuple(sorted({str(value) for value in np.asarray(values)}))
