"""Figures of a sweep: each a function of a DataFrame, saved as PNG and SVG."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import LogLocator, NullLocator

from sweeps import results
from sweeps.results import held_out, keys
from sweeps.show.statistics import interval
from sweeps.show.table import by_arm

# Okabe and Ito's colours without the yellow: told apart by colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P")
GLYPHS = dict(zip(("", *MARKERS), ("", "● ", "■ ", "▲ ", "◆ ", "▼ ", "✚ "), strict=True))
LUMINANCE = (0.2126, 0.7152, 0.0722)  # of red, green and blue: ITU-R BT.709
GAMMA = 2.2  # from how a colour is written to its light, about as in sRGB
DARK = 0.17  # luminance up to which letters on white have WCAG's contrast for text, 4.5
MIB = 2**20
AVERAGED = {"valid_bits_per_byte": "mean over domains", "task_accuracy": "mean over probes"}
WIDE = 20  # largest over smallest value from which on an axis is logarithmic
STEPS = (1.0, 2.0, 5.0)  # ticks in a decade of a logarithmic axis
CLOSE = 1e3  # of such an axis, largest over smallest, up to which all of these are written
READABLE = 1e4  # the same, up to which powers of ten are written out
LINES = 3  # side by side
ASIDE = 0.09  # from a line to its neighbour, in steps of the axis: intervals stand side by side
LABEL_POINTS = 10.0  # from one label to the next
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "svg.hashsalt": "hybrid-workbench",
    "svg.fonttype": "none",  # letters and not their shapes, which were half of a file
    "font.sans-serif": ["DejaVu Sans", "Verdana"],  # equally wide, where a reader has only one
}
# Equal data, equal file: no day, and no version of what drew it.
UNSAID = {
    "png": {"Software": None},
    "svg": dict.fromkeys(("Creator", "Date", "Format", "Type")),
}


def ratio(trials: pd.DataFrame, arms: tuple[str, ...]) -> Figure:
    """Return loss, prefill, decode and memory against the attention:Mamba ratio.

    Small marks are seeds; lines join means with 95% Student-t intervals. `arms` is their order.
    """
    groups = by_arm(trials, arms)
    if not groups:
        raise LookupError("the ratio figure needs at least one complete trial; there is none")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 7), layout="constrained")
        ((loss, prefill), (decode, memory)) = figure.subplots(2, 2)
        _lines(loss, groups, *held_out(pd.concat(groups)), lambda key: key)
        loss.set_title("Loss")
        _lines(prefill, groups, "prefill_tokens_per_s", "tokens/s", _context)
        prefill.set_title("Prefill throughput, batch 1, by prompt length")
        _lines(decode, groups, "decode_ms", "ms per token", _context)
        decode.set_title("Decode time, batch 1, by context length")
        _lines(memory, groups, "cache_bytes", "MiB", lambda c: f"cache, {_context(c)}", 1 / MIB)
        _line(memory, groups, "train_peak_bytes", "training peak", 5, 1 / MIB)
        memory.set_title("Memory: cache at batch 1, and peak while training")
        memory.set_yscale("log")
        spell_out(memory.yaxis)
        for axes in (prefill, decode):
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter("{x:,g}")
        for axes in (loss, prefill, decode, memory):
            _ratio_axis(axes, groups)
        figure.suptitle(_title(groups), x=0.01, ha="left", fontsize=9)
        spread_labels(figure)
    return figure


def learning_rate(trials: pd.DataFrame, arms: tuple[str, ...]) -> Figure:
    """Return the mean of what was held out against the highest learning rate of each ratio."""
    whole = pd.concat(by_arm(trials, arms))
    column, unit = held_out(whole)
    measured = [f"{column}.{key}" for key in keys(whole, column)]
    rows = pd.DataFrame(
        {
            "ratio": whole["ratio"],
            "lr": [json.loads(recipe)["lr"] for recipe in whole["recipe"]],
            "loss": whole[measured].mean(axis=1),
        }
    )
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        for index, (name, group) in enumerate(rows.groupby("ratio", sort=False)):
            line = group.sort_values("lr")
            colour, marker = look(index)
            axes.plot(line["lr"], line["loss"], color=colour, marker=marker, ms=4)
            label(axes, str(name), (line["lr"].iloc[-1], line["loss"].iloc[-1]), colour, marker)
        rate_axis(axes, rows["lr"])
        axes.set_ylabel(f"{unit},\n{AVERAGED[column]}")
        axes.set_title("Learning rate by attention:Mamba ratio, one seed")
        spread_labels(figure)
    return figure


def moe_grid(trials: pd.DataFrame, arms: tuple[str, ...]) -> Figure:
    """Return training speed and training memory of each setting of the experts, as bars."""
    whole = pd.concat(by_arm(trials, arms))
    grown = whole["train_peak_bytes"] - whole["baseline_bytes"]
    panels = (
        (whole["train_tokens_per_s"], "training tokens/s", COLOURS[0]),
        (grown / MIB, "MiB above the start while training", COLOURS[1]),
    )
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 6), layout="constrained")
        for axes, (values, unit, colour) in zip(figure.subplots(1, 2), panels, strict=True):
            axes.barh(whole["arm"], values, color=colour)
            axes.invert_yaxis()
            axes.set_xlabel(unit)
        title = f"n experts, K chosen, in every e-th layer; {seeds_said(whole)}"
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return figure


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `figure` as stem.png and stem.svg, and return both paths."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in UNSAID]
    with mpl.rc_context(STYLE):
        for path, metadata in zip(paths, UNSAID.values(), strict=True):
            figure.savefig(path, dpi=160, metadata=metadata)
    return paths


def seeds_said(trials: pd.DataFrame) -> str:
    """Say how many seeds an arm has at most, and of a single one that it has no interval."""
    seeds = max(rows["seed"].nunique() for _, rows in results.by_arm(trials))
    return "one seed, no interval" if seeds == 1 else f"{seeds} seeds"


def _lines(axes: Axes, groups: list[pd.DataFrame], column: str, unit: str, name, scale=1.0) -> None:
    """Draw one line for each key of a mapped column, each labelled at its right end.

    Lines stand a little beside each other, so that no interval hides another.
    """
    for index, key in enumerate(keys(pd.concat(groups), column)):
        _line(axes, groups, f"{column}.{key}", name(key), index, scale)
    axes.set_ylabel(unit)


def _line(
    axes: Axes, groups: list[pd.DataFrame], column: str, name: str, index: int, scale: float
) -> None:
    colour, marker = look(index)
    x = np.arange(len(groups)) + ASIDE * (index % LINES - 1)
    means = [interval(scale * rows[column]) for rows in groups]
    for place, rows in enumerate(groups):
        seeds = np.full(len(rows), x[place] + ASIDE / 3)
        axes.plot(seeds, scale * rows[column], marker, color=colour, ms=4, alpha=0.45, mew=0)
    y, half = [m.mean for m in means], [m.half for m in means]
    axes.errorbar(x, y, half, color=colour, lw=1.5, capsize=3, marker=marker, ms=5)
    label(axes, name, (len(groups) - 1 + ASIDE, y[-1]), colour, marker)


def look(index: int) -> tuple[str, str]:
    """Return the colour and marker of the line at `index`; both together come once in 36."""
    turn, place = divmod(index, len(COLOURS))
    return COLOURS[place], MARKERS[(place + turn) % len(MARKERS)]


def ink(colour: str) -> tuple[float, ...]:
    """Return `colour`, darkened just so far that letters of it can be read on white."""
    light = np.array(to_rgb(colour)) ** GAMMA
    darker = light * DARK / max(float(light @ LUMINANCE), DARK)
    return tuple(darker ** (1 / GAMMA))


def label(axes: Axes, text: str, point: tuple[float, float], colour: str, marker: str = "") -> None:
    """Write `text` just right of the last point of a line, after its marker and in its colour."""
    axes.annotate(
        f"{GLYPHS[marker]}{text}",
        point,
        xytext=(9, 0),
        textcoords="offset points",
        color=ink(colour),
        va="center",
        fontsize=8,
    )


def spell_out(axis: Axis, steps: tuple[float, ...] = STEPS) -> None:
    """Write the ticks of a logarithmic axis as numbers, 0.2 and not 2 x 10^-1, where it is short.

    Call it when everything is drawn. An axis over many decades keeps its powers of ten.
    """
    low, high = axis.get_view_interval()
    if high / low <= READABLE:
        axis.set_major_locator(LogLocator(subs=steps if high / low <= CLOSE else STEPS[:1]))
        axis.set_major_formatter("{x:,.10g}")
        axis.set_minor_locator(NullLocator())


def values_axis(axis: Axis, values: Iterable[float]) -> None:
    """Write a tick at each of a few measured values, and nowhere else."""
    ticks = sorted(set(values))
    axis.set_ticks(ticks, [f"{tick:,.10g}" for tick in ticks])
    axis.set_minor_locator(NullLocator())


def rate_axis(axes: Axes, rates: Iterable[float]) -> None:
    """Let the x axis be that of learning rates: logarithmic, with a tick at each that was tried."""
    axes.set_xscale("log")
    values_axis(axes.xaxis, rates)
    axes.set_xlabel("highest learning rate")


def spread_labels(figure: Figure) -> None:
    """Move the labels of lines that end close together apart, as little as lets them be read.

    None comes below its axes, where ticks are written.
    """
    figure.draw_without_rendering()  # only now is it known where a point lies
    pixels_per_point = figure.dpi / 72
    for axes in figure.axes:
        labels = [text for text in axes.texts if isinstance(text, Annotation)]
        ends = {text: axes.transData.transform(text.xy)[1] / pixels_per_point for text in labels}
        upward = sorted(labels, key=lambda text: ends[text])
        slots = LABEL_POINTS * np.arange(len(upward))
        nearest = _rising([ends[text] for text in upward] - slots)
        heights = slots + np.maximum(nearest, axes.bbox.y0 / pixels_per_point + LABEL_POINTS / 2)
        for text, height in zip(upward, heights, strict=True):
            text.xyann = (text.xyann[0], height - ends[text])


def _rising(values: np.ndarray) -> np.ndarray:
    """Return the numbers nearest to `values`, by least squares, of which none is below the last."""
    n = len(values)
    return np.array(
        [
            max(min(values[j:k].mean() for k in range(i + 1, n + 1)) for j in range(i + 1))
            for i in range(n)
        ]
    )


def _ratio_axis(axes: Axes, groups: list[pd.DataFrame]) -> None:
    labels = [f"{rows['ratio'].iloc[0]}\n{_share(rows['ratio'].iloc[0]):.4g}%" for rows in groups]
    axes.set_xticks(range(len(groups)), labels)
    axes.set_xlim(-0.3, len(groups) - 0.2)
    axes.set_xlabel("attention : Mamba layers, share of attention among mixers")


def _share(ratio: str) -> float:
    a, m = map(int, ratio.split(":"))
    return 100 * a / (a + m)


def _context(key: str) -> str:
    tokens = int(key)
    return f"{tokens // 1024}K tokens" if tokens % 1024 == 0 else f"{tokens} tokens"


def _title(groups: list[pd.DataFrame]) -> str:
    rows = pd.concat(groups)
    low, high = rows["params"].min() / 1e6, rows["params"].max() / 1e6
    tokens = rows["train_tokens"].max() / 1e6
    seeds = max(len(group) for group in groups)
    return (
        f"{low:.2f}-{high:.2f}M parameters, {tokens:.2f}M training tokens; "
        f"means with 95% intervals, small marks are up to {seeds} seeds; "
        f"{rows['machine'].iloc[0]}, {rows['precision'].iloc[0]}, ops {rows['ops'].iloc[0]}"
    )
