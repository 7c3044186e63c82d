"""Takes trials from a study, one process each, until the design is done. Any number may run."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import optuna
from optuna.study import Study
from optuna.trial import TrialState

from sweeps.process import run_in_process
from sweeps.study import (
    by_run,
    distributions,
    held_by_earlier,
    is_open,
    objective_value,
    reconcile,
)
from sweeps.sweep import Point
from sweeps.trial import record as records
from sweeps.trial.engine import Engine
from sweeps.trial.events import Event
from sweeps.trial.record import Label, Outcome, Record
from sweeps.trial.train import Step

WAIT_SECONDS = 1.0


class Watcher(Protocol):
    """What wants to see the work go on, such as `sweeps.progress.Progress`."""

    def started(self, point: Point) -> None: ...
    def step(self, step: Step) -> None: ...
    def ended(self, record: Record) -> None: ...
    def waiting(self, others: int) -> None: ...


class Unfinished(Exception):
    """A trial whose record is not `complete`; Optuna notes it as failed."""


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One worker on one study; `points` are by run id."""

    study: Study
    points: Mapping[str, Point]
    sweep: str
    scale: str
    engine: Engine
    folder: Path  # of the sweep's records
    keep_weights: bool = False

    def work(self, watcher: Watcher) -> None:
        """Run what is left of the design, then return; trials of other workers are waited for."""
        while True:
            reconcile(self.study, self.points, records.read(self.folder))
            if self._count(TrialState.WAITING):
                self.study.optimize(
                    lambda trial: self._objective(trial, watcher), n_trials=1, catch=(Unfinished,)
                )
            elif others := self._count(TrialState.RUNNING):
                watcher.waiting(others)
                time.sleep(WAIT_SECONDS)
            else:
                return

    def _objective(self, trial: optuna.Trial, watcher: Watcher) -> float:
        ranges = distributions(list(self.points.values()))
        arm = trial.suggest_categorical("arm", ranges["arm"].choices)
        seed = trial.suggest_categorical("seed", ranges["seed"].choices)
        run_id, point = self._find(arm, seed)
        trial.set_user_attr("run_id", run_id)
        attempts = by_run(records.read(self.folder))[run_id]
        if not is_open(attempts) or held_by_earlier(self.study, trial):
            raise optuna.TrialPruned  # another worker was quicker
        watcher.started(point)
        label = Label(
            sweep=self.sweep,
            scale=self.scale,
            arm=point.arm,
            matched=point.matched,
            attempt=len(attempts),
        )

        def watch(event: Event) -> None:
            if isinstance(event, Step):
                watcher.step(event)

        record = run_in_process(
            point, label, self.engine, self.folder, watch, keep_weights=self.keep_weights
        )
        watcher.ended(record)
        if record.outcome is not Outcome.COMPLETE:
            raise Unfinished(f"{run_id}: {record.outcome}")
        return objective_value(record)

    def _find(self, arm: object, seed: object) -> tuple[str, Point]:
        return next(
            (run_id, point)
            for run_id, point in self.points.items()
            if (point.arm, point.seed) == (arm, seed)
        )

    def _count(self, state: TrialState) -> int:
        return len(self.study.get_trials(deepcopy=False, states=(state,)))
