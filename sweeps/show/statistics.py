"""Means with intervals over seeds."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special  # scipy.stats takes a second to load


class Interval(NamedTuple):
    """A mean and the half-width of its 95% interval; the half-width of one value is NaN."""

    mean: float
    half: float
    n: int


def interval(values: pd.Series) -> Interval:
    """Return the mean of `values` with its 95% Student-t interval; missing values are left out."""
    seen = values.dropna().to_numpy(dtype=float)
    n = len(seen)
    if n < 2:
        return Interval(float(seen.mean()) if n else np.nan, np.nan, n)
    half = special.stdtrit(n - 1, 0.975) * seen.std(ddof=1) / np.sqrt(n)
    return Interval(float(seen.mean()), float(half), n)
