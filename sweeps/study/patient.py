"""A storage that waits while the database is away: any Optuna storage, with calls tried again.

What may be repeated is decided for each call. Reads, attributes, parameters and intermediate values
may: Optuna writes them as "set to", and twice is once. A new trial carries a token, so that after a
lost answer it is looked for before another is made. A change of state is read back. What cannot be
known (did the claim that got no answer succeed?) is answered so that no trial is done twice: the
claim counts as lost, and a trial that nobody holds falls silent and is retried (beat.py).

It wraps the cached storage, not the other way round: Optuna puts its cache only around a bare
RDBStorage and takes any other storage as it is, and a cache outside would hold its lock, and so
stop the heartbeat's thread, for as long as this waits.

One class with a method for each of Optuna's storage calls, hence its length.
"""

import copy
import logging
import random
import threading
import time
import uuid
import weakref
from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from optuna.distributions import BaseDistribution
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import exc, text

PATIENCE_SECONDS = 600.0
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
WAITING = "sweeps:waiting"  # system attribute of a study: ids of the first trials that wait
WAITING_AT_ONCE = 2_000
TOKEN = "sweeps:made_by_call"  # system attribute of a trial: which call made it
# What libpq says when waiting will not help; everything else of its kind passes with time.
REFUSALS = ("authentication failed", "does not exist", "no password supplied", "no pg_hba.conf")
AWAY = "has not answered for"  # a proxy passes on what its exception says, not of which class it is
SQLITE_PASSES = ("locked", "busy", "full", "disk I/O error")

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")


class StorageAway(ConnectionError):
    """The storage did not answer for as long as we were told to wait."""


def passes(error: BaseException) -> bool:
    """Return whether the call that raised this may succeed when it is made again later."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    match cause:
        case exc.TimeoutError() | exc.PendingRollbackError() | StorageAway():
            return True
        case exc.OperationalError(orig=orig) if type(orig).__module__ == "sqlite3":
            return any(word in str(orig) for word in SQLITE_PASSES)
        case exc.OperationalError() | exc.InterfaceError() | exc.InternalError():
            return not any(word in str(cause.orig) for word in REFUSALS)
        case exc.DBAPIError():
            return cause.connection_invalidated
    return cause is not None and _is_broken_call(cause)


def _is_broken_call(error: BaseException) -> bool:
    """Return whether it is a gRPC call that did not reach the proxy, or not its database."""
    code, details = getattr(error, "code", None), getattr(error, "details", None)
    if not (callable(code) and callable(details)):
        return False  # gRPC's errors have no common class that says so without importing it
    name = getattr(code(), "name", "")
    return name in ("UNAVAILABLE", "CANCELLED") or AWAY in str(details())


def pauses() -> Iterator[float]:
    """Yield seconds to wait between tries: doubling, with jitter so that workers do not march."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        yield pause * random.uniform(0.5, 1.0)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


class Patience:
    """Calls a storage again until it answers; says so once when it goes and once when it is back.

    `name` is how the log calls the storage, without its password.
    """

    def __init__(self, name: str, patience_s: float = PATIENCE_SECONDS):
        self.name = name
        self.patience_s = patience_s
        self._lock = threading.Lock()
        self._away = False
        self._over = threading.Event()

    def end(self) -> None:
        """Let no call wait from now on: those that do fail at once."""
        self._over.set()

    def __call__(
        self,
        call: Callable[[], Answer],
        again: Callable[[], Answer] | None = None,
        passes: Callable[[BaseException], bool] = passes,
    ) -> Answer:
        """Return call(), or after a failure that passes again(); StorageAway when time is up."""
        start = time.monotonic()
        attempt = call
        for failures, pause in enumerate(pauses()):
            try:
                answer = attempt()
            except Exception as error:
                if not passes(error):
                    raise
                waited = time.monotonic() - start
                if waited + pause > self.patience_s or self._over.is_set():
                    raise StorageAway(
                        f"the storage {self.name} {AWAY} {waited:.0f} s: {reason(error)}"
                    ) from error
                if failures:  # the first is often only a connection that was cut while idle
                    self._say_away(error)
                self._over.wait(pause)
                attempt = again or call
            else:
                self._say_back(time.monotonic() - start)
                return answer
        raise AssertionError("pauses are endless")

    def _say_away(self, error: BaseException) -> None:
        with self._lock:
            first, self._away = not self._away, True
        if first:
            log.warning(
                "the storage %s is away (%s); trying again for up to %.0f s",
                *(self.name, reason(error), self.patience_s),
            )

    def _say_back(self, seconds: float) -> None:
        if self._away:
            with self._lock:
                first, self._away = self._away, False
            if first:
                log.warning("the storage %s is back after %.0f s", self.name, seconds)


def reason(error: BaseException) -> str:
    """Return the first line of the innermost error: what the driver itself said."""
    inner: BaseException = error
    while inner.__cause__ is not None:
        inner = inner.__cause__
    details = getattr(inner, "details", None)
    said = details() if callable(details) else getattr(inner, "orig", inner)
    return (str(said).strip() or type(inner).__name__).splitlines()[0]


def first_waiting(database: RDBStorage, study_id: int) -> list[int]:
    """Return the ids of the first trials that wait, in order; empty only if none waits."""
    query = text(
        "SELECT trial_id FROM trials WHERE study_id = :study_id AND state = 'WAITING' "
        "ORDER BY trial_id LIMIT :most"
    )
    with database.engine.connect() as connection:
        found = connection.execute(query, {"study_id": study_id, "most": WAITING_AT_ONCE})
        return [row.trial_id for row in found]


class SharedReads:
    """Lets threads that want to read the same thing at the same time wait for one read.

    Each gets a read that began after it asked. A proxy's many threads would otherwise read all
    unfinished trials one after another, each to find what the one before it had found.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next: dict[int, Future[list[FrozenTrial]]] = {}  # by study; reads not yet begun
        self._turn: dict[int, threading.Lock] = defaultdict(threading.Lock)

    def __call__(
        self, study_id: int, read: Callable[[], list[FrozenTrial]]
    ) -> Sequence[FrozenTrial]:
        with self._lock:
            first = study_id not in self._next
            ours = self._next.setdefault(study_id, Future())
            turn = self._turn[study_id]
        if first:
            with turn:
                with self._lock:
                    del self._next[study_id]  # who asks from now on waits for the next one
                try:
                    ours.set_result(read())
                except BaseException as error:
                    ours.set_exception(error)
        return ours.result()


class PatientStorage(BaseStorage):
    """Any storage, with each call made as `patience` says.

    `database` is what `inner` caches, where that is a database of ours. It is asked for the trials
    that wait, which travel as a system attribute of the study that nobody has written: so they
    reach a worker through Optuna's proxy too, whose own calls return all trials or one.
    """

    def __init__(self, inner: BaseStorage, patience: Patience, database: RDBStorage | None = None):
        self.inner = inner
        self.patience = patience
        self.database = database
        self._reads = SharedReads()
        if database is not None:  # else connections would be collected while open, with a warning
            weakref.finalize(self, database.engine.dispose)

    # Studies

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        return self.patience(lambda: self.inner.create_new_study(directions, study_name))

    def delete_study(self, study_id: int) -> None:
        def again() -> None:
            if any(study._study_id == study_id for study in self.inner.get_all_studies()):
                self.inner.delete_study(study_id)

        self.patience(lambda: self.inner.delete_study(study_id), again)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self.patience(lambda: self.inner.set_study_user_attr(study_id, key, value))

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self.patience(lambda: self.inner.set_study_system_attr(study_id, key, value))

    def get_study_id_from_name(self, study_name: str) -> int:
        return self.patience(lambda: self.inner.get_study_id_from_name(study_name))

    def get_study_name_from_id(self, study_id: int) -> str:
        return self.patience(lambda: self.inner.get_study_name_from_id(study_id))

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self.patience(lambda: self.inner.get_study_directions(study_id))

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self.patience(lambda: self.inner.get_study_user_attrs(study_id))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        found = self.patience(lambda: self.inner.get_study_system_attrs(study_id))
        database = self.database
        if database is None:
            return found
        return {**found, WAITING: self.patience(lambda: first_waiting(database, study_id))}

    def get_all_studies(self) -> list[FrozenStudy]:
        return self.patience(lambda: self.inner.get_all_studies())

    # Trials: making one, and its state

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        template = copy.deepcopy(template_trial) or create_trial(state=TrialState.RUNNING)
        # A proxy is called with the token of its caller, and keeps it.
        token = template.system_attrs.get(TOKEN, uuid.uuid4().hex)
        template.system_attrs = {**template.system_attrs, TOKEN: token}

        def create() -> int:
            return self.inner.create_new_trial(study_id, template)

        def again() -> int:
            trials = self.inner.get_all_trials(study_id, deepcopy=False)
            made = [t._trial_id for t in trials if t.system_attrs.get(TOKEN) == token]
            return made[0] if made else create()

        return self.patience(create, again)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        def change() -> bool:
            return self.inner.set_trial_state_values(trial_id, state, values)

        def again() -> bool:
            """As `change`, when the first try may have succeeded without our knowing."""
            found = self.inner.get_trial(trial_id)
            if state is TrialState.RUNNING and found.state is TrialState.RUNNING:
                return False  # ours or another's: see the first lines
            if found.state is state and found.values == (None if values is None else [*values]):
                return True
            return change()  # raises UpdateFinishedTrialError where another was quicker

        return self.patience(change, again)

    # Trials: what may be set twice

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        # Not through Optuna's cache, which knows only trials it has read itself: a proxy that was
        # begun after the trial has read none.
        setter = self.inner if self.database is None else self.database
        self.patience(
            lambda: setter.set_trial_param(trial_id, param_name, param_value_internal, distribution)
        )

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        self.patience(
            lambda: self.inner.set_trial_intermediate_value(trial_id, step, intermediate_value)
        )

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.patience(lambda: self.inner.set_trial_user_attr(trial_id, key, value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.patience(lambda: self.inner.set_trial_system_attr(trial_id, key, value))

    # Trials: reading

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        return self.patience(
            lambda: self.inner.get_trial_id_from_study_id_trial_number(study_id, trial_number)
        )

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self.patience(lambda: self.inner.get_trial(trial_id))

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        return self.patience(lambda: self.inner.get_best_trial(study_id))

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        trials = self._reads(
            study_id,
            lambda: self.patience(lambda: self.inner.get_all_trials(study_id, deepcopy=False)),
        )
        wanted = [trial for trial in trials if states is None or trial.state in states]
        return copy.deepcopy(wanted) if deepcopy else wanted

    def remove_session(self) -> None:
        self.inner.remove_session()


def wait_no_more(storage: BaseStorage) -> None:
    """Let no call of this storage wait from now on, if it is one that waits."""
    if isinstance(storage, PatientStorage):
        storage.patience.end()
