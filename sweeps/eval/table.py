"""Tables of scores for a terminal."""

from collections.abc import Sequence
from itertools import groupby

from rich.table import Table

from sweeps.eval.record import NeedleScore, Score

HEADINGS = {  # and how they are set
    "task": "left",
    "shots": "right",
    "metric": "left",
    "value": "right",
    "± stderr": "right",
    "questions": "left",
    "split": "left",
    "definition": "left",
    "s": "right",
}


def scores(rows: Sequence[Score]) -> Table:
    """Return a row for each metric of each task."""
    shown = Table(title=f"{rows[0].suite}: {rows[0].model}")
    for heading, side in HEADINGS.items():
        shown.add_column(heading, justify="left" if side == "left" else "right")
    for row in rows:
        shown.add_row(
            row.task,
            str(row.shots),
            row.metric,
            f"{row.value:.4f}",
            "-" if row.stderr is None else f"{row.stderr:.4f}",
            f"{row.n:,}{' of more' if row.limited else ''}",
            row.evaluated,
            "ours" if row.ours else "lm-eval",
            f"{row.wall_s:.1f}",
        )
    return shown


def needles(rows: Sequence[NeedleScore]) -> Table:
    """Return a row for each context and a column for each depth."""
    first = rows[0]
    shown = Table(title=f"needle: {first.model}")
    shown.add_column("context", justify="right")
    for depth in dict.fromkeys(row.depth for row in rows):
        shown.add_column(f"depth {depth:.2f}", justify="right")
    for context, cells in groupby(rows, key=lambda row: row.context):
        shown.add_row(f"{context:,}", *(f"{x.exact:.2f} / {x.beaten:.2f}" for x in cells))
    return shown


def what_needles_show(rows: Sequence[NeedleScore]) -> str:
    """Return what stands in the cells of `needles`, and what chance would give."""
    first = rows[0]
    return (
        "left: greedy answers that are the number "
        f"(chance 1 in {1 / first.exact_chance:,.0f}); right: share of {first.candidates - 1} "
        f"other numbers that are less likely (chance 0.5); {first.n} needles a cell"
    )
