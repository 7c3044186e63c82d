"""Solves one whole-number dimension of a spec so that a quantity meets a target. Free of torch."""

from collections.abc import Callable

from hybrid.spec import ModelSpec


def fit(
    make: Callable[[int], ModelSpec],
    quantity: Callable[[ModelSpec], int],
    target: int,
    *,
    multiple_of: int = 8,
    tolerance: float = 0.01,
) -> ModelSpec:
    """Return make(x) for the multiple x whose `quantity` lies nearest to `target`.

    `quantity(make(x))` must grow with x. Raises ValueError with the nearest value reached where
    none lies within `tolerance` (a fraction of the target).

        fit(lambda hidden: spec_with(hidden), cost.params, cost.params(other))
    """
    assert multiple_of >= 1
    assert target > 0
    high = 1
    while quantity(make(high * multiple_of)) < target:
        high *= 2
    low = 1
    while low < high:
        middle = (low + high) // 2
        if quantity(make(middle * multiple_of)) < target:
            low = middle + 1
        else:
            high = middle
    steps = {max(low - 1, 1), low}
    found = [make(step * multiple_of) for step in sorted(steps)]
    best = min(found, key=lambda spec: abs(quantity(spec) - target))
    miss = abs(quantity(best) - target) / target
    if miss > tolerance:
        raise ValueError(
            f"fit: the nearest to target={target:,} is {quantity(best):,}, off by {miss:.1%}; "
            f"wanted within {tolerance:.1%} (steps of {multiple_of})"
        )
    return best
