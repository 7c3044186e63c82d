"""A sweep from the first trial to table and figure: what `python -m sweeps run` and `worker` do."""

import logging
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.study import Study
from rich.console import Console

from sweeps import readiness, results
from sweeps.plans.grid import Grid
from sweeps.plans.plan import Plan
from sweeps.plans.search import Hunt
from sweeps.show import report
from sweeps.show.progress import SweepProgress
from sweeps.study import retries, status, studies
from sweeps.study.status import Status
from sweeps.study.storage import open_storage, shown
from sweeps.terminal import termination_as_interrupt
from sweeps.trial.records import Ledger
from sweeps.workers import jobs, process, server
from sweeps.workers.jobs import Job
from sweeps.workers.launch import launch, visible_gpus
from sweeps.workers.slurm import submit
from sweeps.workers.worker import Worker


def execute(job: Job, *, storage: str, workers: int, console: Console) -> None:
    """Run what is left of a job with local workers, then print its table and draw it.

    `storage` "" is an SQLite file beside the records; 0 workers only make the study. Ctrl-C leaves
    every finished trial recorded, and the same call goes on from there. Raises ValueError for an
    unknown sweep, scale or engine.
    """
    job = jobs.fixed(job)
    plan = job.plan()
    url = storage or studies.sqlite_url(job.records)
    study = prepare(job, plan, open_storage(url), console)
    command = ["worker", study.study_name, "--storage", url]
    if workers == 0:
        said = f"python -m sweeps worker {study.study_name} --storage {shown(url)}"
        console.print(f"the study waits for workers: {said}", highlight=False, soft_wrap=True)
        return
    if workers == 1:
        work(job, plan, study, console)
    elif failed := launch([sys.executable, "-m", "sweeps", *command], workers, gpus=_gpus(job)):
        raise SystemExit(failed)
    show(plan, Ledger(job.records), console)


def prepare(job: Job, plan: Plan, storage: BaseStorage, console: Console) -> Study:
    """Make or find the study and let wait what is left to do. Text and kernels are made ready."""
    server.begin_loading()
    console.print("preparing text and kernels (about a minute the first time)")
    _make_ready(job, plan, console)
    jobs.keep(job)
    study = studies.open_study(studies.study_name(job.records.name, plan), storage, plan)
    jobs.attach(study, job)
    studies.restore(study, plan, Ledger(job.records))
    process.warm_up(job.engine)
    return study


def help_with(name: str, *, storage: str, folder: Path, console: Console) -> None:
    """Be one worker on the study `name`, made elsewhere or before, until its plan is done.

    `storage` "" is the SQLite file beside the records in `folder`. Raises LookupError where the
    study is not there or was made of another plan than this checkout's, and takes no trial where
    the job's text is not here (OtherText, OSError) or this machine computes otherwise (ValueError).
    """
    url = storage or studies.sqlite_url(folder / name.rsplit("-", 2)[0])
    try:
        study = optuna.load_study(study_name=name, storage=open_storage(url))
    except KeyError:
        raise LookupError(
            f"there is no study {name!r} at {shown(url)}; `python -m sweeps run` makes it"
        ) from None
    job = jobs.of_study(study)
    plan = job.plan()
    if (here := studies.study_name(job.records.name, plan)) != name:
        raise LookupError(
            f"study {name!r} was made of another design: from this checkout, on this machine, "
            f"the sweep {job.sweep!r} at scale {job.scale!r} makes {here!r}"
        )
    study.pruner = plan.pruner()
    _make_ready(job, plan, console)
    work(job, plan, study, console)


def look(folder: Path, scale: str, *, storage: str) -> list[tuple[str, Callable[[], Status]]]:
    """Return the studies of the sweep in `folder` at `scale`, and what tells how each stands.

    Raises LookupError where there is none.
    """
    command = shlex.join(
        ["python", "-m", "sweeps", "retry", folder.name, "--scale", scale]
        + ([] if folder.parent == results.LOCAL else ["--results", str(folder.parent)])
        + (["--storage", shown(storage)] if storage else [])
    )
    return [
        (study.study_name, _status_of(study, command))
        for study in looked_up(folder, scale, storage=storage)
    ]


def looked_up(folder: Path, scale: str, *, storage: str) -> list[Study]:
    """Return the studies of the sweep in `folder` at `scale`; LookupError where there is none."""
    url = storage or studies.sqlite_url(folder)
    opened = open_storage(url)
    names = [name for name in optuna.get_all_study_names(opened) if _is_of(name, folder, scale)]
    if not names:
        raise LookupError(
            f"there is no study of {folder.name!r} at scale {scale!r} at {shown(url)}; "
            f"`python -m sweeps run` makes it"
        )
    return [optuna.load_study(study_name=name, storage=opened) for name in names]


def retry(folder: Path, scale: str, *, storage: str, console: Console) -> None:
    """Let the runs of `folder` at `scale` be tried again that failed as often as they may.

    Their records stay. Raises LookupError where there is no study.
    """
    found = looked_up(folder, scale, storage=storage)
    ledger, excused = Ledger(folder), retries.forgiven(folder)
    again = {
        run_id: len(attempts)
        for run_id, attempts in ledger.by_run().items()
        if attempts[0].scale == scale
        and not any(record.outcome.settled for record in attempts)
        and not retries.is_open(attempts, excused.get(run_id, 0))
    }
    if not again:
        console.print(f"no trial of {folder.name} at scale {scale} has failed for good")
        return
    retries.forgive(folder, again)
    for study in found:
        job = jobs.of_study(study)
        studies.restore(study, job.plan(), ledger, retried=True)
    console.print(f"{len(again)} trials wait to be tried again: {', '.join(sorted(again))}")
    console.print("the command that ran them, or `python -m sweeps worker`, goes on with them")


def _is_of(name: str, folder: Path, scale: str) -> bool:
    return name.rpartition("-")[0] == f"{folder.name}-{scale}"


def _status_of(study: Study, retry: str) -> Callable[[], Status]:
    job = jobs.of_study(study)
    ledger, plan = Ledger(job.records), job.plan()
    match plan:
        case Grid():
            return lambda: replace(status.of_grid(study, plan.points, ledger), retry=retry)
        case Hunt():
            names = [objective.name for objective in plan.search.objectives]
            return lambda: replace(status.of_search(study, names, ledger), retry=retry)
        case _:
            raise TypeError(f"no status for a {type(plan).__name__}")


def submit_workers(
    name: str, *, storage: str, workers: int, folder: Path, options: Mapping[str, str]
) -> list[str]:
    """Submit workers on the study `name` to Slurm; return their job numbers.

    `folder` gets their logs. Raises ValueError for a storage that other machines cannot reach.
    """
    if not storage or storage.startswith("sqlite"):
        raise ValueError(
            "submit: workers on other machines need --storage with a server, "
            "such as postgresql+psycopg://USER@HOST/NAME or grpc://HOST:PORT"
        )
    command = [sys.executable, "-m", "sweeps", "worker", name, "--storage", storage]
    typed: dict[str, Any] = {
        key: int(value) if value.isdecimal() else value for key, value in options.items()
    }
    return [job.job_id for job in submit(command, workers, folder=folder, **typed)]


def work(job: Job, plan: Plan, study: Study, console: Console) -> None:
    """Work on the study in this process, with progress, until its plan is done."""
    done = len(studies.settled_places(study, plan))
    with SweepProgress(console, len(plan.places()), done) as progress:
        worker = Worker(study=study, plan=plan, ledger=Ledger(job.records), terms=job.terms)
        try:
            with termination_as_interrupt():
                worker.work(progress)
        except KeyboardInterrupt:
            console.print("stopped; finished trials are kept, the same command goes on from here")
            raise SystemExit(130) from None


def rebuild(job: Job, *, storage: str, console: Console) -> None:
    """Make the study anew from the records alone; trials that were running are forgotten."""
    job = jobs.fixed(job)
    plan, ledger = job.plan(), Ledger(job.records)
    opened = open_storage(storage or studies.sqlite_url(job.records))
    name = studies.study_name(job.records.name, plan)
    if name in optuna.get_all_study_names(opened):
        optuna.delete_study(study_name=name, storage=opened)
    study = studies.open_study(name, opened, plan)
    jobs.keep(job)
    jobs.attach(study, job)
    waiting = studies.restore(study, plan, ledger)
    told = len(study.get_trials(deepcopy=False)) - waiting
    console.print(
        f"study {name}: {told} trials from {len(ledger.records())} records, {waiting} to run"
    )


def show(plan: Plan, ledger: Ledger, console: Console) -> None:
    """Print what the records tell of this plan and save its figures beside them."""
    shown, paths = report.of_plan(plan, ledger)
    console.print(shown)
    for path in paths:
        console.print(f"wrote {path}", highlight=False)
    console.print(
        f"records: {ledger.folder}; in Python: sweeps.results.load({ledger.folder.name!r})"
    )


def _make_ready(job: Job, plan: Plan, console: Console) -> None:
    """Make the tokens that trials read, before any trial is timed, and check what is recorded."""
    logging.getLogger("sweeps.trial.data").setLevel(logging.INFO)
    for line in readiness.make_ready(job, plan):
        console.print(line, highlight=False, soft_wrap=True)


def _gpus(job: Job) -> Sequence[str]:
    return visible_gpus() if job.engine.device == "cuda" else ()
