"""How many workers one database bears: fake trials, real storage.

    python -m benchmarks.many_workers --workers 1000 --trials 4000 --proxy

Workers are threads of a few processes, each with its own storage client: a thousand interpreters
would measure this machine's memory. A trial is what a worker asks of the storage (ask, two
parameters, heartbeats, tell) around a sleep. Without --storage a PostgreSQL of its own is started,
as in the tests. It reports and fails unless each trial that was enqueued is complete exactly once.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from multiprocessing.pool import ThreadPool
from pathlib import Path
from statistics import median

import numpy as np
import optuna
import psycopg
from optuna.trial import TrialState, create_trial
from sqlalchemy.engine import make_url

from sweeps.study.beat import Beat
from sweeps.study.queue import Queue
from sweeps.study.storage import open_storage
from tests.services import Proxy, postgres

STUDY = "many-workers"
THREADS_PER_PROCESS = 50


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is simulated."""

    workers: int
    trials: int
    trial_s: float  # what a trial sleeps, on average
    beat_s: float


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call a worker made, and how long it waited for the answer."""

    kind: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was seen."""

    workers: int
    trials: int
    complete_once: int
    seconds: float
    trials_per_s: float
    ask_median_ms: float
    ask_p99_ms: float
    ask_longest_ms: float
    tell_median_ms: float
    tell_p99_ms: float
    tell_longest_ms: float
    transactions_per_trial: float  # of the database; a heartbeat is one
    rows_read_per_trial: float  # by the database, whether sent or not
    beats: int

    def __str__(self) -> str:
        return "\n".join(f"{field.name:>24}  {getattr(self, field.name)}" for field in fields(self))


def _work_or_say(url: str, load: Load, numbers: list[int], ready, go, results) -> None:
    """As `work`; what goes wrong is told to the parent, which would wait for ever."""
    try:
        results.put(work(url, load, numbers, ready, go))
    except BaseException as error:
        results.put(f"{type(error).__name__}: {error}")
        ready.release()
        raise


def _received(results) -> list[Call]:
    found = results.get()
    if isinstance(found, str):
        raise RuntimeError(f"a process of workers failed: {found}")
    return found


def work(url: str, load: Load, numbers: list[int], ready, go) -> list[Call]:
    """Be one process of workers, a thread each; return their calls."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def one(worker: int) -> list[Call]:
        study = optuna.load_study(
            study_name=STUDY,
            storage=open_storage(url),
            sampler=optuna.samplers.RandomSampler(seed=worker),
        )
        barrier.wait()
        go.wait()
        return list(_trials(study, load, np.random.default_rng(worker)))

    barrier = threading.Barrier(len(numbers), action=ready.release)
    with ThreadPool(len(numbers)) as pool:
        return [call for calls in pool.map(one, numbers, 1) for call in calls]


def _trials(study: optuna.Study, load: Load, generator: np.random.Generator) -> Iterator[Call]:
    """Do trials until none is left; yield the calls."""
    queue = Queue(study)
    while True:
        start = time.perf_counter()
        trial = queue.claim()
        yield Call(kind="ask", seconds=time.perf_counter() - start)
        if trial is None:
            return
        with Beat(study, trial, load.beat_s):
            point = trial.suggest_int("point", 0, load.trials - 1)
            trial.suggest_categorical("arm", ["a", "b"])
            time.sleep(generator.uniform(0.5, 1.5) * load.trial_s)
        start = time.perf_counter()
        study.tell(trial, float(point))
        yield Call(kind="tell", seconds=time.perf_counter() - start)


def enqueue(url: str, trials: int) -> optuna.Study:
    study = optuna.create_study(study_name=STUDY, storage=open_storage(url))
    for point in range(trials):
        params = {"point": point, "arm": "ab"[point % 2]}
        study.add_trial(
            # As Study.enqueue_trial, which reads its trials one by one.
            create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": params})
        )
    return study


def simulate(database: str, url: str, load: Load) -> Report:
    """Run `load` against the storage at `url`, whose PostgreSQL is at `database`."""
    enqueue(database, load.trials)
    context = multiprocessing.get_context("spawn")
    ready, go, results = context.Semaphore(0), context.Event(), context.Queue()
    pieces = batched(list(range(load.workers)), THREADS_PER_PROCESS)
    processes = [
        context.Process(
            target=_work_or_say, args=(url, load, piece, ready, go, results), daemon=True
        )
        for piece in pieces
    ]
    for process in processes:
        process.start()
    for _ in processes:
        ready.acquire()
    before, start = _counters(database), time.perf_counter()
    go.set()
    calls = [call for _ in processes for call in _received(results)]
    seconds = time.perf_counter() - start
    for process in processes:
        process.join()
    time.sleep(1.0)  # PostgreSQL's counters lag
    after = _counters(database)
    return _report(database, load, calls, seconds, {k: after[k] - before[k] for k in after})


def batched(numbers: list[int], size: int) -> list[list[int]]:
    return [numbers[i : i + size] for i in range(0, len(numbers), size)]


def _counters(database: str) -> dict[str, int]:
    url = make_url(database).set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
        row = connection.execute(
            "SELECT xact_commit + xact_rollback, tup_returned FROM pg_stat_database "
            "WHERE datname = current_database()"
        ).fetchone()
    assert row is not None
    return {"transactions": row[0], "rows": row[1]}


def _report(
    database: str, load: Load, calls: list[Call], seconds: float, counted: dict[str, int]
) -> Report:
    study = optuna.load_study(study_name=STUDY, storage=open_storage(database))
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    times = Counter(trial.params["point"] for trial in done)
    ask_ms, tell_ms = (
        1e3 * np.array([call.seconds for call in calls if call.kind == kind])
        for kind in ("ask", "tell")
    )
    return Report(
        workers=load.workers,
        trials=load.trials,
        complete_once=sum(times[point] == 1 for point in range(load.trials)),
        seconds=round(seconds, 1),
        trials_per_s=round(load.trials / seconds, 1),
        ask_median_ms=round(median(ask_ms), 1),
        ask_p99_ms=round(float(np.quantile(ask_ms, 0.99)), 1),
        ask_longest_ms=round(max(ask_ms), 1),
        tell_median_ms=round(median(tell_ms), 1),
        tell_p99_ms=round(float(np.quantile(tell_ms, 0.99)), 1),
        tell_longest_ms=round(max(tell_ms), 1),
        transactions_per_trial=round(counted["transactions"] / load.trials, 1),
        rows_read_per_trial=round(counted["rows"] / load.trials, 1),
        beats=sum(trial.user_attrs["beat"]["count"] + 1 for trial in done),
    )


@contextmanager
def _database(url: str) -> Iterator[str]:
    """Yield `url`, or that of a database of a PostgreSQL of our own."""
    if url:
        yield url
        return
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        with postgres(Path(name) / "cluster") as server:
            yield server.new_database("many")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", default="", help="URL of an empty PostgreSQL database")
    parser.add_argument("--proxy", action="store_true", help="put the gRPC proxy before it")
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--trial-s", type=float, default=10.0)
    parser.add_argument("--beat-s", type=float, default=5.0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    load = Load(
        workers=given.workers, trials=given.trials, trial_s=given.trial_s, beat_s=given.beat_s
    )
    with (
        _database(given.storage) as database,
        Proxy(database) if given.proxy else nullcontext() as proxy,
    ):
        report = simulate(database, proxy.url if proxy else database, load)
    print(json.dumps(asdict(report)) if given.json else report)
    return 0 if report.complete_once == load.trials else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
