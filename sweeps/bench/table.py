"""The table of a benchmark, for the terminal and for Markdown, from rows as a DataFrame."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from rich.table import Table

from sweeps.bench.record import Status
from sweeps.bench.setting import SCANS, Phase

NOTHING = "-"  # not measured


@dataclass(frozen=True)
class Column:
    """One column: its heading, and the cell of a timed row."""

    heading: str
    cell: Callable[[pd.Series], str]


def phase_name(row: pd.Series) -> str:
    return row["phase"] if pd.isna(row["context"]) else f"{row['phase']} at {row['context']:,.0f}"


def time(row: pd.Series) -> str:
    """The median and its quartiles: of a token when decoding, else of a call."""
    each = row["call_tokens"] if row["phase"] == Phase.DECODE else 1
    low, middle, high = (1e3 * row[name] / each for name in ("low_s", "median_s", "high_s"))
    return f"{digits(middle)} ({digits(low)} to {digits(high)})"


def speed(row: pd.Series) -> str:
    if row["phase"] in SCANS:
        return f"{row['elements_per_s'] / 1e6:,.0f} M elements/s"
    return f"{digits(row['tokens_per_s'])} tokens/s"


def ratio(row: pd.Series) -> str:
    if pd.isna(row["ratio"]):
        return NOTHING
    if row["contender"] == row["baseline"]:
        return "1"
    low, middle, high = (digits(row[name]) for name in ("ratio_low", "ratio", "ratio_high"))
    return f"{middle} ({low} to {high})"


def peak(row: pd.Series) -> str:
    return NOTHING if pd.isna(row["peak_bytes"]) else f"{row['peak_bytes'] / 2**20:,.0f}"


def share(row: pd.Series) -> str:
    for name, of in (("fraction_of_gemm", "products"), ("fraction_of_bandwidth", "bandwidth")):
        if not pd.isna(row[name]):
            return f"{100 * row[name]:.2g}% of {of}"
    return NOTHING


COLUMNS = (
    Column("phase", phase_name),
    Column("contender", lambda row: row["contender"]),
    Column("ms (quartiles)", time),
    Column("speed", speed),
    Column("n", lambda row: f"{row['rounds']:.0f}"),
    Column("time / baseline's", ratio),
    Column("memory, MiB", peak),
    Column("of the machine", share),
)


def cells(row: pd.Series) -> list[str]:
    """Return a row of the table; what was not timed says why in place of its time."""
    if row["status"] == Status.TIMED:
        return [column.cell(row) for column in COLUMNS]
    empty = [NOTHING] * (len(COLUMNS) - 3)
    return [phase_name(row), row["contender"], row["status"], *empty]


def as_rich(frame: pd.DataFrame, title: str) -> Table:
    """Return the table for a terminal."""
    table = Table(title=title)
    for column in COLUMNS:
        table.add_column(column.heading, justify="right", no_wrap=True)
    for _, row in frame.iterrows():
        table.add_row(*cells(row))
    return table


def as_markdown(frame: pd.DataFrame) -> str:
    """Return one run as Markdown: the table, the notes, the machine and where it came from."""
    lines = [
        "| " + " | ".join(column.heading for column in COLUMNS) + " |",
        "|---|---|" + "---:|" * (len(COLUMNS) - 2),
        *("| " + " | ".join(cells(row)) + " |" for _, row in frame.iterrows()),
        "",
        *(f"- {note}" for note in notes(frame)),
        "",
        machine(frame),
        "",
        provenance(frame),
    ]
    return "\n".join(lines)


def notes(frame: pd.DataFrame) -> list[str]:
    """Return what has to be known of each contender, and how far its numbers are off."""
    whose: dict[str, list[str]] = {}
    for contender, sentences in zip(frame["contender"], frame["notes"], strict=True):
        for sentence in sentences:
            names = whose.setdefault(sentence, [])
            names += [] if contender in names else [contender]
    found = [f"{', '.join(names)}: {sentence}" for sentence, names in whose.items()]
    compared = frame.dropna(subset=["logits_difference"])
    compared = compared[compared["contender"] != compared["baseline"]]
    compared = compared[~compared["phase"].isin(SCANS)]
    if len(compared):
        worst = compared.groupby("contender", sort=False)["logits_difference"].max()
        each = ", ".join(f"{name} {value:.0e}" for name, value in worst.items())
        found.append(f"largest difference of logits in fp32, of the largest logit: {each}")
    return found


def machine(frame: pd.DataFrame) -> str:
    """Return what the machine did at best in the same run."""
    row = frame.iloc[0]
    return (
        f"At best, in the same run: matrix products {row['gemm_flops_per_s'] / 1e9:,.0f} Gflop/s "
        f"in {row['precision']}, copying {row['copy_bytes_per_s'] / 1e9:,.1f} GB/s, `torch.exp` "
        f"{row['exp_cached_per_s'] / 1e6:,.0f} M elements/s within a cache and "
        f"{row['exp_uncached_per_s'] / 1e6:,.0f} M through memory."
    )


def provenance(frame: pd.DataFrame) -> str:
    """Return where the numbers come from."""
    row = frame.iloc[0]
    return (
        f"{where(row)}, {row['params']:,} parameters, training "
        f"batches of {row['batch']} x {row['tokens']} tokens; {versions(row)}."
    )


def where(row: pd.Series) -> str:
    """Return the command, the moment, the commit, the machine and the precision of a row."""
    commit = "no checkout" if row["git_commit"] is None else f"commit {row['git_commit'][:12]}"
    changed = " with changes" if row["git_dirty"] else ""
    return (
        f"`{row['command']}`, {row['started_utc']}, {commit}{changed}, {row['machine']} "
        f"({row['threads']} threads), {row['precision']}"
    )


def versions(row: pd.Series) -> str:
    return ", ".join(f"{name} {version}" for name, version in dict(row["versions"]).items())


def digits(value: float) -> str:
    """Return about three digits, never an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
