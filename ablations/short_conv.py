"""How much of recall is the short convolution: Mamba with it and without, pure and in the hybrid.

A convolution over four tokens already sees a key beside its value, so a small model may look things
up by it where the scan alone would not.
"""

import pandas as pd

from ablations import rows, tasks
from ablations.evidence import better
from ablations.finding import Claim, Finding
from ablations.published import SHORT_CONV
from ablations.ratio import MAMBA, THREE
from ablations.recall import COMPARISON, NO_CONV
from ablations.tasks import POINTS
from ablations.testable import learned_task
from ablations.verdict import Gate, Part

CLAIM = Claim(
    sentence=(
        "Much of what small models recall is the short convolution: without it, pure Mamba and the "
        "1:3 hybrid look up less in tables."
    ),
    source=SHORT_CONV,
    refuted_by=(
        "a 95% interval of what the convolution gains, in either model, that lies below what "
        "matters"
    ),
    matters=tasks.TEN_POINTS,
)


def gates(found: pd.DataFrame) -> tuple[Gate, ...]:
    shares = rows.accuracies(found, rows.TEST_TASKS)

    def gate(arm: str) -> Gate:
        without = f"{arm} {NO_CONV}"
        arms = (arm, without)
        return learned_task(shares, arms, "tables", above=without, matters=CLAIM.matters.value)

    return gate(MAMBA), gate(THREE)


def parts(found: pd.DataFrame) -> tuple[Part, ...]:
    shares = rows.accuracies(found, rows.TEST_TASKS)

    def gain(arm: str) -> Part:
        points = rows.points_more(shares, arm, f"{arm} {NO_CONV}")
        seen = better(points, matters=CLAIM.matters.value)
        return Part(name=f"the convolution gains, {arm}", unit=POINTS, seen=seen)

    return gain(MAMBA), gain(THREE)


def remarks(found: pd.DataFrame) -> tuple[str, ...]:
    shares = rows.accuracies(found, rows.TEST_TASKS).mean()
    arms = [name for arm in (MAMBA, THREE) for name in (arm, f"{arm} {NO_CONV}")]
    return (
        "right answers, mean over all tables: "
        + ", ".join(f"{arm} {100 * shares[arm]:.0f}%" for arm in arms),
    )


def imagine(found: pd.DataFrame, holds: bool) -> pd.DataFrame:
    """Return the rows with less recall without the convolution or, if not `holds`, with it."""
    with_conv, without = (0.9, 0.3) if holds else (0.3, 0.9)
    shares = dict.fromkeys((MAMBA, THREE), with_conv)
    shares |= dict.fromkeys((f"{MAMBA} {NO_CONV}", f"{THREE} {NO_CONV}"), without)
    return rows.imagine_shares(found, shares)


FINDING = Finding(
    name="short_conv",
    claim=CLAIM,
    comparisons=(COMPARISON,),
    gates=gates,
    parts=parts,
    imagine=imagine,
    remarks=remarks,
    fixed_by="65f6848899dd2f8fbff89997cf4c66283947e6d4",
)
