"""The sweeps that `python -m sweeps run` knows. A new one is one file and one line here.

A sweep of your own needs no line: `python -m sweeps run my_sweep.py` takes SWEEP of that file.
"""

import importlib.util
import sys
import traceback
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


def _place_of(error: Exception, path: Path) -> str:
    """Return the file and its last line that led to the error."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f"{path}, line {lines[-1]}" if lines else str(path)


def _of_file(path: Path) -> Sweep | Search:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; it would define SWEEP")
    spec = importlib.util.spec_from_file_location(f"sweep_of_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses of the file look themselves up there
    try:
        spec.loader.exec_module(module)
    except ValueError as error:
        raise ValueError(f"{_place_of(error, path)}: {error}") from error
    sweep = getattr(module, "SWEEP", None)
    if not isinstance(sweep, (Sweep, Search)):
        raise ValueError(
            f"{path} must define SWEEP, a sweeps.sweep.Sweep or sweeps.plans.search.Search"
        )
    return sweep
