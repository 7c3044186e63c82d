"""The Optuna study behind a sweep: opened or resumed, and kept equal to the records.

Records come first: what is recorded is told to the study, never the other way round, so a lost
study file is rebuilt from results/ by opening it again.
"""

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import mean

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.study import Study
from optuna.trial import TrialState

from sweeps.sweep import Point
from sweeps.trial.record import Outcome, Record

HEARTBEAT_SECONDS = 5
GRACE_SECONDS = 20  # a worker silent for so long is taken for dead
ATTEMPTS = 2  # a trial that failed this often is not tried again

Key = tuple[str, int]  # arm, seed: what Optuna suggests


def open_study(name: str, storage: str) -> Study:
    """Return the study `name` in the database at the URL `storage`, made if it is not there.

    Trials minimise the mean of bits per byte over the domains.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with _heartbeats_are_experimental():
        database = optuna.storages.RDBStorage(
            storage, heartbeat_interval=HEARTBEAT_SECONDS, grace_period=GRACE_SECONDS
        )
    return optuna.create_study(
        storage=database, study_name=name, load_if_exists=True, direction="minimize"
    )


def study_name(sweep: str, scale: str, run_ids: Iterable[str]) -> str:
    """Return the study's name: another design is another study, told the same records."""
    digest = hashlib.sha256("\n".join(sorted(run_ids)).encode()).hexdigest()[:8]
    return f"{sweep}-{scale}-{digest}"


def sqlite_url(folder: Path) -> str:
    """Return the URL of the default storage: one SQLite file beside the records."""
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{(folder / 'study.sqlite3').resolve()}"


def distributions(points: Sequence[Point]) -> dict[str, CategoricalDistribution]:
    """Return what Optuna may suggest: the arms and the seeds of the design."""
    return {
        "arm": CategoricalDistribution(tuple(dict.fromkeys(p.arm for p in points))),
        "seed": CategoricalDistribution(tuple(dict.fromkeys(p.seed for p in points))),
    }


def objective_value(record: Record) -> float:
    """Return what Optuna minimises: held-out bits per byte, mean over domains."""
    assert record.valid_bits_per_byte is not None
    return mean(record.valid_bits_per_byte.values())


def reconcile(study: Study, points: Mapping[str, Point], records: Iterable[Record]) -> None:
    """Make the study agree with the records and enqueue what is left of the design.

    `points` are by run id. Trials of workers that fell silent are marked failed first.
    """
    with _heartbeats_are_experimental():
        optuna.storages.fail_stale_trials(study)
    done = by_run(records)
    trials = study.get_trials(deepcopy=False)
    told = {t.user_attrs.get("run_id") for t in trials if t.state is TrialState.COMPLETE}
    open_states = (TrialState.WAITING, TrialState.RUNNING)
    taken = {_key(t) for t in trials if t.state in open_states}
    for run_id, point in points.items():
        complete = [r for r in done[run_id] if r.outcome is Outcome.COMPLETE]
        if complete and run_id not in told:
            study.add_trial(_finished(complete[0], distributions(list(points.values()))))
        elif is_open(done[run_id]) and (point.arm, point.seed) not in taken:
            study.enqueue_trial({"arm": point.arm, "seed": point.seed})


@contextmanager
def _heartbeats_are_experimental() -> Iterator[None]:
    """Silence what Optuna says of heartbeats at every call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def by_run(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Return the attempts at each run, by run id; a run without any has an empty list."""
    found: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        found[record.run_id].append(record)
    return found


def is_open(attempts: Sequence[Record]) -> bool:
    """Return whether a run with these attempts should be tried (again)."""
    return not any(r.outcome.settled for r in attempts) and len(attempts) < ATTEMPTS


def held_by_earlier(study: Study, trial: optuna.Trial) -> bool:
    """Return whether an earlier trial that still runs has the same arm and seed."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    mine = (trial.params["arm"], trial.params["seed"])
    return any(other.number < trial.number and _key(other) == mine for other in running)


def _finished(
    record: Record, ranges: dict[str, CategoricalDistribution]
) -> optuna.trial.FrozenTrial:
    return optuna.trial.create_trial(
        params={"arm": record.arm, "seed": record.seed},
        distributions=dict(ranges),
        value=objective_value(record),
        user_attrs={"run_id": record.run_id},
    )


def _key(trial: optuna.trial.FrozenTrial) -> Key:
    """Return (arm, seed) of a trial, also of one that waits and has not been asked yet."""
    params = trial.params or trial.system_attrs.get("fixed_params", {})
    return params.get("arm", ""), params.get("seed", -1)
