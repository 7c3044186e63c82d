"""The models that findings on loss share: the ratio sweep's shapes, with one thing changed.

Every model is as large as the plain 1:7 model of its scale, or the one named, by the width of its
MLPs.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

import pandas as pd

from ablations import figures, ratio, rows
from ablations.evidence import Evidence, better
from ablations.finding import SEEDS
from ablations.tuned import tested
from hybrid import cost
from hybrid.fit import fit
from hybrid.jamba import jamba, parse_ratio
from hybrid.spec import Attention, ModelSpec, Rope, StateSpace
from sweeps import ratio as shapes
from sweeps.ratio import MATCHED, Scale
from sweeps.sweep import Sweep
from sweeps.trial.recipe import Recipe

Model = Callable[[Scale], ModelSpec]


@cache  # seeds share it
def matched(
    shape: Scale,
    arm: str,
    *,
    mamba: StateSpace | None = None,
    positions: Rope | None = None,
    attention_offset: int | None = None,
    like: str = ratio.SEVEN,
) -> ModelSpec:
    """Return the model of ratio `arm` with the rest as given, `jamba`'s default for None.

    It is as large as the plain model of ratio `like`.
    """
    attention = Attention(heads=shape.heads, kv_heads=shape.kv_heads, positions=positions)

    def family(hidden: int) -> ModelSpec:
        return jamba(
            vocab=shape.vocab,
            width=shape.width,
            hidden=hidden,
            blocks=shape.blocks,
            l=shape.l,
            ratio=parse_ratio(arm),
            attention=attention,
            mamba=mamba,
            attention_offset=attention_offset,
        )

    plain = shapes.spec_of(parse_ratio(like), shape.hidden, shape)
    return fit(family, cost.params, cost.params(plain))


def sweep(
    name: str,
    question: str,
    models: Mapping[str, Model],
    scales: Mapping[str, Scale],
    change: Callable[[Recipe], Recipe] = lambda recipe: recipe,
) -> Sweep:
    """Return the sweep over `models`, by arm, that measures the test split at its end."""

    def point(arm: str, seed: int, scale: Scale) -> tuple[ModelSpec, Recipe]:
        _, recipe = shapes.point(ratio.SEVEN, seed, scale)
        return models[arm](scale), tested(change(recipe))

    return Sweep(
        name=name,
        question=question,
        arms=tuple(models),
        seeds=SEEDS,
        scales=scales,
        point=point,
        matched=MATCHED,
        figure=figures.losses,
    )


def shorter(steps: int) -> dict[str, Scale]:
    """Return the scales of the ratio finding with so many steps on a CPU."""
    return {**ratio.SCALES, "cpu": replace(ratio.SCALES["cpu"], steps=steps)}


def gains(found: pd.DataFrame, arm: str, other: str, *, matters: float) -> Evidence:
    """Return the evidence that `arm` needs fewer bits than `other` on test text, in percent."""
    losses = rows.losses(found, rows.TEST)
    return better(rows.percent_fewer(losses, arm, other), matters=matters)
