"""Calibration page, docs/calibration.md: how often the rules for outcomes are wrong.

The simulation plants an effect and judges it by the same code that judges records. The scatter of
its runs over seeds is that of the committed text records.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ablations.statistics.outcomes import LOOK_LEVEL, LOOKS, Outcome
from ablations.statistics.simulation import Planted, Protocol, outcome_rates
from sweeps import results

PAGE = Path("docs/calibration.md")
N_FINDINGS = 2000
SEED = 2403
MARGIN = 1.0  # % of the loss
EFFECTS = (0.0, MARGIN / 2, MARGIN, 2 * MARGIN)
TUNING_NOISE = (0.0, 1.0, 2.7)  # % of the loss; 2.7 is the spread of three findings on one question
TEST = "test_bits_per_byte"


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The share of findings that may get an outcome, where the true effect lies in a range."""

    outcome: Outcome
    effects: tuple[float, ...]
    most: float
    why: str


# Both sides of the interval miss in 5 % together, 2.5 % a side. The choice of rates adds a little:
# the values of the seeds share the rates that they choose for each other.
BOUNDS = (
    Bound(outcome=Outcome.HOLDS, effects=(0.0, 0.5), most=0.01, why="the effect is d/2 or less"),
    Bound(outcome=Outcome.HOLDS, effects=(1.0,), most=0.05, why="the effect is exactly d"),
    Bound(outcome=Outcome.TOO_SMALL, effects=(1.0,), most=0.05, why="the effect is exactly d"),
    Bound(outcome=Outcome.TOO_SMALL, effects=(2.0,), most=0.01, why="the effect is 2 d"),
    Bound(outcome=Outcome.OPPOSITE, effects=EFFECTS, most=0.01, why="no effect is below 0"),
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The outcomes of simulated findings with one planted effect, scatter, noise and protocol."""

    protocol: Protocol
    scatter: float
    tuning_noise: float
    effect: float
    rates: Mapping[Outcome, float]

    def broken(self) -> list[Bound]:
        """Return the bounds that the cell does not keep."""
        return [
            bound
            for bound in BOUNDS
            if self.effect in bound.effects and self.rates[bound.outcome] > bound.most
        ]


def cells(
    scatters: tuple[float, ...], *, n_findings: int, protocols: tuple[Protocol, ...]
) -> Iterator[Cell]:
    """Yield every cell of the calibration. `scatters` are percent of the loss."""
    for protocol in protocols:
        for scatter in scatters:
            for noise in TUNING_NOISE:
                for effect in EFFECTS:
                    planted = Planted(
                        effect=effect, margin=MARGIN, scatter=scatter, tuning_noise=noise
                    )
                    rates = outcome_rates(
                        planted, n_findings=n_findings, seed=SEED, protocol=protocol
                    )
                    yield Cell(
                        protocol=protocol,
                        scatter=scatter,
                        tuning_noise=noise,
                        effect=effect,
                        rates=rates,
                    )


def seen_scatter(folder: Path = results.PUBLISHED) -> tuple[float, float, float]:
    """Return the quartiles of an arm's deviation over seeds, percent of its test loss.

    Over all arms of text with three seeds or more under `folder`. Raises LookupError where there
    are none.
    """
    spreads: list[float] = []
    for sweep in results.sweeps(folder):
        trials = results.complete(results.load(sweep.name, folder=folder))
        domains = [f"{TEST}.{domain}" for domain in results.keys(trials, TEST)]
        losses = trials.assign(loss=trials[domains].mean(axis=1)) if domains else trials[:0]
        for _, arm in losses.groupby(["scale", "arm", "spec"]):
            values = arm["loss"].dropna()
            if len(values) >= 3:
                spreads.append(100 * float(values.std() / values.mean()))
    if not spreads:
        raise LookupError(f"no arm under {folder} has a {TEST} of three seeds")
    low, middle, high = np.percentile(spreads, [25, 50, 75])
    return float(low), float(middle), float(high)


def page(folder: Path = results.PUBLISHED, *, n_findings: int = N_FINDINGS) -> str:
    """Return the calibration page as Markdown."""
    scatters = tuple(round(spread, 2) for spread in seen_scatter(folder))
    found = list(cells(scatters, n_findings=n_findings, protocols=tuple(Protocol)))
    kept = [cell for cell in found if cell.protocol is Protocol.LEAVE_ONE_OUT]
    broken = sum(len(cell.broken()) for cell in kept)
    lines = [
        _HEAD.format(
            level=100 * LOOK_LEVEL,
            first=LOOKS[0],
            second=LOOKS[1],
            low=scatters[0],
            middle=scatters[1],
            high=scatters[2],
            n=n_findings,
        ),
        "| outcome | where | at most | largest share seen |",
        "|---|---|---:|---:|",
        *(_bound_row(bound, kept) for bound in BOUNDS),
        "",
        f"{broken} of {len(kept)} cells break a bound.",
        "",
    ]
    for protocol in Protocol:
        lines += [
            f"## Rates: {protocol}",
            "",
            "| scatter, % | tuning noise, % | true effect, % | "
            + " | ".join(outcome.value for outcome in _SHOWN)
            + " |",
            "|---:|---:|---:|" + "---:|" * len(_SHOWN),
            *(_cell_row(cell) for cell in found if cell.protocol is protocol),
            "",
        ]
    return "\n".join(lines)


_SHOWN = (Outcome.HOLDS, Outcome.TOO_SMALL, Outcome.OPPOSITE, Outcome.INCONCLUSIVE)
_HEAD = """# Calibration

Made by `python -m ablations calibrate`. Do not edit.

A rule that turns records into an outcome can be wrong. This page says how often, by simulation. The
code that judges simulated findings is `ablations/statistics`. The verdicts of
[findings.md](findings.md) are still made by earlier rules. The findings that replace them are
judged by these.

A simulated finding has two arms, three learning rates in steps of 2 and up to {second} seeds. The
rate of a seed is the one whose validation loss is best over the other seeds. The first look has
{first} seeds and the second {second}, with intervals at {level:.2f} % (Pocock's bound for two
looks). A second look is taken only where the first is inconclusive. The margin d is 1 % of
the loss. A look whose scatter leaves less than 80 % power for an effect of 2 d is inconclusive.

- **Scatter** is the deviation of one run's loss over seeds. The three values are the quartiles of
  the committed text records: {low}, {middle} and {high} %.
- **Tuning noise** is the deviation of an offset that an arm has at a rate, common to all seeds.
  The true effect is the difference of both arms at the rates where each is best.
- Each row has {n} findings.

The second table below judges the same findings by the earlier rule: one more seed chooses the rate
of an arm for all seeds that judge it. Its mistakes are in the interval's centre, which a wide
interval does not show.
"""


def _bound_row(bound: Bound, kept: list[Cell]) -> str:
    shares = [cell.rates[bound.outcome] for cell in kept if cell.effect in bound.effects]
    return f"| {bound.outcome} | {bound.why} | {bound.most:.1%} | {max(shares):.1%} |"


def _cell_row(cell: Cell) -> str:
    shares = " | ".join(f"{cell.rates[outcome]:.1%}" for outcome in _SHOWN)
    return f"| {cell.scatter} | {cell.tuning_noise} | {cell.effect} | {shares} |"
