"""Verdicts as DataFrames: a row for each finding, and a row for each part of their claims."""

from collections.abc import Iterable, Mapping

import pandas as pd

from ablations import catalog, rows
from ablations.page import NOT_RUN
from ablations.verdict import Part, Verdict


def findings(verdicts: Mapping[str, Verdict]) -> pd.DataFrame:
    """Return one row for each finding of the list, those without records included."""
    return pd.DataFrame(
        [_finding(f.name, f.claim.source.name, verdicts.get(f.name)) for f in catalog.FINDINGS]
    )


def parts(verdicts: Mapping[str, Verdict]) -> pd.DataFrame:
    """Return one row for each part: the effect, its interval, the paper's, and what matters.

    `matters` is of the whole claim, in its own unit; a part in another unit has NaN there.
    """
    return pd.DataFrame(
        [_part(verdict, part) for verdict in verdicts.values() for part in verdict.parts]
    )


def gains(losses: pd.DataFrame, pairs: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """Return by how many percent the first of each pair needs fewer bits, a row for each seed.

    `losses` has a row for each seed and a column for each arm (`rows.losses`).
    """
    return pd.DataFrame(
        {f"{arm} over {other}": rows.percent_fewer(losses, arm, other) for arm, other in pairs},
        index=losses.index,
    )


def _finding(name: str, source: str, verdict: Verdict | None) -> dict[str, object]:
    row: dict[str, object] = {"finding": name, "source": source}
    if verdict is None:
        return {**row, "verdict": NOT_RUN}
    return {
        **row,
        "verdict": str(verdict.outcome),
        "p_corrected": verdict.p_corrected,
        "p_alone": verdict.p,
        "seeds": verdict.n_seeds,
        "runs": verdict.runs,
        "decided_by": verdict.deciding.name,
    }


def _part(verdict: Verdict, part: Part) -> dict[str, object]:
    matters = catalog.find(verdict.finding).claim.matters
    low, high, _ = part.seen.interval
    return {
        "finding": verdict.finding,
        "part": part.name,
        "unit": part.unit,
        "paper": float("nan") if part.paper is None else part.paper,
        "here": part.seen.effect,
        "low": low,
        "high": high,
        "matters": matters.value if part.unit == matters.unit else float("nan"),
        "outcome": str(part.outcome),
    }
