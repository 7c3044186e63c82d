"""Figures of a finding's sweeps: what each arm reached, by seed, by learning rate and by step."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweeps import results
from sweeps.show.figures import (
    ASIDE,
    AVERAGED,
    COLOURS,
    MIB,
    STYLE,
    WIDE,
    label,
    look,
    rate_axis,
    seeds_said,
    spell_out,
    spread_labels,
    values_axis,
)
from sweeps.show.statistics import interval
from sweeps.show.table import by_arm

BESIDE = 0.12  # from the lines of seeds to their mean, in steps of the axis
SHORT = 9  # letters of a name that has room below its arm


def losses(trials: pd.DataFrame, arms: tuple[str, ...]) -> Figure:
    """Return the mean of what was held out, a line for each seed: pairs are parallel.

    Black is the mean over seeds with its 95% interval, which for paired arms says less than pairs.
    """
    whole, unit = _with_mean(trials, arms)
    table = whole.pivot_table(index="arm", columns="seed", values="mean", sort=False)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(_wide(table), 4), layout="constrained")
        axes = figure.subplots()
        for index, seed in enumerate(table):
            colour, marker = look(index)
            axes.plot(range(len(table)), table[seed], color=colour, marker=marker, ms=4, lw=1)
            label(axes, f"seed {seed}", (len(table) - 1, table[seed].iloc[-1]), colour, marker)
        _means(axes, table)
        _names(axes, table)
        axes.set_ylabel(unit)
        _say_means(figure, whole)
        spread_labels(figure)
    return figure


def rates(trials: pd.DataFrame, arms: tuple[str, ...]) -> Figure:
    """Return the mean of what was held out against the learning rate of each arm."""
    whole, unit = _with_mean(trials, arms)
    return by_rate(whole, arms, {"mean": unit})


def by_rate(trials: pd.DataFrame, arms: tuple[str, ...], columns: Mapping[str, str]) -> Figure:
    """Return a panel for each column (to its unit) against the learning rate: seeds and medians.

    Arms are named `MODEL lr RATE`. An axis is logarithmic where values span more than WIDE.
    """
    whole = pd.concat(by_arm(trials, arms))
    names = whole["arm"].str.split(" lr ").str
    named = whole.assign(base=names[0], lr=names[1].astype(float))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1 + 5 * len(columns), 4), layout="constrained")
        panels = figure.subplots(1, len(columns), squeeze=False)[0]
        for axes, (column, unit) in zip(panels, columns.items(), strict=True):
            for index, (name, group) in enumerate(named.groupby("base", sort=False)):
                colour, marker = look(index)
                middle = group.groupby("lr")[column].median()
                if len(group) > len(middle):  # several seeds
                    axes.plot(group["lr"], group[column], marker, color=colour, ms=3, alpha=0.4)
                axes.plot(middle.index, middle, color=colour, marker=marker, ms=4)
                label(axes, str(name), (middle.index[-1], middle.iloc[-1]), colour, marker)
            rate_axis(axes, named["lr"])
            if named[column].max() > WIDE * named[column].min() > 0:
                axes.set_yscale("log")
                spell_out(axes.yaxis)
            axes.set_ylabel(unit)
        said = seeds_said(whole)
        lines = said if said.startswith("one") else f"lines: medians; small marks: {said}"
        figure.suptitle(lines, x=0.01, ha="left", fontsize=9)
        spread_labels(figure)
    return figure


def pairs(trials: pd.DataFrame, arms: tuple[str, str], columns: Mapping[str, str]) -> Figure:
    """Return both arms beside each other for each column (to its name): a line for each seed."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 4), layout="constrained")
        axes = figure.subplots()
        places = []
        for index, column in enumerate(columns):
            table = trials.pivot_table(index="seed", columns="arm", values=column)[list(arms)]
            places += [3 * index, 3 * index + 1]
            axes.plot(places[-2:], table.T, color=COLOURS[0], marker="o", ms=4, alpha=0.5)
            axes.plot(places[-2:], table.median(), "_", color="black", ms=18, mew=2)
        axes.set_yscale("log")
        spell_out(axes.yaxis)
        axes.set_ylabel("largest absolute value")
        axes.set_xticks(places, [*arms] * len(columns), rotation=45, ha="right")
        names = axes.secondary_xaxis("top")
        names.set_xticks([3 * index + 0.5 for index in range(len(columns))], list(columns.values()))
        names.tick_params(length=0)
    return figure


def over_steps(curves: pd.DataFrame, arms: tuple[str, ...], column: str, unit: str) -> Figure:
    """Return a column of training curves against the step: thin lines are seeds, thick medians.

    `curves` has `arm` and `seed` beside the columns of `results.curves`.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 4), layout="constrained")
        axes = figure.subplots()
        for index, arm in enumerate(arms):
            rows = curves[curves["arm"] == arm]
            table = rows.pivot_table(index="step", columns="seed", values=column)
            axes.plot(table.index, table, color=COLOURS[index], lw=0.6, alpha=0.4)
            middle = table.median(axis=1)
            axes.plot(table.index, middle, color=COLOURS[index], lw=1.6)
            label(axes, arm, (middle.index[-1], middle.iloc[-1]), COLOURS[index])
        axes.set_yscale("log")
        spell_out(axes.yaxis)
        axes.set_xlabel("step")
        axes.set_ylabel(unit)
        spread_labels(figure)
    return figure


def speeds(trials: pd.DataFrame, arms: tuple[str, ...]) -> Figure:
    """Return the training speed of each arm, a point for each seed beside their mean."""
    whole = pd.concat(by_arm(trials, arms))
    table = whole.pivot_table(index="arm", columns="seed", values="train_tokens_per_s", sort=False)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(_wide(table), 4), layout="constrained")
        axes = figure.subplots()
        axes.plot(range(len(table)), table, "o", color=COLOURS[0], ms=4, alpha=0.7)
        _means(axes, table)
        _names(axes, table)
        axes.set_ylabel("training tokens/s")
        axes.set_ylim(bottom=0)
        _say_means(figure, whole)
    return figure


def heads(trials: pd.DataFrame, arms: tuple[str, ...]) -> Figure:
    """Return prefix matching by layer, a point for each head and seed; beside it, what is answered
    with all heads, without the best quarter, and without as many others, a line for each seed.
    """
    whole = pd.concat(by_arm(trials, arms))
    prefix, removed = "head_prefix_matching", "heads_removed_accuracy"
    names = results.keys(whole, prefix)
    layers = list(dict.fromkeys(name.partition(" head ")[0] for name in names))
    left = results.keys(whole, removed)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 4), layout="constrained")
        scores, answers = figure.subplots(1, 2)
        for name in names:
            values = whole[f"{prefix}.{name}"]
            place = layers.index(name.partition(" head ")[0])
            scores.plot([place] * len(values), values, "o", color=COLOURS[0], ms=4, alpha=0.4)
        scores.set_xticks(range(len(layers)), layers)
        scores.set_xlim(-0.5, len(layers) - 0.5)
        scores.set_ylabel("prefix matching, share of attention")
        scores.set_ylim(bottom=0)
        table = whole[[f"{removed}.{name}" for name in left]].set_axis(left, axis=1).T
        answers.plot(range(len(left)), table, color=COLOURS[0], marker="o", ms=4, alpha=0.5)
        _means(answers, table)
        _names(answers, table)
        answers.set_xlabel("heads removed")
        answers.set_ylabel("right answers, share")
        _say_means(figure, whole)
    return figure


def cost(trials: pd.DataFrame, arms: tuple[str, ...]) -> Figure:
    """Return speed and cache of each arm by context, all at batch 1.

    Small marks are seeds; lines join geometric means with 95% intervals of the logarithm.
    """
    columns = {
        "prefill_tokens_per_s": ("prefill, tokens/s", 1.0),
        "decode_ms": ("decode, ms per token", 1.0),
        "cache_bytes": ("cache, MiB", 1 / MIB),
    }
    groups = by_arm(trials, arms)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 4), layout="constrained")
        for axes, (column, (unit, scale)) in zip(
            figure.subplots(1, 3), columns.items(), strict=True
        ):
            contexts = sorted(map(int, results.keys(pd.concat(groups), column)))
            for index, group in enumerate(groups):
                seeds = scale * group[[f"{column}.{context}" for context in contexts]]
                places = np.array(contexts) * 2 ** (ASIDE * (2 * index - len(groups) + 1))
                _by_context(axes, places, seeds, index, group["arm"].iloc[0])
            axes.set_xscale("log", base=2)
            values_axis(axes.xaxis, contexts)
            axes.set_yscale("log")
            spell_out(axes.yaxis)
            axes.set_xlabel("tokens before")
            axes.set_ylabel(unit)
        said = seeds_said(pd.concat(groups))
        title = f"batch 1; geometric mean and 95% interval; small marks: {said}"
        figure.suptitle(title, x=0.01, ha="left", fontsize=9)
        spread_labels(figure)
    return figure


def _by_context(axes: Axes, places: np.ndarray, seeds: pd.DataFrame, index: int, name: str) -> None:
    """Draw one arm of a cost: a row of `seeds` for each seed, a column for each context."""
    colour, marker = look(index)
    axes.plot(places * 2**ASIDE, seeds.T, marker, color=colour, ms=3, alpha=0.45, mew=0)
    logs = [interval(np.log(seeds[context])) for context in seeds]
    middle, factor = np.exp([x.mean for x in logs]), np.exp([x.half for x in logs])
    error = (middle - middle / factor, middle * factor - middle)
    axes.errorbar(places, middle, error, color=colour, marker=marker, ms=5, capsize=3, lw=1.4)
    label(axes, name, (places[-1], middle[-1]), colour, marker)


def _wide(table: pd.DataFrame) -> float:
    """Return the width in inches of a figure with an arm for each row."""
    return max(6, 1 + 0.8 * len(table))


def _means(axes: Axes, table: pd.DataFrame) -> None:
    """Draw the mean of each row over its seeds with its 95% interval, beside them in black."""
    means = [interval(table.loc[row]) for row in table.index]
    y, half = [m.mean for m in means], [m.half for m in means]
    beside = np.arange(len(table)) - BESIDE
    axes.errorbar(beside, y, half, color="black", fmt="_", ms=10, capsize=3, lw=1.2)


def _names(axes: Axes, table: pd.DataFrame) -> None:
    """Write the name of each row below it, aslant where one is long."""
    names = [str(name) for name in table.index]
    aslant = max(map(len, names)) > SHORT
    angle, end = (30, "right") if aslant else (0, "center")
    axes.set_xticks(range(len(names)), names, rotation=angle, ha=end)
    axes.set_xlim(-3 * BESIDE, len(names) - 1 + BESIDE)


def _say_means(figure: Figure, trials: pd.DataFrame) -> None:
    """Say above the panels what black is, and over how many seeds."""
    title = f"black: mean and 95% interval; in colour: {seeds_said(trials)}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=9)


def _with_mean(trials: pd.DataFrame, arms: tuple[str, ...]) -> tuple[pd.DataFrame, str]:
    """Return the trials with the mean over domains or probes, and its unit."""
    whole = pd.concat(by_arm(trials, arms))
    column, unit = results.held_out(whole)
    measured = [f"{column}.{key}" for key in results.keys(whole, column)]
    averaged = f"{unit},\n{AVERAGED[column]}" if column else unit
    return whole.assign(mean=whole[measured].mean(axis=1)), averaged
