"""What a sweep is: named arms times seeds, at a few named sizes, each point a spec and a recipe."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from hybrid import cost
from hybrid.console import place_in_own_file
from hybrid.spec import LARGEST, ModelSpec, look_up, require
from sweeps import design_checks
from sweeps.trial.data.sources import Source, on_text
from sweeps.trial.data.streams import pinned
from sweeps.trial.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Point:
    """One trial that a sweep asks for. Raises ValueError where its record could not hold it."""

    arm: str
    seed: int
    spec: ModelSpec
    recipe: Recipe
    matched: str | None = None  # what is equal across the arms

    def __post_init__(self):
        params = cost.params(self.spec)
        require(
            params <= LARGEST,
            f"arm {self.arm!r}: a model of {params:.3g} parameters is more than a record can hold",
        )
        require(
            self.recipe.seed == self.seed,
            f"arm {self.arm!r}, seed {self.seed}: the recipe must have this seed, "
            f"got seed={self.recipe.seed}",
        )


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A designed comparison: `point(arm, seed, scale)` is what is trained, and all that varies.

    Raises ValueError for a name, an arm or a seed that is empty, given twice or no part of a file
    name (sweeps/trial/file_names.py), and for scales without seeds.
    """

    name: str
    question: str
    arms: tuple[str, ...]
    seeds: Mapping[str, tuple[int, ...]]  # by name of the scale
    scales: Mapping[str, Any]  # name -> what `point` gets as its scale
    point: Callable[[str, int, Any], tuple[ModelSpec, Recipe]]
    matched: str | None  # what `point` makes equal across the arms, and by which dimension
    figure: Callable[[pd.DataFrame, tuple[str, ...]], Figure]  # from trials and the order of arms

    def __post_init__(self):
        owner = design_checks.check_name_and_scales("Sweep", self.name, self.scales)
        design_checks.check_same_scales(owner, "seeds", self.seeds, self.scales)
        design_checks.check_arms(owner, self.arms)
        for scale, seeds in self.seeds.items():
            design_checks.check_seeds(f"{owner}, scale {scale!r}", seeds)
        design_checks.check_trial_names(owner, self.name, self.arms, self.seeds)

    def points(self, scale: str, source: Source | None) -> list[Point]:
        """Return every point, all arms of the first seed first.

        Points on the default text are on `source` where one is given. Raises ValueError for a scale
        that the sweep does not have, for an arm that `point` does not know, and for a source beside
        a recipe's own text.
        """
        self.require_scale(scale)
        pins = cache(pinned)  # to compare contents, each text being read once
        found = []
        seeds = look_up(f"seed in the sweep {self.name!r} for the scale", self.seeds, scale)
        for seed in seeds:
            for arm in self.arms:
                spec, recipe = self._point(arm, seed, scale)
                own = recipe.source if source is None else pins(recipe.source)
                recipe = replace(recipe, source=on_text(own, source))
                found.append(
                    Point(arm=arm, seed=seed, spec=spec, recipe=recipe, matched=self.matched)
                )
        return found

    def _point(self, arm: str, seed: int, scale: str) -> tuple[ModelSpec, Recipe]:
        try:
            return self.point(arm, seed, self.scales[scale])
        except KeyError as error:
            # A person's own `point` has a file and a line to look at, which a command shows.
            if error.args != (arm,) or place_in_own_file(error) is not None:
                raise
            raise ValueError(f"sweep {self.name!r}: its `point` has no arm {arm!r}") from error

    def require_scale(self, scale: str) -> None:
        """Raise ValueError for a scale that the sweep does not have."""
        if scale not in self.scales:
            raise ValueError(
                f"sweep {self.name!r} has no scale {scale!r}; it has {', '.join(self.scales)}"
            )

    @property
    def varies(self) -> str:
        """Say what differs between trials."""
        return f"arms {', '.join(self.arms)}"
