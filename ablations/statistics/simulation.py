"""Calibration: how often each outcome is given to findings whose true effect is known.

    rates = outcome_rates(Planted(effect=0.0), n_findings=2000, seed=1)     # {Outcome: share}

A simulated finding has two arms, each trained at R rates with S seeds. The loss of one run is

    base x (1 + curvature x (steps of 2 from the arm's best rate)^2 + offset + scatter)

`offset` is drawn once for an arm and a rate and is common to all seeds: what tuning cannot average
away. `scatter` is drawn for each seed. Validation and test loss share the scatter of the run, and
each has a measuring error of its own. The planted effect is the difference of both arms' expected
test losses, each at the rate where it is lowest. Effects and scatter are percent of the loss.

`protocol` is how a finding is judged: `LEAVE_ONE_OUT`, or `ONE_TUNING_SEED`, the rule of the first
records of this project: one more seed chooses the rate of an arm for all the seeds that judge it.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from ablations.statistics.outcomes import LOOKS, Outcome, TestKind, take_looks
from ablations.statistics.power import largest_deviation
from ablations.statistics.tuning import leave_one_seed_out

N_RATES = 3
Floats = NDArray[np.float64]


class Protocol(StrEnum):
    LEAVE_ONE_OUT = "leave one seed out"
    ONE_TUNING_SEED = "one tuning seed"


@dataclass(frozen=True, kw_only=True)
class Planted:
    """What is true of the simulated findings. Percent of the loss, where nothing else is said."""

    effect: float  # of the first arm over the second, positive where it has the lower loss
    margin: float = 1.0
    scatter: float = 0.6  # deviation of one run's loss over seeds
    tuning_noise: float = 0.0  # deviation of the offset of an arm at a rate, common to all seeds
    measuring: float = 0.1  # deviation of validation from test loss of one run
    curvature: float = 1.5  # a factor of 2 from the best rate costs so much
    jitter: float = 0.5  # deviation of the best rate from the middle of the grid, in steps of 2
    kind: TestKind = TestKind.ABOVE


def outcome_rates(
    planted: Planted,
    *,
    n_findings: int,
    seed: int,
    protocol: Protocol = Protocol.LEAVE_ONE_OUT,
    looks: tuple[int, int] = LOOKS,
) -> Mapping[Outcome, float]:
    """Return the share of `n_findings` simulated findings that get each outcome."""
    generator = np.random.default_rng(seed)
    counts = Counter(_judge(planted, generator, protocol, looks) for _ in range(n_findings))
    return {outcome: counts[outcome] / n_findings for outcome in Outcome}


def _judge(
    planted: Planted,
    generator: np.random.Generator,
    protocol: Protocol,
    looks: tuple[int, int],
) -> Outcome:
    seeds = max(looks)
    arms = [_losses(planted, generator, seeds + 1, effect) for effect in (planted.effect, 0.0)]

    def differences_of(n: int) -> list[float]:
        first, second = (_values(valid, test, n, protocol) for valid, test in arms)
        return list(100 * (1 - first / second))

    return take_looks(
        differences_of,
        seeds,
        margin=planted.margin,
        kind=planted.kind,
        largest_deviation=_visible_scatter(planted, looks),
        looks=looks,
    ).outcome


def _visible_scatter(planted: Planted, looks: tuple[int, int]) -> float:
    """Return the deviation of a difference up to which the design sees 2 d, or likeness 0."""
    effect = 2 * planted.margin if planted.kind is TestKind.ABOVE else 0.0
    return largest_deviation(effect, margin=planted.margin, kind=planted.kind, looks=looks)


def _losses(
    planted: Planted, generator: np.random.Generator, seeds: int, effect: float
) -> tuple[Floats, Floats]:
    """Return an arm's validation and test losses, (R, S), whose lowest mean is 1 - effect/100."""
    best = planted.jitter * generator.standard_normal()
    steps = np.arange(N_RATES) - (N_RATES - 1) / 2 - best
    offset = planted.tuning_noise * generator.standard_normal(N_RATES)
    expected = planted.curvature * steps**2 + offset
    expected = (expected - expected.min())[:, None]
    run = planted.scatter * generator.standard_normal((N_RATES, seeds))
    error = planted.measuring * generator.standard_normal((2, N_RATES, seeds))
    loss = (1 - effect / 100) * (1 + (expected + run + error) / 100)
    return loss[0], loss[1]


def _values(valid: Floats, test: Floats, n: int, protocol: Protocol) -> Floats:
    if protocol is Protocol.LEAVE_ONE_OUT:
        return leave_one_seed_out(valid[:, :n], test[:, :n]).values
    return test[int(np.argmin(valid[:, -1])), :n]  # the last seed is the one that tunes
