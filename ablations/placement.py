"""Where the only attention layer stands: what that does to loss, and what to retrieval.

The released Jamba has it in the middle of each block. Later work finds perplexity alike wherever it
stands and retrieval not (arXiv 2608.12149), and that it should never be first (arXiv 2510.04800).
Loss is that of text in the 1:7 hybrid; retrieval is looking up in tables, in the 1:3 hybrid of
`recall`, whose block of four layers has one attention layer too.
"""

import pandas as pd

from ablations import rows, shapes
from ablations.evidence import better, no_difference
from ablations.finding import Claim, Finding, Matters
from ablations.published import PLACEMENT
from ablations.ratio import RATES, SEVEN, THREE, UNIT
from ablations.recall import COMPARISON, FIRST, LAST, of_tables
from ablations.tasks import POINTS
from ablations.testable import learned_task, learned_text
from ablations.tuned import MARGIN, Comparison
from ablations.verdict import Gate, Part
from sweeps.tuning import Rates

LOSS_ALIKE = 1.0  # %, as in the finding on the ratio
CLAIM = Claim(
    sentence=(
        "Where the only attention layer of a block stands changes retrieval and not loss: in the "
        "middle it needs as many bits per byte as first or last, and it looks up more than first."
    ),
    source=PLACEMENT,
    refuted_by=(
        f"a 95% interval of either difference in bits per byte that lies outside {LOSS_ALIKE:g}%, "
        "or one of the gain in right answers over attention first that lies below what matters"
    ),
    matters=Matters(
        value=10.0,
        unit=POINTS,
        why="as in the finding on recall; the source has differences of 19 to 67",
    ),
)
# The 0-based place in a block of eight; None is the middle, as released.
PLACES = {SEVEN: None, f"{SEVEN} {FIRST}": 0, f"{SEVEN} {LAST}": 7}


def model(offset: int | None) -> shapes.Model:
    return lambda scale: shapes.matched(scale, SEVEN, attention_offset=offset)


TEXT = shapes.sweep(
    "finding-placement",
    "Where should the only attention layer stand?",
    {arm: model(offset) for arm, offset in PLACES.items()},
    shapes.shorter(80),
)


def gates(found: pd.DataFrame) -> tuple[Gate, ...]:
    shares, first = rows.accuracies(of_tables(found), rows.TEST_TASKS), f"{THREE} {FIRST}"
    matters = CLAIM.matters.value
    tables = learned_task(shares, (THREE, first), "tables", above=first, matters=matters)
    return (*learned_text(found), tables)


def parts(found: pd.DataFrame) -> tuple[Part, ...]:
    losses = rows.losses(found[found["sweep"] == TEXT.name], rows.TEST)
    shares = rows.accuracies(of_tables(found), rows.TEST_TASKS)

    def alike(place: str) -> Part:
        fewer = rows.percent_fewer(losses, SEVEN, f"{SEVEN} {place}")
        seen = no_difference(fewer, within=LOSS_ALIKE)
        return Part(name=f"the middle gains over {place}", unit=UNIT, seen=seen)

    more = rows.points_more(shares, THREE, f"{THREE} {FIRST}")
    return (
        alike(FIRST),
        alike(LAST),
        Part(
            name=f"the middle looks up more than {FIRST}",
            unit=POINTS,
            seen=better(more, matters=CLAIM.matters.value),
        ),
    )


def remarks(found: pd.DataFrame) -> tuple[str, ...]:
    shares = rows.accuracies(of_tables(found), rows.TEST_TASKS).mean()
    arms = (f"{THREE} {FIRST}", THREE, f"{THREE} {LAST}")
    return (
        "right answers, mean over all tables: "
        + ", ".join(f"{arm} {100 * shares[arm]:.0f}%" for arm in arms),
    )


def imagine(found: pd.DataFrame, holds: bool) -> pd.DataFrame:
    """Return the rows as claimed or, if not `holds`, with the middle worse in both."""
    middle, first = (0.9, 0.3) if holds else (0.3, 0.9)
    asked = rows.imagine_shares(found, {THREE: middle, f"{THREE} {FIRST}": first})
    return asked if holds else rows.imagine_losses(asked, {SEVEN: 1.05})


FINDING = Finding(
    name="placement",
    claim=CLAIM,
    comparisons=(
        Comparison(
            sweep=TEXT, rates={**RATES, "cpu": Rates(grid=(4e-3, 8e-3, 1.6e-2), margin=MARGIN)}
        ),
        COMPARISON,
    ),
    gates=gates,
    parts=parts,
    imagine=imagine,
    remarks=remarks,
    fixed_by="65f6848899dd2f8fbff89997cf4c66283947e6d4",
)
