"""Learning rates chosen without the seed that is judged at them.

    tuned = leave_one_seed_out(valid_RS, test_RS)      # rows are rates, columns are seeds
    tuned.values                                      # (S,): test loss of each seed

Letters: R learning rates in rising order, S seeds. A loss of infinity is a run that diverged.
A rate that is best on the draws it is judged by is judged too well (winner's curse). Here the rate
for seed s is the one with the lowest validation loss, averaged over the other seeds.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class TunedValues:
    """The test loss of each seed at the rate that the other seeds chose."""

    values: Floats  # (S,)
    chosen: tuple[int, ...]  # (S,): index of the rate that was taken for each seed
    best: int  # index of the rate with the lowest mean validation loss over all seeds
    n_rates: int

    @property
    def at_edge(self) -> bool:
        """Return whether any choice is at an end of the grid."""
        ends = {0, self.n_rates - 1}
        return bool(ends & {*self.chosen, self.best})


def leave_one_seed_out(valid_RS: Floats, test_RS: Floats) -> TunedValues:
    """Return each seed's test loss at the rate whose validation loss is best over other seeds.

    Of equal means the lower rate is taken. Raises ValueError for shapes that differ, fewer than two
    seeds, or losses that are missing (NaN). A rate at which a run of the other seeds diverged has
    an infinite mean, so it is taken only where all rates diverged.
    """
    valid, test = np.asarray(valid_RS, np.float64), np.asarray(test_RS, np.float64)
    if valid.ndim != 2 or valid.shape != test.shape:
        raise ValueError(
            f"validation and test losses must be (rates, seeds) alike, got {valid.shape} and "
            f"{test.shape}"
        )
    n_rates, n_seeds = valid.shape
    if n_seeds < 2 or n_rates < 1:
        raise ValueError(f"tuning needs a rate and two seeds, got {n_rates} and {n_seeds}")
    if np.isnan(valid).any() or np.isnan(test).any():
        raise ValueError("tuning needs a loss for every rate and seed, and some are missing")
    chosen = tuple(
        int(np.argmin(np.delete(valid, seed, axis=1).mean(axis=1))) for seed in range(n_seeds)
    )
    return TunedValues(
        values=test[list(chosen), np.arange(n_seeds)],
        chosen=chosen,
        best=int(np.argmin(valid.mean(axis=1))),
        n_rates=n_rates,
    )
