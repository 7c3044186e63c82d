"""What may go wrong while a sweep runs, really done: nothing is lost, torn or doubled."""

import random
import signal
import subprocess
import sys
import time

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

from sweeps import folders
from sweeps.study import studies
from sweeps.study.queue import Queue
from sweeps.study.storage import open_storage
from sweeps.trial import records
from sweeps.trial.data.streams import pinned
from sweeps.trial.record import Outcome
from sweeps.workers import worker as workers
from sweeps.workers.jobs import Job
from tests.faults import Harm
from tests.workers import (
    FILE,
    PLACES,
    At,
    Killer,
    Notes,
    curves,
    finished,
    forget_study,
    in_process,
    job,
    worker,
)

SEEN: dict[str, pd.DataFrame] = {}


@pytest.fixture
def undisturbed(tmp_path_factory, source) -> pd.DataFrame:
    """The curves of the sweep when nothing goes wrong; run once."""
    if "curves" not in SEEN:
        made = job(tmp_path_factory.mktemp("undisturbed"), source)
        finished(made)
        SEEN["curves"] = curves(made)
    return SEEN["curves"]


MOMENTS = [
    At("event", 4),
    At("recorded", 1),
    *(
        pytest.param(when, marks=pytest.mark.slow)
        for when in (At("started", 1), At("event", 1), At("recorded", 3), At("told", 2))
    ),
]


@pytest.mark.parametrize("when", MOMENTS, ids=lambda at: f"{at.moment}{at.left}")
def test_a_worker_killed_at_a_moment_loses_and_doubles_nothing(tmp_path, source, undisturbed, when):
    made = job(tmp_path, source)
    process = in_process(made, when=when)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    finished(made)
    pd.testing.assert_frame_equal(curves(made), undisturbed)


def steps_written(made: Job) -> int:
    return sum(path.read_text().count("\n") for path in made.records.rglob("curve.csv"))


@pytest.mark.slow
def test_workers_killed_at_random_moments_lose_and_double_nothing(tmp_path, source, undisturbed):
    made, draws = job(tmp_path, source), random.Random(0)
    for longest_s, training in ((3.0, False), (0.5, True)) * 3:
        before, process = steps_written(made), in_process(made)
        while training and steps_written(made) == before and process.is_alive():
            time.sleep(0.01)
        time.sleep(draws.uniform(0.0, longest_s))
        process.kill()
        process.join()
    finished(made)
    pd.testing.assert_frame_equal(curves(made), undisturbed)


def test_a_worker_that_dies_between_two_parameters_of_a_choice_loses_no_place(tmp_path, source):
    made = job(tmp_path, source)
    study, arms = (
        worker(made).study,
        list(dict.fromkeys(p.arm for p in made.plan().points.values())),
    )
    for _ in range(PLACES):
        Queue(study).claim().suggest_categorical("arm", arms)  # and no seed
    finished(made)


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


@pytest.mark.slow
def test_ctrl_c_ends_cleanly_says_how_to_go_on_and_does_go_on(tmp_path, source):
    command = [
        *(sys.executable, "-m", "sweeps", "run", FILE, "--scale", "many", "--device", "cpu"),
        *("--text", source.path, "--results", str(tmp_path)),
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Also where these tests were started in the background, which ignores it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    home = folders.to_run(tmp_path, "tiny", pinned(source))
    folder = home / "trials"
    while not folder.is_dir() or not list(folder.glob("*.parquet")):
        time.sleep(0.1)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from here" in said
    assert "Traceback" not in said
    before = {r.run_id for r in records.read(home)}
    study = optuna.load_study(study_name=None, storage=open_storage(studies.sqlite_url(home)))
    assert not study.get_trials(states=(TrialState.RUNNING,))
    waiting = study.get_trials(states=(TrialState.WAITING,))
    # One more where Ctrl-C came between a record and its telling.
    assert 40 <= len(waiting) + len(before) <= 41


def test_a_run_that_fails_the_same_way_twice_is_left(tmp_path):
    made = job(tmp_path, Harm(fault="refuse"))
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
    forget_study(made)
    assert len(finished(made)) == PLACES


def test_what_the_killed_left_of_runs_that_are_over_goes_and_the_rest_stays(tmp_path, source):
    made = job(tmp_path, source)
    finished(made)
    over, open_ = (made.records / "runs" / name for name in (over_of(made), "another-0"))
    for home in (over, open_):
        (home / "checkpoint").mkdir(parents=True)
        (home / "checkpoint" / "state.safetensors").touch()
        (home / "checkpoint" / ".state.safetensors.1.tmp").touch()
        (home / "config.json.1.tmp").touch()
    worker(made).work(Killer())
    assert {p.name for p in over.iterdir()} == {"config.json", "curve.csv", "log.txt"}
    assert len([p for p in open_.rglob("*") if p.is_file()]) == 3


def over_of(made: Job) -> str:
    """Return the name of the folder of a run that is complete."""
    record = records.read(made.records)[0]
    return f"{record.run_id}-{record.attempt}"


class Jumps:
    """Moves the clock of this process by days, to and fro, each time it is asked."""

    def __init__(self, monkeypatch):
        self.patch, self.real, self.days = monkeypatch, time.time, 1

    def __call__(self, moment: str) -> bool:
        self.days = -2 * self.days if abs(self.days) < 64 else 1
        self.patch.setattr(time, "time", lambda days=self.days: self.real() + days * 86_400)
        return False


def test_a_worker_whose_clock_jumps_loses_and_doubles_nothing(
    tmp_path, source, undisturbed, monkeypatch
):
    made = job(tmp_path, source)
    jumps = Jumps(monkeypatch)
    worker(made).work(Killer(jumps))
    assert jumps.days != 1
    assert len(finished(made)) == PLACES
    pd.testing.assert_frame_equal(curves(made), undisturbed)


@pytest.mark.service
def test_the_database_goes_away_and_comes_back(tmp_path, source, postgres, undisturbed):
    made, url = job(tmp_path, source), postgres.new_database("away")
    worker(made, url)
    process = in_process(made, url)
    for _ in range(3):
        time.sleep(1.0)
        postgres.stop()
        time.sleep(2.0)
        postgres.start()
    process.join()
    assert process.exitcode == 0
    finished(made, url)
    pd.testing.assert_frame_equal(curves(made), undisturbed)


@pytest.mark.slow
def test_a_place_that_kills_its_workers_is_given_up(tmp_path, source, monkeypatch):
    monkeypatch.setattr(workers, "DEATHS", 1)
    made = job(tmp_path, source)
    in_process(made, when=At("event", 1)).join()
    worker(made).work(Notes())
    found = records.read(made.records)
    crashed = [r for r in found if r.outcome is Outcome.CRASHED]
    assert [(r.arm, r.seed, r.attempt) for r in crashed] == [("h", 0, 0), ("h", 0, 1)]
    assert "1 workers or more died" in crashed[0].error
    assert len([r for r in found if r.outcome is Outcome.COMPLETE]) == PLACES - 1
