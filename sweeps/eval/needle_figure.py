"""The heat maps of needles: context along, depth down, a colour and a number in each cell."""

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweeps.show import heat


def draw(scores: pd.DataFrame) -> Figure:
    """Return two maps: greedy answers that are the number, and numbers that it beats.

    In the second, white is chance, red is worse and blue is better.
    """
    first = scores.iloc[0]
    exact = f"Answers that are the number (chance 1 in {1 / first['exact_chance']:,.0f})"
    beaten = f"Other numbers, of {first['candidates'] - 1}, less likely than it (chance 0.5)"
    with mpl.rc_context(heat.PLAIN):
        width = max(9.0, 3 + 1.5 * scores["context"].nunique())
        figure = Figure(figsize=(width, 4), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        _map(left, scores, "exact", exact, "Blues")
        _map(right, scores, "beaten", beaten, "RdBu")
        left.set_ylabel("depth of the needle")
        figure.suptitle(
            f"{first['model']}, share of {first['n']} needles a cell, {first['precision']}",
            x=0.01,
            ha="left",
            fontsize=9,
        )
    return figure


def _map(axes: Axes, scores: pd.DataFrame, column: str, title: str, colours: str) -> None:
    cells = scores.pivot(index="depth", columns="context", values=column)
    said = cells.rename(index="{:.0%}".format, columns="{:,}".format)
    heat.draw(axes, said, title, colours)
    axes.set_xlabel("context, tokens")
