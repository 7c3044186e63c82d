"""Mamba-1 against Mamba-2, alone and in the 1:7 hybrid (Jamba-1.5, Figure 1): a change of sign."""

import pandas as pd

from ablations import rows, shapes
from ablations.finding import Claim, Finding, Matters
from ablations.published import FIGURE_1_OF_1_5
from ablations.ratio import FOUR_RATES, MAMBA, SEVEN, UNIT
from ablations.testable import learned_text
from ablations.tuned import Comparison
from ablations.verdict import Part
from hybrid.spec import Mamba2
from sweeps.ratio import Scale

CLAIM = Claim(
    sentence=(
        "Without attention, Mamba-2 needs fewer bits per byte than Mamba-1; in the 1:7 hybrid, "
        "Mamba-1 needs fewer than Mamba-2."
    ),
    source=FIGURE_1_OF_1_5,
    refuted_by=(
        "a 95% interval of either gain, Mamba-2's alone or Mamba-1's in the hybrid, that lies "
        "below what matters"
    ),
    matters=Matters(
        value=0.5,
        unit=UNIT,
        why="the paper shows curves without numbers; half of what matters between ratios",
    ),
)
ONE, TWO = "Mamba-1", "Mamba-2"
WIDE = 256  # from this width on Mamba-2 is as its authors have it


def mamba2(scale: Scale) -> Mamba2:
    """Return the published mixer, or one in proportion to a model too narrow for it."""
    if scale.width >= WIDE:
        return Mamba2()
    return Mamba2(d_state=64 if scale.width >= WIDE // 4 else 16, head_width=32)


MODELS: dict[str, shapes.Model] = {
    f"{MAMBA} {ONE}": lambda scale: shapes.matched(scale, MAMBA),
    f"{MAMBA} {TWO}": lambda scale: shapes.matched(scale, MAMBA, mamba=mamba2(scale)),
    f"{SEVEN} {ONE}": lambda scale: shapes.matched(scale, SEVEN),
    f"{SEVEN} {TWO}": lambda scale: shapes.matched(scale, SEVEN, mamba=mamba2(scale)),
}
SWEEP = shapes.sweep(
    "finding-mamba2",
    "Which Mamba is better, alone and beside attention?",
    MODELS,
    shapes.shorter(140),
)


def parts(found: pd.DataFrame) -> tuple[Part, ...]:
    def part(name: str, arm: str, other: str) -> Part:
        seen = shapes.gains(found, arm, other, matters=CLAIM.matters.value)
        return Part(name=name, unit=UNIT, seen=seen)

    return (
        part("Mamba-2 gains, pure", f"{MAMBA} {TWO}", f"{MAMBA} {ONE}"),
        part("Mamba-1 gains, in the hybrid", f"{SEVEN} {ONE}", f"{SEVEN} {TWO}"),
    )


def imagine(found: pd.DataFrame, holds: bool) -> pd.DataFrame:
    """Return the rows with the better ones 5% better or, if not `holds`, as much worse."""
    factor = 0.95 if holds else 1.05
    return rows.imagine_losses(found, {f"{MAMBA} {TWO}": factor, f"{SEVEN} {ONE}": factor})


FINDING = Finding(
    name="mamba2",
    claim=CLAIM,
    comparisons=(
        Comparison(
            sweep=SWEEP,
            rates=FOUR_RATES,
        ),
    ),
    gates=learned_text,
    parts=parts,
    imagine=imagine,
    fixed_by="2143ba7da0c3ed7816e18ed030743f6438732662",
)
