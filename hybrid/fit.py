"""Solves one whole-number dimension of a spec so that a quantity meets a target. Free of torch."""

from collections.abc import Callable

from hybrid.spec import ModelSpec

GRIDS = (64, 32, 16, 8, 4, 2, 1)  # round widths suit matrix units: the coarsest that meets it


def fit(
    make: Callable[[int], ModelSpec],
    quantity: Callable[[ModelSpec], int],
    target: int,
    *,
    tolerance: float = 0.01,
) -> ModelSpec:
    """Return make(x) with `quantity` within `tolerance` (a fraction) of `target`.

    x is the roundest that will do: the nearest multiple of 64 if that is near enough, else of 32,
    and so on down to 1. `quantity(make(x))` must grow with x. Raises ValueError with the nearest
    value reached where no x is near enough.

        fit(lambda hidden: spec_with(hidden), cost.params, cost.params(other))
    """
    for grid in GRIDS:
        spec = _nearest(make, quantity, target, grid)
        if abs(quantity(spec) - target) <= tolerance * target:
            return spec
    raise ValueError(
        f"fit: the nearest to target={target:,} is {quantity(spec):,}, off by "
        f"{abs(quantity(spec) - target) / target:.1%}; wanted within {tolerance:.1%}"
    )


def _nearest(
    make: Callable[[int], ModelSpec], quantity: Callable[[ModelSpec], int], target: int, grid: int
) -> ModelSpec:
    """Return make(x) for the multiple x >= grid whose quantity lies nearest to the target."""
    high = 1
    while quantity(make(high * grid)) < target:
        high *= 2
    low = 1
    while low < high:
        middle = (low + high) // 2
        if quantity(make(middle * grid)) < target:
            low = middle + 1
        else:
            high = middle
    around = [make(step * grid) for step in sorted({max(low - 1, 1), low})]
    return min(around, key=lambda spec: abs(quantity(spec) - target))
