"""What a sweep is: named arms times seeds, at a few named sizes, each point a spec and a recipe."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from hybrid.console import place_in_own_file
from hybrid.spec import ModelSpec, look_up
from sweeps.trial.data.sources import Source, on_text
from sweeps.trial.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Point:
    """One trial that a sweep asks for."""

    arm: str
    seed: int
    spec: ModelSpec
    recipe: Recipe
    matched: str | None = None  # what is equal across the arms


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A designed comparison: `point(arm, seed, scale)` is what is trained, and all that varies."""

    name: str
    question: str
    arms: tuple[str, ...]
    seeds: Mapping[str, tuple[int, ...]]  # by name of the scale
    scales: Mapping[str, Any]  # name -> what `point` gets as its scale
    point: Callable[[str, int, Any], tuple[ModelSpec, Recipe]]
    matched: str | None  # what `point` makes equal across the arms, and by which dimension
    figure: Callable[[pd.DataFrame, tuple[str, ...]], Figure]  # from trials and the order of arms

    def points(self, scale: str, source: Source) -> list[Point]:
        """Return every point, all arms of the first seed first; those on text are on `source`.

        Raises ValueError for a scale that the sweep does not have, and for an arm that `point`
        does not know.
        """
        self.require_scale(scale)
        found = []
        seeds = look_up(f"seed in the sweep {self.name!r} for the scale", self.seeds, scale)
        for seed in seeds:
            for arm in self.arms:
                spec, recipe = self._point(arm, seed, scale)
                recipe = replace(recipe, source=on_text(recipe.source, source))
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
