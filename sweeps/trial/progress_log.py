"""Says on one line what takes long, at least every half minute, where no progress bars are shown.

    with ProgressLog(print) as log:
        log.now("preparing text")
        ...                       # prints "preparing text (25 s so far)" after 25 s, and so on

A thread looks at the clock, so that a single call that takes minutes is spoken of too. It uses the
standard library alone: the import of torch is one of the things that take long.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

LOG_SECONDS = 25.0  # least time between two lines that only say what is being done
LOOK_SECONDS = 4.0  # between two looks at the clock; both together are below half a minute


class ProgressLog:
    """What is being done, said again whenever nothing was said for `LOG_SECONDS`."""

    def __init__(
        self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say, self._clock = say, clock
        self._doing, self._timed = "", False
        self._begun = self._said = clock()
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "ProgressLog":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def now(self, doing: str, *, timed: bool = True) -> None:
        """Note what is being done from now on, and whether a line says since when."""
        with self._lock:
            self._doing, self._timed, self._begun = doing, timed, self._clock()
            self.look()

    def said(self) -> None:
        """Note that a line was printed by somebody else."""
        with self._lock:
            self._said = self._clock()

    def look(self) -> None:
        """Say what is being done if nothing was said for long."""
        with self._lock:
            now = self._clock()
            if not self._doing or now - self._said < LOG_SECONDS:
                return
            self._said = now
            seconds = now - self._begun
            so_far = f" ({seconds:.0f} s so far)" if self._timed and seconds >= 1 else ""
            self._say(f"{self._doing}{so_far}")

    def _look(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            self.look()


@contextmanager
def saying(doing: str, say: Callable[[str], None] | None = None) -> Iterator[ProgressLog]:
    """Say `doing` now and then while the body takes long, by default to standard error."""
    with ProgressLog(say or to_stderr) as log:
        log.now(doing)
        yield log


def to_stderr(line: str) -> None:
    """Print a line to standard error. The line is lost where nobody reads it any more."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        return
