"""A sweep in which two arms are well and four are not; tests/test_bad_trials.py runs it."""

from dataclasses import replace

from hybrid.spec import MLP, Attention, Layer, ModelSpec
from sweeps.show import figures
from sweeps.sweep import Sweep
from sweeps.trial.recipe import Recipe
from tests.models import HYBRID, SPECS, tiny

TOO_WIDE = tiny(
    Layer(mixer=Attention(heads=4, kv_heads=2), feed_forward=MLP(hidden=10_000_000)),
)
MODELS = {
    "diverges": HYBRID,
    "too-large": TOO_WIDE,
    "hangs": HYBRID,
    "crashes": HYBRID,
    "well": HYBRID,
    "well-too": SPECS["mixer-attention"],
}
LONG = ("hangs", "crashes")  # so that they have not ended when harm is done to them


def point(arm: str, seed: int, steps: int) -> tuple[ModelSpec, Recipe]:
    recipe = Recipe(
        steps=100 * steps if arm in LONG else steps,
        batch=2,
        tokens=16,
        lr=1e6 if arm == "diverges" else 1e-3,
        warmup=0.0,
        seed=seed,
        valid_tokens=64,
        contexts=(8,),
    )
    return replace(MODELS[arm], vocab=300), recipe


SWEEP = Sweep(
    name="bad",
    question="Does it go on?",
    arms=tuple(MODELS),
    seeds={"smoke": (0,)},
    scales={"smoke": 40},  # steps
    point=point,
    matched=None,
    figure=figures.ratio,
)
