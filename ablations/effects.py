"""Figures of effects: seeds, means, intervals, the paper's number, and the least that matters.

Filled circles are means or effects here with their intervals; open diamonds are the paper's.
"""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import CARETRIGHTBASE
from matplotlib.ticker import LogLocator

from ablations.shown import NOT_TESTABLE
from ablations.verdict import Outcome
from sweeps.show.figures import COLOURS, STYLE, WIDE, label, look, spread_labels
from sweeps.show.statistics import interval

GREY = "#666666"
OUTCOME_MARKS = {  # colour, marker and filling: told apart in grey too
    Outcome.HOLDS: (COLOURS[2], "o", COLOURS[2]),
    Outcome.FAILS: (COLOURS[1], "X", COLOURS[1]),
    Outcome.INCONCLUSIVE: (COLOURS[0], "o", "white"),
    NOT_TESTABLE: ("#8c8c8c", "s", "white"),
}
BAND: dict[str, Any] = {"color": "#1f9e89", "alpha": 0.22, "lw": 0}
BAR: dict[str, Any] = {"color": "black", "ls": "", "ms": 9}


def gains(table: pd.DataFrame, paper: Mapping[str, float], *, matters: float) -> Figure:
    """Return gains in bits per byte: a row of `table` for each seed, a column a comparison.

    `paper` has the published gain of those columns for which there is one, `matters` the smallest
    gain that matters, in percent; the band is what does not.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 1.4 + 0.55 * len(table.columns)), layout="constrained")
        axes = figure.subplots()
        axes.axvspan(-matters, matters, color=GREY, alpha=0.15, lw=0, label="too small to matter")
        for place, name in enumerate(table):
            _gain(axes, table[name], place, paper.get(str(name)))
        axes.plot([], [], "o", color=COLOURS[0], label="here: seeds, mean, 95% interval")
        axes.plot([], [], "D", ms=9, mfc="none", mec=COLOURS[1], mew=1.8, label="the paper")
        axes.axvline(0, color="black", lw=0.8)
        axes.set_yticks(range(len(table.columns)), list(table.columns))
        axes.set_ylim(len(table.columns) - 0.4, -0.6)
        axes.set_xlabel("gain, % fewer bits per byte")
        figure.legend(loc="outside upper left", ncols=3, frameon=False)
    return figure


def _gain(axes: Axes, seeds: pd.Series, place: int, paper: float | None) -> None:
    mean, half, n = interval(seeds)
    axes.plot(seeds, np.full(n, place + 0.2), "o", color=COLOURS[0], ms=4, alpha=0.5, mew=0)
    axes.errorbar(mean, place, xerr=half, color=COLOURS[0], marker="o", ms=6, capsize=4)
    if paper is not None:
        axes.plot(paper, place, "D", ms=9, mfc="none", mec=COLOURS[1], mew=1.8)


def by_tokens(gained: pd.DataFrame, *, matters: float) -> Figure:
    """Return gains against training tokens: rows with `tokens`, `over` and `gain` of one seed."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        axes.axhspan(-matters, matters, color=GREY, alpha=0.15, lw=0)
        axes.axhline(0, color="black", lw=0.8)
        for index, (other, rows) in enumerate(gained.groupby("over", sort=False)):
            colour, marker = look(index)
            means = rows.groupby("tokens")["gain"].agg(interval)
            axes.plot(rows["tokens"], rows["gain"], marker, color=colour, ms=4, alpha=0.4, mew=0)
            half = [x.half for x in means]
            y = [x.mean for x in means]
            axes.errorbar(means.index, y, half, color=colour, marker=marker, capsize=3)
            label(axes, f"over {other}", (means.index[-1], y[-1]), colour, marker)
        axes.set_xscale("log", base=2)
        ticks = sorted(set(gained["tokens"]))
        axes.set_xticks(ticks, [f"{x:,.0f}" for x in ticks])
        axes.set_xlabel("training tokens")
        axes.set_ylabel(
            "gain of 1:7, % fewer bits per byte\n(validation; grey: too small to matter)"
        )
        spread_labels(figure)
    return figure


def forest(parts: pd.DataFrame) -> Figure:
    """Return the effect of every part with its interval, a panel for each unit.

    `parts` is that of ablations.table.parts. A claim of likeness, or that something is at most so
    much, has the band that the effect must lie in. A claim of superiority has the bar that the
    effect must pass, with an arrow to the side that holds.
    """
    groups = list(parts.groupby("unit", sort=False))
    heights = [len(rows) + 1.2 for _, rows in groups]
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(10, 0.36 * sum(heights) + 0.8), layout="constrained")
        panels = figure.subplots(len(groups), 1, height_ratios=heights, squeeze=False)[:, 0]
        for axes, (unit, rows) in zip(panels, groups, strict=True):
            for place, (_, row) in enumerate(rows.iterrows()):
                _effect(axes, row, place)
            _frame(axes, rows, str(unit))
            for place, (_, row) in enumerate(rows.iterrows()):
                _asked(axes, row, place)
        for outcome, (colour, marker, face) in OUTCOME_MARKS.items():
            panels[0].plot([], [], marker, color=colour, mfc=face, ms=7, label=outcome)
        panels[0].plot([], [], "D", ms=8, mfc="none", mec="black", label="the paper")
        panels[0].fill_between([], [], [], label="band to lie in", **BAND)
        panels[0].plot([], [], marker=CARETRIGHTBASE, **BAR, label="bar to pass")
        figure.legend(loc="outside upper left", ncols=4, frameon=False)
    return figure


def _effect(axes: Axes, row: pd.Series, place: int) -> None:
    colour, marker, face = OUTCOME_MARKS[row["outcome"]]
    error = [[row["here"] - row["low"]], [row["high"] - row["here"]]]
    axes.errorbar(
        row["here"], place, xerr=error, color=colour, marker=marker, mfc=face, ms=7, capsize=4
    )
    ends = [end for end in (row["from"], row["to"]) if np.isfinite(end)]
    axes.plot(ends, [place] * len(ends), ls="")  # so that they lie within the axes
    axes.plot(row["paper"], place, "D", ms=9, mfc="none", mec="black", mew=1.4)


def _asked(axes: Axes, row: pd.Series, place: int) -> None:
    """Draw the range that the claim wants the effect in: a band to lie in, or a bar to pass."""
    low, high = row["from"], row["to"]
    if np.isfinite(high):  # likeness: open to the left where only the upper end is bounded
        left, right = axes.get_xlim()
        axes.fill_between([max(low, left), high], place - 0.42, place + 0.42, **BAND)
        axes.set_xlim(left, right)
        return
    axes.plot([low, low], [place - 0.36, place + 0.36], color="black", lw=2)
    axes.plot(
        low, place - 0.3, marker=CARETRIGHTBASE, color="black", ms=9, ls="", mew=0
    )  # points to what holds


def _frame(axes: Axes, rows: pd.DataFrame, unit: str) -> None:
    axes.set_yticks(range(len(rows)), list(rows["finding"] + ": " + rows["part"]), fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_title(unit, fontsize=9)
    shown = rows[["here", "low", "high", "paper", "from", "to"]].to_numpy(dtype=float)
    shown = shown[np.isfinite(shown)]
    least, most = shown.min(), shown.max()
    if least <= 0:
        axes.axvline(0, color="black", lw=0.8)
    elif most > WIDE * least:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
