"""One trial in a process of its own, so that its memory peak is its own and its death is only its.

The process is forked from a server that has done once what every trial would do again
(`sweeps/workers/preloaded.py`), so a trial starts in a tenth of a second. It writes its record
itself (`sweeps/trial/child.py`); this side watches, keeps it within its limits, and writes the
record of a process that died.
"""

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil

from hybrid.spec import require
from sweeps.sweep import Point
from sweeps.trial import records, run_folder
from sweeps.trial.attempt import columns_of
from sweeps.trial.checkpoint import EVERY_SECONDS
from sweeps.trial.child import Job, work
from sweeps.trial.data.streams import pinned
from sweeps.trial.deaths import explain, kernel_kills
from sweeps.trial.engine import Engine
from sweeps.trial.events import Activity, Event, Stop, Tell, Watch, tell_nobody
from sweeps.trial.measure import Speeds
from sweeps.trial.record import Label, MachineError, Outcome, Record
from sweeps.trial.run import not_run
from sweeps.trial.train import Step
from sweeps.trial.warm import touch
from sweeps.workers import server

STOP_SECONDS = 10
WHERE_SECONDS = 0.3  # for a process that hangs, to write down where
POLL_SECONDS = 0.1  # between two looks at a process that has limits
STARTS = 5  # of a process whose server dies each time

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a trial's process may use before it is ended; None is no limit."""

    seconds: float | None = None  # from its start
    memory_bytes: int | None = None  # resident set, looked at many times a second

    def __post_init__(self) -> None:
        for name, value in (("seconds", self.seconds), ("memory_bytes", self.memory_bytes)):
            require(value is None or value > 0, f"Limits: {name}={value!r} must be above 0 or None")


NO_LIMITS = Limits()


def run_in_process(
    point: Point,
    label: Label,
    engine: Engine,
    folder: Path,
    watch: Watch,
    *,
    tell: Tell = tell_nobody,
    keep_weights: bool = False,
    limits: Limits = NO_LIMITS,
    checkpoint_seconds: float | None = EVERY_SECONDS,
    cheap_first: bool = False,
) -> Record:
    """Run one trial in a new process and return its record, which is then in `folder`.

    `watch` sees what `run` would show it, and `tell` is told what `run` would tell it. `watch` may
    raise Stop: the process then ends itself, its record `pruned`. A process that dies or goes over
    `limits` gives a record that says so. Another
    exception raised while waiting (KeyboardInterrupt) ends the process first, and leaves no record.
    An unsettled run keeps its checkpoint, and its next attempt goes on from there.

    Raises MachineError, and leaves no record, where this machine lacks what the trial needs;
    RecordNotWritten, which is one, names the folder where the disk refuses the record.
    """
    # Here, so that the trial's process and this one speak of the same text.
    point = replace(point, recipe=replace(point.recipe, source=pinned(point.recipe.source)))
    job = Job(
        spec=point.spec,
        recipe=point.recipe,
        label=label,
        engine=engine,
        folder=folder,
        keep_weights=keep_weights,
        checkpoint_seconds=checkpoint_seconds,
        cheap_first=cheap_first,
    )
    kills_before = kernel_kills()
    known = not_run(point.spec, point.recipe, label=label, engine=engine)
    process, ours = _begin(work, job)
    guard = _Guard(process, limits)
    curve: list[Step] = []
    try:
        path = _follow(ours, guard, curve, watch, tell)
        process.join()
        outcome, how = explain(process.exitcode, kernel_kills() > kills_before)
    except _OverLimit as over:
        path, outcome, how = None, over.outcome, str(over)
    finally:
        _end(process)
        ours.close()
    if path is None:
        path = _write_death(known, outcome, how, curve, guard.seconds(), folder)
    return records.read_one(path)


def warm_up(engine: Engine) -> None:
    """Compile kernels into their cache on disk, in a process that ends."""
    process, ours = _begin(_touch, engine)
    try:
        process.join()
    finally:
        _end(process)
        ours.close()
    if process.exitcode != 0:
        raise RuntimeError(f"warming up {engine} failed with exit code {process.exitcode}")


def _begin(target: Callable[..., None], told: object) -> tuple[BaseProcess, Connection]:
    """Start `target(their end of a pipe, told)` in a new process; return it and our end.

    Where the server of processes has died, or dies while it is asked, a new one is asked. The pipe
    is new then too: what the dead one may still have forked ends itself, unheard.
    """
    context = server.process_context()
    for left in reversed(range(STARTS)):
        ours, theirs = context.Pipe()
        process = context.Process(target=target, args=(theirs, told), daemon=True)
        try:
            process.start()
            return process, ours
        except (EOFError, ConnectionError):
            ours.close()
            if not left:
                raise
            log.warning("the server that trials are forked from has died; starting another")
            time.sleep(POLL_SECONDS)  # a process that is being killed still looks alive
        finally:
            theirs.close()
    raise AssertionError("the last start returns or raises")


def _touch(pipe: Connection, engine: Engine) -> None:
    touch(engine)


class _OverLimit(Exception):
    """A process used more than it may; the text says what and how much."""

    def __init__(self, outcome: Outcome, how: str):
        super().__init__(how)
        self.outcome = outcome


class _Guard:
    """Looks at a process and ends it when it goes over its limits."""

    def __init__(self, process: BaseProcess, limits: Limits):
        assert process.pid is not None
        self.pid, self.limits = process.pid, limits
        self.begun = time.monotonic()
        # None waits for a message alone.
        self.poll_seconds = None if limits == NO_LIMITS else POLL_SECONDS

    def seconds(self) -> float:
        return time.monotonic() - self.begun

    def check(self) -> None:
        """Raise _OverLimit, after ending the process, if it is over a limit."""
        most = self.limits.memory_bytes
        if most is not None and (used := self._resident_bytes()) > most:
            self._kill()
            how = f"the trial's process held {used:,} bytes, its limit is {most:,}"
            raise _OverLimit(Outcome.OUT_OF_MEMORY, how)
        if self.limits.seconds is not None and self.seconds() > self.limits.seconds:
            self._signal(run_folder.WHERE_SIGNAL)
            time.sleep(WHERE_SECONDS)
            self._kill()
            how = f"the trial's process ran longer than its limit of {self.limits.seconds:g} s"
            raise _OverLimit(Outcome.TIMED_OUT, how)

    def _resident_bytes(self) -> int:
        try:
            return psutil.Process(self.pid).memory_info().rss
        except psutil.Error:  # it has just ended, which the pipe tells too
            return 0

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


def _follow(
    pipe: Connection, guard: _Guard, curve: list[Step], watch: Watch, tell: Tell
) -> Path | None:
    """Return the record's path when the process reports it, None if it dies before."""
    stopped = False
    while True:
        guard.check()
        if not pipe.poll(guard.poll_seconds):
            continue
        try:
            message = pipe.recv()
        except (EOFError, ConnectionResetError):
            return None
        if isinstance(message, Path):
            return message
        if isinstance(message, MachineError):
            raise message
        if isinstance(message, Activity):
            tell(message.doing)
            continue
        if isinstance(message, Step):
            curve.append(message)
        if not stopped:
            stopped = _show(message, watch, pipe)


def _show(event: Event, watch: Watch, pipe: Connection) -> bool:
    """Show an event to the watcher and send its answer down; return whether it was Stop."""
    answer = None
    try:
        watch(event)
    except Stop as stop:
        answer = stop
    if answer is not None or isinstance(event, Speeds):
        with contextlib.suppress(BrokenPipeError):  # it died, which the next message will say
            pipe.send(answer)
    return answer is not None


def _end(process: BaseProcess) -> None:
    if process.is_alive():
        process.terminate()
        process.join(STOP_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()


def _write_death(
    known: Record, outcome: Outcome, how: str, curve: list[Step], seconds: float, folder: Path
) -> Path:
    """Write the record of a process that died, unless it had just written its own.

    What it had begun to write in its run's folder goes; its last whole checkpoint stays.
    """
    after = f"after step {curve[-1].step}" if curve else "before the first step"
    home = run_folder.folder_of(known.run_id, known.attempt, folder)
    run_folder.drop_scratch(home)
    record = replace(
        known,
        outcome=outcome,
        error=run_folder.with_log(f"{how}, {after}", home),
        wall_s=seconds,
        **columns_of(curve),
    )
    try:
        return records.write(record, curve, folder)
    except FileExistsError:
        return records.path_of(record, folder)
