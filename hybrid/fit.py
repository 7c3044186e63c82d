"""Solves one whole-number dimension of a spec so that a quantity meets a target. Free of torch.

`match` takes both by name and says what it matched, for comparisons that must be equal in
something; `fit` is the same search for a family and a quantity of your own.

    match(spec, free="mlp_hidden", quantity="params", target=cost.params(other))
    match(spec, free="kv_heads", quantity="cache_bytes", target=2**30, context=4096)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hybrid.cost import active_params, cache_bytes, params
from hybrid.dimensions import FREE, Choice
from hybrid.flops import training_flops
from hybrid.memory import KV_BYTES
from hybrid.spec import ModelSpec, SpecError, require

GRIDS = (64, 32, 16, 8, 4, 2, 1)  # round widths suit matrix units: the coarsest that meets it
DOUBLINGS = 48
TOLERANCE = 0.01  # a fraction of the target

Quantity = Callable[[ModelSpec], float]
Measure = Callable[[ModelSpec, int], float]  # spec, context -> value


@dataclass(frozen=True, kw_only=True)
class Match:
    """A spec solved for a target, and what was matched, for the record of a comparison."""

    spec: ModelSpec
    free: str  # the dimension that was solved
    value: int  # its solution
    quantity: str
    context: int
    target: float
    reached: float

    @property
    def error(self) -> float:
        """How far off, as a fraction of the target."""
        return abs(self.reached - self.target) / self.target


QUANTITIES: dict[str, Measure] = {
    "params": lambda spec, context: params(spec),
    "active_params": lambda spec, context: active_params(spec),
    "training_flops": lambda spec, context: training_flops(spec, tokens=context),  # a token
    "cache_bytes": lambda spec, context: cache_bytes(
        spec, batch=1, tokens=context, itemsize=KV_BYTES
    ),
}


def match(
    base: ModelSpec,
    *,
    free: str,
    quantity: str,
    target: float,
    context: int = 4096,
    tolerance: float = TOLERANCE,
) -> Match:
    """Return `base` with its dimension `free` solved so that `quantity` meets `target`.

    FREE and QUANTITIES hold the names; `context` is the length of sequences where it matters.
    Raises ValueError saying why the target cannot be met, with the nearest value reached.
    """
    require(free in FREE, f"match: free={free!r} must be one of {', '.join(FREE)}")
    require(
        quantity in QUANTITIES,
        f"match: quantity={quantity!r} must be one of {', '.join(QUANTITIES)}",
    )
    require(target > 0, f"match: target={target} must be above 0")
    dimension, measure = FREE[free], QUANTITIES[quantity]

    def reached(x: int) -> float:
        return measure(dimension.put(base, x), context)

    try:
        if isinstance(dimension, Choice):
            value = _best_of(dimension.values(base), reached, target, tolerance)
        else:
            step = dimension.step(base)
            value = _roundest([grid * step for grid in GRIDS], reached, target, tolerance)
    except ValueError as error:
        kind = SpecError if isinstance(error, SpecError) else ValueError
        raise kind(f"match {quantity} by {free}: {error}") from None
    return Match(
        spec=dimension.put(base, value),
        free=free,
        value=value,
        quantity=quantity,
        context=context,
        target=target,
        reached=reached(value),
    )


def fit(
    make: Callable[[int], ModelSpec],
    quantity: Quantity,
    target: float,
    *,
    tolerance: float = TOLERANCE,
) -> ModelSpec:
    """Return make(x) with `quantity` within `tolerance` (a fraction) of `target`.

    x is the roundest that will do: the nearest multiple of 64 if that is near enough, else of 32,
    and so on down to 1. `quantity(make(x))` must grow with x. Raises SpecError with the nearest
    value reached where no x is near enough, or where the quantity stops growing below the target.

        fit(lambda hidden: spec_with(hidden), cost.params, cost.params(other))
    """
    return make(_roundest(GRIDS, lambda x: quantity(make(x)), target, tolerance))


def _roundest(
    grids: Sequence[int], reached: Callable[[int], float], target: float, tolerance: float
) -> int:
    """Return the x of the coarsest grid whose value is near enough."""
    for grid in grids:
        x = _nearest(grid, reached, target, tolerance)
        if abs(reached(x) - target) <= tolerance * target:
            return x
    if reached(2 * x) <= reached(x):
        raise _flat(x, reached(x), reached(2 * x), target)
    raise _missed(x, reached(x), target, tolerance)


def _best_of(
    values: Sequence[int], reached: Callable[[int], float], target: float, tolerance: float
) -> int:
    """Return the x of a finite choice whose value is nearest, if it is near enough."""
    require(len(values) > 0, "fit: the model has no layer with this dimension")
    x = min(values, key=lambda x: abs(reached(x) - target))
    if abs(reached(x) - target) > tolerance * target:
        raise _missed(x, reached(x), target, tolerance)
    return x


def _missed(x: int, value: float, target: float, tolerance: float) -> SpecError:
    return SpecError(
        f"fit: the nearest to target={target:,} is {value:,} at {x:,}, off by "
        f"{abs(value - target) / target:.1%}; wanted within {tolerance:.1%}"
    )


def _flat(x: int, value: float, doubled: float, target: float) -> SpecError:
    return SpecError(
        f"fit: the quantity does not grow with the dimension: {value:,} at {x:,} and "
        f"{doubled:,} at {2 * x:,}; target={target:,}"
    )


def _nearest(grid: int, reached: Callable[[int], float], target: float, tolerance: float) -> int:
    """Return the multiple of `grid` whose value lies nearest to the target."""
    low, high = 1, _first_above(grid, reached, target, tolerance)
    while low < high:
        middle = (low + high) // 2
        if reached(middle * grid) < target:
            low = middle + 1
        else:
            high = middle
    around = [step * grid for step in sorted({max(low - 1, 1), low})]
    return min(around, key=lambda x: abs(reached(x) - target))


def _first_above(
    grid: int, reached: Callable[[int], float], target: float, tolerance: float
) -> int:
    """Return a power of two whose multiple of `grid` reaches the target, or all but reaches it."""
    high, value = 1, reached(grid)
    for _ in range(DOUBLINGS):
        if value >= target:
            return high
        last, high = value, 2 * high
        value = reached(high * grid)
        if value <= last:  # a plateau, or no influence at all
            if last >= (1 - tolerance) * target:
                return high
            raise _flat(high * grid // 2, last, value, target)
    raise SpecError(
        f"fit: target={target:,} is out of reach: {value:,} at {high * grid:,} is still below it"
    )
