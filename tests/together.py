"""What tests/test_parallel.py has torchrun start: its trials, one after another.

    torchrun --nproc-per-node 2 -m tests.together TEXT FOLDER

Each process writes what it saw of each trial to FOLDER/RANK.json.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch.distributed as dist

from hybrid.spec import ModelSpec
from sweeps.trial.checkpoint import Checkpoints
from sweeps.trial.data.sources import TextFile
from sweeps.trial.engine import Engine, Parallel
from sweeps.trial.events import Event, Stop
from sweeps.trial.parallel import process_group
from sweeps.trial.recipe import Precision, Recipe
from sweeps.trial.run import run
from sweeps.trial.train import Step
from tests.models import SPECS

SPEC = replace(SPECS["hybrid"], vocab=300)
TIED = replace(SPEC, tied=True)
CUT_AT = 2
OPS = {Parallel.NONE: "reference", Parallel.DDP: "cpu", Parallel.FSDP: "reference"}


def engine_of(parallel: Parallel) -> Engine:
    return Engine(device="cpu", ops=OPS[parallel], parallel=parallel)


def recipe_of(text: Path) -> Recipe:
    return Recipe(
        source=TextFile(path=str(text)),
        steps=8,
        batch=4,
        tokens=32,
        lr=3e-3,
        balance=0.1,  # large, so that a wrong one shows, as is the next
        activation=10.0,
        clip_norm=0.5,
        precision=Precision.FP32,
        valid_tokens=256,
        contexts=(8,),
    )


def seen_of(
    spec: ModelSpec,
    recipe: Recipe,
    parallel: Parallel,
    checkpoints: Checkpoints | None = None,
    cut_at: int | None = None,
    cheap_first: bool = False,
) -> dict[str, Any]:
    """Run a trial and return its record and curve."""
    curve: list[dict[str, Any]] = []

    def watch(event: Event) -> None:
        if isinstance(event, Step):
            curve.append(asdict(event))
            if event.step == cut_at:
                raise Stop("cut")

    record = run(
        spec,
        recipe,
        engine=engine_of(parallel),
        watch=watch,
        checkpoints=checkpoints,
        cheap_first=cheap_first,
    )
    return {"record": asdict(record), "curve": curve}


def continued(recipe: Recipe, parallel: Parallel, folder: Path) -> dict[str, Any]:
    """Run a trial that is stopped in the middle, and go on from its checkpoint."""
    kept = Checkpoints(folder=folder, every_seconds=0)
    cut = seen_of(SPEC, recipe, parallel, checkpoints=kept, cut_at=CUT_AT)
    return {"cut": cut, **seen_of(SPEC, recipe, parallel, checkpoints=kept)}


def refusal(what: Callable[[], Any]) -> str:
    try:
        what()
    except ValueError as error:
        return str(error)
    raise AssertionError("it was not refused")


def main(text: Path, folder: Path) -> None:
    recipe, ddp, fsdp = recipe_of(text), Parallel.DDP, Parallel.FSDP
    with process_group("cpu"):
        seen = {
            "ddp": seen_of(SPEC, recipe, ddp),
            "fsdp": seen_of(SPEC, recipe, fsdp, cheap_first=True),
            "fsdp-tied": seen_of(TIED, recipe, fsdp),
            "ddp-continued": continued(recipe, ddp, folder / "ddp"),
            "fsdp-continued": continued(recipe, fsdp, folder / "fsdp"),
            "odd": refusal(lambda: seen_of(SPEC, replace(recipe, batch=3), ddp)),
        }
        (folder / f"{dist.get_rank()}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
