"""Runs of one arm as grids of learning rates by seeds, and what tuning makes of them.

    runs = ArmRuns(arm="1:7", rates=(2e-3, 4e-3, 8e-3), seeds=(0, 1, 2, 3), rows=...)
    runs.grid(mean_of(TEST))                # (R, S)
    runs.tuned(n_seeds=4).values            # (S,) by leave-one-seed-out

Letters: R learning rates in rising order, S seeds. A run that diverged has an infinite loss.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablations.statistics.tuning import TunedValues, leave_one_seed_out
from sweeps import results
from sweeps.trial.record import Outcome

TEST, VALID = "test_bits_per_byte", "valid_bits_per_byte"
TEST_TASKS, VALID_TASKS = "test_task_accuracy", "task_accuracy"
Grid = NDArray[np.float64]
Measure = Callable[[pd.Series], float]


class NotMeasuredError(LookupError):
    """A column that a gate or a test reads is null in a run that is complete."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmRuns:
    """All runs of an arm: one row of `rows` for each (rate, seed)."""

    arm: str
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    rows: Mapping[tuple[float, int], pd.Series]

    def grid(self, measure: Measure, *, n_seeds: int | None = None) -> Grid:
        """Return `measure` of every run, shape (R, S), of the first `n_seeds` seeds.

        A run that diverged is infinity. Raises NotMeasuredError where a complete run has no value.
        """
        seeds = self.seeds[:n_seeds]
        return np.array([[self._value(measure, r, s) for s in seeds] for r in self.rates])

    def tuned(
        self, measure: Measure, *, n_seeds: int | None = None, tune_by: Measure | None = None
    ) -> TunedValues:
        """Return `measure` of each seed at the rate that the other seeds' validation data chose.

        `tune_by` is less where better, and `validation_loss` where it is None.
        """
        valid = self.grid(tune_by or validation_loss, n_seeds=n_seeds)
        return leave_one_seed_out(valid, self.grid(measure, n_seeds=n_seeds))

    def tuned_rows(self, *, tune_by: Measure | None = None) -> list[pd.Series]:
        """Return the row of each seed at the rate that the other seeds chose."""
        chosen = self.tuned(tune_by or validation_loss, tune_by=tune_by).chosen
        return [
            self.rows[self.rates[index], seed]
            for index, seed in zip(chosen, self.seeds, strict=True)
        ]

    def _value(self, measure: Measure, rate: float, seed: int) -> float:
        row = self.rows[rate, seed]
        if row["outcome"] != Outcome.COMPLETE.value:
            return inf
        value = measure(row)
        if not np.isfinite(value):
            raise NotMeasuredError(
                f"run {row['run_id']} of arm {self.arm!r} has no value of {measure.__name__}"
            )
        return value


def mean_of(column: str, *domains: str) -> Measure:
    """Return what takes the mean of a mapped column over `domains`, or over all that it has."""

    def mean(row: pd.Series) -> float:
        names = domains or results.keys(row.to_frame().T, column)
        values = [float(row[f"{column}.{name}"]) for name in names if f"{column}.{name}" in row]
        known = [value for value in values if np.isfinite(value)]
        return float(np.mean(known)) if known and (not domains or len(known) == len(names)) else inf

    mean.__name__ = f"{column} ({', '.join(domains) or 'mean'})"
    return mean


def validation_loss(row: pd.Series) -> float:
    """Return what rates are chosen by, less being better: of text bits/byte, of tasks errors."""
    accuracy = mean_of(VALID_TASKS)(row)
    return 1 - accuracy if np.isfinite(accuracy) else mean_of(VALID)(row)


def percent_fewer(arm: TunedValues, other: TunedValues) -> list[float]:
    """Return by how many percent `arm` is below `other`, one value for each seed."""
    return [float(x) for x in 100 * (1 - arm.values / other.values)]
