"""What a sweep is: named arms times seeds, at a few named sizes, each point a spec and a recipe."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from hybrid.spec import ModelSpec
from sweeps.trial.data.sources import Source, on_text
from sweeps.trial.data.streams import pinned
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

    def points(self, scale: str, source: Source | None) -> list[Point]:
        """Return every point, all arms of the first seed first.

        Points on the default text are on `source` where one is given. Raises ValueError for a scale
        that the sweep does not have, and for a source beside a recipe's own text.
        """
        self.require_scale(scale)
        pins = cache(pinned)  # to compare contents, each text being read once
        found = []
        for seed in self.seeds[scale]:
            for arm in self.arms:
                spec, recipe = self.point(arm, seed, self.scales[scale])
                own = recipe.source if source is None else pins(recipe.source)
                recipe = replace(recipe, source=on_text(own, source))
                found.append(
                    Point(arm=arm, seed=seed, spec=spec, recipe=recipe, matched=self.matched)
                )
        return found

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
