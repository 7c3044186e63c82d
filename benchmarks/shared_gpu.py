"""How many trials an hour one device does when 1, 2 or 4 workers share it.

    python -m benchmarks.shared_gpu                              one CUDA device
    python -m benchmarks.shared_gpu --device cpu --scale cpu --workers 1 2
    CUDA_VISIBLE_DEVICES=0 python -m benchmarks.shared_gpu       where there are several

The trials are those of the ratio sweep's `cpu` models, too small to fill a GPU. Each number of
workers does the same sweep with the real command, into a folder of its own. Counted is the time
from the start of the first trial to the end of the last, so not the start of the workers. The last
worker's last trial is alone: let the trials be many beside the workers.

How many would fit is arithmetic: `sweeps.workers.launch.trials_per_gpu`, with what a process takes
of the device before it trains as measured here.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from statistics import median

from benchmarks.overhead import fill_caches
from hybrid.spec import ModelSpec
from sweeps import ratio
from sweeps.show import figures
from sweeps.sweep import Sweep
from sweeps.trial import provenance, records
from sweeps.trial.device import choose_device, machine_name
from sweeps.trial.recipe import Recipe
from sweeps.trial.record import Outcome, Record
from sweeps.workers.launch import trials_per_gpu, visible_gpus

ARM = "1:7"
STEPS = {"smoke": 4, "cpu": 60, "gpu": 600}
TRIALS = {"smoke": 4, "cpu": 8, "gpu": 24}
# What the first matrix product brings with it: the context, and a library's work space.
TAKEN = (
    "import torch; x = torch.ones(64, 64, device='cuda');"
    "x @ x; torch.cuda.synchronize(); print(torch.cuda.mem_get_info()[1], "
    "torch.cuda.mem_get_info()[1] - torch.cuda.mem_get_info()[0])"
)


def point(arm: str, seed: int, scale: str) -> tuple[ModelSpec, Recipe]:
    spec, recipe = ratio.point(arm, seed, ratio.SCALES["cpu"])
    return spec, replace(recipe, steps=STEPS[scale], valid_tokens=1024, contexts=(64,))


SWEEP = Sweep(
    name="shared-gpu",
    question="How many small trials an hour does one device do?",
    arms=(ARM,),
    seeds={scale: tuple(range(n)) for scale, n in TRIALS.items()},
    scales={scale: scale for scale in TRIALS},
    point=point,
    matched=None,
    figure=figures.ratio,
)


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What one number of workers did."""

    workers: int
    trials: int
    seconds: float  # from the first trial's start to the last one's end
    trial_s: float  # median

    @property
    def per_hour(self) -> float:
        return 3600 * self.trials / self.seconds

    def __str__(self) -> str:
        cells = (
            f"{self.workers}",
            f"{self.trials}",
            f"{self.per_hour:,.0f}",
            f"{self.trial_s:.1f}",
        )
        return f"| {' | '.join(cells)} |"


def measure(workers: int, scale: str, device: str) -> Rate:
    """Do the sweep with so many workers; raise where a trial is not complete."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "sweeps", "run", str(Path(__file__).resolve())]
        options = ["--scale", scale, "--device", device, "--workers", str(workers)]
        subprocess.run(
            [*command, *options, "--results", folder], check=True, stdout=subprocess.DEVNULL
        )
        return rate_of(records.read(Path(folder) / SWEEP.name), workers)


def rate_of(found: Sequence[Record], workers: int) -> Rate:
    """Return the rate that records of one sweep tell of. ValueError if one is not complete."""
    if failed := [r for r in found if r.outcome is not Outcome.COMPLETE]:
        raise ValueError(f"{failed[0].run_id} is {failed[0].outcome}: {failed[0].error}")
    begun = [datetime.fromisoformat(r.started_utc).timestamp() for r in found]
    ended = [start + r.wall_s for start, r in zip(begun, found, strict=True)]
    return Rate(
        workers=workers,
        trials=len(found),
        seconds=max(ended) - min(begun),
        trial_s=median(r.wall_s for r in found),
    )


def fitting() -> str:
    """Say by arithmetic how many of these trials the CUDA device holds."""
    told = subprocess.run([sys.executable, "-c", TAKEN], check=True, capture_output=True, text=True)
    memory_bytes, process_bytes = map(int, told.stdout.split())
    spec, recipe = point(ARM, 0, "gpu")
    fit = trials_per_gpu(
        spec,
        batch=recipe.batch,
        tokens=recipe.tokens,
        memory_bytes=memory_bytes,
        process_bytes=process_bytes,
    )
    return (
        f"by arithmetic {fit} fit: {memory_bytes:,} bytes, of which a process takes "
        f"{process_bytes:,} before it trains (with all that others hold now)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--scale", choices=tuple(TRIALS), default="gpu")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    options = parser.parse_args()
    device = choose_device(options.device)
    if options.device == "cuda":
        if len(gpus := visible_gpus()) != 1:
            parser.error(f"CUDA_VISIBLE_DEVICES must name one device, now there are {len(gpus)}")
        print(fitting(), flush=True)
    else:
        fill_caches()
    print("| workers | trials | trials per hour | seconds of a trial, median |")
    print("|---:|---:|---:|---:|", flush=True)
    for workers in options.workers:
        print(measure(workers, options.scale, options.device), flush=True)
    commit, dirty = provenance.git_commit()
    said = f"commit {(commit or 'unknown')[:12]}{' with changes' if dirty else ''}"
    print(f"\n{STEPS[options.scale]} steps a trial, {machine_name(device)}, {said}")


if __name__ == "__main__":
    main()
