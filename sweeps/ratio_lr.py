"""The learning rate of each arm of the ratio sweep, tuned on validation data.

An untuned rate makes false findings: attention and Mamba want different ones. One seed that the
ratio sweep does not use, so that what was tuned on is not what is compared. `sweeps/ratio.py` holds
the rates chosen from here.
"""

from dataclasses import replace
from itertools import product

from hybrid.spec import ModelSpec
from sweeps import figures, ratio
from sweeps.sweep import Sweep
from sweeps.trial.recipe import Recipe

RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
SEED = 1000


def arm_name(arm: str, lr: float) -> str:
    return f"{arm} lr {lr:g}"


POINTS = {arm_name(arm, lr): (arm, lr) for arm, lr in product(ratio.ARMS, RATES)}


def point(name: str, seed: int, scale: ratio.Scale) -> tuple[ModelSpec, Recipe]:
    arm, lr = POINTS[name]
    spec, recipe = ratio.point(arm, seed, scale)
    # Speed is the ratio sweep's business: one short context keeps a trial cheap.
    return spec, replace(recipe, lr=lr, contexts=scale.contexts[:1])


SWEEP = Sweep(
    name="ratio-lr",
    question="Which learning rate suits each attention:Mamba ratio?",
    arms=tuple(POINTS),
    seeds=dict.fromkeys(ratio.SCALES, (SEED,)),
    scales=ratio.SCALES,
    point=point,
    figure=figures.learning_rate,
)
