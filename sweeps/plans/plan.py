"""What a worker needs to know of a study, be it a designed grid or a search.

A plan has places: what is to be done, each by a name that a second call gives again. A grid's place
is a run; a search's is a number, and its sampler chooses what to try there. To *play* a place is to
turn an Optuna trial into values, asking for one record after another. The same play serves a
worker, which trains what is asked for, and a rebuild, which only looks into the records.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import BaseTrial, FrozenTrial

from sweeps.sweep import Point
from sweeps.trial.data.sources import Source
from sweeps.trial.engine import Engine
from sweeps.trial.events import Event
from sweeps.trial.record import Record

Direction = Literal["minimize", "maximize"]  # of an objective, as Optuna says it
Note = Callable[[Event], None]
History = Callable[[], Sequence[FrozenTrial]]  # the finished trials of the study, at the moment


def ignore(event: Event) -> None:
    """A `note` for runs that nothing is decided about on the way."""


def never(event: Event) -> str | None:
    """A `stop` for runs that always go on to their end."""
    return None


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Follows one run. `note` takes every event; `stop` may answer one with a reason to end."""

    note: Note = ignore
    stop: Callable[[Event], str | None] = never
    cheap_first: bool = False  # measure speed and cache before training, so that they can rule out


LENIENT = Judge()


class NotComplete(Exception):
    """The record that was asked for is there, but holds no held-out loss; says why."""

    def __init__(self, record: Record):
        super().__init__(f"{record.run_id} is {record.outcome}: {record.error}")
        self.record = record

    @property
    def settled(self) -> bool:
        """Whether trying again could not end otherwise."""
        return self.record.outcome.settled


class Missing(Exception):
    """A run that is asked for has no record that settles it, and may not be run here and now."""


class Refused(Exception):
    """What the sampler chose cannot be a model: nothing was built."""

    by = "by the spec"  # as a table says it


class Obtain(Protocol):
    """Returns the complete record of a point, by running it or by finding it.

    Raises NotComplete where it ended otherwise and Missing where it must not be run.
    """

    def __call__(self, point: Point, judge: Judge = LENIENT) -> Record: ...


class Plan(Protocol):
    """One sweep at one scale, on one text and one engine."""

    @property
    def name(self) -> str: ...  # of the sweep, for records

    @property
    def scale(self) -> str: ...

    @property
    def engine(self) -> Engine: ...

    @property
    def directions(self) -> tuple[Direction, ...]: ...

    @property
    def identity(self) -> str: ...  # text that is equal for equal plans; names the study

    @property
    def rules(self) -> str: ...  # digest of what may end a run early; "" where nothing does

    def texts(self) -> set[tuple[Source, int]]:
        """Return the texts and sizes of vocabulary known beforehand, to make their tokens ready."""

    def places(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what is fixed at each place; nothing is where the sampler chooses."""

    def sampler(self, seed: int) -> BaseSampler: ...

    def pruner(self) -> BasePruner: ...

    def play(self, trial: BaseTrial, obtain: Obtain, history: History) -> Sequence[float]:
        """Return the values of what `trial` suggests.

        Raises what `obtain` raises, Refused, and optuna.TrialPruned.
        """
