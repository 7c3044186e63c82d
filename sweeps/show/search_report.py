"""What a search found: its trials as a table, and Optuna's own figures, both from the records."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as drawings
from rich.table import Table

from sweeps.plans.plan import Plan
from sweeps.plans.search import LR_AT_EDGE, Hunt
from sweeps.show.figures import STYLE, save
from sweeps.show.table import markdown, not_shown
from sweeps.study import studies
from sweeps.study.replay import OUTCOME, REFUSED, REFUSED_BY
from sweeps.trial.file_names import file_part
from sweeps.trial.records import Ledger

MOST_ROWS = 30
LEAST_FOR_IMPORTANCE = 4  # complete trials; with fewer, the figure would be noise


def study_of(plan: Plan, ledger: Ledger) -> Study:
    """Return the study that the records tell of, in memory: no database is asked.

    Raises LookupError where no trial of this search, as it is now, was recorded.
    """
    study = studies.open_study("records", optuna.storages.InMemoryStorage(), plan)
    studies.restore(study, plan, ledger)
    if not study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED)):
        others = studies.left_out(plan, ledger)
        also = f" (there are {'; '.join(others)})" if others else ""
        raise LookupError(
            f"no trial of {plan.name!r} as it is now at scale {plan.scale!r} under "
            f"{ledger.folder}{also}; `python -m sweeps run` with the same words makes some"
        )
    return study


def as_rich(hunt: Hunt, study: Study, left_out: Sequence[str] = ()) -> Table:
    """Return the best trials: those not dominated (marked), then by the first objective."""
    headings, rows = cells(hunt, study)
    table = Table(title=f"{hunt.search.question} (scale {hunt.scale})")
    for heading in headings:
        table.add_column(heading, justify="right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    table.caption = _below(study, left_out)
    return table


def as_markdown(hunt: Hunt, study: Study, left_out: Sequence[str] = ()) -> str:
    """Return the same table as Markdown."""
    return f"{markdown(*cells(hunt, study))}\n\n{_below(study, left_out)}"


def cells(hunt: Hunt, study: Study) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the rows of the best trials."""
    names = [objective.name for objective in hunt.search.objectives]
    params = list(dict.fromkeys(name for t in study.trials for name in t.params))
    best = {t.number for t in study.best_trials}
    rows = []
    for trial in ordered(study, hunt)[:MOST_ROWS]:
        mark = "*" if trial.number in best else ""
        values = trial.values if trial.values and trial.state is TrialState.COMPLETE else []
        shown = [f"{value:,.4g}" for value in values] or [""] * len(names)
        chosen = [_short(trial.params.get(name, "")) for name in params]
        rows.append([f"{mark}{trial.number}", *chosen, *shown, _ended(trial)])
    headings = ("trial", *params, *names, "how it ended")
    return [heading.replace("_", " ") for heading in headings], rows


def left_out(hunt: Hunt, ledger: Ledger) -> tuple[str, ...]:
    """Say how many recorded trials are of another space, of other rules, or beyond `n_trials`."""
    return studies.left_out(hunt, ledger)


def ordered(study: Study, hunt: Hunt) -> list[FrozenTrial]:
    """Return finished trials: those not dominated, then complete ones, then the others."""
    best = {t.number for t in study.best_trials}
    sign = 1 if hunt.directions[0] == "minimize" else -1

    def place(trial: FrozenTrial) -> tuple[bool, bool, float]:
        complete = trial.state is TrialState.COMPLETE
        return (
            trial.number not in best,
            not complete,
            sign * trial.values[0] if complete else float(trial.number),
        )

    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    return sorted(done, key=place)


def draw(hunt: Hunt, study: Study, stem: Path) -> list[Path]:
    """Save what Optuna draws of the study beside the records, and return the paths."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    paths: list[Path] = []
    for name, make in _drawings(hunt, study, len(complete)):
        with _style():
            paths += save(_figure(make()), stem.with_name(f"{stem.name}-{file_part(name)}"))
    return paths


def _drawings(
    hunt: Hunt, study: Study, complete: int
) -> Iterator[tuple[str, Callable[[], object]]]:
    objectives = hunt.search.objectives
    names = [objective.name for objective in objectives]
    if not complete:
        return
    for first, second in combinations(range(len(names)), 2):
        pair = (names[first], names[second])
        yield (
            f"pareto-{pair[0]}-{pair[1]}",
            partial(
                drawings.plot_pareto_front,
                study,
                target_names=list(pair),
                targets=_Pair(first, second),
            ),
        )
    for index, name in enumerate(names):
        options: dict[str, Any] = {"target": _Value(index), "target_name": name}
        yield f"slice-{name}", partial(drawings.plot_slice, study, **options)
        if complete >= LEAST_FOR_IMPORTANCE:
            less_is_better = _Value(index, -1 if hunt.directions[index] == "maximize" else 1)
            yield (
                f"importance-{name}",
                partial(
                    drawings.plot_param_importances, study, target=less_is_better, target_name=name
                ),
            )
    if len(objectives) == 1:
        yield "history", lambda: drawings.plot_optimization_history(study)


@dataclass(frozen=True)
class _Pair:
    """Two of a trial's values; which trials are best is still said of all of them."""

    first: int
    second: int

    def __call__(self, trial: FrozenTrial) -> tuple[float, float]:
        return trial.values[self.first], trial.values[self.second]


@dataclass(frozen=True)
class _Value:
    """One of a trial's values, as Optuna's figures ask for it; `sign` -1 turns what is good round.

    Optuna's importance (PED-ANOVA) is that for low values, whatever the study's directions are.
    """

    index: int
    sign: int = 1

    def __call__(self, trial: FrozenTrial) -> float:
        return self.sign * trial.values[self.index]


def _figure(drawn: object) -> Figure:
    axes = drawn if isinstance(drawn, Axes) else np.ravel(np.asarray(drawn))[0]
    figure = axes.figure
    assert isinstance(figure, Figure)
    return figure


@contextmanager
def _style() -> Iterator[None]:
    """Draw in our style; Optuna calls its matplotlib figures experimental at every call."""
    with warnings.catch_warnings(), mpl.rc_context(STYLE):
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings(
            "ignore", "PedAnova.* low `target` values", UserWarning
        )  # as wanted
        # A parameter that had one value in all trials.
        warnings.filterwarnings("ignore", "Attempting to set identical low and high", UserWarning)
        yield


def _ended(trial: FrozenTrial) -> str:
    said = trial.user_attrs.get(REFUSED) or trial.user_attrs.get(OUTCOME) or ""
    if not said:
        said = trial.state.name.lower()
    edge = trial.user_attrs.get(LR_AT_EDGE)
    return said if edge is None else f"{said}; best rate {edge:g} is the last of its grid"


def _below(study: Study, left_out: Sequence[str]) -> str:
    said = not_shown(left_out)
    return f"* not dominated by any other; {_counts(study)}" + (f". {said}" if said else "")


def _counts(study: Study) -> str:
    trials = study.get_trials(deepcopy=False)
    refused = sum(REFUSED in t.user_attrs for t in trials)
    complete = sum(t.state is TrialState.COMPLETE for t in trials)
    pruned = sum(t.state is TrialState.PRUNED for t in trials) - refused
    by = Counter(t.user_attrs.get(REFUSED_BY, "") for t in trials if REFUSED in t.user_attrs)
    said = "".join(f", {n} refused {kind}".rstrip() for kind, n in sorted(by.items()))
    return f"{complete} complete, {pruned} ended early{said}"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
