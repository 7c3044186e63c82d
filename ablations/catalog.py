"""The findings that `python -m ablations` knows. A new one is one file and one line here.

Their number is what every verdict is corrected for, so a finding stays when its answer is no.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from ablations import (
    activation_loss,
    balance,
    cache_memory,
    dt_init,
    experts_int8,
    icl_format,
    induction_heads,
    inner_norm,
    mamba2,
    many_shot,
    max_context,
    moe,
    moe_budget,
    needle,
    placement,
    positions,
    ratio,
    ratio_size,
    recall,
    short_conv,
    throughput,
)
from ablations.finding import Finding
from ablations.rows import NotRun
from ablations.verdict import Verdict, correct
from sweeps import results

FINDINGS: tuple[Finding, ...] = (
    ratio.FINDING,
    moe.FINDING,
    cache_memory.FINDING,
    cache_memory.LAW,
    throughput.FINDING,
    throughput.LAW,
    max_context.FINDING,
    moe_budget.FINDING,
    ratio_size.FINDING,
    inner_norm.FINDING,
    dt_init.FINDING,
    positions.FINDING,
    mamba2.FINDING,
    balance.FINDING,
    induction_heads.FINDING,
    recall.FINDING,
    short_conv.FINDING,
    placement.FINDING,
    icl_format.FINDING,
    many_shot.FINDING,
    needle.FINDING,
    activation_loss.FINDING,
    experts_int8.FINDING,
)


def find(name: str) -> Finding:
    """Return the finding called `name`. Raises ValueError listing those that exist."""
    for finding in FINDINGS:
        if finding.name == name:
            return finding
    raise ValueError(
        f"there is no finding {name!r}; there are: {', '.join(f.name for f in FINDINGS)}"
    )


def verdicts(scale: str, folder: Path) -> dict[str, Verdict]:
    """Return the verdicts at `scale` that the records under `folder` allow, all corrected."""
    found = {}
    for finding in FINDINGS:
        try:
            found[finding.name] = verdict(finding, scale, folder)
        except NotRun:
            continue  # at all, or not wholly: `python -m ablations judge` says what is missing
    return correct(found, family=len(FINDINGS))


def verdict(finding: Finding, scale: str, folder: Path) -> Verdict:
    """Return one verdict, uncorrected. Raises NotRun saying what to run first."""
    return finding.verdict(load(finding, scale, folder), scale)


def load(finding: Finding, scale: str, folder: Path) -> pd.DataFrame:
    """Return the records that the finding's sweeps left under `folder`.

    Raises NotRun where there are none at all, naming the command that makes them.
    """
    tables = []
    for name in finding.sweeps(scale):
        try:
            tables.append(results.load(name, folder=folder, scale=scale))
        except LookupError:
            continue
    if not tables:
        raise NotRun(
            f"{finding.name}: there is no record at scale {scale} under {folder}; "
            f"{finding.how_to_run(scale)}"
        )
    return pd.concat(tables, ignore_index=True)


def by_scale(scales: tuple[str, ...], folder: Path) -> Mapping[str, dict[str, Verdict]]:
    """Return the verdicts of every scale: a family of findings each."""
    return {scale: verdicts(scale, folder) for scale in scales}
