"""Right answers on made-up tasks: against a setting of the task, and by length and depth.

    rows = tasks.answers(trials, "test_task_accuracy")   # one row a trial and probe
    tasks.against(rows, arms, "pairs")                   # a line an arm, seeds visible
    tasks.depths(rows, arms)                             # a heat map an arm

A probe is named by its settings, as in `length 32 pairs 8`; each becomes a column of its own.
"""

import re

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweeps.results import complete, keys
from sweeps.show import heat
from sweeps.show.figures import STYLE, label, look, spread_labels
from sweeps.show.statistics import interval

SETTING = re.compile(r"([a-z][a-z ]*?) (-?[0-9.]+)(?: |$)")
SIDE = 0.3  # from the first arm to the last, in steps of the axis


def answers(trials: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return one row for each complete trial and probe: `arm`, `seed`, settings and `share`.

    `column` is `task_accuracy` or `test_task_accuracy`. Raises LookupError where it was not
    measured.
    """
    whole = complete(trials)
    rows = [
        {"arm": arm, "seed": seed, **settings(key), "share": share}
        for key in keys(whole, column)
        for arm, seed, share in zip(
            whole["arm"], whole["seed"], whole[f"{column}.{key}"], strict=True
        )
        if pd.notna(share)
    ]
    if not rows:
        raise LookupError(f"no complete trial has {column}: were these trained on text?")
    return pd.DataFrame(rows)


def settings(probe: str) -> dict[str, float]:
    """Return the numbers in a probe's name by what they are of; ValueError where that is not all.

    `length 32 pairs 8` is {"length": 32, "pairs": 8}.
    """
    found = SETTING.findall(probe)
    if " ".join(f"{name} {number}" for name, number in found) != probe:
        raise ValueError(f"the probe {probe!r} is not names with a number each")
    return {name: float(number) for name, number in found}


def against(
    answers: pd.DataFrame, arms: tuple[str, ...], setting: str, *, chance: float | None = None
) -> Figure:
    """Return right answers against a setting of the task: means with 95% intervals, and seeds.

    `chance` is the share of one who guesses, dashed.
    """
    levels = sorted(set(answers[setting]))
    shown = [arm for arm in arms if (answers["arm"] == arm).any()]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3 + 1.5 * len(levels), 4.4), layout="constrained")
        axes = figure.subplots()
        for index, arm in enumerate(shown):
            shift = SIDE * (index / max(1, len(shown) - 1) - 0.5)
            _line(axes, answers[answers["arm"] == arm], setting, levels, index, shift)
        if chance is not None:
            axes.axhline(chance, color="black", lw=0.8, ls="--")
            axes.text(-SIDE / 2, chance, "chance", va="bottom", fontsize=8)
        axes.set_xticks(range(len(levels)), [f"{level:,g}" for level in levels])
        axes.set_ylim(0, 1.03)
        axes.set_xlabel(setting)
        axes.set_ylabel("right answers, share")
        spread_labels(figure)
    return figure


def _line(
    axes: Axes, rows: pd.DataFrame, setting: str, levels: list[float], index: int, shift: float
) -> None:
    colour, marker = look(index)
    places = np.arange(len(levels)) + shift
    by_seed = rows.pivot_table(index="seed", columns=setting, values="share").reindex(
        columns=levels
    )
    for place, level in zip(places, levels, strict=True):
        seeds = by_seed[level].dropna()
        axes.plot(np.full(len(seeds), place), seeds, marker, color=colour, ms=3, alpha=0.45, mew=0)
    means = [interval(by_seed[level]) for level in levels]
    half = [mean.half for mean in means]
    axes.errorbar(
        places, [m.mean for m in means], half, color=colour, marker=marker, ms=5, capsize=3, lw=1.3
    )
    label(axes, str(rows["arm"].iloc[0]), (places[-1], means[-1].mean), colour, marker)


def depths(answers: pd.DataFrame, arms: tuple[str, ...]) -> Figure:
    """Return needles found by length and depth, means over seeds: a heat map for each arm."""
    shown = [arm for arm in arms if (answers["arm"] == arm).any()]
    wide = 1.2 + 0.55 * answers["length"].nunique()
    with mpl.rc_context(heat.PLAIN):
        figure = Figure(figsize=(wide * len(shown), 3.2), layout="constrained")
        panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for axes, arm in zip(panels, shown, strict=True):
            mine = answers[answers["arm"] == arm]
            cells = mine.pivot_table(index="depth", columns="length", values="share")
            heat.draw(axes, cells.rename(index="{:.0%}".format, columns="{:,g}".format), arm)
            axes.set_xlabel("length, tokens")
        panels[0].set_ylabel("depth of the needle")
        seeds = answers["seed"].nunique()
        figure.suptitle(
            f"needles found, share, mean over {seeds} seeds", x=0.01, ha="left", fontsize=9
        )
    return figure
