"""The Optuna study behind a sweep: its trials by place, and how it is kept equal to the records.

Every trial of ours waits in the study before it runs, and carries the place of the plan that it is
for. A place is settled when one of its trials is complete or pruned. Records come first: what is
recorded is told to the study, never the other way round, so a lost study is rebuilt from results/.
"""

import hashlib
import unicodedata
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.engine import URL

from sweeps.plans.plan import Plan
from sweeps.study.replay import (
    OUTCOME,
    PLACE,
    REFUSED,
    Ended,
    Params,
    Replayed,
    Replays,
    choices_by_place,
)
from sweeps.trial.records import Ledger

SQLITE = "study.sqlite3"  # name of the default storage, beside the records
FIXED = "fixed_params"  # where Optuna keeps what a waiting trial is to choose
RETRIED = "retried"  # user attribute of a trial that a person asked for
CANCELLED = "cancelled"  # what OUTCOME says of a trial whose place the plan no longer has
REFUSALS = 50  # a place where so much was over budget is given up
OPEN_STATES = (TrialState.WAITING, TrialState.RUNNING)


def open_study(name: str, storage: BaseStorage, plan: Plan) -> Study:
    """Return the study `name`, made if it is not there."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=storage,
        study_name=name,
        load_if_exists=True,
        directions=list(plan.directions),
        pruner=plan.pruner(),
    )


def study_name(folder: str, plan: Plan) -> str:
    """Return the study's name: another design is another study, told the same records."""
    digest = hashlib.sha256(plan.identity.encode()).hexdigest()[:8]
    return f"{folder}-{plan.scale}-{digest}"


def sqlite_url(folder: Path) -> str:
    """Return the URL of the default storage: one SQLite file beside the records.

    Nothing is made. Raises ValueError for a path that is no Unicode, which no URL can hold.
    """
    path = str((folder / SQLITE).resolve())
    if any(unicodedata.category(x) == "Cs" for x in path):  # how Python keeps such bytes
        raise ValueError(
            f"storage: the path {path!a} is not Unicode, so no URL can name it; "
            "give another --results folder"
        )
    return URL.create("sqlite", database=path).render_as_string()


def settles(trial: FrozenTrial) -> bool:
    """Return whether nothing more is to be done at the place of this trial."""
    if trial.state is TrialState.PRUNED:
        return REFUSED not in trial.user_attrs
    return trial.state is TrialState.COMPLETE


def settled_places(study: Study, plan: Plan) -> set[str]:
    """Return the places at which nothing more is to be done."""
    return {p for p, trials in trials_by_place(study, plan).items() if any(map(settles, trials))}


def trials_by_place(study: Study, plan: Plan) -> dict[str, list[FrozenTrial]]:
    """Return the trials at each place of the plan, those of an earlier, longer plan left out."""
    found: dict[str, list[FrozenTrial]] = {place: [] for place in plan.places()}
    for trial in study.get_trials(deepcopy=False):
        if (place := trial.user_attrs.get(PLACE)) in found:
            found[place].append(trial)
    return found


def restore(study: Study, plan: Plan, ledger: Ledger, *, retried: bool = False) -> int:
    """Make the study agree with the records and enqueue what is left; return how many were.

    With `retried`, workers that died earlier at a place that is enqueued no longer count.
    A place that is settled or has a trial waiting or running is left alone. Two callers at once may
    enqueue a place twice: whoever takes the second finds that out (`held_by_another`).
    """
    replays = Replays(plan=plan, folder=ledger.folder, runs=ledger.by_run())
    choices = _choices(plan, ledger)
    enqueued = 0
    for place, trials in trials_by_place(study, plan).items():
        if any(settles(t) or t.state in OPEN_STATES for t in trials):
            continue
        left = _restore_place(study, plan, place, trials, choices[place], replays)
        if left is not None:
            enqueue(study, place, left, retried=retried)
            enqueued += 1
    return enqueued


def _restore_place(
    study: Study,
    plan: Plan,
    place: str,
    trials: Sequence[FrozenTrial],
    recorded: Sequence[Params],
    replays: Replays,
) -> Params | None:
    """Add the trials that the records of one place tell of; return what to enqueue, if anything."""
    fixed = plan.places()[place]
    refused = [t.params for t in trials if REFUSED in t.user_attrs]
    tried = [chosen(t) for t in trials if chosen(t) and REFUSED not in t.user_attrs]
    candidates = [dict(fixed)] if fixed else _distinct([*recorded, *tried])
    for params in candidates:
        if params in refused:
            continue
        ended = replays.play(place, params)
        if not fixed and _is_foreign(ended) and params not in tried:
            continue
        if ended.trial is not None:
            study.add_trial(ended.trial)
        if ended.kind is not Ended.REFUSED:
            return params if ended.kind is Ended.UNFINISHED else None
    return None if fixed or len(refused) >= REFUSALS else {}


def _choices(plan: Plan, ledger: Ledger) -> dict[str, list[Params]]:
    """Return what the records of this sweep and scale say was chosen at each place."""
    mine = [r for r in ledger.records() if (r.sweep, r.scale) == (plan.name, plan.scale)]
    return choices_by_place(mine)


def _is_foreign(ended: Replayed) -> bool:
    """Return whether a choice of the records is none that this plan would have made.

    It is out of the plan's space, or the plan would make another run of it, which is not there.
    """
    return ended.kind is Ended.MISFIT or (ended.kind is Ended.UNFINISHED and not ended.found)


def left_out(plan: Plan, ledger: Ledger) -> tuple[str, ...]:
    """Say in words how many choices are recorded that the plan has no use for, as it is now."""
    replays = Replays(plan=plan, folder=ledger.folder, runs=ledger.by_run())
    places = plan.places()
    foreign = beyond = 0
    for place, recorded in _choices(plan, ledger).items():
        choices = _distinct(recorded)
        if place in places:
            foreign += sum(_is_foreign(replays.play(place, params)) for params in choices)
        else:
            beyond += len(choices)
    counts = {
        "of another space, recipe, text or engine than the search has now": foreign,
        f"at places beyond the {len(places)} that there are now": beyond,
    }
    return tuple(f"{n} {'trial' if n == 1 else 'trials'} {x}" for x, n in counts.items() if n)


def given_up(study: Study, plan: Plan) -> str | None:
    """Say how many places were given up since every choice was refused, None for none."""
    reasons = []
    for trials in trials_by_place(study, plan).values():
        refused = [t.user_attrs[REFUSED] for t in trials if REFUSED in t.user_attrs]
        if len(refused) >= REFUSALS and not any(map(settles, trials)):
            reasons.append(refused[-1])
    if not reasons:
        return None
    return (
        f"given up: {len(reasons)} of {len(plan.places())} trials, since each of {REFUSALS} "
        f"choices was refused; the last one: {reasons[-1]}"
    )


def cancel_beyond(study: Study, plan: Plan) -> int:
    """Cancel the trials that wait at places which the plan no longer has; return how many."""
    places, cancelled = plan.places(), 0
    for trial in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        if trial.user_attrs.get(PLACE) not in places:
            with suppress(UpdateFinishedTrialError):  # another worker was quicker
                study._storage.set_trial_user_attr(trial._trial_id, OUTCOME, CANCELLED)
                study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
                cancelled += 1
    return cancelled


def _distinct(items: Iterable[Params]) -> list[Params]:
    found: list[Params] = []
    for item in items:
        if item not in found:
            found.append(item)
    return found


def enqueue(study: Study, place: str, params: Params, *, retried: bool = False) -> None:
    """Let a trial wait for a worker; what `params` lack is sampled when it runs."""
    mark = {RETRIED: True} if retried else {}
    study.enqueue_trial(dict(params), user_attrs={PLACE: place, **mark})


def chosen(trial: FrozenTrial) -> Params:
    """Return what a trial has chosen, and what it was still to choose when its worker died."""
    return {**trial.system_attrs.get(FIXED, {}), **trial.params}


def held_by_another(study: Study, trial: Trial) -> bool:
    """Return whether a trial at the same place is settled, or runs and came first."""
    place = trial.user_attrs[PLACE]
    return any(
        settles(other) or (other.state is TrialState.RUNNING and other.number < trial.number)
        for other in study.get_trials(deepcopy=False)
        if other.number != trial.number and other.user_attrs.get(PLACE) == place
    )


def seed_of(place: str, refused: int) -> int:
    """Return a seed for what is sampled at a place, the same whenever it is.

    It is another after each refusal, or the same choice would be refused again and again.
    """
    return zlib.crc32(f"{place}.{refused}".encode())


def runs_elsewhere(study: Study, trial: Trial, attribute: str, name: str) -> bool:
    """Return whether an earlier trial that runs has the same value of a user attribute."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return any(t.number < trial.number and t.user_attrs.get(attribute) == name for t in running)


def deaths(study: Study, place: str) -> int:
    """Return how many trials at a place ended without a word: their workers died.

    Those before the place was last retried do not count.
    """
    here = [t for t in study.get_trials(deepcopy=False) if t.user_attrs.get(PLACE) == place]
    begin = max((t.number for t in here if RETRIED in t.user_attrs), default=0)
    failed = [t for t in here if t.state is TrialState.FAIL and t.number >= begin]
    return sum(OUTCOME not in t.user_attrs for t in failed)


def refusals(study: Study, place: str) -> int:
    """Return how often something was refused at a place."""
    pruned = study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
    return sum(t.user_attrs.get(PLACE) == place and REFUSED in t.user_attrs for t in pruned)
