"""A designed sweep as a plan: every arm with every seed, one run a place, nothing sampled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from statistics import mean
from typing import Any, ClassVar

from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import BaseTrial

from sweeps.plans.plan import Direction, History, Obtain
from sweeps.sweep import Point, Sweep
from sweeps.trial.data.sources import Source
from sweeps.trial.data.streams import READERS, pinned
from sweeps.trial.engine import Engine
from sweeps.trial.record import Label, Record
from sweeps.trial.run import run_id


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The points of `sweep` at `scale`, on `source`. Raises ValueError for an unknown scale."""

    sweep: Sweep
    scale: str
    source: Source | None  # None: what the recipes name
    engine: Engine

    directions: ClassVar[tuple[Direction, ...]] = ("minimize",)
    rules: ClassVar[str] = ""

    def __post_init__(self):
        self.sweep.require_scale(self.scale)

    @property
    def name(self) -> str:
        return self.sweep.name

    @cached_property
    def points(self) -> dict[str, Point]:
        """The design's points by the name that their records have."""
        found = {}
        pins = cache(pinned)  # a text is read once for all points
        for point in self.sweep.points(self.scale, self.source):
            point = replace(point, recipe=replace(point.recipe, source=pins(point.recipe.source)))
            label = Label(sweep=self.name, scale=self.scale, arm=point.arm)
            found[run_id(point.spec, point.recipe, label=label, engine=self.engine)] = point
        return found

    @property
    def identity(self) -> str:
        return "\n".join(sorted(self.points))

    def texts(self) -> set[tuple[Source, int]]:
        points = self.points.values()
        return {(p.recipe.source, p.spec.vocab) for p in points if type(p.recipe.source) in READERS}

    def places(self) -> Mapping[str, Mapping[str, Any]]:
        return {name: {"arm": p.arm, "seed": p.seed} for name, p in self.points.items()}

    def sampler(self, seed: int) -> BaseSampler:
        return RandomSampler(seed)  # never asked: every place is fixed

    def pruner(self) -> BasePruner:
        return NopPruner()

    def play(self, trial: BaseTrial, obtain: Obtain, history: History) -> Sequence[float]:
        points = list(self.points.values())
        arm = trial.suggest_categorical("arm", list(dict.fromkeys(p.arm for p in points)))
        seed = trial.suggest_categorical("seed", list(dict.fromkeys(p.seed for p in points)))
        (point,) = (p for p in points if (p.arm, p.seed) == (arm, seed))
        return (held_out_value(obtain(point)),)


def held_out_value(record: Record) -> float:
    """Return what a complete record is ranked by, less being better.

    Of text, held-out bits per byte, mean over domains; of tasks, the share that was not right, mean
    over what was measured.
    """
    if record.task_accuracy is not None:
        return 1 - mean(record.task_accuracy.values())
    assert record.valid_bits_per_byte is not None
    return mean(record.valid_bits_per_byte.values())
