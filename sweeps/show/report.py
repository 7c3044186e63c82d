"""What a sweep's records tell, as a table and as figures: by the kind of the sweep."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from rich.table import Table

from hybrid import codec
from sweeps import results
from sweeps.plans.grid import Grid
from sweeps.plans.plan import Plan
from sweeps.plans.search import Hunt, Search
from sweeps.show import figures, search_report, table
from sweeps.sweep import Sweep
from sweeps.trial.engine import Compile, Engine
from sweeps.trial.recipe import Recipe
from sweeps.trial.record import Record
from sweeps.trial.records import Ledger

Shown = tuple[Table, list[Path]]


def of_plan(plan: Plan, ledger: Ledger) -> Shown:
    """Return the table of a plan's runs, and the figures saved beside the records.

    Raises LookupError where no trial was completed.
    """
    return PLANS[type(plan)](plan, ledger)


def table_of(sweep: Sweep | Search, scale: str, folder: Path) -> Table:
    """Return the table of all records of `sweep` at `scale` in its `folder`."""
    return TABLES[type(sweep)](sweep, scale, folder)


def figures_of(sweep: Sweep | Search, scale: str, folder: Path) -> list[Path]:
    """Draw all records of `sweep` at `scale` in its `folder`, and return the paths."""
    return FIGURES[type(sweep)](sweep, scale, folder)


def hunt_of(search: Search, scale: str, folder: Path) -> tuple[Hunt, Ledger]:
    """Return the plan that the newest records of a search were made by, and the records.

    Raises LookupError where there are none.
    """
    ledger = Ledger(folder)
    made = [r for r in ledger.records() if (r.sweep, r.scale) == (search.name, scale)]
    if not made:
        raise LookupError(results.nothing(folder.name, folder.parent, scale))
    newest = max(made, key=lambda r: (r.ops is not None, r.started_utc))
    recipe: Recipe = codec.loads(Recipe, newest.recipe)
    hunt = Hunt(search=search, scale=scale, source=recipe.source, engine=engine_of(newest))
    return hunt, ledger


def engine_of(record: Record) -> Engine:
    """Return the engine that a record names; nothing of it needs to be here."""
    compiled = Compile.OFF if record.compiled is None else Compile(record.compiled)
    return Engine(device=record.device, ops=record.ops or "auto", compile=compiled)


def _grid_trials(sweep: Sweep, scale: str, folder: Path) -> pd.DataFrame:
    trials = results.load(folder.name, folder=folder.parent, scale=scale)
    if results.complete(trials).empty:
        raise LookupError(f"no trial was completed; {folder} holds what went wrong, column `error`")
    return trials


def _without_branches(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of whole runs: a branch is of another length than its arm.

    The rows of a plan are chosen by its points, of which a branch may be one.
    """
    return trials[trials["branch_of"].isna()]


def _title(sweep: Sweep | Search, scale: str) -> str:
    return f"{sweep.question} (scale {scale})"


def _grid_table(sweep: Sweep, scale: str, folder: Path) -> Table:
    trials = _without_branches(_grid_trials(sweep, scale, folder))
    return table.as_rich(trials, sweep.arms, _title(sweep, scale))


def _grid_figures(sweep: Sweep, scale: str, folder: Path) -> list[Path]:
    trials = _without_branches(_grid_trials(sweep, scale, folder))
    return figures.save(sweep.figure(trials, sweep.arms), folder / f"{sweep.name}-{scale}")


def _search_table(search: Search, scale: str, folder: Path) -> Table:
    hunt, ledger = hunt_of(search, scale, folder)
    return search_report.as_rich(hunt, search_report.study_of(hunt, ledger))


def _search_figures(search: Search, scale: str, folder: Path) -> list[Path]:
    hunt, ledger = hunt_of(search, scale, folder)
    return _hunt_figures(hunt, ledger)


def _of_grid(grid: Grid, ledger: Ledger) -> Shown:
    sweep, folder = grid.sweep, ledger.folder
    trials = _grid_trials(sweep, grid.scale, folder)
    mine = trials[trials["run_id"].isin(grid.points)]
    drawn = figures.save(sweep.figure(mine, sweep.arms), folder / f"{sweep.name}-{grid.scale}")
    return table.as_rich(mine, sweep.arms, _title(sweep, grid.scale)), drawn


def _of_hunt(hunt: Hunt, ledger: Ledger) -> Shown:
    study = search_report.study_of(hunt, ledger)
    return search_report.as_rich(hunt, study), _hunt_figures(hunt, ledger)


def _hunt_figures(hunt: Hunt, ledger: Ledger) -> list[Path]:
    study = search_report.study_of(hunt, ledger)
    return search_report.draw(hunt, study, ledger.folder / f"{hunt.name}-{hunt.scale}")


PLANS: dict[type, Callable[..., Shown]] = {Grid: _of_grid, Hunt: _of_hunt}
TABLES: dict[type, Callable[..., Table]] = {Sweep: _grid_table, Search: _search_table}
FIGURES: dict[type, Callable[..., list[Path]]] = {Sweep: _grid_figures, Search: _search_figures}
