"""Verdicts as DataFrames: a row for each finding, and a row for each part of their claims."""

from collections.abc import Iterable, Mapping

import pandas as pd

from ablations import catalog, rows, shown
from ablations.page import NOT_RUN
from ablations.verdict import Part, Verdict


def findings(verdicts: Mapping[str, Verdict]) -> pd.DataFrame:
    """Return one row for each finding of the list, those without records included."""
    return pd.DataFrame(
        [_finding(f.name, f.claim.source.name, verdicts.get(f.name)) for f in catalog.FINDINGS]
    )


def parts(verdicts: Mapping[str, Verdict]) -> pd.DataFrame:
    """Return one row for each part: the effect, its interval, the paper's, and what is asked.

    `from` and `to` bound the range that the claim wants the effect in. One of them is infinite
    where a bar is to be passed, none where the claim is likeness.
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
        return {**row, "outcome": NOT_RUN}
    p_values = (
        {"p_corrected": verdict.p_corrected, "p_alone": verdict.p}
        if shown.has_p_value(verdict)
        else {}
    )
    return {
        **row,
        "outcome": shown.label(verdict),
        "gate": f"{verdict.failed.name}, {verdict.failed.figure}" if verdict.failed else "",
        **p_values,
        "seeds": verdict.n_seeds,
        "runs": verdict.runs,
        "asked": shown.question(verdict.deciding),
    }


def _part(verdict: Verdict, part: Part) -> dict[str, object]:
    low, high, _ = part.seen.interval
    return {
        "finding": verdict.finding,
        "part": part.name,
        "unit": part.unit,
        "asked": part.seen.asked.text,
        "paper": float("nan") if part.paper is None else part.paper,
        "here": part.seen.effect,
        "low": low,
        "high": high,
        "from": part.seen.asked.low,
        "to": part.seen.asked.high,
        "outcome": shown.kind(shown.alone(verdict, part)),
    }
