"""A verdict: the parts of a claim put together, and corrected for the number of findings.

A claim of several parts is their conjunction. It is reproduced where every part is: that needs no
correction inside (an intersection-union test: to be wrong about all, one must be wrong about the
part that is false). It is refuted where any part is, and here each part is another chance to be
wrong: the smallest p-value counts as many times as there are parts.

Over findings, Holm's steps; the family is all findings of the list at one scale, run or not. A
verdict that stands alone but not with all the others is undecided, and a note says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from ablations.evidence import LEVEL, Evidence, holm

ALPHA = 1 - LEVEL
ROUNDING = 1e-12  # 1 - 0.95 is not quite 0.05


class Outcome(StrEnum):
    REPRODUCED = "reproduced"
    REFUTED = "refuted"
    UNDECIDED = "undecided"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One comparison that the claim needs."""

    name: str
    unit: str
    seen: Evidence
    paper: float | None = None  # the paper's own effect in the same unit, where it printed one

    @property
    def outcome(self) -> Outcome:
        """Of this part alone, uncorrected."""
        return _outcome(self.seen.p_reproduced, self.seen.p_refuted, ALPHA)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the records of one finding at one scale say of its claim."""

    finding: str
    scale: str
    parts: tuple[Part, ...]
    n_seeds: int
    runs: int  # records read, those that tuned learning rates included
    notes: tuple[str, ...] = ()
    correction: float = 1.0  # p_corrected / p

    def __post_init__(self):
        if not self.parts:
            raise ValueError(f"the verdict on {self.finding!r} needs at least one part")

    @property
    def p_reproduced(self) -> float:
        return max(part.seen.p_reproduced for part in self.parts)

    @property
    def p_refuted(self) -> float:
        return min(1.0, len(self.parts) * min(part.seen.p_refuted for part in self.parts))

    @property
    def p(self) -> float:
        """Of the stronger of both answers, before the other findings are thought of."""
        return min(self.p_reproduced, self.p_refuted)

    @property
    def p_corrected(self) -> float:
        return min(1.0, self.correction * self.p)

    @property
    def alone(self) -> Outcome:
        """What the verdict would be if this were the only finding."""
        return _outcome(self.p_reproduced, self.p_refuted, ALPHA)

    @property
    def outcome(self) -> Outcome:
        return self.alone if self.p_corrected <= ALPHA + ROUNDING else Outcome.UNDECIDED

    @property
    def deciding(self) -> Part:
        """The part that the verdict hangs on: the refuted one, or else the least sure."""
        if self.alone is Outcome.REFUTED:
            return min(self.parts, key=lambda part: part.seen.p_refuted)
        return max(self.parts, key=lambda part: part.seen.p_reproduced)


def correct(verdicts: Mapping[str, Verdict], *, family: int) -> dict[str, Verdict]:
    """Return the verdicts of one scale, corrected for a `family` of findings."""
    values = [verdict.p for verdict in verdicts.values()]
    corrected = holm(values, family=family)
    pairs = zip(verdicts.items(), corrected, strict=True)
    return {name: _corrected(verdict, p, family) for (name, verdict), p in pairs}


def _corrected(verdict: Verdict, p: float, family: int) -> Verdict:
    changed = replace(verdict, correction=p / verdict.p if verdict.p > 0 else 1.0)
    if changed.outcome is changed.alone:
        return changed
    note = (
        f"alone it would be {changed.alone} (p = {changed.p:.2g}); among {family} findings "
        f"p = {changed.p_corrected:.2g}"
    )
    return replace(changed, notes=(*changed.notes, note))


def _outcome(p_reproduced: float, p_refuted: float, alpha: float) -> Outcome:
    if p_reproduced <= alpha + ROUNDING:
        return Outcome.REPRODUCED
    return Outcome.REFUTED if p_refuted <= alpha + ROUNDING else Outcome.UNDECIDED
