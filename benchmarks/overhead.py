"""What a sweep costs besides training: 40 small trials, one worker, wall time over training time.

    python -m benchmarks.overhead

Text, tokens and kernels are in their caches before the clock starts, as after any sweep. The
trials are those of the ratio sweep's `cpu` models, each trained for a few seconds. What is counted
as training is the sum of the steps' own seconds; everything else is overhead: the command's start,
processes, building, held-out loss, speeds, records, the study, the table and the figure.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from hybrid.spec import ModelSpec
from sweeps import ratio
from sweeps.show import figures
from sweeps.sweep import Sweep
from sweeps.trial import provenance, records
from sweeps.trial.data.sources import PackagedText
from sweeps.trial.data.streams import open_tokens
from sweeps.trial.device import choose_device, machine_name
from sweeps.trial.engine import Engine
from sweeps.trial.recipe import Recipe
from sweeps.trial.record import Outcome
from sweeps.workers.process import warm_up

ARMS, SEEDS = ("1:0", "1:3", "1:7", "0:1"), 10
STEPS = 60


def point(arm: str, seed: int, scale: ratio.Scale) -> tuple[ModelSpec, Recipe]:
    spec, recipe = ratio.point(arm, seed, scale)
    return spec, replace(recipe, steps=STEPS, valid_tokens=1024, contexts=(64,))


SWEEP = Sweep(
    name="overhead",
    question="What does a sweep cost besides training?",
    arms=ARMS,
    seeds={"cpu": tuple(range(SEEDS))},
    scales={"cpu": ratio.SCALES["cpu"]},
    point=point,
    matched=ratio.MATCHED,
    figure=figures.ratio,
)


def fill_caches() -> None:
    """Compile kernels and split text into tokens, as any earlier sweep would have done."""
    warm_up(Engine(device="cpu"))
    point = SWEEP.points("cpu", PackagedText())[0]
    open_tokens(point.recipe.source, point.spec.vocab)


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    here = str(Path(__file__).resolve())
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "sweeps", "run", here, "--device", "cpu", "--results"]
        fill_caches()
        begun = time.perf_counter()
        subprocess.run([*command, folder], check=True, stdout=subprocess.DEVNULL)
        wall_s = time.perf_counter() - begun
        found = records.read(Path(folder) / SWEEP.name)
        steps = records.read_curves(Path(folder) / SWEEP.name)
    assert [r.outcome for r in found] == [Outcome.COMPLETE] * len(ARMS) * SEEDS
    train_s = sum(steps["seconds"].to_pylist())
    trials_s = sum(r.wall_s for r in found)
    commit, _ = provenance.git_commit()
    print(
        f"{len(found)} trials of {train_s / len(found):.1f} s of training: wall / training = "
        f"{wall_s / train_s:.3f} (in the trials' own processes {trials_s / train_s:.3f}); "
        f"commit {(commit or 'unknown')[:12]}, {machine_name(choose_device('cpu'))}, "
        f"{found[0].threads} threads"
    )


if __name__ == "__main__":
    main()
