"""Figures of a finding's sweeps: loss of each arm, by seed and by learning rate."""

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from sweeps import results
from sweeps.show.figures import COLOURS, MARKERS, STYLE, label, spread_labels
from sweeps.show.table import by_arm


def losses(trials: pd.DataFrame, arms: tuple[str, ...]) -> Figure:
    """Return validation loss, mean over domains, a line for each seed: pairs are parallel."""
    whole = _with_loss(trials, arms)
    table = whole.pivot_table(index="arm", columns="seed", values="loss", sort=False)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        for index, seed in enumerate(table):
            colour = COLOURS[index % len(COLOURS)]
            axes.plot(range(len(table)), table[seed], color=colour, marker="o", ms=4)
            label(axes, f"seed {seed}", (len(table) - 1, table[seed].iloc[-1]), colour)
        axes.set_xticks(range(len(table)), list(table.index), rotation=30, ha="right")
        axes.set_ylabel("validation bits per byte, mean over domains")
        spread_labels(figure)
    return figure


def rates(trials: pd.DataFrame, arms: tuple[str, ...]) -> Figure:
    """Return validation loss, mean over domains, against the learning rate of each arm."""
    whole = _with_loss(trials, arms)
    names = whole["arm"].str.split(" lr ").str
    whole = whole.assign(base=names[0], lr=names[1].astype(float))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        for index, (name, group) in enumerate(whole.groupby("base", sort=False)):
            line = group.sort_values("lr")
            colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
            axes.plot(line["lr"], line["loss"], color=colour, marker=marker, ms=4)
            label(axes, str(name), (line["lr"].iloc[-1], line["loss"].iloc[-1]), colour)
        axes.set_xscale("log")
        axes.set_xlabel("highest learning rate")
        axes.set_ylabel("validation bits per byte, mean over domains")
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


def cost(trials: pd.DataFrame, arms: tuple[str, ...]) -> Figure:
    """Return speed and cache of each arm against the context, medians over seeds."""
    columns = {
        "prefill_tokens_per_s": "prefill tokens/s",
        "decode_ms": "ms for a decoded token",
        "cache_bytes": "bytes of cache",
    }
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 4), layout="constrained")
        for axes, (column, unit) in zip(figure.subplots(1, 3), columns.items(), strict=True):
            for index, group in enumerate(by_arm(trials, arms)):
                contexts = sorted(map(int, results.keys(group, column)))
                middle = [group[f"{column}.{context}"].median() for context in contexts]
                colour = COLOURS[index % len(COLOURS)]
                axes.plot(contexts, middle, color=colour, marker="o", ms=4)
                label(axes, group["arm"].iloc[0], (contexts[-1], middle[-1]), colour)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xlabel("tokens before")
            axes.set_ylabel(unit)
        spread_labels(figure)
    return figure


def _with_loss(trials: pd.DataFrame, arms: tuple[str, ...]) -> pd.DataFrame:
    whole = pd.concat(by_arm(trials, arms))
    column = "valid_bits_per_byte"
    domains = [f"{column}.{key}" for key in results.keys(whole, column)]
    return whole.assign(loss=whole[domains].mean(axis=1))
