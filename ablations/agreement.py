"""Two records of one thing: whether what they measured agrees, by their intervals."""

from math import exp, log
from typing import NamedTuple

import pandas as pd

from sweeps import results
from sweeps.show.statistics import interval


class Factor(NamedTuple):
    """A ratio of two arms over seeds: geometric mean and 95% Student-t interval of logarithms."""

    times: float
    low: float
    high: float

    @property
    def text(self) -> str:
        return f"{self.times:.3g} [{self.low:.3g}, {self.high:.3g}]"

    def agrees(self, other: "Factor") -> bool:
        """Return whether the intervals overlap."""
        return self.low <= other.high and other.low <= self.high


def factor(trials: pd.DataFrame, column: str, arm: str, other: str) -> Factor:
    """Return `column` of `arm` over that of `other`, for seeds that both have.

    Raises ValueError for fewer than two seeds, which have no interval.
    """
    table = results.complete(trials).pivot(index="seed", columns="arm", values=column)
    logs = (table[arm] / table[other]).map(log)
    mean, half, n = interval(logs)
    if n < 2:
        raise ValueError(f"{column} of {arm} over {other} needs at least two seeds, got {n}")
    return Factor(exp(mean), exp(mean - half), exp(mean + half))


def compared(
    records: dict[str, pd.DataFrame], columns: tuple[str, ...], arm: str, other: str
) -> pd.DataFrame:
    """Return a row for each key of `columns` that both records have, such as each context.

    `records` has two tables by name. `quieter` names the one with the shorter interval.
    """
    (first, a), (second, b) = records.items()
    return pd.DataFrame(
        [
            _row(column, key, {first: a, second: b}, arm, other)
            for column in columns
            for key in results.keys(a, column)
            if key in results.keys(b, column)
        ]
    )


def _row(
    column: str, key: object, records: dict[str, pd.DataFrame], arm: str, other: str
) -> dict[str, object]:
    seen = {name: factor(table, f"{column}.{key}", arm, other) for name, table in records.items()}
    one, two = seen.values()
    return {
        "measured": f"{column}.{key}",
        **{name: x.text for name, x in seen.items()},
        "agree": one.agrees(two),
        "quieter": min(seen, key=lambda name: seen[name].high / seen[name].low),
    }
