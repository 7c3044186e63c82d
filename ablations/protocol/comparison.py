"""Comparison of arms, each at several learning rates and seeds, as one sweep.

    text = Comparison(name="text", arms={"1:7": model, ...}, base_rates={...}, ...)
    text.missing("small", ("1:7", "0:1"), trials, n_seeds=4)   # points that have no record yet
    text.runs("small", ("1:7", "0:1"), trials, n_seeds=4)      # {"1:7": ArmRuns, ...}

All rates run with all seeds at full length, so that leave-one-seed-out tuning has what it needs.
The grid of an arm grows by a step of 2 at the side of its best rate, until that rate lies inside.
An arm with one rate is not tuned: no loss of it is compared. Several findings share one
comparison. Each finding reads the arms that it names, and a run exists once.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from ablations import figures
from ablations.protocol.arm_runs import ArmRuns, validation_loss
from ablations.statistics.outcomes import LOOKS
from ablations.statistics.tuning import leave_one_seed_out
from hybrid import codec
from hybrid.spec import ModelSpec
from sweeps.sweep import Point, Sweep
from sweeps.trial.recipe import Recipe
from sweeps.trial.record import Outcome

STEP = 2.0
MOST_GROWTH = 4  # steps of 2 at each side: beyond them the gate G4 fails

Model = Callable[[Any], ModelSpec]  # from a scale
Run = tuple[str, float, int]  # arm, rate, seed


class RecordsMissingError(LookupError):
    """Records that a design asks for are not there."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Arms x rates x seeds at a few scales. `recipe` gets (scale, arm, rate, seed)."""

    name: str  # of the sweep, and of its folder of records
    question: str
    arms: Mapping[str, Model]
    scales: Mapping[str, Any]
    recipe: Callable[[Any, str, float, int], Recipe]
    base_rates: Mapping[str, Mapping[str, tuple[float, ...]]]  # by scale and arm
    matched: str | None  # what is equal across the arms
    looks: tuple[int, int] = LOOKS

    def __post_init__(self):
        for scale in self.scales:
            rates = self.base_rates.get(scale, {})
            if set(rates) != set(self.arms):
                raise ValueError(
                    f"{self.name}: the base rates of scale {scale!r} are for "
                    f"{sorted(rates)}, the arms are {sorted(self.arms)}"
                )
            for arm, grid in rates.items():
                if not grid or list(grid) != sorted(set(grid)) or min(grid) <= 0:
                    raise ValueError(
                        f"{self.name}: rates of {arm!r} must rise and be above 0, got {grid}"
                    )

    def sweep(self, scale: str, runs: Iterable[Run] | None = None) -> Sweep:
        """Return the sweep over `runs`, by default the base rates with the seeds of both looks."""
        wanted = tuple(runs if runs is not None else self._base_runs(scale))
        names = {run_arm(arm, rate): (arm, rate) for arm, rate, _ in wanted}
        seeds = tuple(sorted({seed for _, _, seed in wanted}))

        def point(name: str, seed: int, size: Any) -> tuple[ModelSpec, Recipe]:
            arm, rate = names[name]
            return self.arms[arm](size), self.recipe(size, arm, rate, seed)

        return Sweep(
            name=self.name,
            question=self.question,
            arms=tuple(names),
            seeds={scale: seeds},
            scales={scale: self.scales[scale]},
            point=point,
            matched=self.matched,
            figure=figures.losses,
        )

    def point(self, scale: str, run: Run) -> Point:
        """Return the model and recipe of one run."""
        arm, rate, seed = run
        size = self.scales[scale]
        return Point(
            arm=run_arm(arm, rate),
            seed=seed,
            spec=self.arms[arm](size),
            recipe=self.recipe(size, arm, rate, seed),
            matched=self.matched,
        )

    def rates(self, scale: str, arm: str, trials: pd.DataFrame) -> tuple[float, ...]:
        """Return the rates of an arm: the base grid, grown while the best rate is at its edge.

        The first look's seeds decide, so that the grid is the same at both looks.
        """
        return self._grown(scale, arm, self._rows(scale, (arm,), trials))

    def missing(
        self, scale: str, arms: Sequence[str], trials: pd.DataFrame, *, n_seeds: int
    ) -> list[Run]:
        """Return the runs of `arms` that have no record, first seeds first.

        A grid that has to grow shows its next rate once its present ones are complete.
        """
        rows = self._rows(scale, arms, trials)
        wanted = [
            (arm, rate, seed)
            for seed in range(n_seeds)
            for arm in arms
            for rate in self._grown(scale, arm, rows)
        ]
        return [run for run in wanted if run not in rows]

    def runs(
        self, scale: str, arms: Sequence[str], trials: pd.DataFrame, *, n_seeds: int
    ) -> dict[str, ArmRuns]:
        """Return the runs of each arm. Raises RecordsMissingError where one has no record."""
        if lacking := self.missing(scale, arms, trials, n_seeds=n_seeds):
            named = sorted({arm for arm, _, _ in lacking})
            raise RecordsMissingError(
                f"{len(lacking)} runs of {self.name} at scale {scale} have no record "
                f"(arms {', '.join(named)})"
            )
        rows = self._rows(scale, arms, trials)
        seeds = tuple(range(n_seeds))
        found = {}
        for arm in arms:
            rates = self._grown(scale, arm, rows)
            of_arm = {(rate, seed): rows[arm, rate, seed] for rate in rates for seed in seeds}
            found[arm] = ArmRuns(arm=arm, rates=rates, seeds=seeds, rows=of_arm)
        _require_one_text(self.name, found)
        return found

    def _base_runs(self, scale: str) -> list[Run]:
        return [
            (arm, rate, seed)
            for seed in range(max(self.looks))
            for arm in self.arms
            for rate in self.base_rates[scale][arm]
        ]

    def _grown(self, scale: str, arm: str, rows: Mapping[Run, pd.Series]) -> tuple[float, ...]:
        rates = self.base_rates[scale][arm]
        if len(rates) == 1:
            return rates
        for _ in range(2 * MOST_GROWTH):
            side = _edge(arm, rates, self.looks[0], rows)
            if side is None:
                break
            rates = (rates[0] / STEP, *rates) if side < 0 else (*rates, rates[-1] * STEP)
        return rates

    def _rows(self, scale: str, arms: Sequence[str], trials: pd.DataFrame) -> dict[Run, pd.Series]:
        """Return the rows that are runs of `arms`: equal in sweep, scale, model and recipe.

        Raises ValueError where one run has two records.
        """
        if trials.empty:
            return {}
        final = [outcome.value for outcome in Outcome if outcome.settled]
        mine = trials[
            (trials["sweep"] == self.name)
            & (trials["scale"] == scale)
            & trials["outcome"].isin(final)
        ]
        if "branch_of" in mine:
            mine = mine[mine["branch_of"].isna()]
        found: dict[Run, pd.Series] = {}
        for _, row in mine.iterrows():
            arm, rate = _parse_run_arm(row["arm"])
            run = (arm, rate, int(row["seed"]))
            if arm not in arms or not self._is_of_design(scale, run, row):
                continue
            if run in found:
                raise ValueError(
                    f"{self.name}: arm {arm!r} at rate {rate:g}, seed {run[2]} has two records, "
                    f"{found[run]['run_id']} and {row['run_id']}: give a folder with one of them"
                )
            found[run] = row
        return found

    def _is_of_design(self, scale: str, run: Run, row: pd.Series) -> bool:
        point = self.point(scale, run)
        same_spec = _spec_of(row["spec"]) == point.spec
        return same_spec and _recipe_of(row["recipe"]) == point.recipe


def run_arm(arm: str, rate: float) -> str:
    """Return the name that an arm has in records at one learning rate."""
    return f"{arm} lr {rate:g}"


def _parse_run_arm(name: str) -> tuple[str, float]:
    arm, _, rate = name.rpartition(" lr ")
    try:
        return arm, float(rate)
    except ValueError:
        return name, float("nan")


def _edge(
    arm: str, rates: tuple[float, ...], n_seeds: int, rows: Mapping[Run, pd.Series]
) -> int | None:
    """Return at which edge of complete `rates` the best one lies: -1, 1, or None for inside."""
    runs = {(rate, s): rows.get((arm, rate, s)) for rate in rates for s in range(n_seeds)}
    if any(row is None for row in runs.values()):
        return None
    of_arm = ArmRuns(
        arm=arm,
        rates=rates,
        seeds=tuple(range(n_seeds)),
        rows={run: row for run, row in runs.items() if row is not None},
    )
    valid = of_arm.grid(validation_loss)
    tuned = leave_one_seed_out(valid, valid)
    if np.isinf(valid).all() or not tuned.at_edge or len(rates) > 3 + 2 * MOST_GROWTH:
        return None
    low = 0 in (tuned.best, *tuned.chosen)
    return -1 if low else 1


def _require_one_text(name: str, arms: Mapping[str, ArmRuns]) -> None:
    texts = {
        str(row["text_sha256"])
        for runs in arms.values()
        for row in runs.rows.values()
        if row["outcome"] == Outcome.COMPLETE.value
    }
    if len(texts) > 1:
        raise ValueError(
            f"{name}: the records were made on {len(texts)} different texts "
            f"({', '.join(text[:12] for text in sorted(texts))}): give a folder with one of them"
        )


@lru_cache(maxsize=8192)
def _recipe_of(text: str) -> Recipe:
    recipe: Recipe = codec.loads(Recipe, text)
    return recipe


@lru_cache(maxsize=8192)
def _spec_of(text: str) -> ModelSpec:
    spec: ModelSpec = codec.loads(ModelSpec, text)
    return spec
