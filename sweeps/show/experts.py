"""How evenly experts are used, and what settings of experts cost beside formulas: figures."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hybrid.laws import moe_cost
from sweeps.show.figures import COLOURS, MARKERS, MIB, STYLE, look, spell_out, values_axis

GREY = "#666666"


def shares(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the load of every expert: one row for each trial, router and expert.

    `share` is its part of the choices over an even part: 1 is even, 0 is an expert never chosen.
    Trials without routers have no rows.
    """
    rows = [
        {"arm": arm, "seed": seed, "router": place, "expert": expert, "share": share}
        for arm, seed, routers in zip(
            trials["arm"], trials["seed"], trials["expert_load"], strict=True
        )
        if routers is not None
        for place, loads in enumerate(routers)
        for expert, share in enumerate(np.divide(loads, np.mean(loads)))
    ]
    return pd.DataFrame(rows)


def load(shares: pd.DataFrame) -> Figure:
    """Return the share of every expert as a mark: a panel for each arm, a strip for each router."""
    groups = list(shares.groupby("arm", sort=False))
    with mpl.rc_context({**STYLE, "axes.grid.axis": "y"}):
        figure = Figure(figsize=(3.6 * len(groups), 3.6), layout="constrained")
        panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
        for axes, (arm, rows) in zip(panels, groups, strict=True):
            _strips(axes, rows)
            axes.set_title(str(arm))
        panels[0].set_ylim(bottom=0)
        panels[0].set_ylabel("choices of an expert / an even share")
    return figure


def _strips(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw a strip of points for each router: seeds side by side, each in its own colour."""
    seeds = sorted(set(rows["seed"]))
    for index, seed in enumerate(seeds):
        mine = rows[rows["seed"] == seed]
        places = mine["router"] + 0.14 * (index - (len(seeds) - 1) / 2)
        colour, marker = look(index)
        axes.plot(places, mine["share"], marker, color=colour, ms=4, alpha=0.8, mew=0)
    axes.axhline(1, color="black", lw=0.8)
    routers = sorted(set(rows["router"]))
    axes.set_xticks(routers, [f"router {router + 1}" for router in routers])
    axes.set_xlabel(f"from the first layer on; {len(seeds)} seeds side by side")


def settings(grid: pd.DataFrame, of_arm: Mapping[str, tuple[int, int, int]]) -> pd.DataFrame:
    """Return what each setting (n, K, e) of a grid costs, beside formulas in n, K and e."""
    n, top_k, e = (grid["arm"].map(lambda arm, i=i: of_arm[arm][i]) for i in range(3))
    return pd.DataFrame(
        {
            "setting": grid["arm"],
            "n": n,
            "K": top_k,
            "e": e,
            "(n/e) K": [moe_cost(*of_arm[arm]) for arm in grid["arm"]],
            "K/e": top_k / e,
            "n/e": n / e,
            "ms a training token": 1e3 / grid["train_tokens_per_s"],
            "training memory, MiB": (grid["train_peak_bytes"] - grid["baseline_bytes"]) / MIB,
        }
    )


def against(settings: pd.DataFrame, formulas: tuple[str, ...], measured: str) -> Figure:
    """Return a measured cost against each formula; marks tell e, the line is proportionality.

    The line goes through the middle of the points on the logarithmic scale, as the best factor does
    in `hybrid.laws.judge`.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4 * len(formulas), 3.8), layout="constrained")
        panels = figure.subplots(1, len(formulas), sharey=True, squeeze=False)[0]
        for axes, formula in zip(panels, formulas, strict=True):
            for index, (e, rows) in enumerate(settings.groupby("e")):
                _marks(axes, rows[formula], rows[measured], index, f"e = {e}")
            logs = np.log(settings[measured] / settings[formula])
            ends = np.array([settings[formula].min(), settings[formula].max()])
            axes.plot(ends, ends * np.exp((logs.min() + logs.max()) / 2), color=GREY, ls="--", lw=1)
            axes.set_xscale("log", base=2)
            values_axis(axes.xaxis, settings[formula])
            axes.set_yscale("log")
            spell_out(axes.yaxis)
            axes.set_xlabel(f"{formula}, no unit")
        panels[0].set_ylabel(measured)
        panels[0].legend(frameon=False, title="every e-th layer")
    return figure


def _marks(axes: Axes, x: pd.Series, y: pd.Series, index: int, name: str) -> None:
    axes.plot(x, y, MARKERS[index], color=COLOURS[index], ms=5, alpha=0.8, label=name)
