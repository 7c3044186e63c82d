"""What the load-balancing loss does: does it keep experts in use, and does it cost anything?

The released Jamba has it with a weight of 0.001; no number of the paper's is at hand to set beside.
"""

from dataclasses import replace
from statistics import fmean

import pandas as pd

from ablations import figures, moe, ratio, rows
from ablations.evidence import at_most, better
from ablations.finding import SEEDS, Claim, Finding, Matters
from ablations.published import RELEASED
from ablations.ratio import FOUR_RATES, UNIT
from ablations.testable import ILL, learned_text
from ablations.tuned import Comparison, tested
from ablations.verdict import Gate, Part
from hybrid.spec import ModelSpec
from sweeps import ratio as shapes
from sweeps.sweep import Sweep
from sweeps.trial.recipe import Recipe

WITH, WITHOUT = "balanced", "not balanced"
WEIGHTS = {WITH: RELEASED.number("Jamba v0.1", "balance"), WITHOUT: 0.0}
LOSS_COST = 1.0  # %, as in the finding on the ratio
CLAIM = Claim(
    sentence=(
        "The load-balancing loss of the released model keeps the use of experts more even than no "
        "such loss, and costs no bits per byte."
    ),
    source=RELEASED,
    refuted_by=(
        "a 95% interval of the evenness gained below what matters, or one of the cost in bits per "
        f"byte above {LOSS_COST:g}%"
    ),
    matters=Matters(
        value=5.0,
        unit="% of an even load's entropy",
        why="a little less than what one unused expert of eight makes, 6.4%",
    ),
)


def point(arm: str, seed: int, scale: moe.Scale) -> tuple[ModelSpec, Recipe]:
    _, recipe = shapes.point(ratio.SEVEN, seed, scale.shape)
    return moe.same_shape(scale), tested(replace(recipe, balance=WEIGHTS[arm]))


SWEEP = Sweep(
    name="finding-balance",
    question="What does the load-balancing loss do?",
    arms=tuple(WEIGHTS),
    seeds=SEEDS,
    scales=moe.SIZES,
    point=point,
    matched="the model",
    figure=figures.losses,
)


def gates(found: pd.DataFrame) -> tuple[Gate, ...]:
    even, matters = evenness(found)[WITHOUT].mean(), CLAIM.matters.value
    figure = f"{WITHOUT}: evenness {even:.1f}%, which leaves {100 - even:.1f} to gain"
    return (*learned_text(found), Gate(name=ILL, passed=bool(100 - even >= matters), figure=figure))


def parts(found: pd.DataFrame) -> tuple[Part, ...]:
    even = evenness(found)
    worse = [-x for x in rows.percent_fewer(rows.losses(found, rows.TEST), WITH, WITHOUT)]
    return (
        Part(
            name="evenness gained",
            unit=CLAIM.matters.unit,
            seen=better(list(even[WITH] - even[WITHOUT]), matters=CLAIM.matters.value),
        ),
        Part(name="balancing costs", unit=UNIT, seen=at_most(worse, bound=LOSS_COST)),
    )


def evenness(found: pd.DataFrame) -> pd.DataFrame:
    """Return the entropy of the experts' load, % of an even one, mean over routers, by seed."""
    return rows.by_seed(found, found["expert_load"].map(_evenness))


def _evenness(routers: list[list[float]] | None) -> float:
    return float("nan") if routers is None else 100 * fmean(map(moe.evenness, routers))


def remarks(found: pd.DataFrame) -> tuple[str, ...]:
    even = evenness(found).mean()
    return tuple(f"{arm}: evenness {even[arm]:.1f}%" for arm in WEIGHTS)


def imagine(found: pd.DataFrame, holds: bool) -> pd.DataFrame:
    """Return the rows with collapsed experts in the arm without or, if not `holds`, with."""
    collapsed = found["arm"] == (WITHOUT if holds else WITH)
    loads = [
        [[sum(router), *[1e-3] * (len(router) - 1)] for router in routers] if dead else routers
        for routers, dead in zip(found["expert_load"], collapsed, strict=True)
    ]
    return found.assign(expert_load=pd.Series(loads, index=found.index))


FINDING = Finding(
    name="balance",
    claim=CLAIM,
    comparisons=(Comparison(sweep=SWEEP, rates=FOUR_RATES),),
    gates=gates,
    parts=parts,
    imagine=imagine,
    remarks=remarks,
    fixed_by="2143ba7da0c3ed7816e18ed030743f6438732662",
)
