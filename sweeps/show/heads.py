"""What attention heads do: scores of every head as maps, and what their removal costs.

    scores = heads.scores(trials, heads.PREFIX)     # one row a trial and head
    heads.maps(scores, "prefix matching")           # a map for each seed
    heads.removed(trials)                           # answers without the best heads, and others

A head of one seed has nothing to do with that of the same place in another, so scores are never
averaged over seeds place by place.
"""

import re

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweeps import results
from sweeps.results import complete, keys
from sweeps.show import heat
from sweeps.show.figures import STYLE, label, look, spread_labels
from sweeps.show.statistics import interval

PREFIX, COPYING = "head_prefix_matching", "head_copying"
REMOVED = "heads_removed_accuracy"
REMOVALS = {"none": "no head", "random": "as many others", "top": "the best\nat matching"}
HEAD = re.compile(r"layer (\d+) head (\d+)")


def scores(trials: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return one row for each complete trial and head, with `arm`, `seed`, its place and `score`.

    `column` is PREFIX or COPYING. Raises LookupError where no trial was scored.
    """
    whole = complete(trials)
    rows = [
        {"arm": arm, "seed": seed, "layer": layer, "head": head, "score": score}
        for key in keys(whole, column)
        for layer, head in [_place(key)]
        for arm, seed, score in zip(
            whole["arm"], whole["seed"], whole[f"{column}.{key}"], strict=True
        )
        if pd.notna(score)
    ]
    if not rows:
        raise LookupError(f"no complete trial has {column}: its recipe has to ask for it")
    return pd.DataFrame(rows)


def _place(key: str) -> tuple[int, int]:
    found = HEAD.fullmatch(key)
    if not found:
        raise ValueError(f"a head is called {key!r}, not as in 'layer 4 head 0'")
    return int(found[1]), int(found[2])


def best(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the score of the best head: a row for each arm and seed, a column for each layer."""
    return scores.pivot_table(
        index=["arm", "seed"], columns="layer", values="score", aggfunc="max", sort=False
    )


def maps(scores: pd.DataFrame, name: str) -> Figure:
    """Return a map of layers by heads for each seed; a row of maps for each arm."""
    arms, seeds = list(dict.fromkeys(scores["arm"])), sorted(set(scores["seed"]))
    tall = 0.8 + 0.34 * scores["layer"].nunique()
    wide = 0.8 + 0.42 * scores["head"].nunique()
    with mpl.rc_context(heat.PLAIN):
        figure = Figure(figsize=(wide * len(seeds), tall * len(arms) + 0.4), layout="constrained")
        panels = figure.subplots(len(arms), len(seeds), squeeze=False, sharex=True, sharey=True)
        for row, arm in zip(panels, arms, strict=True):
            for axes, seed in zip(row, seeds, strict=True):
                mine = scores[(scores["arm"] == arm) & (scores["seed"] == seed)]
                cells = mine.pivot(index="layer", columns="head", values="score")
                heat.draw(axes, cells, f"{arm}, seed {seed}")
            row[0].set_ylabel("layer, from 0")
        for axes in panels[-1]:
            axes.set_xlabel("head")
        figure.suptitle(f"{name}, share", x=0.01, ha="left", fontsize=9)
    return figure


def removed(trials: pd.DataFrame) -> Figure:
    """Return the right answers with no head removed, without others, and without the best ones.

    A panel for each arm: a thin line is a seed, black is the mean with its 95% interval.
    """
    whole = complete(trials)
    kinds = [kind for kind in REMOVALS if kind in keys(whole, REMOVED)]
    if not kinds:
        raise LookupError(f"no complete trial has {REMOVED}: its recipe has to ask for it")
    groups = list(results.by_arm(whole))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1 + 3.6 * len(groups), 3.6), layout="constrained")
        panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
        for axes, (arm, rows) in zip(panels, groups, strict=True):
            _fall(axes, rows, kinds)
            axes.set_title(str(arm))
        panels[0].set_ylim(0, 1.03)
        panels[0].set_ylabel("right answers, share")
        spread_labels(figure)
    return figure


def _fall(axes: Axes, rows: pd.DataFrame, kinds: list[str]) -> None:
    columns = [f"{REMOVED}.{kind}" for kind in kinds]
    places = np.arange(len(kinds))
    for index, (_, row) in enumerate(rows.sort_values("seed").iterrows()):
        colour, marker = look(index)
        axes.plot(places, row[columns].astype(float), color=colour, marker=marker, ms=4, lw=1)
        label(axes, f"seed {row['seed']}", (places[-1], float(row[columns[-1]])), colour, marker)
    means = [interval(rows[column]) for column in columns]
    half = [mean.half for mean in means]
    beside = places - 0.1
    axes.errorbar(beside, [m.mean for m in means], half, color="black", fmt="_", ms=12, capsize=3)
    axes.set_xticks(places, [REMOVALS[kind] for kind in kinds])
    axes.set_xlabel("heads removed")


def attention(weights: pd.DataFrame, title: str) -> Figure:
    """Return what one head looks at: the present token down, earlier tokens along, darker is more.

    `weights` has a row for each present token and a column for each that can be looked at, named as
    they are to be written; a row sums to one. An induction head shows as a dark line below the
    diagonal that starts where tokens begin to repeat.
    """
    with mpl.rc_context(heat.PLAIN):
        side = 1.6 + 0.17 * len(weights)
        figure = Figure(figsize=(side, side), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(weights.to_numpy(dtype=float), vmin=0, cmap="Blues")
        for axis, names in ((axes.xaxis, weights.columns), (axes.yaxis, weights.index)):
            axis.set_ticks(range(len(names)), [str(name) for name in names], fontsize=6)
        axes.set_xlabel("token looked at")
        axes.set_ylabel("present token")
        axes.set_title(title, fontsize=9)
        figure.colorbar(image, ax=axes, label="share of attention", shrink=0.7)
    return figure
