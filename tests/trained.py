"""A run that kept its weights, trained in moments on the tests' own text."""

from pathlib import Path

from hybrid.jamba import jamba
from hybrid.spec import Attention, MoE
from sweeps.sweep import Point
from sweeps.trial.data.sources import Source, TextFile
from sweeps.trial.engine import Engine
from sweeps.trial.recipe import Precision, Recipe
from sweeps.trial.record import Label, Record
from sweeps.workers.process import run_in_process

SPEC = jamba(
    vocab=300,
    width=32,
    hidden=48,
    blocks=1,
    l=4,
    ratio=(1, 3),
    attention=Attention(heads=4, kv_heads=2),
    moe=MoE(hidden=48, n_experts=4, top_k=2),
)


def train(source: TextFile, folder: Path, *, steps: int, keep_weights: bool) -> Record:
    """Return the record of the run of so many steps, in the results `folder`."""
    return run(recipe(source, steps), folder, keep_weights=keep_weights)


def recipe(source: Source, steps: int) -> Recipe:
    return Recipe(
        source=source,
        steps=steps,
        batch=4,
        tokens=32,
        lr=3e-3,
        precision=Precision.FP32,
        valid_tokens=1024,
        contexts=(8,),
    )


def run(recipe: Recipe, folder: Path, *, keep_weights: bool = True) -> Record:
    """Return the record of the run that follows `recipe`, in the results `folder`."""
    point = Point(arm="1:3", seed=0, spec=SPEC, recipe=recipe)
    label = Label(sweep="tiny", scale="smoke", arm="1:3")
    return run_in_process(
        point,
        label,
        Engine(device="cpu"),
        folder / "tiny",
        lambda step: None,
        keep_weights=keep_weights,
    )
