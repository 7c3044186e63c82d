"""No positions against rotary ones, in the hybrid and in pure attention (Table 8)."""

import pandas as pd

from ablations.protocol.designs.matched_models import ATTENTION, SEVEN
from ablations.protocol.designs.text import ATTENTION_NONE, SEVEN_ROPE, TEXT
from ablations.protocol.designs.text_tests import (
    UNIT,
    about_context,
    fewer_bits,
    scale_losses,
)
from ablations.protocol.finding import Claim, ClaimTest, Finding, Margin, Reading
from ablations.published import LOG_PROBS, TABLE_8
from ablations.statistics.outcomes import TestKind

HALF_PERCENT = Margin(
    value=0.5,
    unit=UNIT,
    why="half of the margin of the finding `ratio`: a claim that nothing differs has to be tighter",
)


def simulate(rows: pd.DataFrame, holds: bool) -> pd.DataFrame:
    """Return the rows with both hybrids alike or, if not `holds`, with RoPE 5 % better."""
    return scale_losses(rows, {ATTENTION_NONE: 1.05} if holds else {SEVEN_ROPE: 0.95})


FINDING = Finding(
    name="positions",
    claim=Claim(
        sentence="The hybrid needs no positional encoding: with RoPE its loss is the same.",
        source=TABLE_8,
        row="with RoPE beside without",
    ),
    reads=(Reading(comparison=TEXT, arms=(SEVEN, SEVEN_ROPE, ATTENTION, ATTENTION_NONE)),),
    gates=about_context(),
    primary=ClaimTest(
        name=f"{SEVEN_ROPE} as {SEVEN}",
        differences=fewer_bits(SEVEN_ROPE, SEVEN),
        margin=HALF_PERCENT,
        kind=TestKind.WITHIN,
        paper=TABLE_8.percent_less("with RoPE", "without", LOG_PROBS),
    ),
    secondary=(
        ClaimTest(
            name=f"{ATTENTION} with RoPE below {ATTENTION} without",
            differences=fewer_bits(ATTENTION, ATTENTION_NONE),
            margin=HALF_PERCENT,
        ),
    ),
    simulate=simulate,
)
