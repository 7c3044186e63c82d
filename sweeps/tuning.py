"""Chooses a learning rate from losses on validation data, and says when the grid was too narrow."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sweeps.design_checks import check_seeds


@dataclass(frozen=True, kw_only=True)
class Rates:
    """The rates that each architecture is tried with, on a seed that no comparison uses."""

    grid: tuple[float, ...]
    seed: int = 1000
    # In the unit of the loss. Of the rates this near to the best, the smallest is taken: with one
    # seed, smaller differences run both ways along a grid.
    margin: float = 0.0

    def __post_init__(self):
        if not self.grid or not all(0 < rate < math.inf for rate in self.grid):
            raise ValueError(f"Rates: grid={self.grid!r} must hold finite rates above 0")
        if len(set(self.grid)) < len(self.grid):
            raise ValueError(f"Rates: grid={self.grid!r} must hold each rate once")
        check_seeds("Rates", (self.seed,))
        if not 0 <= self.margin < math.inf:
            raise ValueError(f"Rates: margin={self.margin!r} must be finite and 0 or more")


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The rate to use, and whether the least loss lay at an edge: a better one may lie outside."""

    rate: float
    at_edge: bool


def choose(losses: Mapping[float, float], margin: float = 0.0) -> Chosen:
    """Return the smallest rate whose loss is within `margin` of the least.

    `losses` are by rate; a run that diverged has the loss infinity. Raises ValueError where no rate
    has a finite loss.
    """
    finite = {rate: loss for rate, loss in losses.items() if math.isfinite(loss)}
    if not finite:
        raise ValueError(f"no learning rate of {', '.join(map(str, losses))} gave a finite loss")
    best = min(finite, key=lambda rate: finite[rate])
    near = [rate for rate, loss in finite.items() if loss <= finite[best] + margin]
    return Chosen(rate=min(near), at_edge=len(losses) > 1 and best in (min(losses), max(losses)))
