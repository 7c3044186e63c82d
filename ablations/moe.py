"""Mixture of experts against dense MLPs in the 1:7 hybrid (Table 7).

The paper adds experts to the same layers: (n, K, e) = (16, 2, 2) computes half as much again in its
feed-forwards, so the gain could be compute. Hence a second comparison, at equal active parameters:
the experts are made narrower until one token uses as many parameters as in the dense model. K=1 is
run beside it at equal active parameters, and shown.
"""

from dataclasses import dataclass
from functools import cache
from math import log
from statistics import fmean

import pandas as pd

from ablations import figures, ratio, rows
from ablations.evidence import better
from ablations.finding import SEEDS, Claim, Finding, Matters
from ablations.published import TABLE_7
from ablations.ratio import FOUR_RATES, PAPER_7B, SCALES, UNIT
from ablations.testable import learned_text
from ablations.tuned import Comparison, tested
from ablations.verdict import Part
from hybrid import cost
from hybrid.fit import fit
from hybrid.jamba import jamba
from hybrid.spec import Attention, ModelSpec, MoE
from sweeps import ratio as shapes
from sweeps.sweep import Sweep
from sweeps.trial.recipe import Recipe

ARMS = (DENSE, SHAPE, ACTIVE, ONE) = (
    "dense",
    "two of n, equal shape",
    "two of n, equal active",
    "one of n, equal active",
)
EVERY = 2  # e
DEAD = 0.1  # an expert that gets less than this part of an even share

CLAIM = Claim(
    sentence=(
        "Experts in every second layer, two chosen of n, lower the loss of the 1:7 hybrid: with "
        "the shape of the layers kept, and also at equal active parameters."
    ),
    source=TABLE_7,
    refuted_by=(
        "a 95% interval of the gain over the dense model, at equal shape or at equal active "
        "parameters, that lies below what matters"
    ),
    matters=Matters(
        value=1.0,
        unit=UNIT,
        why="less than half of what the paper's experts gain (2.4% of the log-probability on C4)",
    ),
)
UNMATCHED = (
    "experts hold parameters that a token does not use, which is the claim; total and active "
    "parameters are both in the records"
)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The shape and recipe of the scale, and the number of experts."""

    shape: shapes.Scale
    n_experts: int


SIZES = {
    "smoke": Scale(shape=SCALES["smoke"], n_experts=4),
    "cpu": Scale(shape=SCALES["cpu"], n_experts=8),
    "gpu": Scale(shape=SCALES["gpu"], n_experts=16),
    "paper": Scale(shape=PAPER_7B, n_experts=16),
}


def spec_of(scale: Scale, moe: MoE | None) -> ModelSpec:
    shape = scale.shape
    return jamba(
        vocab=shape.vocab,
        width=shape.width,
        hidden=shape.hidden,
        blocks=shape.blocks,
        l=8,
        ratio=(1, 7),
        attention=Attention(heads=shape.heads, kv_heads=shape.kv_heads),
        moe=moe,
        e=EVERY,
    )


@cache  # seeds share it
def equal_active(scale: Scale, n_experts: int, top_k: int) -> ModelSpec:
    """Return experts of such a width that a token uses as many parameters as in the dense model."""

    def family(hidden: int) -> ModelSpec:
        return spec_of(scale, MoE(hidden=hidden, n_experts=n_experts, top_k=top_k))

    return fit(family, cost.active_params, cost.params(spec_of(scale, None)))


def same_shape(scale: Scale) -> ModelSpec:
    return spec_of(scale, MoE(hidden=scale.shape.hidden, n_experts=scale.n_experts, top_k=2))


SPECS = {
    DENSE: lambda scale: spec_of(scale, None),
    SHAPE: same_shape,
    ACTIVE: lambda scale: equal_active(scale, scale.n_experts, 2),
    ONE: lambda scale: equal_active(scale, scale.n_experts, 1),
}


def point(arm: str, seed: int, scale: Scale) -> tuple[ModelSpec, Recipe]:
    _, recipe = shapes.point(ratio.SEVEN, seed, scale.shape)
    return SPECS[arm](scale), tested(recipe)


SWEEP = Sweep(
    name="finding-moe",
    question="Do experts lower the loss, also at equal active parameters?",
    arms=ARMS,
    seeds=SEEDS,
    scales=SIZES,
    point=point,
    matched="shape of the layers, or active parameters within 1% by the width of the experts",
    figure=figures.losses,
)


def parts(found: pd.DataFrame) -> tuple[Part, ...]:
    losses, matters = rows.losses(found, rows.TEST), CLAIM.matters.value

    def part(name: str, arm: str, paper: float | None) -> Part:
        seen = better(rows.percent_fewer(losses, arm, DENSE), matters=matters)
        return Part(name=name, unit=UNIT, seen=seen, paper=paper)

    published = TABLE_7.percent_less("with MoE", "without MoE", ("C4",))
    return (
        part("experts gain at equal shape", SHAPE, published),
        part("experts gain at equal active parameters", ACTIVE, None),
    )


def remarks(found: pd.DataFrame) -> tuple[str, ...]:
    """Show K=1, both numbers of parameters, and how evenly experts are used."""
    gained = fmean(rows.percent_fewer(rows.losses(found, rows.TEST), ONE, DENSE))
    one = f"{ONE}: {gained:+.2g} {UNIT} gained, not judged"
    return (one, *(_sizes(found, arm) for arm in (DENSE, SHAPE, ACTIVE)), *_loads(found))


def _sizes(found: pd.DataFrame, arm: str) -> str:
    row = found[found["arm"] == arm].iloc[0]
    return f"{arm}: {row['params']:,} parameters, {row['active_params']:,} active"


def _loads(found: pd.DataFrame) -> tuple[str, ...]:
    """Say how evenly the experts of the arm ACTIVE are used."""
    routers = [
        router
        for loads in found.loc[found["arm"] == ACTIVE, "expert_load"]
        if loads is not None
        for router in loads
    ]
    if not routers:
        return ()
    even = fmean(evenness(router) for router in routers)
    dead = sum(load < DEAD * fmean(router) for router in routers for load in router)
    return (
        f"{ACTIVE}: entropy of the experts' load {even:.0%} of an even one, {dead} of "
        f"{sum(map(len, routers))} experts with less than {DEAD:.0%} of their share",
    )


def evenness(router: list[float]) -> float:
    """Return the entropy of a router's choices as a fraction of the highest."""
    shares = [load / sum(router) for load in router]
    return -sum(share * log(share) for share in shares if share > 0) / log(len(shares))


def imagine(found: pd.DataFrame, holds: bool) -> pd.DataFrame:
    """Return the rows with experts that gain 5% or, if not `holds`, lose as much."""
    factor = 0.95 if holds else 1.05
    return rows.imagine_losses(found, dict.fromkeys((SHAPE, ACTIVE), factor))


FINDING = Finding(
    name="moe",
    claim=CLAIM,
    comparisons=(Comparison(sweep=SWEEP, rates=FOUR_RATES, unmatched=UNMATCHED),),
    gates=learned_text,
    parts=parts,
    imagine=imagine,
    remarks=remarks,
    fixed_by="5945946cca2962fc3d377fde1f8093a428e6ae7b",
)
