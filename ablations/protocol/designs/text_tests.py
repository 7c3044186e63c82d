"""Tests, gates and simulations that findings on text share."""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from ablations.protocol.arm_runs import TEST, VALID, mean_of, percent_fewer
from ablations.protocol.finding import Arms, Margin
from ablations.protocol.gates import GateResult, learned, rate_inside, uses_context

UNIT = "% of bits/byte"
ONE_PERCENT = Margin(
    value=1.0,
    unit=UNIT,
    why=(
        "half of what the paper's hybrid gains (1.9 % and 2.2 % of the log-probability per byte), "
        "as a fraction, because small models have more bits per byte to lose"
    ),
)
Gates = Callable[[Arms], tuple[GateResult, ...]]


def fewer_bits(arm: str, other: str, *domains: str) -> Callable[[Arms], Sequence[float]]:
    """Return the test of how many percent fewer bits `arm` needs than `other`, for each seed.

    Mean over `domains`, or over all. Each arm at the rate that the other seeds chose.
    """
    measure = mean_of(TEST, *domains)

    def differences(arms: Arms) -> Sequence[float]:
        return percent_fewer(arms[arm].tuned(measure), arms[other].tuned(measure))

    return differences


def about_loss(arms: Arms) -> tuple[GateResult, ...]:
    """Gates of a claim about loss: G1 and G4."""
    return learned(arms), rate_inside(arms)


def about_context(*domains: str) -> Gates:
    """Return the gates of a claim about context: G1, G2 and G4, on `domains` or all."""

    def gates(arms: Arms) -> tuple[GateResult, ...]:
        return (
            learned(arms, domains=domains),
            uses_context(arms, domains=domains),
            rate_inside(arms),
        )

    return gates


def scale_losses(rows: pd.DataFrame, factors: Mapping[str, float]) -> pd.DataFrame:
    """Return simulated rows with the losses of each arm multiplied by its factor, if it has one."""
    arms = rows["arm"].str.rpartition(" lr ")[0]
    factor = arms.map(dict(factors)).fillna(1.0)
    columns = [str(name) for name in rows if str(name).startswith((f"{TEST}.", f"{VALID}."))]
    return rows.assign(**{name: factor * rows[name] for name in columns})
