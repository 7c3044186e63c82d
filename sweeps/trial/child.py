"""A trial's own process: it runs the trial, writes its record, and reports to its parent by a pipe.

Up the pipe go every Step (and Speeds) as it happens, an Activity whenever something else is done
than before, then the record's path or MachineError.
Down comes a Stop, at any time, and an answer to Speeds: Stop or None. It dies with its parent.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

from hybrid.model import HybridLM
from hybrid.spec import ModelSpec
from sweeps.trial import records, run_folder, weights
from sweeps.trial.checkpoint import Checkpoints
from sweeps.trial.engine import Engine
from sweeps.trial.events import Activity, Event
from sweeps.trial.measure import Speeds
from sweeps.trial.recipe import Recipe
from sweeps.trial.record import Label, MachineError, Outcome, Record, RecordNotWritten
from sweeps.trial.run import not_run, run
from sweeps.trial.run_folder import LiveCurve, RunFolder, SpokenSteps
from sweeps.trial.train import Step


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a trial's process is told to do."""

    spec: ModelSpec
    recipe: Recipe
    label: Label
    engine: Engine
    folder: Path  # of the sweep's records
    keep_weights: bool
    checkpoint_seconds: float | None  # None keeps no checkpoint
    cheap_first: bool


def work(pipe: Connection, job: Job) -> None:
    """Run, write and report."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    known = not_run(job.spec, job.recipe, label=job.label, engine=job.engine)
    home = run_folder.folder_of(known.run_id, job.label.attempt, job.folder)
    try:
        curve = _Curve(pipe, _opened(home, known, job))
        _tell(pipe, _written(job, known, home, curve))
    except MachineError as error:
        _tell(pipe, error)


def _end_with_parent() -> None:
    """End at once when the parent is dead: its trial will be done again, so leave no record."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _tell(pipe: Connection, message: Event | Activity | Path | MachineError) -> None:
    try:
        pipe.send(message)
    except BrokenPipeError:
        raise SystemExit(1) from None  # as in _end_with_parent


def _opened(home: RunFolder, known: Record, job: Job) -> LiveCurve:
    """Begin the run's folder; RecordNotWritten if the disk refuses even that."""
    try:
        home.path.mkdir(parents=True, exist_ok=True)
        run_folder.take_over(known.run_id, job.label.attempt, job.folder)
        run_folder.write_config(home, known, job.recipe, job.label, job.engine)
        run_folder.capture_output(home)
        run_folder.say(f"{known.started_utc} process {os.getpid()} runs {home.path.name}")
        return LiveCurve(home)
    except OSError as error:
        raise RecordNotWritten(f"{home.path} cannot be written: {error}") from error


class _Curve:
    """The watcher of the run: sends each event up, writes it down, and obeys the answer."""

    def __init__(self, pipe: Connection, live: LiveCurve):
        self.pipe, self.live = pipe, live
        self.steps: list[Step] = []

    def __call__(self, event: Event) -> None:
        self.live(event)
        if isinstance(event, Step):
            self.steps.append(event)
        _tell(self.pipe, event)
        if isinstance(event, Speeds) or self.pipe.poll():
            try:
                answer = self.pipe.recv()
            except EOFError:
                raise SystemExit(1) from None  # as in _end_with_parent
            if answer is not None:
                raise answer


def _written(job: Job, known: Record, home: RunFolder, curve: _Curve) -> Path:
    """Run the trial and return the path of its record."""
    spoken = SpokenSteps(job.recipe)

    def watch(event: Event) -> None:
        spoken(event)
        curve(event)

    def tell(doing: str) -> None:
        run_folder.say(doing)
        _tell(curve.pipe, Activity(doing))

    def keep(model: HybridLM) -> None:
        if job.keep_weights:
            weights.keep(model, job.recipe, weights.path_of(known, job.folder))

    def keep_branch(branch: Record, curve: Sequence[Step], model: HybridLM) -> None:
        run_folder.say(f"branch to step {curve[-1].step + 1}: {branch.outcome}, {branch.run_id}")
        attempt = records.next_attempt(branch.run_id, job.folder)
        if attempt is None:  # this process continues one that came to the same end
            return
        branch = replace(branch, attempt=attempt)
        if job.keep_weights and branch.outcome is Outcome.COMPLETE:
            weights.save(model, weights.path_of(branch, job.folder))
        with contextlib.suppress(FileExistsError):  # another worker was quicker
            records.write(branch, curve, job.folder)

    checkpoints = None
    if job.checkpoint_seconds is not None:
        checkpoints = Checkpoints(folder=home.checkpoint, every_seconds=job.checkpoint_seconds)
    record = run(
        job.spec,
        job.recipe,
        label=job.label,
        engine=job.engine,
        watch=watch,
        tell=tell,
        keep=keep,
        keep_branch=keep_branch,
        checkpoints=checkpoints,
        cheap_first=job.cheap_first,
    )
    run_folder.say(f"{record.outcome} after {record.wall_s:.1f} s")
    if record.outcome is not Outcome.COMPLETE:
        record = replace(record, error=run_folder.with_log(record.error or "", home))
    return _write(record, curve.steps, job.folder, home)


def _write(record: Record, steps: list[Step], folder: Path, home: RunFolder) -> Path:
    try:
        path = records.write(record, steps, folder)
    except FileExistsError:  # another worker was quicker, and its record stands
        path = records.path_of(record, folder)
    if record.outcome.settled:
        run_folder.drop_leftovers(home)
    return path
