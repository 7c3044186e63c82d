"""What tests of sweeps share: a small job, workers on it, and watchers that kill."""

import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
from optuna.trial import TrialState

from sweeps import results
from sweeps.study import studies
from sweeps.study.storage import open_storage
from sweeps.sweep import Point
from sweeps.trial import records
from sweeps.trial.data.sources import TextFile
from sweeps.trial.engine import Engine
from sweeps.trial.events import Event
from sweeps.trial.record import Outcome, Record
from sweeps.trial.records import Ledger
from sweeps.workers import jobs
from sweeps.workers.jobs import Job, Terms
from sweeps.workers.server import process_context
from sweeps.workers.worker import Worker
from tests import tiny_sweep

FILE = str(Path(tiny_sweep.__file__))
PLACES = 4
GRACE_SECONDS = 4.0
EVERY_STEP = Terms(checkpoint_seconds=0)


def job(folder: Path, source: TextFile, **changes) -> Job:
    made = Job(
        sweep=FILE,
        scale="smoke",
        source=source,
        engine=jobs.resolved(Engine(device="cpu")),
        folder=str(folder / "tiny"),
        terms=EVERY_STEP,
    )
    return replace(made, **changes)


def worker(made: Job, url: str = "") -> Worker:
    plan, ledger = made.plan(), Ledger(made.records)
    made.records.mkdir(parents=True, exist_ok=True)
    storage = open_storage(url or studies.sqlite_url(made.records))
    study = studies.open_study(studies.study_name("tiny", plan), storage, plan)
    jobs.attach(study, made)
    studies.restore(study, plan, ledger)
    return Worker(study=study, plan=plan, ledger=ledger, terms=made.terms, grace_s=GRACE_SECONDS)


def forget_study(made: Job) -> None:
    """Remove the study's files: the database and what SQLite keeps beside it."""
    for path in made.records.glob("study.sqlite3*"):
        path.unlink()


class Killer:
    """A watcher that kills its own process, without a word, when `when` says so."""

    def __init__(self, when: Callable[[str], bool] = lambda moment: False):
        self.when = when

    def _at(self, moment: str) -> None:
        if self.when(moment):
            os.kill(os.getpid(), signal.SIGKILL)

    def started(self, point: Point) -> None:
        self._at("started")

    def doing(self, what: str) -> None:
        pass

    def event(self, event: Event) -> None:
        self._at("event")

    def ended(self, record: Record) -> None:
        self._at("recorded")  # and not told yet

    def settled(self, places: int) -> None:
        self._at("told")

    def waiting(self, others: int) -> None:
        pass


class At:
    """True at the n-th time that a moment comes."""

    def __init__(self, moment: str, n: int):
        self.moment, self.left = moment, n

    def __call__(self, moment: str) -> bool:
        self.left -= moment == self.moment
        return self.left == 0 and moment == self.moment


def work(made: Job, url: str = "", when: Callable[[str], bool] | None = None) -> None:
    """Be a worker; runs in a process of its own, which may die."""
    worker(made, url).work(Killer(when) if when else Killer())


def in_process(made: Job, url: str = "", when: Callable[[str], bool] | None = None):
    process = process_context().Process(target=work, args=(made, url, when))
    process.start()
    return process


def finished(made: Job, url: str = "") -> list[Record]:
    """Work until nothing is left; check that every place is there once, and return the records."""
    worker(made, url).work(Killer())
    found = records.read(made.records)
    complete = Counter(r.run_id for r in found if r.outcome is Outcome.COMPLETE)
    plan = made.plan()
    assert complete == dict.fromkeys(plan.places(), 1), (complete, list(plan.places()))
    assert list(made.records.rglob(".*.tmp")) == []
    study = worker(made, url).study
    told = [t for t in study.trials if t.state is TrialState.COMPLETE]
    assert Counter(t.user_attrs["place"] for t in told) == dict.fromkeys(plan.places(), 1)
    assert not study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))
    return found


def curves(made: Job) -> pd.DataFrame:
    """Return the curves but for what a clock says."""
    table = results.curves("tiny", folder=made.records.parent)
    kept = table.drop(columns=["seconds", "attempt"]).sort_values(["run_id", "step"])
    return kept.reset_index(drop=True)


class Notes(Killer):
    """A watcher that remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.points: list[tuple[str, int]] = []
        self.records: list[Record] = []
        self.done = 0

    def started(self, point: Point) -> None:
        self.points.append((point.arm, point.seed))

    def ended(self, record: Record) -> None:
        self.records.append(record)

    def settled(self, places: int) -> None:
        self.done = places
