"""Options with few right values, checked where they were typed and named as they were typed.

--scale nope: sweep 'ratio' has no scale 'nope'
"""

from hybrid import ops as backends
from hybrid.console import naming
from sweeps.plans.search import Search
from sweeps.sweep import Sweep
from sweeps.trial.device import choose_device


def check_scale(sweep: Sweep | Search, scale: str) -> None:
    """Raise ValueError, with the scales there are, for one that the sweep does not have."""
    if scale not in sweep.scales:
        raise ValueError(
            f"--scale {scale}: sweep {sweep.name!r} has no scale {scale!r}; "
            f"it has {', '.join(sweep.scales)}"
        )


def check_device(device: str) -> None:
    """Raise ValueError, with the devices there are, for a name that is none of them."""
    with naming(f"--device {device}"):
        choose_device(device)


def check_backend(ops: str, device: str) -> None:
    """Raise ValueError for a device or a back end that is not here, and say which option it is."""
    check_device(device)
    with naming(f"--ops {ops}"):
        backends.find(ops, choose_device(device))
