"""When a search ends a run early.

One objective: Optuna's pruner decides, on the training loss at rungs: the mean over the steps since
the last rung, each before its text was learnt from. It is compared between runs at equal step, in
nats per token, hence only at one vocabulary.

Several objectives, which Optuna does not prune:

- before training, a run is ruled out if a finished trial is at least as good in every objective
  measured so far, and within `slack` of the best value seen in each of the others. So what is given
  up is at most an improvement of `slack` over the best there was.
- at a rung, a run is ruled out if a finished trial is at least as good in every cheap objective and
  had, at this rung, a training loss lower by more than `margin` nats per token.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean

from optuna.trial import BaseTrial, FrozenTrial, TrialState

from sweeps.plans.objectives import Constraint, Objective
from sweeps.plans.pareto import at_least_as_good
from sweeps.plans.plan import History
from sweeps.trial.events import Event, Speeds
from sweeps.trial.train import Step

RUNGS = "rungs"  # user attribute of a trial: training loss by step, as JSON wants it
EARLY = "early"  # user attribute: cheap objectives by name


@dataclass(kw_only=True)
class Window:
    """The mean training loss since the last rung; rungs are fractions of all steps."""

    rungs: tuple[float, ...]
    steps: int
    losses: list[float] = field(default_factory=list)

    def take(self, step: Step) -> float | None:
        """Return the mean if this step ends a window, else None."""
        self.losses.append(step.nats_per_token)
        if step.step + 1 not in {max(1, round(rung * self.steps)) for rung in self.rungs}:
            return None
        value = mean(self.losses)
        self.losses.clear()
        return value


@dataclass(kw_only=True)
class PrunerRule:
    """Asks the pruner of the study, for a search with one objective."""

    trial: BaseTrial
    window: Window
    due: bool = False

    def note(self, event: Event) -> None:
        if isinstance(event, Step) and (value := self.window.take(event)) is not None:
            self.trial.report(value, event.step + 1)
            self.due = True

    def stop(self, event: Event) -> str | None:
        if not self.due or not isinstance(event, Step):
            return None
        self.due = False
        if self.trial.should_prune():
            return f"the pruner ended it after step {event.step + 1}"
        return None


@dataclass(kw_only=True)
class ParetoRule:
    """Rules out what finished trials dominate, for a search with several objectives."""

    trial: BaseTrial
    window: Window
    objectives: Sequence[Objective]
    slack: Mapping[str, float]
    margin: float
    history: History
    early: dict[str, float] = field(default_factory=dict)
    rungs: dict[str, float] = field(default_factory=dict)

    def note(self, event: Event) -> None:
        if isinstance(event, Speeds):
            self.early = {x.name: x.early(event) for x in self.objectives if x.early is not None}
            self.trial.set_user_attr(EARLY, self.early)
        elif (value := self.window.take(event)) is not None:
            self.rungs[str(event.step + 1)] = value
            self.trial.set_user_attr(RUNGS, self.rungs)

    def stop(self, event: Event) -> str | None:
        if isinstance(event, Speeds):
            return self._hopeless()
        return self._behind(str(event.step + 1))

    def _hopeless(self) -> str | None:
        complete = [t for t in self.history() if t.state is TrialState.COMPLETE]
        if not complete:
            return None
        late = [i for i, x in enumerate(self.objectives) if x.name not in self.early]
        best = {i: self._best([t.values[i] for t in complete], i) for i in late}
        for other in self._at_least_as_cheap(complete):
            if all(self._near(other.values[i], best[i], i) for i in late):
                return f"trial {other.number} is at least as good in {', '.join(self.early)}"
        return None

    def _behind(self, rung: str) -> str | None:
        if rung not in self.rungs:
            return None
        complete = [t for t in self.history() if t.state is TrialState.COMPLETE]
        for other in self._at_least_as_cheap(complete):
            theirs = other.user_attrs.get(RUNGS, {}).get(rung)
            if theirs is not None and theirs < self.rungs[rung] - self.margin:
                return f"trial {other.number} is as cheap, and its loss at step {rung} was lower"
        return None

    def _at_least_as_cheap(self, trials: Sequence[FrozenTrial]) -> Iterator[FrozenTrial]:
        """Yield the trials that are nowhere worse in the cheap objectives, and seen to be so."""
        cheap = [i for i, x in enumerate(self.objectives) if x.name in self.early]
        directions = [self.objectives[i].direction for i in cheap]
        mine = [self.early[self.objectives[i].name] for i in cheap]
        for other in trials:
            if cheap and at_least_as_good([other.values[i] for i in cheap], mine, directions):
                yield other

    def _best(self, values: Sequence[float], index: int) -> float:
        return (min if self.objectives[index].direction == "minimize" else max)(values)

    def _near(self, value: float, best: float, index: int) -> bool:
        return abs(value - best) <= self.slack.get(self.objectives[index].name, 0.0)


@dataclass(kw_only=True)
class Limits:
    """Sets what constraints measure before training; `stop` names the first that is broken."""

    trial: BaseTrial
    constraints: Sequence[Constraint]

    def note(self, event: Event) -> None:
        if isinstance(event, Speeds):
            for constraint, excess in self._excesses(event):
                self.trial.set_constraint(constraint.name, excess)

    def stop(self, event: Event) -> str | None:
        if isinstance(event, Speeds):
            for constraint, excess in self._excesses(event):
                if excess > 0:
                    return f"{constraint.name} is above its limit of {constraint.limit:g}"
        return None

    def _excesses(self, speeds: Speeds) -> list[tuple[Constraint, float]]:
        measured = [c for c in self.constraints if c.early is not None]
        return [(c, c.early(speeds) - c.limit) for c in measured if c.early is not None]
