"""Tasks timed in turn: A B C, A B C, ... Whatever slows the machine for a while slows them all.

A task's figure relative to the baseline is therefore taken within each round, and the median over
rounds reported. What came before leaves its own data in the caches and returns memory to the
system, so a turn begins with a call that does not count. Nothing here knows what a task does.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

# A call that takes longer counts at once: what it finds cold is a small part of it.
COLD_S = 10.0

Clock = Callable[[], float]  # seconds, with everything that was started before done


@dataclass(frozen=True)
class Task:
    """Something to time: `call` is timed, with what `prepare` made for it just before."""

    prepare: Callable[[], Any]
    call: Callable[[Any], object]


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How often to repeat: calls within a round, rounds for a task with long calls."""

    rounds: int
    round_s: float  # calls are repeated within a round until they took so long
    budget_s: float  # of one call with its preparation

    def rounds_for(self, call_s: float) -> int:
        """Return how many rounds a task gets whose call takes `call_s`; at least one."""
        return max(1, min(self.rounds, int(self.rounds * self.budget_s / call_s)))


Rounds = list[list[float]]  # seconds of each call, by round


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Median and quartiles."""

    low: float
    median: float
    high: float


def warm_up(task: Task, now: Clock) -> float:
    """Call once, untimed: this call compiles and allocates. Return its seconds all the same."""
    return _once(task, now).all_s


def interleave(
    tasks: Mapping[str, Task], warm_s: Mapping[str, float], patience: Patience, now: Clock
) -> dict[str, Rounds]:
    """Return the seconds of every call of every task; `warm_s` is what `warm_up` returned.

    That decides how many rounds a task gets, and whether its turns begin with a call that does not
    count, until a shorter call is seen.
    """
    taken = {name: warm_s[name] for name in tasks}
    rounds: dict[str, Rounds] = {name: [] for name in tasks}
    for _ in range(patience.rounds):
        for name, task in tasks.items():
            if len(rounds[name]) < patience.rounds_for(taken[name]):
                if len(tasks) > 1 and taken[name] <= COLD_S:
                    warm_up(task, now)
                calls = _round(task, patience.round_s, now)
                taken[name] = min(taken[name], *(call.all_s for call in calls))
                rounds[name].append([call.timed_s for call in calls])
    return rounds


def repeat(task: Task, times: int, now: Clock) -> list[float]:
    """Return the seconds of `times` calls, one after the other."""
    return [_once(task, now).timed_s for _ in range(times)]


@dataclass(frozen=True, kw_only=True)
class _Call:
    timed_s: float
    all_s: float  # with the preparation


def _once(task: Task, now: Clock) -> _Call:
    begin = now()
    prepared = task.prepare()
    start = now()
    task.call(prepared)
    end = now()
    return _Call(timed_s=end - start, all_s=end - begin)


def _round(task: Task, round_s: float, now: Clock) -> list[_Call]:
    calls = [_once(task, now)]
    while sum(call.all_s for call in calls) + calls[-1].all_s <= round_s:
        calls.append(_once(task, now))
    return calls


def spread(values: Sequence[float]) -> Spread:
    """Return median and quartiles, interpolated; ValueError where there is no value."""
    if not values:
        raise ValueError("spread: no values; give at least one")
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return Spread(low=low, median=middle, high=high)


def ratios(mine: Rounds, baseline: Rounds) -> list[float]:
    """Return the time of `mine` / that of the baseline in every round that both have."""
    return [median(a) / median(b) for a, b in zip(mine, baseline, strict=False)]
