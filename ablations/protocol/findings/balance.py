"""Cost of the loss that balances the experts (the paper's released configuration)."""

from statistics import fmean

import pandas as pd

from ablations.protocol.designs.text import EXPERTS, TEXT, UNBALANCED
from ablations.protocol.designs.text_tests import ONE_PERCENT, about_loss, fewer_bits, scale_losses
from ablations.protocol.finding import Arms, Claim, ClaimTest, Finding, Reading
from ablations.protocol.findings.moe import load_entropy, routers_of
from ablations.protocol.gates import GateResult, shown
from ablations.published import RELEASED
from ablations.statistics.outcomes import TestKind

ILLNESS = 0.10  # of the highest entropy that the load of the experts lacks without balancing


def gates(arms: Arms) -> tuple[GateResult, ...]:
    """G1 and G4, and G5: without the loss the experts are used unevenly."""
    routers = routers_of(arms, UNBALANCED)
    lacking = 1 - fmean(map(load_entropy, routers)) if routers else float("nan")
    what = "entropy that the unbalanced load lacks"
    return (*about_loss(arms), shown("G5 phenomenon", lacking, least=ILLNESS, what=what))


def simulate(rows: pd.DataFrame, holds: bool) -> pd.DataFrame:
    """Return the rows alike with an uneven load or, if not `holds`, with balancing 5 % worse."""
    uneven = rows["arm"].str.startswith(f"{UNBALANCED} lr")
    loads = [
        [[8.0 * router[0], *router[1:]] for router in load] if is_uneven else load
        for load, is_uneven in zip(rows["expert_load"], uneven, strict=True)
    ]
    loaded = rows.assign(expert_load=pd.Series(loads, index=rows.index, dtype=object))
    return scale_losses(loaded, {} if holds else {EXPERTS: 1.05})


FINDING = Finding(
    name="balance",
    claim=Claim(
        sentence="The loss that balances the experts does not raise the loss on text.",
        source=RELEASED,
        row="coefficient 0.001",
        is_papers=False,
    ),
    reads=(Reading(comparison=TEXT, arms=(EXPERTS, UNBALANCED)),),
    gates=gates,
    primary=ClaimTest(
        name=f"{EXPERTS} as {UNBALANCED}",
        differences=fewer_bits(EXPERTS, UNBALANCED),
        margin=ONE_PERCENT,
        kind=TestKind.WITHIN,
    ),
    simulate=simulate,
)
