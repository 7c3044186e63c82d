"""A finding: a claim that could fail, a design fixed in advance, and a verdict from records.

    Finding(
        name="ratio",
        claim=Claim(sentence="...", source=TABLE_4, refuted_by="...", matters=Matters(...)),
        comparisons=(Comparison(sweep=SWEEP, rates=RATES),),
        gates=gates,        # rows of the design -> whether the question was asked (testable.py)
        parts=parts,        # rows of the design -> what each part of the claim saw
        imagine=imagine,    # rows without measurements -> as they would be were the claim true
        fixed_by="...",
    )

The design has four scales. `smoke`, `cpu` and `gpu` are run; `paper` is the published size, defined
and priced by arithmetic (price.py).
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import pandas as pd

from ablations import rows
from ablations.published import Source
from ablations.rows import NotRun
from ablations.tuned import Comparison
from ablations.verdict import Gate, Part, Verdict
from sweeps.command_line import command
from sweeps.sweep import Sweep
from sweeps.tuning import Chosen

RUN_SCALES = ("smoke", "cpu", "gpu")
SCALES = (*RUN_SCALES, "paper")
FIVE = (0, 1, 2, 3, 4)
SEEDS = {"smoke": FIVE[:2], "cpu": FIVE, "gpu": FIVE, "paper": FIVE}  # smoke decides nothing


def check_scale(scale: str) -> None:
    """Raise ValueError, with the scales there are, for one that no finding has."""
    if scale not in SCALES:
        raise ValueError(f"--scale {scale}: the scales of a finding are {', '.join(SCALES)}")


@dataclass(frozen=True, kw_only=True)
class Matters:
    """The smallest effect that matters: below it, nobody would choose otherwise."""

    value: float
    unit: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What the paper found, so that it could turn out wrong."""

    sentence: str
    source: Source
    refuted_by: str  # what would have to be seen
    matters: Matters


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One claim with its design and its judge, all fixed before the first run."""

    name: str
    claim: Claim
    comparisons: tuple[Comparison, ...]
    gates: Callable[[pd.DataFrame], tuple[Gate, ...]]  # from the rows of all comparisons
    parts: Callable[[pd.DataFrame], tuple[Part, ...]]
    imagine: Callable[[pd.DataFrame, bool], pd.DataFrame]  # rows as they were if the claim held
    remarks: Callable[[pd.DataFrame], tuple[str, ...]] = lambda found: ()  # besides the verdict
    fixed_by: str  # the commit that fixed claim, thresholds and design, before any record

    def command(self, scale: str) -> str:
        return command("ablations", "run", self.name, "--scale", scale)

    def how_to_run(self, scale: str) -> str:
        """Return the sentence that tells how records at `scale` come about."""
        if scale in RUN_SCALES:
            return f"run `{self.command(scale)}` first"
        return f"that scale is defined and not run; the scales that are: {', '.join(RUN_SCALES)}"

    def tunings(self, scale: str) -> dict[str, Sweep]:
        """Return the sweeps that tune learning rates, by name; comparisons may share one."""
        found = (comparison.tuning(scale) for comparison in self.comparisons)
        return {sweep.name: sweep for sweep in found if sweep is not None}

    def sweeps(self, scale: str) -> dict[str, Sweep]:
        """Return all sweeps whose records the verdict needs, by name, those that tune first."""
        return {**self.tunings(scale), **{c.sweep.name: c.sweep for c in self.comparisons}}

    def sweeps_as_run(self, scale: str, trials: pd.DataFrame) -> dict[str, Sweep]:
        """Return the sweeps by name, each comparison with the rates that its tuning chose.

        A comparison whose tuning lacks records has its own rates.
        """
        found = self.sweeps(scale)
        for comparison in self.comparisons:
            with suppress(NotRun):
                chosen = comparison.chosen(scale, trials)
                rates = {arm: choice.rate for arm, choice in chosen.items()}
                found[comparison.sweep.name] = comparison.with_rates(scale, rates)
        return found

    def verdict(self, trials: pd.DataFrame, scale: str) -> Verdict:
        """Return what `trials` say at `scale`, not yet corrected for the other findings.

        Rows that are not of the design are not looked at. Raises NotRun where runs of it are
        missing, and says what to run first.
        """
        try:
            found, notes = self._design_rows(trials, scale)
            gates, parts, remarks = self.gates(found), self.parts(found), self.remarks(found)
        except NotRun as missing:
            raise NotRun(f"{self.name}: {missing}; {self.how_to_run(scale)}") from None
        return Verdict(
            finding=self.name,
            scale=scale,
            gates=gates,
            parts=parts,
            n_seeds=min(len(c.sweep.seeds[scale]) for c in self.comparisons),
            runs=len(found) + sum(len(sweep.arms) for sweep in self.tunings(scale).values()),
            notes=(*_smoke(scale), *notes, *remarks),
        )

    def _design_rows(self, trials: pd.DataFrame, scale: str) -> tuple[pd.DataFrame, list[str]]:
        """Return the rows of all comparisons, and what is to be said about their rates."""
        found, notes = [], []
        for comparison in self.comparisons:
            chosen = comparison.chosen(scale, trials)
            rates = {arm: choice.rate for arm, choice in chosen.items()}
            found.append(rows.of_design(comparison.with_rates(scale, rates), scale, trials))
            if comparison.tuned_on is None:
                notes += _edges(chosen)
        together = pd.concat(found)
        return together, notes + _machines(together)


def _smoke(scale: str) -> tuple[str, ...]:
    return ("this scale shows that it runs, not what is true",) if scale == "smoke" else ()


def _edges(chosen: dict[str, Chosen]) -> list[str]:
    arms = [arm for arm, choice in chosen.items() if choice.at_edge]
    if not arms:
        return []
    return [f"best learning rate at the edge of the grid: {', '.join(arms)}"]


def _machines(found: pd.DataFrame) -> list[str]:
    used = sorted(set(found["machine"]))
    return [f"runs of different machines: {', '.join(used)}"] if len(used) > 1 else []
