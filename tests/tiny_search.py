"""A search small enough for tests, in which workers really run it; all its models are cheap."""

from dataclasses import replace

from optuna.trial import BaseTrial

from hybrid import cost
from hybrid.spec import MLP, Layer, ModelSpec
from sweeps.plans.objectives import bits_per_byte, cache_bytes, params_budget
from sweeps.plans.search import Search
from sweeps.trial.recipe import Recipe
from sweeps.tuning import Rates
from tests.models import SPECS

RATES = Rates(grid=(1e-3, 1e-2), seed=77)  # both ends are edges
BASE = SPECS["mixer-mamba"]


def model(layers: int) -> ModelSpec:
    layer = Layer(mixer=BASE.layers[0].mixer, feed_forward=MLP(hidden=8))
    return replace(BASE, vocab=300, layers=(layer,) * layers)


def suggest(trial: BaseTrial, steps: int) -> tuple[ModelSpec, Recipe]:
    recipe = Recipe(
        steps=steps,
        batch=2,
        tokens=16,
        lr=1e-3,
        warmup=trial.suggest_float("warmup", 0.0, 0.5),  # so that no two trials are alike
        valid_tokens=64,
        contexts=(8,),
    )
    return model(trial.suggest_int("layers", 1, 3)), recipe


SWEEP = Search(
    name="tiny-search",
    question="Does a search run?",
    scales={"smoke": 4},  # steps
    n_trials={"smoke": 4},
    suggest=suggest,
    objectives=(bits_per_byte(), cache_bytes()),
    constraints=lambda steps: (params_budget(cost.params(model(2))),),
    rates=RATES,
    rungs=(0.5,),
    margin=1.0,
    matched="nothing",
)
