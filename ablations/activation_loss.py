"""The activation loss of Jamba-1.5: does it hold outputs small, and does a large weight cost?

The paper added it against activations of millions, which came while a model of 398B parameters was
trained. So that nothing large is seen here says nothing about those; asked is whether the weights
that the paper names do anything, and cost anything, to a model of this size. The paper does not say
which activations it squares or shows: here they are what mixers and feed-forwards add to the
residual stream (sweeps/trial/outputs.py). The model is the dense 1:7 hybrid, which on a CPU trains
twice as long as one with experts in the same time.
"""

from dataclasses import replace
from math import log

import numpy as np
import pandas as pd

from ablations import figures, ratio, rows, shapes
from ablations.evidence import as_factor, at_most, better
from ablations.finding import SEEDS, Claim, Finding, Matters
from ablations.published import ACTIVATION_LOSS
from ablations.ratio import THREE_RATES, UNIT
from ablations.testable import learned_text, outliers
from ablations.tuned import Comparison, tested
from ablations.verdict import Gate, Part
from hybrid.spec import ModelSpec
from sweeps import ratio as ratio_sweep
from sweeps.sweep import Sweep
from sweeps.trial.inside import OUTPUT
from sweeps.trial.recipe import Recipe

ARMS = (NONE, USUAL, HIGHEST) = ("no activation loss", "alpha 1e-5", "alpha 1e-3")
WEIGHTS = {NONE: 0.0, USUAL: 1e-5, HIGHEST: 1e-3}
LOSS_COST = 1.0  # %, as in the finding on the ratio
LARGEST = f"{rows.INSIDE}.{OUTPUT}"
CLAIM = Claim(
    sentence=(
        "In the 1:7 hybrid, the mean square of activations added to the loss with a weight of 1e-5 "
        "makes the largest output of a layer at least two times smaller, and a weight of 1e-3 "
        "still costs no bits per byte."
    ),
    source=ACTIVATION_LOSS,
    refuted_by=(
        "a 95% interval of the factor by which the largest output falls at 1e-5 below what "
        f"matters, or one of the cost in bits per byte at 1e-3 above {LOSS_COST:g}%"
    ),
    matters=Matters(
        value=2.0,
        unit="times",
        why="one bit of an activation's exponent; the paper's own factor is over a thousand",
    ),
)


def point(arm: str, seed: int, scale: ratio_sweep.Scale) -> tuple[ModelSpec, Recipe]:
    spec, recipe = ratio_sweep.point(ratio.SEVEN, seed, scale)
    return spec, tested(replace(recipe, activation=WEIGHTS[arm]))


SWEEP = Sweep(
    name="finding-activation-loss",
    question="Does the activation loss hold outputs small, and what does it cost?",
    arms=ARMS,
    seeds=SEEDS,
    scales=shapes.shorter(120),
    point=point,
    matched="the model",
    figure=figures.losses,
)


def gates(found: pd.DataFrame) -> tuple[Gate, ...]:
    return (*learned_text(found), outliers(largest(found), NONE))


def parts(found: pd.DataFrame) -> tuple[Part, ...]:
    worse = [-x for x in rows.percent_fewer(rows.losses(found, rows.TEST), HIGHEST, NONE)]
    smaller = rows.log_ratio(largest(found), NONE, USUAL)
    published = ACTIVATION_LOSS.number("without", "largest") / ACTIVATION_LOSS.number(
        "alpha 1e-5", "largest"
    )
    return (
        Part(
            name="largest output without the loss over that with alpha 1e-5",
            unit=CLAIM.matters.unit,
            seen=as_factor(better(smaller, matters=log(CLAIM.matters.value))),
            paper=published,
        ),
        Part(name="alpha 1e-3 costs", unit=UNIT, seen=at_most(worse, bound=LOSS_COST)),
    )


def largest(found: pd.DataFrame) -> pd.DataFrame:
    """Return the largest output over held-out tokens, by seed and arm."""
    return rows.by_seed(found, found[LARGEST])


def remarks(found: pd.DataFrame) -> tuple[str, ...]:
    """Show every arm's largest output, and what the highest weight does to it."""
    outputs = largest(found)
    medians = ", ".join(f"{arm} {outputs[arm].median():.3g}" for arm in ARMS)
    factor = np.exp(np.median(rows.log_ratio(outputs, NONE, HIGHEST)))
    return (
        f"largest output, median over seeds: {medians}",
        f"at alpha 1e-3 it is {factor:.3g} times smaller, median over seeds, not judged",
    )


def imagine(found: pd.DataFrame, holds: bool) -> pd.DataFrame:
    """Return the rows with large outputs in the arm without or, if not `holds`, with 1e-5."""
    grown = found["arm"] == (NONE if holds else USUAL)
    return found.assign(**{LARGEST: found[LARGEST].where(~grown, 8 * found[LARGEST])})


FINDING = Finding(
    name="activation_loss",
    claim=CLAIM,
    comparisons=(Comparison(sweep=SWEEP, rates=THREE_RATES),),
    gates=gates,
    parts=parts,
    imagine=imagine,
    remarks=remarks,
    fixed_by="228590b8c57792c6092b55d6ce0e8aa32a66a452",
)
