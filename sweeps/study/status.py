"""How a sweep stands: each trial done, running (how far), waiting or failed (why), and time left.

Read from three places, none of which is changed: the study says what runs and waits, the records
what has ended and how, the folder of a run (sweeps/trial/run_folder.py) how far it has come. How it
looks is sweeps/show/status_report.py's.
"""

import csv
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from hybrid.console import reading
from sweeps.study import studies
from sweeps.study.beat import BEAT
from sweeps.study.replay import DUPLICATE, OUTCOME, REFUSED, RUN_ID
from sweeps.study.retries import forgiven, is_open
from sweeps.sweep import Point
from sweeps.trial.record import Outcome, Record
from sweeps.trial.records import Ledger
from sweeps.trial.run_folder import RunFolder, folder_of, without_log
from sweeps.trial.shelf import set_aside

TAIL_BYTES = 4096  # more than one line of a curve has


class State(StrEnum):
    """What a trial is at."""

    DONE = "done"
    RUNNING = "running"
    WAITING = "waiting"
    STOPPED = "stopped"  # on purpose: pruned, or refused by arithmetic
    FAILED = "failed"  # and not to be tried again


@dataclass(frozen=True, kw_only=True)
class Live:
    """How far a running trial has come; what cannot be known is None."""

    step: int | None  # steps done
    steps: int | None
    nats_per_token: float | None
    quiet_s: float | None  # since its last step
    worker: str | None  # host and process

    @property
    def fraction(self) -> float:
        return self.step / self.steps if self.step and self.steps else 0.0


@dataclass(frozen=True, kw_only=True)
class Task:
    """One trial: a place in the grid of arms and seeds, or a number of a search."""

    arm: str  # of a search: empty
    seed: int  # of a search: the trial's number
    state: State
    attempts: int  # records there are
    outcome: str = ""  # of the last attempt, empty without one
    why: str = ""  # one line, of the last attempt that was not complete
    wall_s: float | None = None  # of a complete trial
    live: Live | None = None
    params: Mapping[str, Any] = field(default_factory=dict)  # what a sampler chose
    values: Sequence[float] = ()
    best: bool = False  # no other is better, or better in everything

    @property
    def is_open(self) -> bool:
        return self.state in (State.RUNNING, State.WAITING)


@dataclass(frozen=True, kw_only=True)
class Status:
    """All trials of a sweep at one moment."""

    tasks: Sequence[Task]
    objectives: Sequence[str] = ()  # names, of a search
    set_aside: int  # files that could not be read
    retry: str = ""  # the command that tries again what has failed

    def count(self, state: State) -> int:
        return sum(task.state is state for task in self.tasks)

    @property
    def is_over(self) -> bool:
        return not any(task.is_open for task in self.tasks)

    @property
    def seconds_left(self) -> float | None:
        """Return how long the rest takes the workers there are, or one; None before any is done.

        A trial takes what those of its arm took, the median, and if there are none, what all took.
        """
        walls = [task.wall_s for task in self.tasks if task.wall_s is not None]
        if not walls:
            return None

        def left(task: Task) -> float:
            of_arm = [t.wall_s for t in self.tasks if t.wall_s is not None and t.arm == task.arm]
            return median(of_arm or walls) * (1 - (task.live.fraction if task.live else 0))

        work = sum(left(task) for task in self.tasks if task.is_open)
        return work / max(1, self.count(State.RUNNING))


def of_grid(study: Study, points: Mapping[str, Point], ledger: Ledger) -> Status:
    """Return how a designed sweep stands; `points` are by run id."""
    runs, running, excused = ledger.by_run(), _running(study), forgiven(ledger.folder)
    tasks = []
    for run_id, point in points.items():
        attempts = runs.get(run_id, [])
        trial = running.get(run_id)
        live = None if trial is None else _live(trial, ledger.folder, run_id, len(attempts))
        tasks.append(
            Task(
                arm=point.arm,
                seed=point.seed,
                state=_state(attempts, excused.get(run_id, 0), is_running=trial is not None),
                live=live,
                **_of_attempts(attempts),
            )
        )
    return Status(tasks=tasks, set_aside=len(set_aside(ledger.folder)))


def of_search(study: Study, objectives: Sequence[str], ledger: Ledger) -> Status:
    """Return how a search stands; `objectives` names the study's values."""
    runs = ledger.by_run()
    best = {trial.number for trial in study.best_trials}
    tasks = []
    for trial in study.get_trials(deepcopy=False):
        if trial.user_attrs.get(OUTCOME) in (DUPLICATE, studies.CANCELLED):  # nothing ran
            continue
        run_id = trial.user_attrs.get(RUN_ID, "")
        attempts = runs.get(run_id, [])
        is_running = trial.state is TrialState.RUNNING
        known = _of_attempts(attempts)
        said = trial.user_attrs.get(REFUSED) or trial.user_attrs.get(OUTCOME)
        if trial.state is TrialState.FAIL:
            known["why"] = known["why"] or said or "its worker died"
        elif trial.state is TrialState.PRUNED:
            known["why"] = said or known["why"]
        tasks.append(
            Task(
                arm="",
                seed=trial.number,
                state=STATES[trial.state],
                live=_live(trial, ledger.folder, run_id, len(attempts)) if is_running else None,
                params=studies.chosen(trial),
                values=trial.values if trial.state is TrialState.COMPLETE else (),
                best=trial.number in best,
                **known,
            )
        )
    return Status(tasks=tasks, objectives=objectives, set_aside=len(set_aside(ledger.folder)))


STATES = {
    TrialState.COMPLETE: State.DONE,
    TrialState.RUNNING: State.RUNNING,
    TrialState.WAITING: State.WAITING,
    TrialState.PRUNED: State.STOPPED,
    TrialState.FAIL: State.FAILED,
}


def _running(study: Study) -> dict[str, FrozenTrial]:
    """Return the running trials by the run they are on; of two, the one that came first."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return {t.user_attrs[RUN_ID]: t for t in reversed(trials) if RUN_ID in t.user_attrs}


def _state(attempts: Sequence[Record], excused: int, is_running: bool) -> State:
    if any(r.outcome is Outcome.COMPLETE for r in attempts):
        return State.DONE
    if is_open(attempts, excused):
        return State.RUNNING if is_running else State.WAITING
    stopped = (Outcome.PRUNED, Outcome.REFUSED)
    return State.STOPPED if any(r.outcome in stopped for r in attempts) else State.FAILED


def _of_attempts(attempts: Sequence[Record]) -> dict[str, Any]:
    """Return what a task has from its records, by name."""
    complete = [r for r in attempts if r.outcome is Outcome.COMPLETE]
    last = (complete or list(attempts))[-1:]
    return {
        "attempts": len(attempts),
        "outcome": str(last[0].outcome) if last else "",
        "why": "" if complete else "".join(reason(r) for r in last),
        "wall_s": complete[0].wall_s if complete else None,
    }


def reason(record: Record) -> str:
    """Return the last line of what went wrong, without the lines of the log."""
    lines = without_log(record.error or "").strip().splitlines()
    return lines[-1].strip() if lines else ""


def _live(trial: FrozenTrial, folder: Path, run_id: str, attempt: int) -> Live:
    home = folder_of(run_id, attempt, folder)
    last, quiet_s = _last_step(home)
    beat = trial.user_attrs.get(BEAT)
    return Live(
        step=None if last is None else int(last["step"]) + 1,
        steps=_steps(home),
        nats_per_token=None if last is None else float(last["nats_per_token"]),
        quiet_s=quiet_s,
        worker=f"{beat['host'].split()[0]} process {beat['pid']}" if beat else None,
    )


def _last_step(home: RunFolder) -> tuple[dict[str, str] | None, float | None]:
    """Return the last whole line of a run's curve by column, and the seconds since it was written.

    (None, None) where there is no step yet.
    """
    try:
        with home.curve.open("rb") as file:
            head = file.readline().decode()
            size = file.seek(0, 2)
            file.seek(max(len(head), size - TAIL_BYTES))
            lines = file.read().decode(errors="replace").split("\n")[:-1]
        if not lines:
            return None, None
        quiet_s = max(0.0, time.time() - home.curve.stat().st_mtime)
    except OSError:  # not begun, or its folder was removed
        return None, None
    with reading(home.curve):
        return dict(zip(*csv.reader([head, lines[-1]]), strict=True)), quiet_s


def _steps(home: RunFolder) -> int | None:
    try:
        with reading(home.config):
            return int(json.loads(home.config.read_text())["recipe"]["steps"])
    except OSError:
        return None
