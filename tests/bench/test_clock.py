"""The clock: tasks take turns, and noise that a round shares cancels in the ratio."""

import pytest

from sweeps.bench.clock import Patience, Task, interleave, ratios, spread, warm_up


class FakeTime:
    """A clock that tasks move."""

    def __init__(self):
        self.seconds, self.log = 0.0, []

    def now(self) -> float:
        return self.seconds

    def task(self, name: str, *durations: float, prepare: float = 0.0) -> Task:
        """A task that takes the given times, one after the other, and then the last for ever."""
        left = list(durations)

        def pass_by(seconds: float) -> None:
            self.seconds += seconds

        def call(_) -> None:
            self.log.append(name)
            pass_by(left.pop(0) if len(left) > 1 else left[0])

        return Task(prepare=lambda: pass_by(prepare), call=call)


def interleaved(fake: FakeTime, patience: Patience, **tasks: Task):
    warm_s = {name: warm_up(task, fake.now) for name, task in tasks.items()}
    return interleave(tasks, warm_s, patience, fake.now)


def test_tasks_take_turns_and_each_turn_begins_with_a_call_that_does_not_count():
    fake = FakeTime()
    rounds = interleaved(
        fake,
        Patience(rounds=3, round_s=1.0, budget_s=60),
        a=fake.task("a", *(9.0, *(5.0, 2.0) * 3)),
        b=fake.task("b", 9.0, 4.0),
    )
    assert "".join(fake.log) == "ab" + "aabb" * 3
    assert rounds == {"a": [[2.0]] * 3, "b": [[4.0]] * 3}


def test_long_calls_count_at_once_and_so_do_those_of_a_task_that_is_alone():
    fake, patience = FakeTime(), Patience(rounds=3, round_s=1.0, budget_s=60)
    interleaved(fake, patience, quick=fake.task("q", 1.0), slow=fake.task("s", 11.0))
    assert "".join(fake.log) == "qs" + "qqs" * 3
    fake.log.clear()
    interleaved(fake, patience, alone=fake.task("a", 1.0))
    assert "".join(fake.log) == "a" + "a" * 3


def test_short_calls_are_repeated_within_a_round_and_preparation_is_not_timed():
    fake = FakeTime()
    patience = Patience(rounds=2, round_s=1.0, budget_s=60)
    rounds = interleaved(fake, patience, a=fake.task("a", 0.125, prepare=0.125))
    assert rounds == {"a": [[0.125] * 4] * 2}


def test_long_calls_get_fewer_rounds_but_one_and_a_long_first_call_is_forgiven():
    fake = FakeTime()
    rounds = interleaved(
        fake,
        Patience(rounds=4, round_s=1.0, budget_s=60),
        quick=fake.task("q", 1.0),
        slow=fake.task("s", 100.0),
        slowest=fake.task("x", 1000.0),
        compiled=fake.task("c", 100.0, 1.0),
    )
    assert {name: len(r) for name, r in rounds.items()} == {
        "quick": 4,
        "slow": 2,
        "slowest": 1,
        "compiled": 4,
    }


def test_noise_that_a_round_shares_cancels_in_the_ratio():
    noise = [1.0, 5.0, 1.0, 30.0, 2.0]
    mine = [[3.0 * x, 3.0 * x] for x in noise]
    baseline = [[2.0 * x] for x in noise]
    assert ratios(mine, baseline) == pytest.approx([1.5] * 5)
    assert ratios(mine[:2], baseline) == pytest.approx([1.5] * 2)


def test_spread_is_median_and_quartiles():
    found = spread([5.0, 1.0, 2.0, 3.0, 4.0])
    assert (found.low, found.median, found.high) == (2.0, 3.0, 4.0)
    with pytest.raises(ValueError, match="give at least one"):
        spread([])
