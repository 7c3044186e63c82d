"""Experts against dense MLPs in the 1:7 hybrid (Table 7), at equal active parameters.

The paper adds experts to the same layers. With two of sixteen a token then uses half as much again
in its feed-forwards, so the paper's gain could be compute. Here the experts are narrower, so that a
token uses as many parameters as in the dense model.
"""

from math import log
from statistics import fmean

import pandas as pd

from ablations.protocol.designs.matched_models import SEVEN
from ablations.protocol.designs.text import EXPERTS, TEXT
from ablations.protocol.designs.text_tests import ONE_PERCENT, about_loss, fewer_bits, scale_losses
from ablations.protocol.finding import Arms, Claim, ClaimTest, Finding, Reading
from ablations.published import TABLE_7

DEAD = 0.1  # an expert with less than this part of an even share


def load_entropy(router: list[float]) -> float:
    """Return the entropy of a router's choices as a share of the highest."""
    shares = [load / sum(router) for load in router]
    return -sum(share * log(share) for share in shares if share > 0) / log(len(shares))


def routers_of(arms: Arms, arm: str) -> list[list[float]]:
    """Return the load of every expert of every router of `arm`, over seeds at their tuned rates."""
    loads = [row["expert_load"] for row in arms[arm].tuned_rows()]
    return [list(router) for load in loads if load is not None for router in load]


def notes(arms: Arms) -> tuple[str, ...]:
    """Say how evenly the experts are used, over all seeds at their tuned rates."""
    routers = routers_of(arms, EXPERTS)
    if not routers:
        return ()
    even = fmean(load_entropy(router) for router in routers)
    dead = sum(load < DEAD * fmean(router) for router in routers for load in router)
    return (
        f"entropy of the experts' load {even:.0%} of an even one, {dead} of "
        f"{sum(map(len, routers))} experts with less than {DEAD:.0%} of an even share",
    )


def simulate(rows: pd.DataFrame, holds: bool) -> pd.DataFrame:
    """Return the rows with experts that gain 5 % or, if not `holds`, lose as much."""
    return scale_losses(rows, {EXPERTS: 0.95 if holds else 1.05})


FINDING = Finding(
    name="moe",
    claim=Claim(
        sentence=(
            "Experts in every second layer, two chosen for each token, lower the loss of the "
            "hybrid, here at equal active parameters."
        ),
        source=TABLE_7,
        row="with MoE beside without MoE, C4",
    ),
    reads=(Reading(comparison=TEXT, arms=(EXPERTS, SEVEN)),),
    gates=about_loss,
    primary=ClaimTest(
        name=f"{EXPERTS} below {SEVEN}",
        differences=fewer_bits(EXPERTS, SEVEN),
        margin=ONE_PERCENT,
        paper=TABLE_7.percent_less("with MoE", "without MoE", ("C4",)),
    ),
    notes=notes,
    simulate=simulate,
)
