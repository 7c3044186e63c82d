"""The two stages of a fair comparison: learning rates for every arm, then arms against each other.

An untuned rate makes false findings: attention and Mamba want different ones. So each arm is first
trained with each of a grid of rates, on a seed that no comparison uses and judged on validation
data; then the comparison takes from those records the rate of each arm. The test split is measured
by the comparison alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from math import inf

import pandas as pd

from ablations import figures, rows
from hybrid.spec import ModelSpec, look_up, require
from sweeps.design_checks import check_same_scales
from sweeps.sweep import Sweep
from sweeps.trial.recipe import Recipe
from sweeps.trial.record import Outcome
from sweeps.tuning import Chosen, Rates, choose

MARGIN = 0.01  # bits per byte; as in sweeps/ratio_lr.py, where it was set


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Arms times paired seeds; the rates in its recipes are replaced by tuned ones.

    A comparison of cost alone has no rates to tune: no loss of it is read. Raises ValueError where
    arms, scales or seeds of the comparison and of what tunes it do not fit.
    """

    sweep: Sweep
    rates: Mapping[str, Rates] | None  # by scale
    tuned_on: Sweep | None = None  # has the same arms; None is `sweep` itself
    unmatched: str | None = None  # why total parameters differ between arms; None: they do not

    def __post_init__(self):
        owner, tuned_on = f"Comparison {self.sweep.name!r}", self.tuned_on or self.sweep
        require(
            set(self.sweep.arms) == set(tuned_on.arms),
            f"{owner}: its arms {', '.join(self.sweep.arms)} must be those of what it is tuned on, "
            f"{tuned_on.name!r}: {', '.join(tuned_on.arms)}",
        )
        if self.rates is None:
            return
        check_same_scales(owner, "rates", self.rates, self.sweep.scales)
        check_same_scales(owner, f"tuned_on={tuned_on.name!r}", tuned_on.scales, self.sweep.scales)
        for scale, rates in self.rates.items():
            compared = {*self.sweep.seeds[scale], *tuned_on.seeds[scale]}
            require(
                rates.seed not in compared,
                f"{owner}: seed {rates.seed} is for tuning, and compared at {scale}",
            )

    def tuning(self, scale: str) -> Sweep | None:
        """Return the sweep whose records decide the rates, None where nothing is tuned."""
        if self.rates is None:
            return None
        rates = look_up(f"scale of {self.sweep.name}", self.rates, scale)
        return tuning_sweep(self.tuned_on or self.sweep, rates, scale)

    def chosen(self, scale: str, trials: pd.DataFrame) -> dict[str, Chosen]:
        """Return the rate of each arm. Raises rows.NotRun where tuning records are missing."""
        tuning = self.tuning(scale)
        if tuning is None or self.rates is None:
            return {}
        return _chosen(tuning, self.sweep.arms, self.rates[scale], scale, trials)

    def with_rates(self, scale: str, rates: Mapping[str, float]) -> Sweep:
        """Return the comparison at `scale` as it is run, with the rate of each arm."""
        return _at_scale(self.sweep, scale, rates if self.rates is not None else {})


def tuning_sweep(sweep: Sweep, rates: Rates, scale: str) -> Sweep:
    """Return the sweep over arms and rates at `scale`, on the seed of `rates`.

    Its models and recipes are those of `sweep`, but for the rate; speed is measured at the shortest
    context alone, and the test split not at all. Raises ValueError if `sweep` uses the seed too.
    """
    sweep.require_scale(scale)
    if rates.seed in sweep.seeds[scale]:
        raise ValueError(f"{sweep.name}: seed {rates.seed} is for tuning, and compared at {scale}")
    points = {arm_name(arm, lr): (arm, lr) for arm, lr in product(sweep.arms, rates.grid)}

    def point(name: str, seed: int, size: object) -> tuple[ModelSpec, Recipe]:
        arm, lr = points[name]
        spec, recipe = sweep.point(arm, seed, size)
        short = (min(recipe.contexts),)
        return spec, replace(recipe, measure_test=False, lr=lr, contexts=short)

    return Sweep(
        name=f"{sweep.name}-lr",
        question=f"Which learning rate suits each arm of {sweep.name}?",
        arms=tuple(points),
        seeds={scale: (rates.seed,)},
        scales={scale: sweep.scales[scale]},
        point=point,
        matched=sweep.matched,
        figure=figures.rates,
    )


def arm_name(arm: str, lr: float) -> str:
    return f"{arm} lr {lr:g}"


def tested(recipe: Recipe) -> Recipe:
    """Return the recipe with the test split measured at its end."""
    return replace(recipe, measure_test=True)


def _at_scale(sweep: Sweep, scale: str, rates: Mapping[str, float]) -> Sweep:
    sweep.require_scale(scale)

    def point(arm: str, seed: int, size: object) -> tuple[ModelSpec, Recipe]:
        spec, recipe = sweep.point(arm, seed, size)
        return spec, replace(recipe, lr=rates.get(arm, recipe.lr))

    return replace(
        sweep,
        seeds={scale: sweep.seeds[scale]},
        scales={scale: sweep.scales[scale]},
        point=point,
    )


def _chosen(
    tuning: Sweep, arms: tuple[str, ...], rates: Rates, scale: str, trials: pd.DataFrame
) -> dict[str, Chosen]:
    found = rows.of_design(tuning, scale, trials)
    (loss,) = rows.to_tune_by(found).to_dict("records")
    diverged = set(found.loc[found["outcome"] != Outcome.COMPLETE.value, "arm"])

    def loss_of(arm: str, lr: float) -> float:
        name = arm_name(arm, lr)
        return inf if name in diverged else loss[name]

    return {arm: choose({lr: loss_of(arm, lr) for lr in rates.grid}, rates.margin) for arm in arms}
