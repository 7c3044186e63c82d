"""What findings on tasks with a known answer share: sizes, recipes and sweeps.

Shares of right answers are compared in percentage points. A model here has few layers and a small
vocabulary, so that looking up can be learned in a few hundred steps, by some of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import pandas as pd

from ablations import figures, rows, shapes
from ablations.finding import SEEDS, Matters
from ablations.ratio import SCALES
from ablations.tuned import MARGIN
from hybrid.spec import ModelSpec
from sweeps.ratio import UNTUNED, Scale
from sweeps.sweep import Sweep
from sweeps.trial.data.sources import Synthetic
from sweeps.trial.data.tasks import Probe, Task
from sweeps.trial.recipe import Recipe
from sweeps.tuning import Rates

POINTS = "points of accuracy"
TEN_POINTS = Matters(
    value=10.0,
    unit=POINTS,
    why="what a user of the model would notice; far above what the draws of a probe waver by",
)
LIKE = "1:3"  # the arm that the others are as large as
MATCHED = f"total parameters, within 1% of {LIKE}, by the width of the MLPs"
RATES: Mapping[str, Rates] = {
    "smoke": Rates(grid=(4e-3, 8e-3), margin=MARGIN),
    "cpu": Rates(grid=(2e-3, 4e-3, 8e-3), margin=MARGIN),
    "gpu": Rates(grid=(5e-4, 1e-3, 2e-3, 4e-3), margin=MARGIN),
    "paper": Rates(grid=(1e-4, 2e-4, 4e-4, 8e-4), margin=MARGIN),
}
SMALL = Scale(
    vocab=32,
    width=64,
    hidden=128,
    blocks=1,
    l=4,
    heads=4,
    kv_heads=2,
    steps=300,
    batch=32,
    tokens=32,
    lr=UNTUNED,
    valid_tokens=16_384,
    contexts=(32,),
)
# What differs from task to task are steps, tokens and vocabulary.
SHAPES: dict[str, Scale] = {
    "smoke": replace(SMALL, steps=3, batch=4, valid_tokens=128),
    "cpu": SMALL,
    "gpu": replace(
        SMALL, vocab=1024, width=128, hidden=256, blocks=2, steps=4000, batch=64, tokens=256
    ),
    "paper": SCALES["paper"],
}

Kind = TypeVar("Kind")


@dataclass(frozen=True, kw_only=True)
class Size:
    """A scale of a finding on tasks: shape and length of training, what is asked and measured."""

    shape: Scale
    tasks: tuple[Task, ...]
    probes: tuple[Probe, ...]


def recipe(size: Size, seed: int) -> Recipe:
    """Return the recipe at `size`, the test draws measured at its end."""
    shape = size.shape
    return Recipe(
        source=Synthetic(tasks=size.tasks, probes=size.probes),
        steps=shape.steps,
        batch=shape.batch,
        tokens=shape.tokens,
        lr=shape.lr[LIKE],
        seed=seed,
        valid_tokens=shape.valid_tokens,
        contexts=(shape.tokens,),
        measure_test=True,
    )


def sweep(
    name: str, question: str, models: Mapping[str, shapes.Model], sizes: Mapping[str, Size]
) -> Sweep:
    """Return the sweep over `models`, by arm, on the tasks of each size."""

    def point(arm: str, seed: int, size: Size) -> tuple[ModelSpec, Recipe]:
        return models[arm](size.shape), recipe(size, seed)

    return Sweep(
        name=name,
        question=question,
        arms=tuple(models),
        seeds=SEEDS,
        scales=sizes,
        point=point,
        matched=MATCHED,
        figure=figures.losses,
    )


def trained_on(found: pd.DataFrame, kind: type[Kind]) -> list[Kind]:
    """Return the tasks of `kind` that the first of these rows was trained on, in turn."""
    source = rows.recipe_of(found["recipe"].iloc[0]).source
    assert isinstance(source, Synthetic)
    return [task for task in source.tasks if isinstance(task, kind)]
