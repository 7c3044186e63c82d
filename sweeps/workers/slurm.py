"""Starts workers as jobs of Slurm, through submitit (extra `slurm`); locally, to try it out.

Options are submitit's: shared ones bare (timeout_min, gpus_per_node, cpus_per_task, mem_gb), and
Slurm's own with its name before them (slurm_partition). Jobs that end early end nothing else: the
study hands what they left to the other workers.
"""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hybrid.spec import require

JOBS_AT_ONCE = 256  # of one job array, where the cluster allows it


def submit(
    command: Sequence[str],
    workers: int,
    *,
    folder: Path,
    cluster: str | None = None,
    **options: Any,
) -> list[Any]:
    """Submit `workers` jobs that run `command` each; return submitit's jobs.

    `folder` gets each job's log and must be seen by all machines. `cluster` is None for the one
    found here, "local" for processes of this machine. ImportError without submitit; ValueError for
    an option that submitit does not know.
    """
    require(workers > 0, f"slurm: workers={workers} must be above 0")
    try:
        import submitit
    except ImportError:
        raise ImportError("slurm needs submitit: pip install 'hybrid-workbench[slurm]'") from None

    executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    try:
        executor.update_parameters(
            **{
                "name": "sweep-worker",
                "slurm_array_parallelism": min(workers, JOBS_AT_ONCE),
                **options,
            }
        )
    except NameError as error:  # submitit's way to list its options
        raise ValueError(f"slurm: {error}") from None
    with executor.batch():
        return [executor.submit(run, tuple(command)) for _ in range(workers)]


def run(command: tuple[str, ...]) -> None:
    """Run a command inside a job, its output going to the job's log; raise if it fails."""
    subprocess.run(command, check=True)
