"""One worker's view of the trials that wait in a study: claims them, one at a time.

Optuna's `Study.ask` reads every unfinished trial and then claims the first that is still free. When
a thousand workers ask, each of those reads is large and each goes down the same list, so the last
one fails 999 times. This one reads only which trials wait, keeps that list for the next claims, and
looks further away in it the more often it comes too late: a worker that is alone takes the trials
in the order of the design.
"""

import random

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import TrialState

from sweeps.study.patient import WAITING

TRIES = 12  # so often too late, and the list is read again


class Queue:
    """The waiting trials of a study. The claim is the storage's and atomic; the list may be old."""

    def __init__(self, study: Study):
        self._study = study
        self._waiting: list[int] = []  # trial ids
        self._width = 1  # claim one of so many at the head

    def claim(self) -> optuna.Trial | None:
        """Return a trial that is now ours and running, None if no trial waits.

        Unlike `Study.ask`, it makes no new trial when another worker took the last one.
        """
        self._width = max(1, self._width // 2)
        while True:
            for _ in range(min(TRIES, len(self._waiting))):
                trial_id = self._waiting.pop(self._choose())
                if self._is_ours(trial_id):
                    return optuna.Trial(self._study, trial_id)
                self._width *= 2
            self._waiting = self._read()
            if not self._waiting:
                return None

    def _choose(self) -> int:
        return random.randrange(min(self._width, len(self._waiting)))

    def _is_ours(self, trial_id: int) -> bool:
        try:
            return self._study._storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        except UpdateFinishedTrialError:
            return False

    def _read(self) -> list[int]:
        study = self._study
        attributes = study._storage.get_study_system_attrs(study._study_id)
        if WAITING in attributes:
            return attributes[WAITING]
        trials = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        return [trial._trial_id for trial in trials]
