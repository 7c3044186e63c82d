"""A sweep small enough to be killed a hundred times; the fault tests and `make chaos` run it."""

from dataclasses import replace

from hybrid.spec import ModelSpec
from sweeps.show import figures
from sweeps.sweep import Sweep
from sweeps.trial.recipe import Recipe
from tests.models import HYBRID, SPECS

MODELS = {"h": HYBRID, "a": SPECS["mixer-attention"]}


def point(arm: str, seed: int, steps: int) -> tuple[ModelSpec, Recipe]:
    recipe = Recipe(
        steps=steps, batch=2, tokens=16, lr=1e-3, seed=seed, valid_tokens=64, contexts=(8,)
    )
    return replace(MODELS[arm], vocab=300), recipe


SWEEP = Sweep(
    name="tiny",
    question="Does it run?",
    arms=tuple(MODELS),
    seeds={"smoke": (0, 1), "many": tuple(range(20)), "long": (0,)},
    scales={"smoke": 2, "many": 100, "long": 120},  # steps
    point=point,
    matched="nothing but the width",
    figure=figures.ratio,
)
