"""A sweep from the first trial to table and figure: what `python -m sweeps run` and `worker` do."""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.study import Study
from rich.console import Console

from sweeps import late_terms, options, readiness
from sweeps.command_line import command, retry_command
from sweeps.plans.grid import Grid
from sweeps.plans.plan import Plan
from sweeps.plans.search import Hunt
from sweeps.show import report
from sweeps.show.progress import SweepProgress
from sweeps.study import retries, status, studies
from sweeps.study.status import Status
from sweeps.study.storage import absolute, open_storage, shown
from sweeps.terminal import termination_as_interrupt
from sweeps.trial.progress_log import saying
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
    options.check_backend(job.engine.ops, job.engine.device)
    job = jobs.fixed(job)
    plan = job.plan()
    plan.places()  # a wrong design raises before a file is made
    url = url_of(job, storage)
    study = prepare(job, plan, url, console)
    if workers == 0:
        said = command("sweeps", "worker", study.study_name, "--storage", shown(url))
        console.print(
            f"the study waits for workers: {said}", highlight=False, soft_wrap=True, markup=False
        )
        return
    words = ["worker", study.study_name, "--storage", url]
    if workers == 1:
        work(job, plan, study, console)
    elif failed := launch([sys.executable, "-m", "sweeps", *words], workers, gpus=_gpus(job)):
        raise SystemExit(failed)
    if lost := studies.given_up(study, plan):
        console.print(lost, highlight=False, soft_wrap=True)
    show(plan, Ledger(job.records), console)


def url_of(job: Job, storage: str) -> str:
    """Return the URL of a job's storage, which means the same in every folder.

    Raises ValueError for one that is of no known form.
    """
    return absolute(storage) if storage else studies.sqlite_url(job.records)


def prepare(job: Job, plan: Plan, url: str, console: Console) -> Study:
    """Make or find the study and let wait what is left to do. Text and kernels are made ready.

    Nothing is made before the text is: a text that is refused leaves no study.
    """
    plan.places()
    server.begin_loading()
    _make_ready(job, plan, console)
    with saying("making the study and compiling kernels", _line(console)):
        jobs.keep(job)
        return _prepared(job, plan, url, _line(console))


def _prepared(job: Job, plan: Plan, url: str, say: Callable[[str], None]) -> Study:
    storage = _made(job, url)
    study = studies.open_study(studies.study_name(job.records.name, plan), storage, plan)
    ledger = Ledger(job.records)
    late = [*late_terms.of_running(job, study), *late_terms.of_finished(job, plan, ledger, url)]
    jobs.attach(study, job)
    if cancelled := studies.cancel_beyond(study, plan):
        late.append(f"{cancelled} waiting trials are cancelled: the search has fewer places now")
    studies.restore(study, plan, ledger)
    if isinstance(plan, Hunt):
        late += [f"not taken over: {said}" for said in studies.left_out(plan, ledger)]
    for sentence in late:
        say(sentence)
    process.warm_up(job.engine)
    return study


def _made(job: Job, url: str) -> BaseStorage:
    """Return the storage at `url`, made with the folder of the records if they are not there."""
    job.records.mkdir(parents=True, exist_ok=True)
    return open_storage(url)


def help_with(name: str, *, storage: str, folder: Path, console: Console) -> None:
    """Be one worker on the study `name`, made elsewhere or before, until its plan is done.

    `storage` "" is the SQLite file beside the records of a sweep in `folder`. Raises LookupError
    where the study is not there or was made of another plan than this checkout's, and takes no
    trial where the job's text or its folder of records is not here (OtherText, OSError) or this
    machine computes otherwise (ValueError).
    """
    study = _load(name, storage) if storage else _found(name, folder)
    job = jobs.of_study(study)
    jobs.require_folder(job)
    plan = job.plan()
    if (here := studies.study_name(job.records.name, plan)) != name:
        raise LookupError(
            f"study {name!r} was made of another design: from this checkout, on this machine, "
            f"the sweep {job.sweep!r} at scale {job.scale!r} makes {here!r}"
        )
    study.pruner = plan.pruner()
    _make_ready(job, plan, console)
    work(job, plan, study, console)


def _load(name: str, url: str) -> Study:
    try:
        return optuna.load_study(study_name=name, storage=open_storage(url, make=False))
    except KeyError:
        raise LookupError(
            f"there is no study {name!r} at {shown(url)}; `python -m sweeps run` makes it"
        ) from None


def _found(name: str, folder: Path) -> Study:
    """Return the study `name`, whichever sweep in `folder` it is beside."""
    files = sorted(folder.glob(f"*/{studies.SQLITE}"))
    # A study's name begins with its folder's unless somebody has renamed that.
    for file in sorted(files, key=lambda file: not name.startswith(f"{file.parent.name}-")):
        with suppress(LookupError):
            return _load(name, studies.sqlite_url(file.parent))
    raise LookupError(
        f"there is no study {name!r} beside the sweeps in {folder}; "
        "`python -m sweeps run` makes it, and `--results` or `--storage` says where it is"
    )


def look(folder: Path, scale: str, *, storage: str) -> list[tuple[str, Callable[[], Status]]]:
    """Return the studies of the sweep in `folder` at `scale`, and what tells how each stands.

    Raises LookupError where there is none.
    """
    again = retry_command(folder, scale, shown(absolute(storage)) if storage else "")
    return [
        (study.study_name, _status_of(study, again))
        for study in looked_up(folder, scale, storage=storage)
    ]


def looked_up(folder: Path, scale: str, *, storage: str) -> list[Study]:
    """Return the studies of the sweep in `folder` at `scale`; LookupError where there is none."""
    url = storage or studies.sqlite_url(folder)
    opened = open_storage(url, make=False)
    summaries = optuna.get_all_study_summaries(opened, include_best_trial=False)
    names = [x.study_name for x in summaries if jobs.is_of(x.user_attrs, folder.name, scale)]
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
    options.check_backend(job.engine.ops, job.engine.device)
    job = jobs.fixed(job)
    plan, ledger = job.plan(), Ledger(job.records)
    url = url_of(job, storage)
    name = studies.study_name(job.records.name, plan)  # a wrong design raises before a file is made
    opened = _made(job, url)
    if name in optuna.get_all_study_names(opened):
        optuna.delete_study(study_name=name, storage=opened)
    study = studies.open_study(name, opened, plan)
    jobs.keep(job)
    jobs.attach(study, job)
    waiting = studies.restore(study, plan, ledger)
    told = len(study.get_trials(deepcopy=False)) - waiting
    console.print(
        f"study {name}: {told} trials from {len(ledger.records())} records, {waiting} to run",
        markup=False,
    )


def show(plan: Plan, ledger: Ledger, console: Console) -> None:
    """Print what the records tell of this plan, then save its figures beside them."""
    found = report.of_plan(plan, ledger)
    console.print(found.table())
    for path in found.draw():
        console.print(f"wrote {path}", highlight=False, markup=False)
    console.print(
        f"records: {ledger.folder}; in Python: sweeps.results.load({ledger.folder.name!r}, "
        f"folder={str(ledger.folder.parent)!r})",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _make_ready(job: Job, plan: Plan, console: Console) -> None:
    """Make the tokens that trials read, before any trial is timed, and check what is recorded."""
    logging.getLogger("sweeps.trial.data").setLevel(logging.INFO)
    console.print("preparing text and kernels (what is made is kept for the next time)")
    with saying("reading text and making its vocabulary", _line(console)):
        for line in readiness.make_ready(job, plan):
            console.print(line, highlight=False, soft_wrap=True)


def _line(console: Console) -> Callable[[str], None]:
    """Return what prints a line as it is."""
    return lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True)


def _gpus(job: Job) -> Sequence[str]:
    return visible_gpus() if job.engine.device == "cuda" else ()
