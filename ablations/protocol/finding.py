"""A finding: a claim that could fail, gates that say whether it was asked, and its outcome.

    FINDING = Finding(
        name="ratio",
        claim=Claim(sentence="...", source=TABLE_4, row="Jamba 1:7 beside Mamba"),
        margin=Margin(value=1.0, unit="% of bits/byte", why="..."),
        reads=(Reading(comparison=TEXT, arms=("1:7", "0:1")),),
        gates=lambda arms: (learned(arms), uses_context(arms), rate_inside(arms)),
        primary=ClaimTest(name="...", differences=lambda arms: percent_fewer(...), paper=2.21),
        simulate=simulate,
    )

One primary test decides. Secondary tests are shown below it and cannot turn it. Everything is
fixed before the first record, in the commit that the registry names.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from ablations.protocol.arm_runs import ArmRuns
from ablations.protocol.comparison import Comparison
from ablations.protocol.gates import GateResult
from ablations.published import Source
from ablations.statistics.outcomes import TestKind

Arms = Mapping[str, ArmRuns]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What somebody found, in their words as far as one sentence allows."""

    sentence: str
    source: Source
    row: str  # of the source's table, or what of a figure is meant
    is_papers: bool = True  # False: practice, or later than the paper


@dataclass(frozen=True, kw_only=True)
class Margin:
    """The smallest effect that anyone would act on: d."""

    value: float
    unit: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The arms of a comparison that a finding reads. A run of an arm exists once for all findings.

    `controls` are arms that only gates read, such as the positive control of a task.
    """

    comparison: Comparison
    arms: tuple[str, ...]
    controls: tuple[str, ...] = ()

    @property
    def all_arms(self) -> tuple[str, ...]:
        return (*self.arms, *self.controls)


@dataclass(frozen=True, kw_only=True)
class ClaimTest:
    """One comparison: a difference for each seed, positive where the claim says so."""

    name: str
    differences: Callable[[Arms], Sequence[float]]  # in the unit of `margin`
    margin: Margin
    kind: TestKind = TestKind.ABOVE
    paper: float | None = None  # the paper's own effect in the same unit, where it printed one

    @property
    def paper_effect(self) -> float:
        """Return the effect that the design has to be able to see: 2 d where none is printed."""
        if self.kind is TestKind.WITHIN:
            return 0.0
        return 2 * self.margin.value if self.paper is None else self.paper


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One claim with its arms, gates and tests."""

    name: str
    claim: Claim
    reads: tuple[Reading, ...]
    gates: Callable[[Arms], tuple[GateResult, ...]]
    primary: ClaimTest
    secondary: tuple[ClaimTest, ...] = ()
    notes: Callable[[Arms], tuple[str, ...]] = lambda arms: ()
    simulate: Callable[[pd.DataFrame, bool], pd.DataFrame]  # rows as they were if the claim held

    def __post_init__(self):
        if not self.reads:
            raise ValueError(f"finding {self.name!r} must read at least one comparison")
        looks = {reading.comparison.looks for reading in self.reads}
        if len(looks) > 1:
            raise ValueError(f"finding {self.name!r} reads comparisons of different looks: {looks}")
        arms = [arm for reading in self.reads for arm in reading.all_arms]
        if len(set(arms)) < len(arms):
            raise ValueError(f"finding {self.name!r} reads an arm twice: {arms}")
        for reading in self.reads:
            if unknown := set(reading.all_arms) - set(reading.comparison.arms):
                raise ValueError(
                    f"finding {self.name!r} reads {sorted(unknown)}, and {reading.comparison.name} "
                    f"has {', '.join(reading.comparison.arms)}"
                )

    @property
    def looks(self) -> tuple[int, int]:
        return self.reads[0].comparison.looks

    def command(self, scale: str) -> str:
        return f"python -m ablations run {self.name} --scale {scale}"
