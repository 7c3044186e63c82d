"""Plan of the runs that findings lack: what is there, what is missing, and what that costs.

    plan = make_plan(FINDINGS, "small", folder, flops_per_s=5e10)
    plan.rows[0].missing, plan.hours

The order is by value: findings as the registry lists them, the runs of a first look before those of
any second look. Hours are of training alone, without the reading of held-out text. They are
arithmetic: FLOPs of the missing runs, at the speed that one measured model reached on this machine.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd

from ablations.protocol import registry
from ablations.protocol.comparison import Comparison, RecordsMissingError, Run
from ablations.protocol.finding import Finding
from ablations.protocol.judge import judge
from ablations.statistics.outcomes import Outcome
from hybrid.flops import training_flops
from hybrid.spec import ModelSpec
from sweeps.sweep import Point

HOUR_S = 3600


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """What one finding lacks. Runs that an earlier row lists are not counted again."""

    finding: str
    look: int
    n_runs: int  # of the design at this look
    missing: tuple[tuple[str, Run], ...]  # comparison and run
    shared: int  # missing runs that an earlier row lists
    tokens: int  # of the missing runs
    flops: float
    outcome: str  # of the records that are there, or "not run"

    def hours(self, flops_per_s: float) -> float:
        """Return the hours of one worker at that speed."""
        return self.flops / flops_per_s / HOUR_S


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The rows in the order in which they are run."""

    scale: str
    rows: tuple[PlanRow, ...]
    flops_per_s: float | None  # of one worker on this machine, None where it was not measured
    workers: int

    @property
    def hours(self) -> float | None:
        """Return the hours of all workers together, None where the speed was not measured."""
        if self.flops_per_s is None:
            return None
        total = sum(row.flops for row in self.rows)
        return total / self.flops_per_s / HOUR_S / self.workers

    @property
    def missing(self) -> list[tuple[str, Run]]:
        return [run for row in self.rows for run in row.missing]


def make_plan(
    findings: Iterable[Finding],
    scale: str,
    folder: Path,
    *,
    flops_per_s: float | None = None,
    workers: int = 2,
) -> Plan:
    """Return what `findings` lack at `scale` under `folder`."""
    listed: set[tuple[str, Run]] = set()
    rows = []
    for finding in findings:
        trials = registry.load(finding, scale, folder)
        row = _row(finding, scale, trials, listed)
        listed |= set(row.missing)
        rows.append(row)
    return Plan(scale=scale, rows=tuple(rows), flops_per_s=flops_per_s, workers=workers)


def _row(
    finding: Finding, scale: str, trials: pd.DataFrame, listed: set[tuple[str, Run]]
) -> PlanRow:
    look, outcome = _next_look(finding, scale, trials)
    n_seeds = finding.looks[look - 1]
    lacking = _missing(finding, scale, trials, n_seeds) if outcome in _OPEN else []
    new = [run for run in lacking if run not in listed]
    points = [_point(finding, scale, run) for run in new]
    return PlanRow(
        finding=finding.name,
        look=look,
        n_runs=sum(
            len(reading.comparison.rates(scale, arm, trials)) * n_seeds
            for reading in finding.reads
            for arm in reading.all_arms
        ),
        missing=tuple(new),
        shared=len(lacking) - len(new),
        tokens=sum(_tokens(point) for point in points),
        flops=sum(_tokens(p) * _flops_per_token(p.spec, p.recipe.tokens) for p in points),
        outcome=outcome,
    )


NOT_RUN = "not run"
_OPEN = (NOT_RUN, Outcome.INCONCLUSIVE.value)


def _next_look(finding: Finding, scale: str, trials: pd.DataFrame) -> tuple[int, str]:
    """Return the look that is next or was last, and the outcome of the records that are there."""
    try:
        result = judge(finding, scale, trials)
    except RecordsMissingError:
        return 1, NOT_RUN
    more = result.outcome is Outcome.INCONCLUSIVE and result.next_look is not None
    return (2 if more else result.look), result.outcome.value


def _missing(
    finding: Finding, scale: str, trials: pd.DataFrame, n_seeds: int
) -> list[tuple[str, Run]]:
    return [
        (reading.comparison.name, run)
        for reading in finding.reads
        for run in reading.comparison.missing(scale, reading.all_arms, trials, n_seeds=n_seeds)
    ]


def _point(finding: Finding, scale: str, named: tuple[str, Run]) -> Point:
    name, run = named
    comparison: Comparison = registry.comparisons((finding,))[name]
    return comparison.point(scale, run)


def _tokens(point: Point) -> int:
    """Return the tokens of a run, those of its decay branches included."""
    recipe = point.recipe
    own = recipe.steps * recipe.batch * recipe.tokens
    if recipe.schedule is None:
        return own
    decays = sum(end - recipe.schedule.decay_start(end) for end in recipe.branches)
    return own + decays * recipe.batch * recipe.tokens


@lru_cache(maxsize=1024)
def _flops_per_token(spec: ModelSpec, tokens: int) -> float:
    return training_flops(spec, tokens=tokens)
