"""What the records of a place tell: its trial, played again without running anything."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.exceptions import TrialPruned
from optuna.trial import BaseTrial, FixedTrial, FrozenTrial, TrialState, create_trial

from sweeps.plans.plan import LENIENT, Judge, Missing, NotComplete, Note, Plan, Refused
from sweeps.study.retries import forgiven, is_open
from sweeps.sweep import Point
from sweeps.trial import records
from sweeps.trial.events import Speeds
from sweeps.trial.record import Label, Outcome, Record
from sweeps.trial.run import run_id
from sweeps.trial.train import Step

PLACE = "place"  # user attributes of a trial
REFUSED = "refused"
REFUSED_BY = "refused_by"
RULES = "rules"  # key in a record's `trial_params`
DUPLICATE = "duplicate"  # what the attribute below says of one too many
OUTCOME = "outcome"
RUN_ID = "run_id"  # the run that a trial is on

Params = Mapping[str, Any]


class Ended(Enum):
    """How a replay went."""

    SETTLED = "settled"  # complete, or ended on purpose
    REFUSED = "refused"  # over a budget: the place may be tried with something else
    UNFINISHED = "unfinished"  # a run is not there, or may be tried again
    MISFIT = "misfit"  # what was chosen is not in the space that the plan has now
    GIVEN_UP = "given up"  # a run failed as often as it may


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """How it ended, and the trial to tell the study of, if there is one."""

    kind: Ended
    trial: FrozenTrial | None = None
    found: bool = True  # of what is unfinished: whether any of its runs has a record


@dataclass(frozen=True, kw_only=True)
class Replays:
    """Plays places of a plan from the records in `folder`; `runs` are attempts by run id."""

    plan: Plan
    folder: Path
    runs: Mapping[str, Sequence[Record]]

    def play(self, place: str, params: Params) -> Replayed:
        """Return how the place ended with these parameters."""
        trial, found = Remembered(dict(params)), list[str]()
        trial.set_user_attr(PLACE, place)

        def obtain(point: Point, judge: Judge = LENIENT) -> Record:
            return self._obtain(point, judge, found)

        try:
            values = self.plan.play(trial, obtain, list)
        except Refused as refusal:
            note_refused(trial, refusal)
            return Replayed(kind=Ended.REFUSED, trial=trial.frozen(TrialState.PRUNED))
        except TrialPruned as reason:
            trial.set_user_attr(OUTCOME, str(reason))
            return Replayed(kind=Ended.SETTLED, trial=trial.frozen(TrialState.PRUNED))
        except NotComplete as failure:
            if failure.settled:
                trial.set_user_attr(OUTCOME, outcome_of(failure.record))
                return Replayed(kind=Ended.SETTLED, trial=trial.frozen(TrialState.PRUNED))
            return Replayed(kind=Ended.GIVEN_UP)
        except (Missing, Unknown):
            return Replayed(kind=Ended.UNFINISHED, found=bool(found))
        except Misfit:
            return Replayed(kind=Ended.MISFIT)
        return Replayed(kind=Ended.SETTLED, trial=trial.frozen(TrialState.COMPLETE, values))

    def _obtain(self, point: Point, judge: Judge, found: list[str]) -> Record:
        label = Label(sweep=self.plan.name, scale=self.plan.scale, arm=point.arm)
        name = run_id(point.spec, point.recipe, label=label, engine=self.plan.engine)
        found += [name] if self.runs.get(name) else []
        attempts = counted(self.runs.get(name, ()), self.plan.rules)
        if is_open(attempts, self._forgiven.get(name, 0)):
            raise Missing(name)
        return decided(attempts, self._curves, judge.note)

    @cached_property
    def _forgiven(self) -> Mapping[str, int]:
        return forgiven(self.folder)

    @cached_property
    def _curves(self) -> Mapping[tuple[str, int], list[Step]]:
        return curves(self.folder)


class Unknown(Exception):
    """A parameter that the plan asks for was not chosen yet."""


class Misfit(Exception):
    """A parameter has a value that the plan does not allow."""


class Remembered(FixedTrial):
    """A trial whose parameters are given, and that remembers what is reported."""

    def __init__(self, params: dict[str, Any]):
        super().__init__(params)
        self.given = params
        self.reported: dict[int, float] = {}

    def report(self, value: float, step: int) -> None:
        self.reported[step] = value

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        if name not in self.given:
            raise Unknown(name)
        if not _contains(distribution, self.given[name]):
            raise Misfit(name)
        return super()._suggest(name, distribution)

    def frozen(self, state: TrialState, values: Sequence[float] | None = None) -> FrozenTrial:
        """Return the finished trial, as a study takes it."""
        return create_trial(
            state=state,
            values=None if values is None else list(values),
            params=dict(self.params),
            distributions=dict(self.distributions),
            user_attrs=dict(self.user_attrs),
            intermediate_values=self.reported,
            constraints=dict(self.constraints),
        )


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (ValueError, TypeError):  # none of the categories, or no number
        return False


def note_refused(trial: BaseTrial, refusal: Refused) -> None:
    """Keep with a trial why it was refused, and by what."""
    trial.set_user_attr(REFUSED, str(refusal))
    trial.set_user_attr(REFUSED_BY, refusal.by)


def counted(attempts: Sequence[Record], rules: str) -> list[Record]:
    """Return the attempts at a run that count in a plan with these rules.

    A run that other rules ended early may go further under these. What is over a budget is decided
    before records are asked for, so a refusal of another budget does not count.
    """
    return [r for r in attempts if r.outcome is not Outcome.REFUSED and not _ended_by(r, rules)]


def _ended_by(record: Record, rules: str) -> bool:
    """Return whether rules other than these ended a run early; older records do not say."""
    if record.outcome is not Outcome.PRUNED or record.trial_params is None:
        return False
    return json.loads(record.trial_params).get(RULES, rules) != rules


def decided(
    attempts: Sequence[Record], curves: Mapping[tuple[str, int], list[Step]], note: Note
) -> Record:
    """Return the complete one of a run's attempts, after `note` has seen its events.

    Raises NotComplete with the attempt that settles it, or else with the last.
    """
    record = next((r for r in attempts if r.outcome.settled), attempts[-1])
    if record.decode_ms is not None:
        note(speeds_of(record))
    for step in curves.get((record.run_id, record.attempt), []):
        note(step)
    if record.outcome is not Outcome.COMPLETE:
        raise NotComplete(record)
    return record


def outcome_of(record: Record) -> str:
    """Return how a run ended, with the first line of why."""
    why = (record.error or "").strip().splitlines()
    return f"{record.outcome}: {why[0]}" if why else str(record.outcome)


def speeds_of(record: Record) -> Speeds:
    """Return what a record says of speed, as the event that it was."""
    assert record.decode_ms is not None
    return Speeds(
        prefill_tokens_per_s=record.prefill_tokens_per_s or {},
        decode_ms=record.decode_ms,
        cache_bytes=record.cache_bytes or {},
    )


def curves(folder: Path) -> dict[tuple[str, int], list[Step]]:
    """Return the training curves under `folder` by run id and attempt."""
    found: dict[tuple[str, int], list[Step]] = defaultdict(list)
    for row in records.read_curves(folder).to_pylist():
        found[row.pop("run_id"), row.pop("attempt")].append(Step(**row))
    return found


def choice_json(trial: BaseTrial, rules: str) -> str:
    """Return what was chosen at a place, and the rules that may end it, as a record holds it."""
    kinds = {name: json.loads(distribution_to_json(x)) for name, x in trial.distributions.items()}
    chosen = {"place": trial.user_attrs[PLACE], "params": trial.params, "distributions": kinds}
    return json.dumps(chosen | ({RULES: rules} if rules else {}), sort_keys=True)


def choices_by_place(found: Iterable[Record]) -> dict[str, list[Params]]:
    """Return what the records say was chosen at each place, the earliest first."""
    choices: dict[str, list[Params]] = defaultdict(list)
    for record in sorted(found, key=lambda r: r.started_utc):
        if record.trial_params is not None:
            chosen = json.loads(record.trial_params)
            choices[chosen["place"]].append(chosen["params"])
    return choices
