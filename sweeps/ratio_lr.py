"""The learning rate of each arm of the ratio sweep, tuned on validation data.

An untuned rate makes false findings: attention and Mamba want different ones. One seed that the
ratio sweep does not use, so that what was tuned on is not what is compared. `sweeps/ratio.py` holds
the rates chosen from here.
"""

import json
import warnings
from dataclasses import replace
from itertools import product

import pandas as pd

from hybrid.spec import ModelSpec, look_up
from sweeps import ratio, results
from sweeps.show import figures
from sweeps.sweep import Sweep
from sweeps.trial.recipe import Recipe

RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
SEED = 1000
# In bits per byte. With one seed, differences below this order run both ways along the grid; the
# smaller rate is then the safer one. Set after seeing the grid: docs/log.md says what it changed.
MARGIN = 0.01


def arm_name(arm: str, lr: float) -> str:
    return f"{arm} lr {lr:g}"


POINTS = {arm_name(arm, lr): (arm, lr) for arm, lr in product(ratio.ARMS, RATES)}


def point(name: str, seed: int, scale: ratio.Scale) -> tuple[ModelSpec, Recipe]:
    arm, lr = look_up("arm of the sweep ratio-lr", POINTS, name)
    spec, recipe = ratio.point(arm, seed, scale)
    # Speed is the ratio sweep's business: one short context keeps a trial cheap.
    return spec, replace(recipe, lr=lr, contexts=scale.contexts[:1])


def chosen(trials: pd.DataFrame) -> dict[str, float]:
    """Return the rate of each ratio: the smallest whose loss is within MARGIN of the least.

    The loss is held-out bits per byte, mean over domains. Trials that diverged lose. Warns where
    the least loss lies at an edge of the grid, since a better rate may then lie outside. Raises
    ValueError where a ratio has two trials at one rate.
    """
    rows = results.complete(trials)
    columns = [f"valid_bits_per_byte.{key}" for key in results.keys(rows, "valid_bits_per_byte")]
    table = pd.DataFrame(
        {"ratio": rows["ratio"], "lr": _rates(rows), "loss": rows[columns].mean(axis=1)}
    )
    if table.duplicated(["ratio", "lr"]).any():
        raise ValueError(
            "ratio-lr: a ratio has two trials at one rate, which are not of one design; "
            "`sweeps.results.newest(trials)` takes those that ran last"
        )
    found = {}
    for ratio_name, group in table.groupby("ratio"):
        best = group.sort_values("loss").iloc[0]
        if best["lr"] in (min(RATES), max(RATES)):
            warnings.warn(
                f"{ratio_name}: the least loss is at the edge of the grid, lr={best['lr']:g}",
                stacklevel=2,
            )
        near = group[group["loss"] <= best["loss"] + MARGIN]
        found[str(ratio_name)] = float(near["lr"].min())
    return found


def _rates(trials: pd.DataFrame) -> list[float]:
    return [json.loads(recipe)["lr"] for recipe in trials["recipe"]]


SWEEP = Sweep(
    name="ratio-lr",
    question="Which learning rate suits each attention:Mamba ratio?",
    arms=tuple(POINTS),
    seeds=dict.fromkeys(ratio.SCALES, (SEED,)),
    scales=ratio.SCALES,
    point=point,
    matched=ratio.MATCHED,
    figure=figures.learning_rate,
)
