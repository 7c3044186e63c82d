"""The sweeps that `python -m sweeps run` knows. A new one is one file and one line here.

A sweep of your own needs no line: `python -m sweeps run my_sweep.py` takes SWEEP of that file.
"""

import importlib.util
import sys
from pathlib import Path

from sweeps import moe_grid, ratio, ratio_lr, tradeoff
from sweeps.plans.search import Search
from sweeps.sweep import Sweep

SWEEPS: dict[str, Sweep | Search] = {
    sweep.name: sweep for sweep in (ratio.SWEEP, ratio_lr.SWEEP, moe_grid.SWEEP, tradeoff.SWEEP)
}


def find(name: str) -> Sweep | Search:
    """Return the sweep called `name`, or SWEEP of the file `name`.

    Raises ValueError listing those that exist, or saying what the file lacks, and
    FileNotFoundError for a file that is not there.
    """
    if name.endswith(".py"):
        return _of_file(Path(name))
    if name not in SWEEPS:
        raise ValueError(
            f"there is no sweep {name!r}; there are: {', '.join(SWEEPS)}, "
            "or give the path of a .py file that defines SWEEP"
        )
    return SWEEPS[name]


def _of_file(path: Path) -> Sweep | Search:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; it would define SWEEP")
    spec = importlib.util.spec_from_file_location(f"sweep_of_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses of the file look themselves up there
    spec.loader.exec_module(module)
    sweep = getattr(module, "SWEEP", None)
    if not isinstance(sweep, (Sweep, Search)):
        raise ValueError(
            f"{path} must define SWEEP, a sweeps.sweep.Sweep or sweeps.plans.search.Search"
        )
    return sweep
