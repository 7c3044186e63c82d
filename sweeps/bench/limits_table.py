"""The table of `python -m sweeps limits`, for the terminal and for Markdown."""

import pandas as pd
from rich.table import Table

from hybrid.units import bytes_text
from sweeps.bench.record import Status
from sweeps.bench.table import NOTHING, Column, digits, phase_name, versions, where


def time(row: pd.Series) -> str:
    low, middle, high = (digits(1e3 * row[name]) for name in ("low_s", "median_s", "high_s"))
    return f"{middle} ({low} to {high})"


def size(row: pd.Series, name: str) -> str:
    return NOTHING if pd.isna(row[name]) else bytes_text(row[name])


COLUMNS = (
    Column("a:m", lambda row: row["ratio"]),
    Column("phase", phase_name),
    Column("sequences", lambda row: f"{row['batch']:,}"),
    Column("ms (quartiles)", lambda row: time(row) if _fits(row) else row["status"]),
    Column("tokens/s", lambda row: digits(row["tokens_per_s"]) if _fits(row) else NOTHING),
    Column("peak", lambda row: size(row, "peak_bytes")),
    Column("by arithmetic", lambda row: size(row, "estimate_bytes")),
    Column(
        "peak / arithmetic",
        lambda row: NOTHING if pd.isna(row["peak_bytes"]) else f"{row['peak_over_estimate']:.2f}",
    ),
)


def as_rich(frame: pd.DataFrame, title: str) -> Table:
    """Return the table for a terminal."""
    table = Table(title=title)
    for column in COLUMNS:
        table.add_column(column.heading, justify="right", no_wrap=True)
    for _, row in frame.iterrows():
        table.add_row(*(column.cell(row) for column in COLUMNS))
    return table


def as_markdown(frame: pd.DataFrame) -> str:
    """Return one run as Markdown: the table, why the doubling stopped, and where it came from."""
    return "\n".join(
        [
            "| " + " | ".join(column.heading for column in COLUMNS) + " |",
            "|---|---|" + "---:|" * (len(COLUMNS) - 2),
            *(
                "| " + " | ".join(column.cell(row) for column in COLUMNS) + " |"
                for _, row in frame.iterrows()
            ),
            "",
            *(f"- {note}" for note in notes(frame)),
            "",
            provenance(frame),
        ]
    )


def notes(frame: pd.DataFrame) -> list[str]:
    """Return what the rows have to say, each with the model and the phase it is about."""
    return [
        f"{row['ratio']}, {phase_name(row)}: {'; '.join(row['notes'])}"
        for _, row in frame.iterrows()
        if len(row["notes"])
    ]


def provenance(frame: pd.DataFrame) -> str:
    """Return where the numbers come from."""
    row = frame.iloc[0]
    sizes = frame.drop_duplicates("ratio")
    each = ", ".join(f"{x['ratio']} {x['params']:,}" for _, x in sizes.iterrows())
    return (
        f"{where(row)}, {row['contender']}, within {bytes_text(row['memory_bytes'])}; training "
        f"sequences of {row['tokens']} tokens; parameters: {each}; {versions(row)}."
    )


def _fits(row: pd.Series) -> bool:
    return row["status"] == Status.TIMED
