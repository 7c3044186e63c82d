"""The sweeps that `python -m sweeps run` knows. A new one is one file and one line here."""

from sweeps import moe_grid, ratio, ratio_lr
from sweeps.sweep import Sweep

SWEEPS = {sweep.name: sweep for sweep in (ratio.SWEEP, ratio_lr.SWEEP, moe_grid.SWEEP)}


def find(name: str) -> Sweep:
    """Return the sweep called `name`; ValueError lists those that exist."""
    if name not in SWEEPS:
        raise ValueError(f"there is no sweep {name!r}; there are: {', '.join(SWEEPS)}")
    return SWEEPS[name]
