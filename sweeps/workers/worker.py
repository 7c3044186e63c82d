"""Takes trials from a study, one process each, until the plan is done. Any number may run."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from sweeps.plans.plan import LENIENT, Judge, NotComplete, Plan, Refused
from sweeps.plans.search import OverBudget
from sweeps.study import patient, studies
from sweeps.study.beat import GRACE_SECONDS, Beat, Watchman
from sweeps.study.queue import Queue
from sweeps.study.replay import (
    DUPLICATE,
    OUTCOME,
    PLACE,
    RUN_ID,
    choice_json,
    counted,
    curves,
    decided,
    note_refused,
    outcome_of,
)
from sweeps.study.retries import ATTEMPTS, forgiven, is_open
from sweeps.sweep import Point
from sweeps.trial import records, run_folder
from sweeps.trial.events import Event, Stop
from sweeps.trial.record import Label, MachineError, Outcome, Record
from sweeps.trial.records import Ledger
from sweeps.trial.run import not_run, run_id
from sweeps.workers.jobs import Terms
from sweeps.workers.process import run_in_process

WAIT_SECONDS = 1.0
INTERRUPTED = "interrupted"
DEATHS = 20  # a place whose workers died this often while it ran is given up


class Watcher(Protocol):
    """What wants to see the work go on, such as `sweeps.show.progress.SweepProgress`."""

    def started(self, point: Point) -> None: ...
    def doing(self, what: str) -> None: ...
    def event(self, event: Event) -> None: ...
    def ended(self, record: Record) -> None: ...
    def settled(self, places: int) -> None: ...
    def waiting(self, others: int) -> None: ...


class Taken(Exception):
    """Another trial is at this place, or on this run."""


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One worker on one study; `ledger` are the records of the sweep."""

    study: Study
    plan: Plan
    ledger: Ledger
    terms: Terms
    grace_s: float = GRACE_SECONDS  # how long another's trial may be silent

    def work(self, watcher: Watcher) -> None:
        """Run what is left of the plan, then return; trials of other workers are waited for."""
        queue, watchman = Queue(self.study), Watchman(self.study, self.grace_s)
        while True:
            for trial in watchman.stale():
                self._enqueue_again(trial)
            if (taken := queue.claim()) is not None:
                self._run(taken, watcher)
                watcher.settled(len(studies.settled_places(self.study, self.plan)))
            elif others := self._count(TrialState.RUNNING):
                watcher.waiting(others)
                time.sleep(WAIT_SECONDS)
            elif not studies.restore(self.study, self.plan, self.ledger):
                self._tidy()
                return

    def _tidy(self) -> None:
        """Remove what killed processes left behind, of runs that nobody will take up again."""
        folder = self.ledger.folder
        excused = forgiven(folder)
        records.tidy(folder)
        for name, known in self.ledger.by_run().items():
            attempts = counted(known, self.plan.rules)
            if is_open(attempts, excused.get(name, 0)):
                continue
            settled = any(r.outcome.settled for r in attempts)
            for record in attempts:
                home = run_folder.folder_of(record.run_id, record.attempt, folder)
                (run_folder.drop_leftovers if settled else run_folder.drop_scratch)(home)

    def _run(self, trial: Trial, watcher: Watcher) -> None:
        """Run a trial that is ours to its end, whatever that is."""
        with Beat(self.study, trial) as beat:
            try:
                self._play(trial, watcher, beat)
            except Taken:
                self._end(trial, TrialState.FAIL, DUPLICATE)
            except KeyboardInterrupt:
                self._end(trial, TrialState.FAIL, INTERRUPTED, again=True)
                raise
            except MachineError:
                self._hand_back_at_once(trial)
                raise
            except patient.StorageAway:
                raise
            except Exception:  # such as a mistake in a person's `suggest`: it is for them to see
                self._end(trial, TrialState.FAIL, INTERRUPTED, again=True)
                raise

    def _play(self, trial: Trial, watcher: Watcher, beat: Beat) -> None:
        place = trial.user_attrs[PLACE]
        if studies.held_by_another(self.study, trial):
            raise Taken
        refused = studies.refusals(self.study, place)
        self.study.sampler = self.plan.sampler(studies.seed_of(place, refused))
        deadly = studies.deaths(self.study, place) >= DEATHS
        obtain = Runs(worker=self, trial=trial, watcher=watcher, beat=beat, deadly=deadly)
        try:
            values = self.plan.play(trial, obtain, self._history)
        except Refused as refusal:
            obtain.note_refusal(refusal)
            note_refused(trial, refusal)
            self._end(trial, TrialState.PRUNED, "refused")
            if refused + 1 < studies.REFUSALS:
                studies.enqueue(self.study, place, {})
        except NotComplete as failure:
            outcome = outcome_of(failure.record)
            if failure.settled:
                self._end(trial, TrialState.PRUNED, outcome)
            else:
                self._end(trial, TrialState.FAIL, outcome, again=self._is_open(failure.record))
        except optuna.TrialPruned as reason:
            self._end(trial, TrialState.PRUNED, str(reason))
        else:
            self._end(trial, TrialState.COMPLETE, "complete", values)

    def _is_open(self, record: Record) -> bool:
        """Return whether the run of this record may be tried again."""
        excused = forgiven(self.ledger.folder).get(record.run_id, 0)
        attempts = counted(self.ledger.by_run()[record.run_id], self.plan.rules)
        return is_open(attempts, excused)

    def _end(
        self,
        trial: Trial,
        state: TrialState,
        outcome: str,
        values: Sequence[float] | None = None,
        again: bool = False,
    ) -> None:
        """Tell how a trial ended, unless it was taken for dead and told as failed by another.

        Its records stay in any case, and whoever comes to its place next finds them.
        """
        try:
            trial.set_user_attr(OUTCOME, outcome)
            frozen = self.study.tell(trial, values, state)
        except (optuna.exceptions.UpdateFinishedTrialError, ValueError) as error:
            if not _is_over(error):
                raise
            return
        if again:
            self._enqueue_again(frozen)

    def _hand_back_at_once(self, trial: Trial) -> None:
        """Let another worker have the trial, and wait for no study that is on the same full disk.

        What the study could not be told is noticed later: the process of this worker is dead.
        """
        patient.wait_no_more(self.study._storage)
        with suppress(patient.StorageAway):
            self._end(trial, TrialState.FAIL, INTERRUPTED, again=True)

    def _enqueue_again(self, trial: FrozenTrial) -> None:
        if PLACE in trial.user_attrs:
            studies.enqueue(self.study, trial.user_attrs[PLACE], studies.chosen(trial))

    def _history(self) -> Sequence[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))

    def _count(self, state: TrialState) -> int:
        return len(self.study.get_trials(deepcopy=False, states=(state,)))


def _is_over(error: Exception) -> bool:
    """Return whether the error says that the trial has been ended already."""
    return isinstance(error, optuna.exceptions.UpdateFinishedTrialError) or "Cannot tell" in str(
        error
    )


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Obtains records for one trial: from the folder if they are there, else by running."""

    worker: Worker
    trial: Trial
    watcher: Watcher
    beat: Beat
    deadly: bool  # too many workers died at this place: say so instead of trying again

    def __call__(self, point: Point, judge: Judge = LENIENT) -> Record:
        """Return the complete record of `point`, as `plan.Obtain` says; may raise Taken."""
        name = self._name(point)
        known = self.worker.ledger.by_run().get(name, [])
        attempts = counted(known, self.worker.plan.rules)
        excused = forgiven(self.worker.ledger.folder).get(name, 0)
        if not is_open(attempts, excused):
            return decided(attempts, curves(self.worker.ledger.folder), judge.note)
        self.trial.set_user_attr(RUN_ID, name)
        if studies.runs_elsewhere(self.worker.study, self.trial, RUN_ID, name):
            raise Taken
        label = self._label(point, len(known))
        if self.deadly:
            return self._give_up(
                point, label, ATTEMPTS - sum(r.attempt >= excused for r in attempts)
            )
        self.watcher.started(point)
        terms = self.worker.terms
        record = run_in_process(
            point,
            label,
            self.worker.plan.engine,
            self.worker.ledger.folder,
            lambda event: self._watch(event, judge),
            tell=self.watcher.doing,
            keep_weights=terms.keep_weights,
            limits=terms.limits,
            checkpoint_seconds=terms.checkpoint_seconds,
            cheap_first=judge.cheap_first,
        )
        self.watcher.ended(record)
        if record.outcome is not Outcome.COMPLETE:
            raise NotComplete(record)
        return record

    def note_refusal(self, refusal: Refused) -> None:
        """Record what was refused by arithmetic; what cannot even be a spec has no record."""
        if isinstance(refusal, OverBudget):
            self._write(refusal.point, self._label(refusal.point, 0), Outcome.REFUSED, str(refusal))

    def _watch(self, event: Event, judge: Judge) -> None:
        if self.beat.lost:  # we were taken for dead, and another worker is at it again
            raise Taken
        self.watcher.event(event)
        judge.note(event)
        if (reason := judge.stop(event)) is not None:
            raise Stop(reason)

    def _give_up(self, point: Point, label: Label, attempts: int) -> Record:
        said = f"{DEATHS} workers or more died while this ran; it is not tried again"
        for attempt in range(label.attempt, label.attempt + attempts):
            last = self._write(point, replace(label, attempt=attempt), Outcome.CRASHED, said)
        raise NotComplete(last)

    def _write(self, point: Point, label: Label, outcome: Outcome, error: str) -> Record:
        engine, folder = self.worker.plan.engine, self.worker.ledger.folder
        known = not_run(point.spec, point.recipe, label=label, engine=engine)
        record = replace(known, outcome=outcome, error=error)
        with suppress(FileExistsError):  # the same was chosen before
            records.write(record, [], folder)
        return record

    def _name(self, point: Point) -> str:
        return run_id(
            point.spec, point.recipe, label=self._label(point, 0), engine=self.worker.plan.engine
        )

    def _label(self, point: Point, attempt: int) -> Label:
        return Label(
            sweep=self.worker.plan.name,
            scale=self.worker.plan.scale,
            arm=point.arm,
            matched=point.matched,
            attempt=attempt,
            trial_params=choice_json(self.trial, self.worker.plan.rules),
        )
