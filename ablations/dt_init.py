"""What it costs to lose Mamba's initialisation of dt's bias, as several re-implementations did.

Lost here means every bias 0, which a generic initialiser leaves: dt then starts near 0.69
everywhere, in place of two orders of magnitude of time scales.
"""

from statistics import fmean

import pandas as pd

from ablations import rows, shapes
from ablations.finding import Claim, Finding, Matters
from ablations.published import DT_INIT
from ablations.ratio import FOUR_RATES, MAMBA, SEVEN, UNIT
from ablations.testable import learned_text
from ablations.tuned import Comparison
from ablations.verdict import Part
from hybrid.spec import DtInit, Mamba

LOST = Mamba(dt_init=DtInit.ZERO)
CLAIM = Claim(
    sentence=(
        "Pure Mamba and the 1:7 hybrid need more bits per byte when the bias of dt starts at 0 "
        "than when it starts as published."
    ),
    source=DT_INIT,
    refuted_by="a 95% interval of what the published start gains, in either, below what matters",
    matters=Matters(value=1.0, unit=UNIT, why="as in the finding on the ratio"),
)
MODELS: dict[str, shapes.Model] = {
    SEVEN: lambda scale: shapes.matched(scale, SEVEN),
    f"{SEVEN} lost": lambda scale: shapes.matched(scale, SEVEN, mamba=LOST),
    MAMBA: lambda scale: shapes.matched(scale, MAMBA),
    f"{MAMBA} lost": lambda scale: shapes.matched(scale, MAMBA, mamba=LOST),
}
SWEEP = shapes.sweep(
    "finding-dt-init", "What does a lost initialisation of dt do?", MODELS, shapes.shorter(160)
)


def parts(found: pd.DataFrame) -> tuple[Part, ...]:
    return tuple(
        Part(
            name=f"the published start gains, {arm}",
            unit=UNIT,
            seen=shapes.gains(found, arm, f"{arm} lost", matters=CLAIM.matters.value),
        )
        for arm in (SEVEN, MAMBA)
    )


def remarks(found: pd.DataFrame) -> tuple[str, ...]:
    """Say whether the loss would change what the finding on the ratio says."""
    losses = rows.losses(found, rows.TEST)
    kept = fmean(rows.percent_fewer(losses, SEVEN, MAMBA))
    lost = fmean(rows.percent_fewer(losses, f"{SEVEN} lost", f"{MAMBA} lost"))
    return (f"{SEVEN} over {MAMBA}: {kept:+.2g} {UNIT} as published, {lost:+.2g} with it lost",)


def imagine(found: pd.DataFrame, holds: bool) -> pd.DataFrame:
    factor = 1.05 if holds else 0.95
    return rows.imagine_losses(found, {f"{arm} lost": factor for arm in (SEVEN, MAMBA)})


FINDING = Finding(
    name="dt_init",
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
    remarks=remarks,
    fixed_by="2143ba7da0c3ed7816e18ed030743f6438732662",
)
