"""A storage of any kind: one contract, kept also while the database is away and back.

One file: every kind of storage goes through the whole contract.
"""

import builtins
import json
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import Study
from optuna.trial import TrialState
from sqlalchemy import exc

from sweeps.study import beat, proxy
from sweeps.study.beat import Beat, Place, Watchman
from sweeps.study.patient import Patience, PatientStorage, SharedReads, StorageAway
from sweeps.study.queue import Queue
from sweeps.study.storage import absolute, open_storage, parse, shown
from tests import services

STORAGES = [
    "sqlite",
    pytest.param("postgres", marks=pytest.mark.service),
    pytest.param("proxy", marks=pytest.mark.service),
]


@pytest.fixture(params=STORAGES)
def url(request, tmp_path) -> str:
    match request.param:
        case "sqlite":
            return f"sqlite:///{tmp_path / 'study.sqlite3'}"
        case "postgres":
            return request.getfixturevalue("database")
        case _:
            return request.getfixturevalue("proxy").url


NAME = ["s"]  # of the study of the test that runs


@pytest.fixture(autouse=True)
def own_study() -> None:
    NAME[0] = uuid.uuid4().hex


def new_study(storage: BaseStorage, waiting: int = 0) -> Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(storage=storage, sampler=sampler, study_name=NAME[0])
    for x in range(waiting):
        study.enqueue_trial({"x": x})
    return study


def again(url: str, name: str = "") -> Study:
    sampler = optuna.samplers.RandomSampler(seed=0)
    storage = open_storage(url)
    return optuna.load_study(storage=storage, study_name=name or NAME[0], sampler=sampler)


# The contract


def test_a_study_is_what_another_opens(url):
    study = new_study(open_storage(url))
    trial = study.ask()
    trial.set_user_attr("note", {"a": [1, 2]})
    x = trial.suggest_float("x", 0, 1)
    trial.report(0.5, step=1)
    study.tell(trial, 0.25)
    (found,) = again(url).trials
    assert (found.state, found.value, found.params) == (TrialState.COMPLETE, 0.25, {"x": x})
    assert found.user_attrs == {"note": {"a": [1, 2]}}
    assert found.intermediate_values == {1: 0.5}
    with pytest.raises(UpdateFinishedTrialError):
        study._storage.set_trial_user_attr(found._trial_id, "late", 1)


def test_a_waiting_trial_is_claimed_by_one(url):
    new_study(open_storage(url), waiting=12)

    def claim_all(_: int) -> list[int]:
        study = again(url)
        queue, mine = Queue(study), []
        while (trial := queue.claim()) is not None:
            mine.append(trial.suggest_int("x", 0, 100))
            study.tell(trial, 0.0)
        return mine

    with ThreadPoolExecutor(4) as pool:
        claimed = [x for xs in pool.map(claim_all, range(4)) for x in xs]
    assert sorted(claimed) == list(range(12))
    assert {t.state for t in again(url).trials} == {TrialState.COMPLETE}
    assert len(again(url).trials) == 12


def test_a_worker_that_is_alone_keeps_the_order_of_the_design(url):
    study = new_study(open_storage(url), waiting=5)
    queue = Queue(study)
    assert queue.claim().number == 0
    assert [queue.claim().number for _ in range(4)] == [1, 2, 3, 4]
    assert queue.claim() is None


def test_a_beat_is_heard_and_its_end_too(url):
    study, watched = new_study(open_storage(url)), again(url)
    watchman = Watchman(watched, grace_s=0.8)
    trial = study.ask()
    with Beat(study, trial, every_s=0.1) as alive:
        for _ in range(8):
            assert watchman.stale() == []
            time.sleep(0.2)
    assert not alive.lost
    found: list[int] = []
    for _ in range(5):
        time.sleep(0.5)
        found += [t.number for t in watchman.stale()]
    assert found == [trial.number]
    assert again(url).trials[0].state is TrialState.FAIL


def test_a_dead_trial_is_handed_to_one_watchman_and_its_worker_is_told(url):
    study = new_study(open_storage(url))
    trial = study.ask()
    watchmen = [Watchman(again(url), grace_s=0.0) for _ in range(3)]
    found = [t.number for watchman in watchmen for t in watchman.stale()]
    assert found == [trial.number]
    with Beat(study, trial, every_s=0.05) as late:
        deadline = time.monotonic() + 20
        while not late.lost and time.monotonic() < deadline:
            time.sleep(0.05)
    assert late.lost


# Heartbeats and clocks


def test_a_trial_of_a_process_that_is_gone_is_stale_at_once(tmp_path):
    study = new_study(open_storage(f"sqlite:///{tmp_path}/s.sqlite3"))
    code = (
        "import sys, os; from sweeps.study.beat import Place; "
        "from tests.test_storage import again\n"
        "study = again(*sys.argv[1:]); trial = study.ask(); place = Place.here()\n"
        "trial.set_user_attr('beat', dict(count=0, every_s=5.0, host=place.host,"
        " pid=place.pid, born=place.born))\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, f"sqlite:///{tmp_path}/s.sqlite3", NAME[0]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdout.readline() == b"ready\n"
        assert Watchman(study, grace_s=600).stale() == []
        child.kill()
        child.wait()
        assert [t.number for t in Watchman(study, grace_s=600).stale()] == [0]


def test_a_process_with_a_dead_ones_number_is_not_taken_for_it():
    here = Place.here()
    assert not here.is_dead()
    assert Place(host=here.host, pid=here.pid, born=here.born - 1).is_dead()
    assert not Place(host="another machine", pid=here.pid, born=1).is_dead()


def test_an_absence_of_the_watchman_is_no_silence_of_the_trial():
    """Nobody saw the database for ten minutes; trials then have half of the grace to show life."""
    now = [0.0]
    study = new_study(InMemoryStorage())
    trial = study.ask()
    watchman = Watchman(study, grace_s=30.0, clock=lambda: now[0])
    assert watchman.stale() == []
    for now[0], count in ((600.0, 0), (610.0, 1), (625.0, 1), (639.0, 1)):
        trial.set_user_attr(beat.BEAT, {**sign_elsewhere(), "count": count})
        assert watchman.stale() == []
    now[0] = 641.0
    assert [t.number for t in watchman.stale()] == [trial.number]


def test_a_slow_beat_has_a_longer_grace():
    now = [0.0]
    study = new_study(InMemoryStorage())
    trial = study.ask()
    trial.set_user_attr(beat.BEAT, {**sign_elsewhere(), "every_s": 60.0})
    watchman = Watchman(study, grace_s=30.0, clock=lambda: now[0])
    for now[0] in (0.0, 40.0, 200.0, 350.0):
        assert watchman.stale() == []


def sign_elsewhere() -> dict[str, object]:
    return {"count": 0, "every_s": 5.0, "host": "elsewhere", "pid": 1, "born": 1}


def test_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch):
    study = new_study(open_storage(f"sqlite:///{tmp_path}/s.sqlite3"))
    trial = study.ask()
    watchman = Watchman(study, grace_s=1.0)
    real = time.time
    with Beat(study, trial, every_s=0.1):
        for jump_s in (0, 86_400, -86_400, 0):
            monkeypatch.setattr(time, "time", lambda jump_s=jump_s: real() + jump_s)
            time.sleep(0.3)
            assert watchman.stale() == []


def test_a_beat_outlives_failures_of_the_storage():
    class Broken(PatientStorage):
        failures = 3

        def set_trial_user_attr(self, *arguments: object) -> None:
            if self.failures:
                self.failures -= 1
                raise RuntimeError("no such thing")
            super().set_trial_user_attr(*arguments)

    study = new_study(Broken(InMemoryStorage(), Patience("memory")))
    with Beat(study, study.ask(), every_s=0.02) as alive:
        time.sleep(0.5)
    assert not alive.lost
    assert study.trials[0].user_attrs[beat.BEAT]["count"] > 3


# Absence


@pytest.mark.service
@pytest.mark.parametrize("through", ["postgres", "proxy"])
def test_a_database_that_goes_away_and_comes_back_loses_nothing(through, postgres, request, caplog):
    url = request.getfixturevalue("database")
    url = request.getfixturevalue("proxy").url if through == "proxy" else url
    study = new_study(open_storage(url), waiting=8)
    queue, watchman = Queue(study), Watchman(again(url), grace_s=2.0)
    postgres_back = threading.Timer(3.0, postgres.start)
    trial = queue.claim()
    with Beat(study, trial, every_s=0.2) as alive:
        postgres.stop()
        postgres_back.start()
        study.tell(trial, trial.suggest_int("x", 0, 100))
    postgres_back.join()
    while (trial := queue.claim()) is not None:
        study.tell(trial, trial.suggest_int("x", 0, 100))
    assert watchman.stale() == []
    assert not alive.lost
    assert sorted(t.value for t in again(url).trials) == list(range(8))
    if through == "postgres":
        messages = [r.message for r in caplog.records if r.name == "sweeps.study.patient"]
        assert sum("is away" in m for m in messages) == sum("is back" in m for m in messages) == 1


@pytest.mark.service
def test_a_proxy_may_be_started_anew_in_the_middle_of_a_trial(proxy):
    study = new_study(open_storage(proxy.url), waiting=1)
    trial = Queue(study).claim()
    assert proxy.stop() == 0
    restart = threading.Timer(1.0, proxy.start)
    restart.start()
    study.tell(trial, trial.suggest_int("x", 0, 100))
    restart.join()
    assert [t.state for t in study.trials] == [TrialState.COMPLETE]


@pytest.mark.service
def test_a_proxy_ends_also_while_its_database_is_away(proxy, postgres):
    study = new_study(open_storage(proxy.url, patience_s=0.5))
    postgres.stop()
    try:
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(study.ask)
            time.sleep(1.0)
            assert proxy.stop() == 0
            assert isinstance(asked.exception(30), StorageAway)
    finally:
        postgres.start()
        proxy.start()


def test_patience_ends_with_one_sentence():
    def fail() -> None:
        raise StorageInternalError from exc.OperationalError("SELECT 1", {}, OSError("no route"))

    with pytest.raises(StorageAway, match=r"the storage db has not answered for 0 s: no route"):
        Patience("db", patience_s=0.05)(fail)


def test_what_waiting_cannot_mend_is_raised_at_once():
    wrong = exc.OperationalError("", {}, OSError('FATAL: database "x" does not exist'))
    calls = []

    def fail() -> None:
        calls.append(1)
        raise wrong

    with pytest.raises(exc.OperationalError):
        Patience("db")(fail)
    assert calls == [1]


class Forgetful(InMemoryStorage):
    """Does what it is told, then fails to answer, once for each name in `forgets`."""

    def __init__(self, *forgets: str):
        super().__init__()
        self.forgets = set(forgets)

    def create_new_trial(self, study_id, template_trial=None):
        return self._answer("create", super().create_new_trial(study_id, template_trial))

    def set_trial_state_values(self, trial_id, state, values=None):
        return self._answer(state.name, super().set_trial_state_values(trial_id, state, values))

    def _answer(self, name, answer):
        if name in self.forgets:
            self.forgets.remove(name)
            raise StorageInternalError from exc.OperationalError("", {}, OSError("gone"))
        return answer


def test_a_trial_whose_making_was_not_answered_is_made_once():
    study = new_study(PatientStorage(Forgetful("create"), Patience("db")))
    study.enqueue_trial({"x": 1})
    assert [t.state for t in study.trials] == [TrialState.WAITING]


def test_a_result_whose_telling_was_not_answered_is_told_once():
    study = new_study(PatientStorage(Forgetful("COMPLETE"), Patience("db")))
    study.tell(study.ask(), 0.5)
    assert study.trials[0].value == 0.5


def test_a_claim_that_was_not_answered_is_nobodys():
    study = new_study(PatientStorage(Forgetful("RUNNING"), Patience("db")), waiting=1)
    assert Queue(study).claim() is None
    assert [t.number for t in Watchman(study, grace_s=0.0).stale()] == [0]


def test_reads_at_the_same_time_are_one_read():
    reads, shared = [], SharedReads()

    def read() -> list:
        reads.append(1)
        time.sleep(0.1)
        return []

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: shared(1, read), range(8)))
    assert len(reads) == 2  # the first one's, and one that began after all others had asked


# URLs


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("postgresql+psycopg://me:s3cret@host/db", "postgresql+psycopg://me:***@host/db"),
        ("postgresql://host/db?password=s3cret", "postgresql://host/db?password=hidden"),
        ("sqlite:////tmp/x.sqlite3", "sqlite:////tmp/x.sqlite3"),
    ],
)
def test_a_password_is_not_shown(url, safe):
    assert shown(url) == safe


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("study.sqlite3", "what was given is not a URL"),
        ("mysql://me:s3cret@host/db", r"mysql://me:\*\*\*@host/db is of no known form"),
        ("grpc://host", "must be grpc://HOST:PORT"),
        ("sqlite:////no/such/folder/x.sqlite3", "the folder of /no/such/folder/x.sqlite3 does"),
    ],
)
def test_a_wrong_url_is_one_sentence(url, said):
    with pytest.raises(ValueError, match=said) as raised:
        open_storage(url)
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [("postgresql://host/db", "psycopg", "postgres"), ("grpc://host:1", "grpc", "grpc")],
)
def test_a_missing_driver_says_what_to_install(url, module, extra, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **named):
        if name == module:
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=rf"pip install 'hybrid-workbench\[{extra}\]'"):
        open_storage(url)


def test_a_postgresql_url_needs_no_driver_in_its_name():
    assert parse("postgresql://host/db").drivername == "postgresql+psycopg"


@pytest.mark.service
def test_the_simulation_of_many_workers_loses_and_doubles_nothing(postgres):
    from benchmarks import many_workers

    url = postgres.new_database("simulation")
    load = many_workers.Load(workers=20, trials=60, trial_s=0.2, beat_s=0.5)
    with services.Proxy(url) as proxy:
        report = many_workers.simulate(url, proxy.url, load)
    assert report.complete_once == 60


@pytest.mark.service
def test_the_dashboard_opens_a_study(database):
    name = new_study(open_storage(database), waiting=1).study_name
    port = services.free_port()
    command = [Path(sys.executable).with_name("optuna-dashboard"), "--port", str(port), database]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            services.wait_for_port(port)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies") as answer:
                studies = json.load(answer)["study_summaries"]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as page:
                assert page.status == 200
        finally:
            server.kill()
    assert name in [study["study_name"] for study in studies]


# Forked once all is loaded, so that they come to the file together.
OPEN_AT_ONCE = """
import multiprocessing, sys
from sweeps.study.storage import open_storage
context = multiprocessing.get_context("fork")
for url in sys.argv[1:]:
    openers = [context.Process(target=open_storage, args=(url,)) for _ in range(6)]
    for opener in openers:
        opener.start()
    for opener in openers:
        opener.join()
    assert [opener.exitcode for opener in openers] == [0] * 6
"""


@pytest.mark.slow
def test_many_may_open_a_new_sqlite_file_at_once(tmp_path):
    urls = [f"sqlite:///{tmp_path / f'{turn}.sqlite3'}" for turn in range(3)]
    subprocess.run([sys.executable, "-c", OPEN_AT_ONCE, *urls], check=True)


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("sqlite:///a%3Fb.db", "sqlite:///{here}/a%3Fb.db"),
        ("sqlite:///a.db?timeout=5", "sqlite:///{here}/a.db?timeout=5"),
        ("sqlite:////a.db", "sqlite:////a.db"),
        ("sqlite://", "sqlite://"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("sqlite:///file:a.db?uri=true", "sqlite:///file:a.db?uri=true"),
        ("postgresql+psycopg://me:secret@host/a", "postgresql+psycopg://me:secret@host/a"),
        ("grpc://host:13000", "grpc://host:13000"),
    ],
)
def test_a_url_names_the_same_database_in_every_folder(url, wanted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = absolute(url)
    assert parse(found) == parse(wanted.format(here=tmp_path))


def test_a_proxy_says_that_its_database_is_new(tmp_path, caplog):
    url = f"sqlite:///{tmp_path}/typo.db"
    proxy._opened(url, 1)
    assert f"there were no studies at {url}" in caplog.text
    caplog.clear()
    proxy._opened(url, 1)
    assert caplog.text == ""
