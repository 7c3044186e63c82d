"""RMSNorm on dt, B and C inside Mamba (Figure 9): what it holds small, and what it costs.

The paper adds the norms because of loss spikes, which it sees above 1.3B parameters only. So that
no spike is seen here would say nothing; asked is what could make one: how large activations get,
and up to which learning rate training stays stable.
"""

from dataclasses import replace
from itertools import product
from math import inf, log

import pandas as pd

from ablations import figures, rows, shapes
from ablations.evidence import as_factor, at_most, better
from ablations.finding import SEEDS, Claim, Finding, Matters
from ablations.published import FIGURE_9
from ablations.ratio import RATES, SCALES, SEVEN, UNIT
from ablations.testable import learned_text, outliers
from ablations.tuned import MARGIN, Comparison
from ablations.verdict import Gate, Part
from hybrid.spec import Mamba, ModelSpec
from sweeps import ratio as ratio_sweep
from sweeps.sweep import Sweep
from sweeps.trial.inside import INSIDE
from sweeps.trial.recipe import Recipe
from sweeps.tuning import Rates

NORMS, BARE = "norms", "no norms"
LOSS_COST = 1.0  # %, as in the finding on the ratio
STABLE = 0.10  # a rate is stable whose loss is at most this fraction above the arm's best
HOT = (4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2, 1.28e-1)
CLAIM = Claim(
    sentence=(
        "In the 1:7 hybrid, RMSNorm on dt, B and C keeps the activations around the scan smaller, "
        "allows a higher learning rate, and costs no bits per byte."
    ),
    source=FIGURE_9,
    refuted_by=(
        "a 95% interval of either factor, of the largest activation or of the highest stable "
        "learning rate, below what matters, or one of the cost in bits per byte above "
        f"{LOSS_COST:g}%"
    ),
    matters=Matters(
        value=2.0,
        unit="times",
        why="one step of a grid of learning rates; one bit of an activation's exponent",
    ),
)
MODELS: dict[str, shapes.Model] = {
    NORMS: lambda scale: shapes.matched(scale, SEVEN),
    BARE: lambda scale: shapes.matched(scale, SEVEN, mamba=Mamba(inner_norm=False)),
}
SWEEP = shapes.sweep(
    "finding-inner-norm", "What do norms inside Mamba do?", MODELS, shapes.shorter(160)
)
HOT_ARMS = {f"{arm} lr {lr:g}": (arm, lr) for arm, lr in product(MODELS, HOT)}


def hot_point(name: str, seed: int, scale: ratio_sweep.Scale) -> tuple[ModelSpec, Recipe]:
    arm, lr = HOT_ARMS[name]
    _, recipe = ratio_sweep.point(SEVEN, seed, scale)
    return MODELS[arm](scale), replace(recipe, lr=lr)


# A quarter of the steps: too high a rate shows at once. Validation data: nothing is compared.
HOT_SWEEP = Sweep(
    name="finding-inner-norm-hot",
    question="Up to which learning rate is training stable?",
    arms=tuple(HOT_ARMS),
    seeds=SEEDS,
    scales={name: replace(scale, steps=max(2, scale.steps // 4)) for name, scale in SCALES.items()},
    point=hot_point,
    matched=shapes.MATCHED,
    figure=figures.rates,
)


def gates(found: pd.DataFrame) -> tuple[Gate, ...]:
    return (*learned_text(found), outliers(_largest(found), BARE))


def _largest(found: pd.DataFrame) -> pd.DataFrame:
    """Return the largest activation at the tuned rates, by seed and arm."""
    whole = found[found["sweep"] == SWEEP.name]
    return rows.by_seed(whole, whole[[f"{rows.INSIDE}.{name}" for name in INSIDE]].max(axis=1))


def parts(found: pd.DataFrame) -> tuple[Part, ...]:
    whole, matters = found[found["sweep"] == SWEEP.name], log(CLAIM.matters.value)
    smaller = rows.log_ratio(_largest(found), BARE, NORMS)
    stable = rows.log_ratio(highest_stable(found), NORMS, BARE)
    worse = [-x for x in rows.percent_fewer(rows.losses(whole, rows.TEST), NORMS, BARE)]
    return (
        Part(
            name="largest activation without norms over that with",
            unit="times",
            seen=as_factor(better(smaller, matters=matters)),
        ),
        Part(
            name="highest stable learning rate with norms over that without",
            unit="times",
            seen=as_factor(better(stable, matters=matters)),
        ),
        Part(name="norms cost", unit=UNIT, seen=at_most(worse, bound=LOSS_COST)),
    )


def highest_stable(found: pd.DataFrame) -> pd.DataFrame:
    """Return the highest stable learning rate by seed and arm; its neighbour above was not."""
    hot = found[found["sweep"] == HOT_SWEEP.name]
    losses = rows.losses(hot, rows.VALID).fillna(inf)
    highest: dict[str, list[float]] = {}
    for arm in MODELS:
        by_rate = {lr: losses[f"{arm} lr {lr:g}"] for lr in HOT}
        best = pd.concat(by_rate.values(), axis=1).min(axis=1)
        highest[arm] = [
            max(lr for lr, loss in by_rate.items() if loss[seed] <= (1 + STABLE) * best[seed])
            for seed in losses.index
        ]
    return pd.DataFrame(highest, index=losses.index)


def remarks(found: pd.DataFrame) -> tuple[str, ...]:
    """Show each activation and the largest gradient, medians over seeds, and the grid's end."""
    whole = found[found["sweep"] == SWEEP.name]
    columns = {name: f"{rows.INSIDE}.{name}" for name in INSIDE} | {
        "gradient norm": "grad_norm_max"
    }
    said = []
    for arm in MODELS:
        middle = whole[whole["arm"] == arm].median(numeric_only=True)
        seen = ", ".join(f"{name} {middle[column]:.3g}" for name, column in columns.items())
        said.append(f"largest with {arm}: {seen}")
    if (highest_stable(found) == max(HOT)).to_numpy().any():
        said.append(f"the highest rate of the grid, {max(HOT):g}, was stable in some run")
    return tuple(said)


def imagine(found: pd.DataFrame, holds: bool) -> pd.DataFrame:
    """Return the rows with norms as claimed or, if not `holds`, the other way round."""
    wild, tame = (BARE, NORMS) if holds else (NORMS, BARE)
    inside = [f"{rows.INSIDE}.{name}" for name in INSIDE]
    factor = found["arm"].map({wild: 8.0}).fillna(1.0)
    too_hot = {f"{wild} lr {lr:g}": 2.0 for lr in HOT if lr > HOT[1]}
    too_hot |= {f"{tame} lr {lr:g}": 2.0 for lr in HOT if lr > HOT[3]}
    grown = found.assign(**{name: factor * found[name] for name in inside})
    return rows.imagine_losses(grown, too_hot)


FINDING = Finding(
    name="inner_norm",
    claim=CLAIM,
    comparisons=(
        Comparison(
            sweep=SWEEP,
            rates={**RATES, "cpu": Rates(grid=(2e-3, 4e-3, 8e-3, 1.6e-2), margin=MARGIN)},
        ),
        Comparison(sweep=HOT_SWEEP, rates=None),
    ),
    gates=gates,
    parts=parts,
    imagine=imagine,
    remarks=remarks,
    fixed_by="2143ba7da0c3ed7816e18ed030743f6438732662",
)
