"""A verdict: the parts of a claim put together, and corrected for the number of findings.

A claim of several parts is their conjunction. It holds where every part does: that needs no
correction inside (an intersection-union test: to be wrong about all, one must be wrong about the
part that is false). It does not hold where any part does not, and here each part is another chance
to be wrong: the smallest p-value counts as many times as there are parts.

Over findings, Holm's steps; the family is all findings of the list at one scale, run or not. A
verdict that stands alone but not with all the others is inconclusive, and a note says so.

An outcome is an answer only where the question was asked. `Verdict.gates` says whether it was
(testable.py). Where a gate failed, pages show that gate in place of the outcome.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from ablations.evidence import LEVEL, Evidence, holm

ALPHA = 1 - LEVEL
ROUNDING = 1e-12  # 1 - 0.95 is not quite 0.05


class Outcome(StrEnum):
    HOLDS = "holds"
    FAILS = "does not hold"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A condition without which an effect says nothing of a claim, and the figure that it saw."""

    name: str  # such as "G1"
    passed: bool
    figure: str


@dataclass(frozen=True, kw_only=True)
class OtherWay:
    """What another way to count the same thing gives, in the unit of its part."""

    under: str  # the assumption
    effect: float
    holds: bool


@dataclass(frozen=True, kw_only=True)
class Part:
    """One comparison that the claim needs."""

    name: str
    unit: str
    seen: Evidence
    paper: float | None = None  # the paper's own effect in the same unit, where it printed one
    otherwise: tuple[OtherWay, ...] = ()  # where it was counted: under other assumptions

    @property
    def outcome(self) -> Outcome:
        """Of this part alone, uncorrected."""
        return _outcome(self.seen.p_holds, self.seen.p_fails, ALPHA)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the records of one finding at one scale say of its claim."""

    finding: str
    scale: str
    parts: tuple[Part, ...]
    n_seeds: int
    runs: int  # records read, those that tuned learning rates included
    gates: tuple[Gate, ...] = ()  # without any, nothing that was learned is compared
    notes: tuple[str, ...] = ()
    correction: float = 1.0  # p_corrected / p

    def __post_init__(self):
        if not self.parts:
            raise ValueError(f"the verdict on {self.finding!r} needs at least one part")

    @property
    def failed(self) -> Gate | None:
        """The first gate that did not pass; None where the question was asked."""
        return next((gate for gate in self.gates if not gate.passed), None)

    @property
    def p_holds(self) -> float:
        return max(part.seen.p_holds for part in self.parts)

    @property
    def p_fails(self) -> float:
        return min(1.0, len(self.parts) * min(part.seen.p_fails for part in self.parts))

    @property
    def p(self) -> float:
        """Of the stronger of both answers, before the other findings are thought of."""
        return min(self.p_holds, self.p_fails)

    @property
    def p_corrected(self) -> float:
        return min(1.0, self.correction * self.p)

    @property
    def alone(self) -> Outcome:
        """What the verdict would be if this were the only finding."""
        return _outcome(self.p_holds, self.p_fails, ALPHA)

    @property
    def outcome(self) -> Outcome:
        return self.alone if self.p_corrected <= ALPHA + ROUNDING else Outcome.INCONCLUSIVE

    @property
    def deciding(self) -> Part:
        """The part that the verdict hangs on: one that does not hold, or else the least sure."""
        if self.alone is Outcome.FAILS:
            return min(self.parts, key=lambda part: part.seen.p_fails)
        return max(self.parts, key=lambda part: part.seen.p_holds)


def correct(verdicts: Mapping[str, Verdict], *, family: int) -> dict[str, Verdict]:
    """Return the verdicts of one scale, corrected for a `family` of findings."""
    values = [verdict.p for verdict in verdicts.values()]
    corrected = holm(values, family=family)
    pairs = zip(verdicts.items(), corrected, strict=True)
    return {name: _corrected(verdict, p, family) for (name, verdict), p in pairs}


def _corrected(verdict: Verdict, p: float, family: int) -> Verdict:
    changed = replace(verdict, correction=p / verdict.p if verdict.p > 0 else 1.0)
    if changed.outcome is changed.alone or changed.failed:
        return changed
    note = (
        f"alone: {changed.alone} (p = {changed.p:.2g}), among {family} findings: {changed.outcome} "
        f"(p = {changed.p_corrected:.2g})"
    )
    return replace(changed, notes=(*changed.notes, note))


def _outcome(p_holds: float, p_fails: float, alpha: float) -> Outcome:
    if p_holds <= alpha + ROUNDING:
        return Outcome.HOLDS
    return Outcome.FAILS if p_fails <= alpha + ROUNDING else Outcome.INCONCLUSIVE
