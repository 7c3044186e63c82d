"""A heat map with a number in each cell: what figures of needles and of attention heads share."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sweeps.show.figures import LUMINANCE, STYLE

PLAIN: dict[Any, Any] = {**STYLE, "axes.grid": False}
SHARES = (0.0, 1.0)  # what the palest and the darkest colour stand for
LIGHT = 0.5  # luminance from which black letters are read better than white ones


def draw(axes: Axes, cells: pd.DataFrame, title: str, colours: str = "Blues") -> None:
    """Draw shares as coloured cells with their numbers; what was not measured stays empty.

    Rows go down in the order of the index, columns along; both are written as they print.
    """
    values = cells.to_numpy(dtype=float)
    low, high = SHARES
    image = axes.imshow(values, vmin=low, vmax=high, cmap=colours, aspect="auto")
    axes.set_xticks(range(len(cells.columns)), [str(x) for x in cells.columns])
    axes.set_yticks(range(len(cells.index)), [str(y) for y in cells.index])
    axes.set_title(title, fontsize=9)
    for (i, j), value in np.ndenumerate(values):
        if not np.isnan(value):
            light = np.dot(image.cmap(image.norm(value))[:3], LUMINANCE)
            colour = "black" if light > LIGHT else "white"
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
