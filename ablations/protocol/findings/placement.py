"""Place of the only attention layer in a block, and the loss.

Later than the paper: perplexity is alike for any place (arXiv 2608.12149), and the first place is
never good (arXiv 2510.04800).
"""

import pandas as pd

from ablations.protocol.designs.matched_models import SEVEN
from ablations.protocol.designs.text import FIRST, LAST, TEXT
from ablations.protocol.designs.text_tests import (
    ONE_PERCENT,
    about_context,
    fewer_bits,
    scale_losses,
)
from ablations.protocol.finding import Claim, ClaimTest, Finding, Reading
from ablations.published import PLACEMENT
from ablations.statistics.outcomes import TestKind


def simulate(rows: pd.DataFrame, holds: bool) -> pd.DataFrame:
    """Return the rows with attention first 5 % worse or, if not `holds`, as much better."""
    return scale_losses(rows, {FIRST: 1.05 if holds else 0.95})


FINDING = Finding(
    name="placement",
    claim=Claim(
        sentence=(
            "The attention layer should not come first: in the middle of a block it gives a lower "
            "loss than as the first layer, and the same as the last."
        ),
        source=PLACEMENT,
        row="depth of the one attention layer",
        is_papers=False,
    ),
    reads=(Reading(comparison=TEXT, arms=(SEVEN, FIRST, LAST)),),
    gates=about_context(),
    primary=ClaimTest(
        name=f"{SEVEN} below {FIRST}",
        differences=fewer_bits(SEVEN, FIRST),
        margin=ONE_PERCENT,
    ),
    secondary=(
        ClaimTest(
            name=f"{SEVEN} as {LAST}",
            differences=fewer_bits(SEVEN, LAST),
            margin=ONE_PERCENT,
            kind=TestKind.WITHIN,
        ),
    ),
    simulate=simulate,
)
