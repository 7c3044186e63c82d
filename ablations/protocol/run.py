"""Runs of findings: writes what is missing as a sweep's file, and runs it with local workers.

A file such as results/local/text/small-1.py is a sweep of one's own that `python -m sweeps` takes
too, so that other processes and machines can help. After each file the plan is made anew: a grid
of rates may have to grow, and a second look follows only where the first is inconclusive.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ablations.protocol.comparison import Run, run_arm
from ablations.protocol.finding import Finding
from ablations.protocol.plan import Plan, make_plan

Execute = Callable[[Path, Path], None]  # file that defines SWEEP, folder of its records
RUN_SCALES = ("smoke", "small", "large")

FILE = '''"""Sweep written by `{command}`: runs that findings lack."""

from ablations.protocol import registry

RUNS = (
{runs}
)
SWEEP = registry.comparisons()[{comparison!r}].sweep({scale!r}, RUNS)
'''


def run_missing(
    findings: Sequence[Finding],
    scale: str,
    folder: Path,
    execute: Execute,
    *,
    command: str,
    report: Callable[[Plan], None] = lambda plan: None,
) -> None:
    """Run what `findings` lack at `scale`, records under `folder`, until nothing is missing.

    `execute` runs one sweep to its end and may be interrupted at any moment. `report` is called
    with every plan. Raises ValueError for a scale that is not run, and RuntimeError where a sweep
    ended and left none of the records that it was run for.
    """
    if scale not in RUN_SCALES:
        raise ValueError(
            f"scale {scale!r} is priced and not run; the scales that are run: "
            f"{', '.join(RUN_SCALES)}"
        )
    before: list[tuple[str, Run]] = []
    while True:
        plan = make_plan(findings, scale, folder)
        report(plan)
        if not plan.missing:
            return
        if plan.missing == before:
            raise RuntimeError(
                f"{len(before)} runs at scale {scale} still have no record after they were run; "
                f"`python -m sweeps status {before[0][0]} --scale {scale}` says why"
            )
        before = plan.missing
        comparison, runs = next_batch(plan)
        execute(*_write(comparison, scale, folder, runs, command))


def next_batch(plan: Plan) -> tuple[str, list[Run]]:
    """Return the comparison and runs that come next: of one finding, arms x rates with equal seeds.

    A sweep is a grid, so runs whose seeds differ come in batches of their own.
    """
    row = next(row for row in plan.rows if row.missing)
    name = row.missing[0][0]
    runs = [run for comparison, run in row.missing if comparison == name]
    seeds_of: dict[str, set[int]] = {}
    for arm, rate, seed in runs:
        seeds_of.setdefault(run_arm(arm, rate), set()).add(seed)
    wanted = seeds_of[run_arm(*runs[0][:2])]
    return name, [run for run in runs if seeds_of[run_arm(*run[:2])] == wanted]


def _write(
    comparison: str, scale: str, folder: Path, runs: Iterable[Run], command: str
) -> tuple[Path, Path]:
    """Write the file of a batch. Return it and the folder of its records."""
    records = folder / comparison
    records.mkdir(parents=True, exist_ok=True)
    lines = "\n".join(f"    {run!r}," for run in runs)
    text = FILE.format(command=command, comparison=comparison, scale=scale, runs=lines)
    number = 1
    while (file := records / f"{scale}-{number}.py").exists() and file.read_text() != text:
        number += 1
    file.write_text(text)
    return file, records
