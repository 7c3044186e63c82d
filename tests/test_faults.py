"""What may go wrong while a sweep runs, really done: nothing is lost, torn or doubled."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState
from sweeps.trial.ledger import Ledger

from sweeps import jobs, results, studies
from sweeps.execute import Job
from sweeps.jobs import Terms
from sweeps.process import process_context
from sweeps.storage import open_storage
from sweeps.sweep import Point
from sweeps.trial import record as records
from sweeps.trial.data.sources import TextFile
from sweeps.trial.engine import Engine
from sweeps.trial.events import Event
from sweeps.trial.record import Outcome, Record
from sweeps.worker import Worker
from tests import tiny_sweep

FILE = str(Path(tiny_sweep.__file__))
PLACES = 4
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
    storage = open_storage(url or studies.sqlite_url(made.records))
    study = studies.open_study(studies.study_name("tiny", plan), storage, plan)
    jobs.attach(study, made)
    studies.restore(study, plan, ledger)
    return Worker(study=study, plan=plan, ledger=ledger, terms=made.terms)


class Killer:
    """A watcher that kills its own process, without a word, when `when` says so."""

    def __init__(self, when: Callable[[str], bool] = lambda moment: False):
        self.when = when

    def _at(self, moment: str) -> None:
        if self.when(moment):
            os.kill(os.getpid(), signal.SIGKILL)

    def started(self, point: Point) -> None:
        self._at("started")

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
    assert complete == dict.fromkeys(plan.places(), 1)
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


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, source) -> pd.DataFrame:
    made = job(tmp_path_factory.mktemp("undisturbed"), source)
    finished(made)
    return curves(made)


MOMENTS = [
    At("started", 1),
    At("event", 1),
    At("event", 4),
    At("recorded", 1),
    At("recorded", 3),
    At("told", 2),
]


@pytest.mark.parametrize("when", MOMENTS, ids=lambda at: f"{at.moment}{at.left}")
def test_a_worker_killed_at_a_moment_loses_and_doubles_nothing(tmp_path, source, undisturbed, when):
    made = job(tmp_path, source)
    process = in_process(made, when=when)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    finished(made)
    pd.testing.assert_frame_equal(curves(made), undisturbed)


def test_workers_killed_at_random_moments_lose_and_double_nothing(tmp_path, source, undisturbed):
    made, draws = job(tmp_path, source), random.Random(0)
    for _ in range(6):
        process = in_process(made)
        time.sleep(draws.uniform(0.2, 3.0))
        process.kill()
        process.join()
    finished(made)
    pd.testing.assert_frame_equal(curves(made), undisturbed)


def test_two_workers_share_a_study(tmp_path, source, undisturbed):
    made = job(tmp_path, source)
    worker(made)  # makes the study
    pair = [in_process(made) for _ in range(2)]
    for process in pair:
        process.join()
    assert [p.exitcode for p in pair] == [0, 0]
    found = finished(made)
    assert len(found) == PLACES  # nobody did anything twice
    pd.testing.assert_frame_equal(curves(made), undisturbed)


def test_ctrl_c_ends_cleanly_says_how_to_go_on_and_does_go_on(tmp_path, source):
    command = [
        *(sys.executable, "-m", "sweeps", "run", FILE, "--scale", "many", "--device", "cpu"),
        *("--text", source.path, "--results", str(tmp_path)),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    folder = tmp_path / "tiny-tale" / "trials"
    while not folder.is_dir() or not list(folder.glob("*.parquet")):
        time.sleep(0.1)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from here" in said
    assert "Traceback" not in said
    before = {r.run_id for r in records.read(tmp_path / "tiny-tale")}
    study = optuna.load_study(
        study_name=None, storage=open_storage(studies.sqlite_url(tmp_path / "tiny-tale"))
    )
    assert not study.get_trials(states=(TrialState.RUNNING,))
    waiting = study.get_trials(states=(TrialState.WAITING,))
    assert len(waiting) + len(before) == 40


def test_a_run_that_fails_the_same_way_twice_is_left(tmp_path):
    made = job(tmp_path, TextFile(path="nowhere.txt"))
    worker(made).work(Killer())
    found = records.read(made.records)
    assert [r.outcome for r in found] == [Outcome.FAILED] * 2 * PLACES
    assert sorted(r.attempt for r in found) == [0] * PLACES + [1] * PLACES
    again = worker(made)
    again.work(Killer())
    assert len(records.read(made.records)) == 2 * PLACES


def test_a_lost_study_is_rebuilt_from_the_records(tmp_path, source):
    made = job(tmp_path, source)
    finished(made)
    (made.records / "study.sqlite3").unlink()
    assert len(finished(made)) == PLACES


def test_the_database_goes_away_and_comes_back(tmp_path, source, postgres, undisturbed):
    made = job(tmp_path, source)
    worker(made, postgres.url)
    process = in_process(made, postgres.url)
    for _ in range(3):
        time.sleep(1.0)
        postgres.stop()
        time.sleep(2.0)
        postgres.start()
    process.join()
    assert process.exitcode == 0
    finished(made, postgres.url)
    pd.testing.assert_frame_equal(curves(made), undisturbed)
