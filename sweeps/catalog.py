"""The sweeps that `python -m sweeps run` knows. A new one is one file and one line here."""

from sweeps import ratio, ratio_lr
from sweeps.sweep import Sweep

SWEEPS = {sweep.name: sweep for sweep in (ratio.SWEEP, ratio_lr.SWEEP)}


def find(name: str) -> Sweep:
    """Return the sweep called `name`; ValueError lists those that exist."""
    if name not in SWEEPS:
        raise ValueError(f"there is no sweep {name!r}; there are: {', '.join(SWEEPS)}")
    return SWEEPS[name]
