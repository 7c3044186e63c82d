"""The condition that stands above every table of findings, in two sentences, from the records."""

from pathlib import Path

import pandas as pd

from ablations import catalog, rows, testable
from ablations.finding import Finding
from ablations.rows import NotRun
from sweeps import results


def condition(folder: Path, scales: tuple[str, ...]) -> str:
    """Say how many judged runs of text beat a bigram table, and how many tasks were learned."""
    trials = judged(folder, scales)
    if trials.empty:
        return "No record has been judged."
    return f"{_text(trials)} {_tasks(trials)}"


def judged(folder: Path, scales: tuple[str, ...]) -> pd.DataFrame:
    """Return the complete records of all comparisons, each once, without records of tuned rates."""
    found = [_compared(f, scale, folder) for scale in scales for f in catalog.FINDINGS]
    together = pd.concat(found, ignore_index=True) if found else pd.DataFrame()
    return together if together.empty else together.drop_duplicates(["run_id", "attempt"])


def _compared(finding: Finding, scale: str, folder: Path) -> pd.DataFrame:
    try:
        trials = catalog.load(finding, scale, folder)
    except NotRun:
        return pd.DataFrame()
    names = [comparison.sweep.name for comparison in finding.comparisons]
    return results.complete(trials[trials["sweep"].isin(names)])


def _text(trials: pd.DataFrame) -> str:
    domains = rows.measured(trials, rows.TEST)
    read = trials[trials[domains].notna().any(axis=1)] if domains else trials.iloc[:0]
    if read.empty:
        return "No run on text has been judged."
    bits = read[domains].mean(axis=1)
    beat = int((bits < testable.ALL_TEXT).sum())
    whole = bits[read["train_tokens"] == testable.OWN_TOKENS]
    own = int((whole < testable.OWN_WINDOWS).sum())
    return (
        f"The text models were trained too briefly to be compared: {_of(beat, len(bits))} judged "
        f"runs predicts test text better than a bigram table counted on all training text "
        f"({testable.ALL_TEXT} bits/byte, the best run is at {bits.min():.3f}), and "
        f"{_of(own, len(whole))} runs of {testable.OWN_TOKENS:,} tokens better than one counted on "
        f"the windows that they were trained on ({testable.OWN_WINDOWS})."
    )


def _tasks(trials: pd.DataFrame) -> str:
    shares = testable.task_arms(trials)
    if shares.empty:
        return "No run on made-up tasks has been judged."
    missed = int((shares < testable.RIGHT).sum())
    verdict = "Most made-up tasks were not learned: of" if 2 * missed > len(shares) else "Of"
    return (
        f"{verdict} {len(shares)} arms trained on them, {missed} answer fewer than "
        f"{testable.RIGHT:.0%} right."
    )


def _of(count: int, of: int) -> str:
    return f"{count or 'none'} of the {of}"
