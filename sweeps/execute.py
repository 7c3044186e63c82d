"""A sweep from the first trial to table and figure: what `python -m sweeps run` does."""

import logging
from pathlib import Path

from rich.console import Console

from sweeps import figures, process, results, study, table
from sweeps.progress import SweepProgress
from sweeps.sweep import Point, Sweep
from sweeps.trial import record as records
from sweeps.trial.data.documents import Split
from sweeps.trial.data.sources import Source
from sweeps.trial.data.streams import open_tokens
from sweeps.trial.engine import Engine
from sweeps.trial.record import Label
from sweeps.trial.run import run_id
from sweeps.worker import Worker


def execute(
    sweep: Sweep,
    *,
    scale: str,
    source: Source,
    folder: Path,
    engine: Engine,
    storage: str,
    keep_weights: bool,
    console: Console,
) -> None:
    """Run what is left of `sweep` at `scale` into `folder`, then print its table and draw it.

    `storage` "" is an SQLite file in `folder`. Ctrl-C leaves every finished trial recorded, and the
    same call goes on from there. Raises ValueError for an unknown scale or engine.
    """
    points = points_by_run_id(sweep, scale, source, engine)
    _prepare(list(points.values()), engine, console)
    attempts = study.by_run(records.read(folder))
    done = sum(not study.is_open(attempts[run_id]) for run_id in points)
    with SweepProgress(console, len(points), done) as progress:
        worker = Worker(
            study=study.open_study(
                study.study_name(folder.name, scale, points), storage or study.sqlite_url(folder)
            ),
            points=points,
            sweep=sweep.name,
            scale=scale,
            engine=engine,
            folder=folder,
            keep_weights=keep_weights,
        )
        try:
            worker.work(progress)
        except KeyboardInterrupt:
            console.print("stopped; finished trials are kept, the same command goes on from here")
            raise SystemExit(130) from None
    report(sweep, scale, folder, list(points), console)


def points_by_run_id(sweep: Sweep, scale: str, source: Source, engine: Engine) -> dict[str, Point]:
    """Return the design's points by the name that their records have."""
    found = {}
    for point in sweep.points(scale, source):
        label = Label(sweep=sweep.name, scale=scale, arm=point.arm)
        found[run_id(point.spec, point.recipe, label=label, engine=engine)] = point
    return found


def report(sweep: Sweep, scale: str, folder: Path, run_ids: list[str], console: Console) -> None:
    """Print the table of these runs and save their figure beside the records."""
    trials = results.load(folder.name, folder=folder.parent, scale=scale)
    trials = trials[trials["run_id"].isin(run_ids)]
    if results.complete(trials).empty:
        console.print(f"no trial was completed; {folder} holds what went wrong in column `error`")
        raise SystemExit(1)
    console.print(table.as_rich(trials, sweep.arms, f"{sweep.question} (scale {scale})"))
    for path in figures.save(sweep.figure(trials, sweep.arms), folder / f"{sweep.name}-{scale}"):
        console.print(f"wrote {path}", highlight=False)
    console.print(f"records: {folder}; in Python: sweeps.results.load({folder.name!r})")


def _prepare(points: list[Point], engine: Engine, console: Console) -> None:
    """Do once, before any trial is timed, what the first would pay for: text and kernels."""
    logging.getLogger("sweeps.trial.data").setLevel(logging.INFO)
    console.print("preparing text and kernels (about a minute the first time)")
    for source, vocab in {(p.recipe.source, p.spec.vocab) for p in points}:
        tokens = open_tokens(source, vocab)
        seen = ", ".join(f"{d} {tokens.streams[d][Split.TRAIN].tokens:,}" for d in tokens.domains)
        console.print(f"training tokens: {seen}", highlight=False)
    process.warm_up(engine)
