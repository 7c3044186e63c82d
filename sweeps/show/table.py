"""The table of a sweep: one row an arm, means over seeds, for the terminal and for Markdown.

Trials that ran on or through something else, such as another version of torch, have rows of their
own.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
from rich.table import Table

from sweeps import designs, results
from sweeps.results import complete, keys
from sweeps.show.statistics import interval


@dataclass(frozen=True)
class Column:
    """One column: its heading, and the cell for the trials of one arm."""

    heading: str
    cell: Callable[[pd.DataFrame], str]


def columns(trials: pd.DataFrame) -> list[Column]:
    """Return the columns that these trials can fill; speeds and bytes at the longest context."""
    losses = [
        Column(f"{domain}, bits/byte", with_interval(f"valid_bits_per_byte.{domain}", "{:.3f}"))
        for domain in keys(trials, "valid_bits_per_byte")
    ]
    accuracies = [
        Column(f"{probe}, share right", with_interval(f"task_accuracy.{probe}", "{:.3f}"))
        for probe in keys(trials, "task_accuracy")
    ]
    contexts = sorted(map(int, keys(trials, "decode_ms")))
    longest = [
        column
        for context in contexts[-1:]
        for column in (
            Column(f"prefill at {context}, tokens/s", middle(f"prefill_tokens_per_s.{context}")),
            Column(f"decode at {context}, ms", middle(f"decode_ms.{context}", "{:.2f}")),
            Column(
                f"cache at {context}, KiB", middle(f"cache_bytes.{context}", "{:,.0f}", 1 / 1024)
            ),
        )
    ]
    return [
        Column("arm", lambda rows: str(rows["arm"].iloc[0])),
        Column("seeds", lambda rows: str(len(rows))),
        Column("parameters", middle("params")),
        *losses,
        *accuracies,
        Column("training, tokens/s", middle("train_tokens_per_s")),
        Column("training peak, MiB", middle("train_peak_bytes", "{:,.0f}", 2**-20)),
        *longest,
    ]


def middle(name: str, form: str = "{:,.0f}", scale: float = 1.0) -> Callable[[pd.DataFrame], str]:
    """Return a cell that shows the median over seeds."""
    return lambda rows: form.format(scale * rows[name].median())


def with_interval(name: str, form: str) -> Callable[[pd.DataFrame], str]:
    """Return a cell that shows the mean over seeds and the half-width of its 95% interval."""

    def cell(rows: pd.DataFrame) -> str:
        mean, half, _ = interval(rows[name])
        return form.format(mean) + ("" if math.isnan(half) else f" ± {form.format(half)}")

    return cell


def by_arm(trials: pd.DataFrame, arms: tuple[str, ...]) -> list[pd.DataFrame]:
    """Return the complete trials of each arm, in the sweep's order, arms without any left out.

    Raises ValueError as `sweeps.results.by_arm` does.
    """
    groups = {str(arm): rows for arm, rows in results.by_arm(trials)}
    return [groups[arm] for arm in arms if arm in groups]


def cells(trials: pd.DataFrame, arms: tuple[str, ...]) -> tuple[list[str], list[list[str]]]:
    """Return the headings, and a row for each arm in each setting, the newest setting first.

    Raises ValueError where an arm has several designs, or the trials several texts.
    """
    shown = columns(trials)
    settings = designs.by_setting(complete(trials))
    several = len(settings) > 1
    headings = [column.heading for column in shown]
    rows = [
        [column.cell(found) for column in shown] + ([words] if several else [])
        for words, mine in settings
        for found in by_arm(mine, arms)
    ]
    designs.require_one_text(complete(trials))
    return headings + (["ran with"] if several else []), rows


def as_rich(
    trials: pd.DataFrame, arms: tuple[str, ...], title: str, left_out: Sequence[str] = ()
) -> Table:
    """Return the table for a terminal; below it stands what was left out."""
    headings, rows = cells(trials, arms)
    table = Table(title=title, caption=not_shown(left_out))
    for heading in headings:
        table.add_column(heading.replace(", ", "\n"), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def as_markdown(trials: pd.DataFrame, arms: tuple[str, ...], left_out: Sequence[str] = ()) -> str:
    """Return the table as Markdown; below it stand the commit, the machine, and what was left out.

    Raises LookupError without a complete trial.
    """
    headings, rows = cells(trials, arms)
    if not rows:
        raise LookupError("the table needs at least one complete trial; there is none")
    said = not_shown(left_out)
    return "\n".join([markdown(headings, rows), "", provenance(trials), *([said] if said else [])])


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, numbers at the right."""
    lines = [headings, *rows]
    first, *others = (
        "| " + " | ".join(x.replace("|", "\\|") for x in line) + " |" for line in lines
    )
    return "\n".join([first, "|" + "---:|" * len(headings), *others])


def not_shown(left_out: Sequence[str]) -> str | None:
    """Say what is in the records and not in the table, None for nothing."""
    return f"Not shown: {'; '.join(left_out)}." if left_out else None


def provenance(trials: pd.DataFrame) -> str:
    """Return one sentence that says where the numbers come from."""
    whole = complete(trials)

    def said(name: str) -> str:
        return ", ".join(sorted({str(x)[:12] for x in whole[name].dropna()})) or "unknown"

    machine = " and ".join(sorted(set(whole["machine"])))
    return (
        f"{len(whole)} trials, commit {said('git_commit')}, {machine} "
        f"({said('threads')} threads), {said('precision')}, ops {said('ops')}, "
        f"torch {said('versions.torch')}. ± is half of the 95% Student-t interval over seeds; "
        "speeds are medians over seeds at batch 1."
    )
