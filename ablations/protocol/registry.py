"""Findings under the new rules, the paper's own first. A new one is a file and a line.

A finding stays when its answer is no.
"""

from pathlib import Path

import pandas as pd

from ablations.protocol.comparison import Comparison, RecordsMissingError
from ablations.protocol.finding import Finding
from ablations.protocol.findings import (
    balance,
    moe,
    placement,
    positions,
    ratio,
)
from ablations.protocol.judge import FindingResult, judge
from sweeps import results

# The tag whose commit fixed claims, margins, gates and designs, before the first record.
# None: nothing is fixed yet, and no record of these comparisons may be published.
FIXED_BY: str | None = None

FINDINGS: tuple[Finding, ...] = (
    ratio.FINDING,
    moe.FINDING,
    positions.FINDING,
    placement.FINDING,
    balance.FINDING,
)


def find(name: str) -> Finding:
    """Return the finding called `name`. Raises ValueError listing those that exist."""
    for finding in FINDINGS:
        if finding.name == name:
            return finding
    names = ", ".join(finding.name for finding in FINDINGS)
    raise ValueError(f"there is no finding {name!r}; there are: {names}")


def comparisons(findings: tuple[Finding, ...] = FINDINGS) -> dict[str, Comparison]:
    """Return the comparisons that `findings` read, by name, in the order of the list."""
    return {
        reading.comparison.name: reading.comparison
        for finding in findings
        for reading in finding.reads
    }


def load(finding: Finding, scale: str, folder: Path) -> pd.DataFrame:
    """Return the records of the finding's comparisons under `folder`, maybe none."""
    tables = []
    for name in comparisons((finding,)):
        try:
            tables.append(results.load(name, folder=folder, scale=scale))
        except LookupError:
            continue
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def result(finding: Finding, scale: str, folder: Path) -> FindingResult:
    """Return the outcome of one finding. Raises RecordsMissingError saying what to run first."""
    return judge(finding, scale, load(finding, scale, folder))


def all_results(scale: str, folder: Path) -> dict[str, FindingResult]:
    """Return the outcome of every finding that has its records, by name."""
    found = {}
    for finding in FINDINGS:
        try:
            found[finding.name] = result(finding, scale, folder)
        except RecordsMissingError:
            continue  # `judge` says what is missing
    return found
