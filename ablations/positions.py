"""No positions against RoPE, in the hybrid and in pure attention, also at length (Table 8).

The paper finds no difference in the hybrid. Its explanation is that Mamba layers before the
attention tell it the order; so a hybrid that starts with its attention layer should want RoPE, as
pure attention does.
"""

from dataclasses import replace
from statistics import fmean

import pandas as pd

from ablations import rows, shapes
from ablations.evidence import no_difference
from ablations.finding import Claim, Finding, Matters
from ablations.published import LOG_PROBS, TABLE_8
from ablations.ratio import ATTENTION, SEVEN, THREE_RATES, UNIT
from ablations.testable import learned_text
from ablations.tuned import Comparison
from ablations.verdict import Part
from hybrid.spec import Rope
from sweeps import results
from sweeps.trial.recipe import Recipe

CLAIM = Claim(
    sentence=(
        "The 1:7 hybrid needs no positions: RoPE gains nothing in it, while it gains in pure "
        "attention and in a hybrid whose attention layer comes first."
    ),
    source=TABLE_8,
    refuted_by=(
        "a 95% interval of RoPE's gain in the hybrid that lies outside what matters, or one of its "
        "gain in pure attention or with attention first that lies below"
    ),
    matters=Matters(value=1.0, unit=UNIT, why="as in the finding on the ratio"),
)
FIRST = f"{SEVEN} attention first"
NONE, ROPE = "no positions", "RoPE"
LONGER = (1, 2, 4)  # times the length of training


def model(where: str, positions: Rope | None) -> shapes.Model:
    arm, offset = (SEVEN, 0) if where == FIRST else (where, None)
    return lambda scale: shapes.matched(scale, arm, positions=positions, attention_offset=offset)


MODELS = {
    f"{where}, {name}": model(where, positions)
    for where in (SEVEN, ATTENTION, FIRST)
    for name, positions in ((NONE, None), (ROPE, Rope()))
}


def longer(recipe: Recipe) -> Recipe:
    return replace(recipe, lengths=tuple(times * recipe.tokens for times in LONGER))


SWEEP = shapes.sweep(
    "finding-positions",
    "Does a hybrid need positions?",
    MODELS,
    shapes.shorter(120),
    longer,
)


def parts(found: pd.DataFrame) -> tuple[Part, ...]:
    losses, matters = rows.losses(found, rows.TEST), CLAIM.matters.value
    in_hybrid = rows.percent_fewer(losses, f"{SEVEN}, {ROPE}", f"{SEVEN}, {NONE}")

    def wanted(where: str) -> Part:
        seen = shapes.gains(found, f"{where}, {ROPE}", f"{where}, {NONE}", matters=matters)
        return Part(name=f"RoPE gains, {where}", unit=UNIT, seen=seen)

    return (
        Part(
            name=f"RoPE gains, {SEVEN}",
            unit=UNIT,
            seen=no_difference(in_hybrid, within=matters),
            paper=TABLE_8.percent_less("with RoPE", "without", LOG_PROBS),
        ),
        wanted(ATTENTION),
        wanted(FIRST),
    )


def remarks(found: pd.DataFrame) -> tuple[str, ...]:
    """Say what RoPE gains in windows longer than those of training."""
    lengths = sorted(map(int, results.keys(found, rows.LENGTH)))
    return tuple(
        f"{where}: RoPE gains "
        + ", ".join(f"{_gain(found, where, n):+.2g}% at {n:,} tokens" for n in lengths)
        for where in (SEVEN, ATTENTION, FIRST)
    )


def _gain(found: pd.DataFrame, where: str, length: int) -> float:
    losses = rows.by_seed(found, found[f"{rows.LENGTH}.{length}"])
    return fmean(rows.percent_fewer(losses, f"{where}, {ROPE}", f"{where}, {NONE}"))


def imagine(found: pd.DataFrame, holds: bool) -> pd.DataFrame:
    """Return the rows with RoPE 5% better where it should be or, if not `holds`, in the hybrid."""
    gaining = (ATTENTION, FIRST) if holds else (SEVEN,)
    return rows.imagine_losses(found, {f"{where}, {ROPE}": 0.95 for where in gaining})


FINDING = Finding(
    name="positions",
    claim=CLAIM,
    comparisons=(Comparison(sweep=SWEEP, rates=THREE_RATES),),
    gates=learned_text,
    parts=parts,
    imagine=imagine,
    remarks=remarks,
    fixed_by="2143ba7da0c3ed7816e18ed030743f6438732662",
)
