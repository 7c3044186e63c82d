"""Signs of life of running trials, on every storage: a worker beats, any worker notices silence.

While a trial runs, its worker writes a counter into the trial's user attribute `beat`:

    {"count": 17, "every_s": 5.0, "host": "node3 2f0c.. pid:[40265]", "pid": 411, "born": 89231}

Whoever watches remembers on its own monotonic clock when it last saw the counter change; no time of
day is written, read or compared, so clocks may jump and differ between machines. Optuna's own
heartbeat compares times of day and exists only where the database is reached directly.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from optuna import Study, Trial
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

BEAT = "beat"  # the user attribute
BEAT_SECONDS = 5.0
GRACE_SECONDS = 30.0
GRACE_BEATS = 6  # a trial that beats slowly is given this many of its own beats
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A process, so that another one on the same machine can see whether it lives.

    `host` tells machines, their boots and containers apart; `born` is in clock ticks since boot,
    and tells a process from a later one with the same number.
    """

    host: str
    pid: int
    born: int | None

    @classmethod
    def here(cls) -> "Place":
        return cls(host=host(), pid=os.getpid(), born=born(os.getpid()))

    def is_dead(self) -> bool:
        """Return whether this is a process of our machine that is no more; False if unknown."""
        return self.host == host() and self.born is not None and born(self.pid) != self.born


def host() -> str:
    """Return the name of the space in which process numbers are unique, as far as can be known."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    return socket.gethostname()


def born(pid: int) -> int | None:
    """Return when a process was started, in ticks since boot; None if it is dead or not known.

    Source: proc_pid_stat(5), fields 3 (state) and 22 (starttime); the name before them may hold
    blanks and brackets.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZXx" else int(fields[19])


class Beat:
    """Beats for a trial while the block runs; `lost` says that another worker ended the trial.

    >>> with Beat(study, trial) as beat:
    ...     train(stop_if=lambda: beat.lost)
    """

    def __init__(self, study: Study, trial: Trial | FrozenTrial, every_s: float = BEAT_SECONDS):
        self.every_s = every_s
        self.lost = False
        self._storage = study._storage
        self._trial_id = trial._trial_id
        self._number = trial.number
        self._place = Place.here()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="beat", daemon=True)

    def __enter__(self) -> Self:
        # The first beat comes before the trial, so that a worker that dies is known by its process.
        if self._beat(0):
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Not joined: a storage that is away may hold the thread, and the trial's end needs no beat.
        self._done.set()

    def _run(self) -> None:
        count = 1
        while not self._done.wait(self.every_s) and self._beat(count):
            count += 1
        # SQLAlchemy's connection of this thread goes back to the pool.
        with suppress(Exception):
            self._storage.remove_session()

    def _beat(self, count: int) -> bool:
        """Write the counter; return whether the next beat is due, whatever became of this one."""
        try:
            self._storage.set_trial_user_attr(self._trial_id, BEAT, self._sign(count))
        except UpdateFinishedTrialError:
            self.lost = not self._done.is_set()
            return False
        except Exception as error:
            if not self._done.is_set():
                log.warning("trial %d: a heartbeat failed: %s", self._number, error)
        return True

    def _sign(self, count: int) -> dict[str, Any]:
        place = self._place
        return {
            "count": count,
            "every_s": self.every_s,
            "host": place.host,
            "pid": place.pid,
            "born": place.born,
        }


@dataclass(kw_only=True)
class _Silence:
    """What a watchman remembers of a running trial."""

    sign: dict[str, Any] | None
    seconds: float = 0.0


class Watchman:
    """Finds trials whose worker is dead. It must be asked more than once: it counts on its own.

    Silence between two looks counts for at most half of the grace, so that after a minute in which
    nobody could reach the database, trials have the other half to show that they live.
    """

    def __init__(
        self,
        study: Study,
        grace_s: float = GRACE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._study = study
        self._grace_s = grace_s
        self._clock = clock
        self._looked: float | None = None
        self._silent: dict[int, _Silence] = {}  # by trial id

    def stale(self) -> list[FrozenTrial]:
        """Mark the trials failed whose worker is dead; return those that this call marked.

        Each dead trial is returned to one caller among all workers, which may enqueue it again.
        """
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        now = self._clock()
        passed = 0.0 if self._looked is None else now - self._looked
        self._looked = now
        self._silent = {t._trial_id: self._listen(t, passed) for t in running}
        return [t for t in running if self._is_dead(t) and self._fail(t)]

    def _listen(self, trial: FrozenTrial, passed: float) -> _Silence:
        sign = trial.user_attrs.get(BEAT)
        before = self._silent.get(trial._trial_id)
        if before is None or before.sign != sign:
            return _Silence(sign=sign)
        return _Silence(sign=sign, seconds=before.seconds + min(passed, self._grace_of(sign) / 2))

    def _grace_of(self, sign: dict[str, Any] | None) -> float:
        return max(self._grace_s, GRACE_BEATS * sign["every_s"] if sign else 0.0)

    def _is_dead(self, trial: FrozenTrial) -> bool:
        silence = self._silent[trial._trial_id]
        sign = silence.sign
        if sign and Place(host=sign["host"], pid=sign["pid"], born=sign["born"]).is_dead():
            return True
        return silence.seconds >= self._grace_of(sign)

    def _fail(self, trial: FrozenTrial) -> bool:
        try:
            return self._study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        except UpdateFinishedTrialError:
            return False  # another watchman was quicker, or the trial has ended after all
