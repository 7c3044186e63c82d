"""Hybrid against pure models in bits per byte (Table 4), at equal total parameters."""

import pandas as pd

from ablations.protocol.designs.matched_models import ATTENTION, MAMBA, SEVEN, THREE
from ablations.protocol.designs.text import TEXT
from ablations.protocol.designs.text_tests import (
    ONE_PERCENT,
    about_context,
    fewer_bits,
    scale_losses,
)
from ablations.protocol.finding import Claim, ClaimTest, Finding, Reading
from ablations.published import LOG_PROBS, TABLE_4
from ablations.statistics.outcomes import TestKind

ROWS = {ATTENTION: "Attention", THREE: "Jamba 1:3", SEVEN: "Jamba 1:7", MAMBA: "Mamba"}
DOMAINS = ("books", "web", "code", "code_long")


def paper_gain(other: str) -> float:
    """Return by how many percent the paper's 1:7 is nearer 0 than `other`, mean over domains."""
    return TABLE_4.percent_less(ROWS[SEVEN], ROWS[other], LOG_PROBS)


def simulate(rows: pd.DataFrame, holds: bool) -> pd.DataFrame:
    """Return the rows with a 1:7 that gains 5 % or, if not `holds`, loses as much."""
    return scale_losses(rows, {SEVEN: 0.95 if holds else 1.05})


FINDING = Finding(
    name="ratio",
    claim=Claim(
        sentence=(
            "At equal size a hybrid of attention and Mamba at 1:7 has a lower loss than pure Mamba "
            "and than pure attention, and 1:3 and 1:7 do not differ."
        ),
        source=TABLE_4,
        row="Jamba 1:7 beside Mamba",
    ),
    reads=(Reading(comparison=TEXT, arms=(SEVEN, MAMBA, ATTENTION, THREE)),),
    gates=about_context(),
    primary=ClaimTest(
        name=f"{SEVEN} below {MAMBA}",
        differences=fewer_bits(SEVEN, MAMBA),
        margin=ONE_PERCENT,
        paper=paper_gain(MAMBA),
    ),
    secondary=(
        ClaimTest(
            name=f"{SEVEN} below {ATTENTION}",
            differences=fewer_bits(SEVEN, ATTENTION),
            margin=ONE_PERCENT,
            paper=paper_gain(ATTENTION),
        ),
        ClaimTest(
            name=f"{SEVEN} as {THREE}",
            differences=fewer_bits(SEVEN, THREE),
            margin=ONE_PERCENT,
            kind=TestKind.WITHIN,
            paper=paper_gain(THREE),
        ),
        *(
            ClaimTest(
                name=f"{SEVEN} below {MAMBA}, {domain}",
                differences=fewer_bits(SEVEN, MAMBA, domain),
                margin=ONE_PERCENT,
            )
            for domain in DOMAINS
        ),
    ),
    simulate=simulate,
)
