"""Figures of a finding's sweeps: what each arm reached, by seed, by learning rate and by step."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sweeps import results
from sweeps.show.figures import (
    AVERAGED,
    COLOURS,
    MIB,
    STYLE,
    WIDE,
    label,
    look,
    rate_axis,
    spell_out,
    spread_labels,
    values_axis,
)
from sweeps.show.statistics import interval
from sweeps.show.table import by_arm

BESIDE = 0.12  # from the lines of seeds to their mean, in steps of the axis


def losses(trials: pd.DataFrame, arms: tuple[str, ...]) -> Figure:
    """Return the mean of what was held out, a line for each seed: pairs are parallel.

    Black is the mean over seeds with its 95% interval, which for paired arms says less than pairs.
    """
    whole, unit = _with_mean(trials, arms)
    table = whole.pivot_table(index="arm", columns="seed", values="mean", sort=False)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(6, 1 + 0.8 * len(table)), 4), layout="constrained")
        axes = figure.subplots()
        for index, seed in enumerate(table):
            colour, marker = look(index)
            axes.plot(range(len(table)), table[seed], color=colour, marker=marker, ms=4, lw=1)
            label(axes, f"seed {seed}", (len(table) - 1, table[seed].iloc[-1]), colour)
        means = [interval(table.loc[arm]) for arm in table.index]
        y, half = [m.mean for m in means], np.nan_to_num([m.half for m in means])
        beside = np.arange(len(table)) - BESIDE
        axes.errorbar(beside, y, half, color="black", fmt="_", ms=10, capsize=3, lw=1.2)
        axes.set_xticks(range(len(table)), list(table.index), rotation=30, ha="right")
        axes.set_ylabel(f"{unit}\nblack: mean and 95% interval")
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
                label(axes, str(name), (middle.index[-1], middle.iloc[-1]), colour)
            rate_axis(axes, named["lr"])
            if named[column].max() > WIDE * named[column].min() > 0:
                axes.set_yscale("log")
                spell_out(axes.yaxis)
            axes.set_ylabel(unit)
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
    """Return the training speed of each arm, a point for each seed."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        for index, group in enumerate(by_arm(trials, arms)):
            speed = group["train_tokens_per_s"]
            axes.plot([index] * len(speed), speed, "o", color=COLOURS[0], ms=4, alpha=0.7)
        axes.set_xticks(range(len(arms)), arms, rotation=60, ha="right")
        axes.set_ylabel("training tokens/s")
        axes.set_ylim(bottom=0)
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
        scores.set_ylabel("prefix matching, share of attention")
        scores.set_ylim(bottom=0)
        table = whole[[f"{removed}.{name}" for name in left]]
        answers.plot(range(len(left)), table.T, color=COLOURS[0], marker="o", ms=4, alpha=0.5)
        answers.set_xticks(range(len(left)), left)
        answers.set_xlabel("heads removed")
        answers.set_ylabel("right answers, share")
    return figure


def cost(trials: pd.DataFrame, arms: tuple[str, ...]) -> Figure:
    """Return speed and cache of each arm by context: small marks are seeds, lines medians."""
    columns = {
        "prefill_tokens_per_s": ("prefill tokens/s", 1.0),
        "decode_ms": ("ms for a decoded token", 1.0),
        "cache_bytes": ("cache, MiB", 1 / MIB),
    }
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 4), layout="constrained")
        for axes, (column, (unit, scale)) in zip(
            figure.subplots(1, 3), columns.items(), strict=True
        ):
            for index, group in enumerate(by_arm(trials, arms)):
                contexts = sorted(map(int, results.keys(group, column)))
                middle = [scale * group[f"{column}.{context}"].median() for context in contexts]
                colour, marker = look(index)
                for context in contexts:
                    seeds = scale * group[f"{column}.{context}"]
                    axes.plot([context] * len(seeds), seeds, marker, color=colour, ms=3, alpha=0.4)
                axes.plot(contexts, middle, color=colour, marker=marker, ms=5)
                label(axes, group["arm"].iloc[0], (contexts[-1], middle[-1]), colour)
            axes.set_xscale("log", base=2)
            values_axis(axes.xaxis, contexts)
            axes.set_yscale("log")
            spell_out(axes.yaxis)
            axes.set_xlabel("tokens before")
            axes.set_ylabel(unit)
        spread_labels(figure)
    return figure


def _with_mean(trials: pd.DataFrame, arms: tuple[str, ...]) -> tuple[pd.DataFrame, str]:
    """Return the trials with the mean over domains or probes, and its unit."""
    whole = pd.concat(by_arm(trials, arms))
    column, unit = results.held_out(whole)
    measured = [f"{column}.{key}" for key in results.keys(whole, column)]
    averaged = f"{unit},\n{AVERAGED[column]}" if column else unit
    return whole.assign(mean=whole[measured].mean(axis=1)), averaged
