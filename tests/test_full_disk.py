"""The disk of records and study fills up: one sentence, nothing torn, and work goes on later."""

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.study import Study
from optuna.trial import TrialState

from sweeps import folders
from sweeps.study import studies
from sweeps.study.patient import StorageAway
from sweeps.study.replay import PLACE
from sweeps.study.storage import open_storage
from sweeps.trial import records
from sweeps.trial.data.sources import TextFile
from sweeps.trial.data.streams import pinned
from sweeps.trial.record import Outcome
from sweeps.workers.jobs import Job
from tests.disks import fill, make_room, mounted
from tests.workers import FILE, job

SCALE = "long"
SECONDS = 300  # for what ends by itself; less than the study is waited for


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A file system with room for a study and some records."""
    with mounted(tmp_path / "disk", "16m") as folder:
        yield folder


def new_study(disk: Path, patience_s: float) -> Study:
    storage = open_storage(studies.sqlite_url(disk), patience_s=patience_s)
    sampler = optuna.samplers.RandomSampler(seed=0)
    return optuna.create_study(storage=storage, study_name="s", sampler=sampler)


def states(study: Study) -> list[TrialState]:
    return [trial.state for trial in study.trials]


def test_a_study_that_finds_no_room_is_named_and_stays_whole(disk):
    study = new_study(disk, patience_s=0.5)
    study.tell(study.ask(), 1.0)
    trial = study.ask()
    fill(disk, leave_bytes=0)
    with pytest.raises(StorageAway, match=rf"{disk}/study.sqlite3 .*: database or disk is full"):
        study.tell(trial, 2.0)
    make_room(disk)
    assert states(study) == [TrialState.COMPLETE, TrialState.RUNNING]
    study.tell(trial, 2.0)
    assert states(study) == [TrialState.COMPLETE] * 2


def test_a_study_goes_on_by_itself_when_room_is_made(disk, caplog):
    study = new_study(disk, patience_s=SECONDS)
    trial = study.ask()
    fill(disk, leave_bytes=0)
    room = threading.Timer(1.0, make_room, [disk])
    room.start()
    try:
        study.tell(trial, 1.0)
    finally:
        room.join()
    assert states(study) == [TrialState.COMPLETE]
    assert "is away (database or disk is full)" in caplog.text
    assert "is back" in caplog.text


@contextmanager
def running(source: TextFile, disk: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the sweep in a process, which does not outlive the block."""
    command = [
        *(sys.executable, "-m", "sweeps", "run", FILE, "--scale", SCALE, "--device", "cpu"),
        *("--text", source.path, "--results", str(disk)),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_steps(disk: Path, worker: subprocess.Popen[str], steps: int) -> None:
    while sum(path.read_text().count("\n") - 1 for path in disk.rglob("curve.csv")) < steps:
        assert worker.poll() is None, worker.communicate()
        time.sleep(0.02)


def assert_complete_once(made: Job) -> None:
    """Check that every place has one record and one finished trial, and that nothing is left."""
    places = dict.fromkeys(made.plan().places(), 1)
    found = records.read(made.records)
    assert [r.outcome for r in found] == [Outcome.COMPLETE] * len(places)
    assert Counter(r.run_id for r in found) == places
    url = studies.sqlite_url(made.records)
    study = optuna.load_study(study_name=None, storage=open_storage(url))
    told = study.get_trials(states=(TrialState.COMPLETE,))
    assert Counter(t.user_attrs[PLACE] for t in told) == places
    assert not study.get_trials(states=studies.OPEN_STATES)


@pytest.mark.slow
def test_a_worker_on_a_full_disk_ends_with_one_sentence_and_its_command_goes_on(disk, source):
    source = pinned(source)
    folder = folders.to_run(disk, "tiny", source)
    made = replace(job(disk, source, scale=SCALE), folder=str(folder))
    with running(source, disk) as worker:
        wait_for_steps(disk, worker, 3)
        fill(disk, leave_bytes=0)
        said, _ = worker.communicate(timeout=SECONDS)
    assert worker.returncode == 2, said
    (sentence,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert f"cannot be written into {made.records}: " in sentence
    assert "No space left on device" in sentence
    assert "Traceback" not in said
    assert records.read(made.records) == []
    assert [path for kind in ("trials", "curves") for path in disk.rglob(f"{kind}/*")] == []
    make_room(disk)
    with running(source, disk) as again:
        said, _ = again.communicate(timeout=SECONDS)
    assert again.returncode == 0, said
    assert_complete_once(made)
