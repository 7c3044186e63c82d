"""What a sweep costs besides training: 40 small trials, one worker, wall time over training time.

    python -m benchmarks.overhead          (three to four minutes on two cores)

Text, tokens and kernels are in their caches before the clock starts, as after any sweep. The
trials are those of the ratio sweep's `cpu` models, each trained for a few seconds. What is counted
as training is the sum of the steps' own seconds; everything else is overhead: processes, building,
held-out loss, speeds, records, the study.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from hybrid.spec import ModelSpec
from sweeps import execute, figures, jobs, ratio, studies
from sweeps.storage import open_storage
from sweeps.sweep import Sweep
from sweeps.trial import provenance
from sweeps.trial import record as records
from sweeps.trial.data.sources import PackagedText
from sweeps.trial.device import choose_device, machine_name
from sweeps.trial.engine import Engine
from sweeps.trial.recipe import Recipe
from sweeps.trial.record import Outcome

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


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    console = Console(file=sys.stderr, width=120)
    with tempfile.TemporaryDirectory() as folder:
        job = jobs.Job(
            sweep=str(Path(__file__).resolve()),
            scale="cpu",
            source=PackagedText(),
            engine=jobs.resolved(Engine(device="cpu")),
            folder=str(Path(folder) / "overhead"),
        )
        plan = job.plan()
        study = execute.prepare(job, plan, open_storage(studies.sqlite_url(job.records)), console)
        begun = time.perf_counter()
        execute.work(job, plan, study, console)
        wall_s = time.perf_counter() - begun
        found = records.read(job.records)
        steps = records.read_curves(job.records)
    assert all(r.outcome is Outcome.COMPLETE for r in found), "a trial was not completed"
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
