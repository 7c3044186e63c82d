"""What a sweep's records tell, as a table and as figures: by the kind of the sweep."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.table import Table

from sweeps import designs, results
from sweeps.plans.grid import Grid
from sweeps.plans.plan import Plan
from sweeps.plans.search import Hunt, Search
from sweeps.show import figures, search_report, table
from sweeps.sweep import Sweep
from sweeps.trial.data.sources import Source
from sweeps.trial.engine import Compile, Engine
from sweeps.trial.record import Record
from sweeps.trial.records import Ledger


@dataclass(frozen=True, kw_only=True)
class Report:
    """Results to be shown: nothing is drawn or written before it is asked for."""

    table: Callable[[], Table]
    markdown: Callable[[], str]
    draw: Callable[[], list[Path]]  # saves figures beside the records and returns their paths
    left_out: tuple[str, ...] = ()  # of the figures, in words: what is recorded and not drawn


def of_plan(plan: Plan, ledger: Ledger) -> Report:
    """Return the report of a plan's runs. Raises LookupError where no trial was completed."""
    return PLANS[type(plan)](plan, ledger)


def of_sweep(
    sweep: Sweep | Search, scale: str, folder: Path, given: Source | None = None
) -> Report:
    """Return the report of `sweep`, as it is now, from its records at `scale` in its `folder`.

    `given` is the text that was given for it; None where its recipes name theirs.
    Raises LookupError where no trial of it was completed.
    """
    return SWEEPS[type(sweep)](sweep, scale, folder, given)


def hunt_of(search: Search, scale: str, folder: Path, given: Source | None) -> tuple[Hunt, Ledger]:
    """Return the plan that the newest records of a search were made by, and the records.

    `given` is as in `of_sweep`.

    Raises LookupError where there are none.
    """
    ledger = Ledger(folder)
    made = [r for r in ledger.records() if (r.sweep, r.scale) == (search.name, scale)]
    if not made:
        raise results.NoRecordsError(folder.name, folder.parent, scale)
    newest = max(made, key=lambda r: (r.ops is not None, r.started_utc))
    hunt = Hunt(search=search, scale=scale, source=given, engine=engine_of(newest))
    return hunt, ledger


def engine_of(record: Record) -> Engine:
    """Return the engine that a record names; nothing of it needs to be here."""
    compiled = Compile.OFF if record.compiled is None else Compile(record.compiled)
    return Engine(device=record.device, ops=record.ops or "auto", compile=compiled)


def _of_sweep(sweep: Sweep, scale: str, folder: Path, given: Source | None) -> Report:
    # `designs.of_sweep` takes the text that was trained on last, whatever was given.
    trials = results.load(folder.name, folder=folder.parent, scale=scale)
    whole = trials[trials["branch_of"].isna()]  # a branch is of another length than its arm
    return _grid_report(sweep, scale, folder, whole, ())


def _of_grid(grid: Grid, ledger: Ledger) -> Report:
    folder = ledger.folder
    trials = results.load(folder.name, folder=folder.parent, scale=grid.scale)
    asked = trials["run_id"].isin(list(grid.points))
    others = len(results.complete(trials[~asked]))
    said = (f"{others} of another design, text or engine",) if others else ()
    return _grid_report(grid.sweep, grid.scale, folder, trials[asked], said)


def _grid_report(
    sweep: Sweep, scale: str, folder: Path, trials: pd.DataFrame, others: tuple[str, ...]
) -> Report:
    chosen = designs.of_sweep(sweep, scale, results.complete(trials))
    left_out = (*others, *chosen.left_out)
    if chosen.trials.empty:
        also = f" (there are trials {'; '.join(left_out)})" if left_out else ""
        raise LookupError(
            f"no trial of {sweep.name!r} as it is now was completed{also}; {folder} holds what "
            "went wrong, column `error`"
        )
    (_, newest), *older = designs.by_setting(chosen.trials)
    not_drawn = tuple(f"{len(rows)} with {words}" for words, rows in older)
    title = f"{sweep.question} (scale {scale})"
    stem = folder / f"{sweep.name}-{scale}"
    return Report(
        table=lambda: table.as_rich(chosen.trials, sweep.arms, title, left_out),
        markdown=lambda: table.as_markdown(chosen.trials, sweep.arms, left_out),
        draw=lambda: figures.save(sweep.figure(newest, sweep.arms), stem),
        left_out=(*left_out, *not_drawn),
    )


def _of_search(search: Search, scale: str, folder: Path, given: Source | None) -> Report:
    return _of_hunt(*hunt_of(search, scale, folder, given))


def _of_hunt(hunt: Hunt, ledger: Ledger) -> Report:
    study = search_report.study_of(hunt, ledger)
    stem = ledger.folder / f"{hunt.name}-{hunt.scale}"
    left_out = search_report.left_out(hunt, ledger)
    return Report(
        table=lambda: search_report.as_rich(hunt, study, left_out),
        markdown=lambda: search_report.as_markdown(hunt, study, left_out),
        draw=lambda: search_report.draw(hunt, study, stem),
        left_out=left_out,
    )


PLANS: dict[type, Callable[..., Report]] = {Grid: _of_grid, Hunt: _of_hunt}
SWEEPS: dict[type, Callable[..., Report]] = {Sweep: _of_sweep, Search: _of_search}
