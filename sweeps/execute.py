"""A sweep from the first trial to table and figure: what `python -m sweeps run` and `worker` do."""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.study import Study
from rich.console import Console

from sweeps import late_terms
from sweeps.plans.grid import Grid
from sweeps.plans.plan import Plan
from sweeps.plans.search import Hunt
from sweeps.show import report
from sweeps.show.progress import SweepProgress
from sweeps.study import status, studies
from sweeps.study.status import Status
from sweeps.study.storage import open_storage, shown
from sweeps.terminal import termination_as_interrupt
from sweeps.trial.data.documents import Split
from sweeps.trial.data.streams import open_tokens
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
    job = replace(job, engine=jobs.resolved(job.engine))
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
    if lost := studies.given_up(study, plan):
        console.print(lost, highlight=False, soft_wrap=True)
    show(plan, Ledger(job.records), console)


def prepare(job: Job, plan: Plan, storage: BaseStorage, console: Console) -> Study:
    """Make or find the study and let wait what is left to do. Text and kernels are made ready."""
    server.begin_loading()
    _open_texts(job, plan, console)
    study = studies.open_study(studies.study_name(job.records.name, plan), storage, plan)
    ledger = Ledger(job.records)
    late = [*late_terms.of_running(job, study), *late_terms.of_finished(job, plan, ledger)]
    jobs.attach(study, job)
    if cancelled := studies.cancel_beyond(study, plan):
        late.append(f"{cancelled} waiting trials are cancelled: the search has fewer places now")
    studies.restore(study, plan, ledger)
    if isinstance(plan, Hunt):
        late += [f"not taken over: {said}" for said in studies.left_out(plan, ledger)]
    for sentence in late:
        console.print(sentence, highlight=False, soft_wrap=True)
    process.warm_up(job.engine)
    return study


def help_with(name: str, *, storage: str, folder: Path, console: Console) -> None:
    """Be one worker on the study `name`, made elsewhere or before, until its plan is done.

    `storage` "" is the SQLite file beside the records in `folder`. Raises LookupError where the
    study is not there or was made of another plan than this checkout's.
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
    work(job, plan, study, console)


def look(folder: Path, scale: str, *, storage: str) -> list[tuple[str, Callable[[], Status]]]:
    """Return the studies of the sweep in `folder` at `scale`, and what tells how each stands.

    Raises LookupError where there is none.
    """
    url = storage or studies.sqlite_url(folder)
    opened = open_storage(url)
    names = [name for name in optuna.get_all_study_names(opened) if _is_of(name, folder, scale)]
    if not names:
        raise LookupError(
            f"there is no study of {folder.name!r} at scale {scale!r} at {shown(url)}; "
            f"`python -m sweeps run` makes it"
        )
    return [
        (name, _status_of(optuna.load_study(study_name=name, storage=opened))) for name in names
    ]


def _is_of(name: str, folder: Path, scale: str) -> bool:
    return name.rpartition("-")[0] == f"{folder.name}-{scale}"


def _status_of(study: Study) -> Callable[[], Status]:
    job = jobs.of_study(study)
    ledger, plan = Ledger(job.records), job.plan()
    match plan:
        case Grid():
            return lambda: status.of_grid(study, plan.points, ledger)
        case Hunt():
            names = [objective.name for objective in plan.search.objectives]
            return lambda: status.of_search(study, names, ledger)
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
    job = replace(job, engine=jobs.resolved(job.engine))
    plan, ledger = job.plan(), Ledger(job.records)
    opened = open_storage(storage or studies.sqlite_url(job.records))
    name = studies.study_name(job.records.name, plan)
    if name in optuna.get_all_study_names(opened):
        optuna.delete_study(study_name=name, storage=opened)
    study = studies.open_study(name, opened, plan)
    jobs.attach(study, job)
    waiting = studies.restore(study, plan, ledger)
    told = len(study.get_trials(deepcopy=False)) - waiting
    console.print(
        f"study {name}: {told} trials from {len(ledger.records())} records, {waiting} to run"
    )


def show(plan: Plan, ledger: Ledger, console: Console) -> None:
    """Print what the records tell of this plan, then save its figures beside them."""
    found = report.of_plan(plan, ledger)
    console.print(found.table())
    for path in found.draw():
        console.print(f"wrote {path}", highlight=False)
    console.print(
        f"records: {ledger.folder}; in Python: sweeps.results.load({ledger.folder.name!r})"
    )


def _open_texts(job: Job, plan: Plan, console: Console) -> None:
    """Make the tokens that trials read, before any trial is timed."""
    logging.getLogger("sweeps.trial.data").setLevel(logging.INFO)
    console.print("preparing text and kernels (about a minute the first time)")
    for vocab in plan.vocabularies():
        tokens = open_tokens(job.source, vocab)
        seen = ", ".join(f"{d} {tokens.streams[d][Split.TRAIN].tokens:,}" for d in tokens.domains)
        console.print(f"training tokens: {seen}", highlight=False)


def _gpus(job: Job) -> Sequence[str]:
    return visible_gpus() if job.engine.device == "cuda" else ()
