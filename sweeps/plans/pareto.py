"""Which of several vectors of values beats which."""

from collections.abc import Sequence


def at_least_as_good(a: Sequence[float], b: Sequence[float], directions: Sequence[str]) -> bool:
    """Return whether `a` is nowhere worse than `b`; `directions` are minimize or maximize."""
    return all(
        x <= y if direction == "minimize" else x >= y
        for x, y, direction in zip(a, b, directions, strict=True)
    )


def dominates(a: Sequence[float], b: Sequence[float], directions: Sequence[str]) -> bool:
    """Return whether `a` is nowhere worse than `b` and somewhere better."""
    return at_least_as_good(a, b, directions) and tuple(a) != tuple(b)


def front(vectors: Sequence[Sequence[float]], directions: Sequence[str]) -> list[int]:
    """Return the places of the vectors that no other dominates."""
    return [
        i
        for i, mine in enumerate(vectors)
        if not any(dominates(other, mine, directions) for other in vectors)
    ]
