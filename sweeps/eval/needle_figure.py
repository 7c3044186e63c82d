"""The heat maps of needles: context along, depth down, a colour and a number in each cell."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweeps.show.figures import STYLE

PLAIN = {**STYLE, "axes.grid": False}
LIGHT = 0.5  # luminance from which black letters are read better than white ones
LUMINANCE = (0.2126, 0.7152, 0.0722)  # of red, green and blue: ITU-R BT.709


def draw(scores: pd.DataFrame) -> Figure:
    """Return two maps: greedy answers that are the number, and numbers that it beats.

    In the second, white is chance, red is worse and blue is better.
    """
    first = scores.iloc[0]
    exact = f"Answers that are the number (chance 1 in {1 / first['exact_chance']:,.0f})"
    beaten = f"Other numbers, of {first['candidates'] - 1}, less likely than it (chance 0.5)"
    with mpl.rc_context(PLAIN):
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
    values = cells.to_numpy(dtype=float)
    image = axes.imshow(values, vmin=0, vmax=1, cmap=colours, aspect="auto")
    axes.set_xticks(range(len(cells.columns)), [f"{x:,}" for x in cells.columns])
    axes.set_yticks(range(len(cells.index)), [f"{100 * x:.0f}%" for x in cells.index])
    axes.set_xlabel("context, tokens")
    axes.set_title(title, fontsize=9)
    for (i, j), value in np.ndenumerate(values):
        light = np.dot(image.cmap(image.norm(value))[:3], LUMINANCE)
        colour = "black" if light > LIGHT else "white"
        axes.text(j, i, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
