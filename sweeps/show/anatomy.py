"""Where parameters, operations and bytes of models are, as DataFrames, and figures of them.

All of it is arithmetic on specs (`hybrid/cost.py`, `flops.py`, `roofline.py`, `memory.py`); small
parts are put together so that a bar has no more than six.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from hybrid.cost import Weights, cache_bytes, param_parts
from hybrid.flops import forward_flops
from hybrid.memory import KV_BYTES, longest_context
from hybrid.roofline import read_bytes
from hybrid.spec import ModelSpec
from sweeps.show.figures import COLOURS, STYLE, label, look, spell_out, spread_labels

Specs = Mapping[str, ModelSpec]
BLUE, RED, GREEN, PINK, SKY, ORANGE = COLOURS
# A part has one colour in all figures; hatches tell parts apart without colour.
LOOKS = {
    "attention": (BLUE, ""),
    "attention, projections": (BLUE, ""),
    "attention, pairs": (SKY, "///"),
    "keys and values": (SKY, "///"),
    "Mamba": (RED, "..."),
    "Mamba's states": (RED, "..."),
    "MLP": (GREEN, ""),
    "weights of every token": (GREEN, ""),
    "experts": (PINK, "\\\\"),
    "chosen experts": (PINK, "\\\\"),
    "embeddings": (ORANGE, "xx"),
    "logits": (ORANGE, "xx"),
    "norms": ("#999999", ""),
}
LEAST_NAMED = 0.09  # of the longest bar; a narrower part is named in the legend alone


# ---- tables --------------------------------------------------------------------------------------


def parameters(specs: Specs) -> pd.DataFrame:
    """Return parameters, a row for each model and a column for each part."""
    return pd.DataFrame({name: _parameters(spec) for name, spec in specs.items()}).T


def token_flops(specs: Specs, context: int) -> pd.DataFrame:
    """Return the operations of one more token after `context`, by model and part."""
    return pd.DataFrame({name: _token_flops(spec, context) for name, spec in specs.items()}).T


def flops_by_context(spec: ModelSpec, contexts: Iterable[int]) -> pd.DataFrame:
    """Return the operations of one more token by part, a row for each context before it."""
    return pd.DataFrame({f"{c:,}": _token_flops(spec, c) for c in contexts}).T


def token_bytes(specs: Specs, context: int, weights: Weights) -> pd.DataFrame:
    """Return the bytes that decoding one token after `context` has to read, by model and part."""
    read = {
        name: read_bytes(spec, batch=1, tokens=1, seen=context, weights=weights)
        for name, spec in specs.items()
    }
    names = {
        "dense": "weights of every token",
        "experts": "chosen experts",
        "kv": "keys and values",
        "states": "Mamba's states",
    }
    return pd.DataFrame({name: vars(parts) for name, parts in read.items()}).T.rename(columns=names)


def caches(specs: Specs, contexts: Sequence[int]) -> pd.DataFrame:
    """Return the bytes of one sequence's cache, a row for each context and a column a model."""

    def held(spec: ModelSpec, context: int) -> float:
        return cache_bytes(spec, batch=1, tokens=context, itemsize=KV_BYTES)

    return _grid(specs, contexts, held)


def longest_contexts(
    specs: Specs, memories: Sequence[int], *, weights: Weights, chunk: int | None
) -> pd.DataFrame:
    """Return the longest context, a row for each memory and a column a model.

    NaN where the weights alone do not fit, or where nothing limits the context.
    """

    def longest(spec: ModelSpec, memory: int) -> float:
        found = longest_context(spec, memory=memory, batch=1, weights=weights, chunk=chunk)
        return found or np.nan

    return _grid(specs, memories, longest)


def percent(parts: pd.DataFrame) -> pd.DataFrame:
    """Return the parts of each row in percent of their sum."""
    return 100 * parts.div(parts.sum(axis=1), axis=0)


def _parameters(spec: ModelSpec) -> dict[str, int]:
    parts = param_parts(spec)
    return {
        "attention": parts.attention,
        "Mamba": parts.mamba,
        "MLP": parts.mlp,
        "experts": parts.experts + parts.router,
        "embeddings": parts.embedding + parts.unembedding,
        "norms": parts.norms,
    }


def _token_flops(spec: ModelSpec, context: int) -> dict[str, int]:
    parts = forward_flops(spec, tokens=1, seen=context)
    return {
        "attention, projections": parts.attention_projections,
        "attention, pairs": parts.attention_pairs,
        "Mamba": parts.mamba_projections + parts.conv + parts.scan,
        "MLP": parts.mlp,
        "experts": parts.experts + parts.router,
        "logits": parts.logits,
    }


def _grid(
    specs: Specs, rows: Sequence[int], value: Callable[[ModelSpec, int], float]
) -> pd.DataFrame:
    return pd.DataFrame(
        {name: [value(spec, row) for row in rows] for name, spec in specs.items()}, index=list(rows)
    )


# ---- figures -------------------------------------------------------------------------------------


def bars(parts: pd.DataFrame, unit: str, ends: Sequence[str]) -> Figure:
    """Return a stacked bar for each row of `parts`, with a text from `ends` at the end of each."""
    seen = parts[[part for part in parts if parts[part].any()]]
    longest = seen.sum(axis=1).max()
    with mpl.rc_context({**STYLE, "hatch.linewidth": 0.4, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(10, 1.4 + 0.42 * len(seen)), layout="constrained")
        axes = figure.subplots()
        left = pd.Series(0.0, index=seen.index)
        for part in seen:
            _segment(axes, seen[part], left, str(part), longest)
            left += seen[part]
        for row, (end, text) in enumerate(zip(left, ends, strict=True)):
            axes.text(end + 0.01 * longest, row, text, va="center")
        axes.invert_yaxis()
        axes.set_axisbelow(True)
        axes.set_xlim(0, 1.1 * longest)
        axes.set_xlabel(unit)
        figure.legend(loc="outside upper left", ncols=len(seen.columns), frameon=False)
    return figure


def _segment(axes: Axes, widths: pd.Series, left: pd.Series, part: str, longest: float) -> None:
    colour, hatch = LOOKS[part]
    drawn = axes.barh(
        [str(name) for name in widths.index],
        widths,
        left=left,
        color=colour,
        hatch=hatch,
        edgecolor="white",
        label=part,
    )
    shown = [f"{width:.3g}" if width > LEAST_NAMED * longest else "" for width in widths]
    for text in axes.bar_label(drawn, shown, label_type="center", color="black", fontsize=8):
        _on_white(text)


def _on_white(text: Text) -> None:
    if text.get_text():
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.85})


def growth(table: pd.DataFrame, paper: pd.DataFrame, x_label: str, y_label: str) -> Figure:
    """Return a line for each column of `table` against its index, both axes logarithmic.

    `paper` has the published values, as open diamonds: rows with model, x and y.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.subplots()
        for index, model in enumerate(table):
            line = table[model].dropna()
            colour, marker = look(index)
            axes.plot(line.index, line, color=colour, marker=marker, ms=4)
            label(axes, str(model), (line.index[-1], line.iloc[-1]), colour, marker)
            theirs = paper[paper["model"] == model]
            axes.plot(theirs["x"], theirs["y"], "D", ms=9, mfc="none", mec=colour, mew=1.8)
        axes.plot([], [], "D", ms=9, mfc="none", mec="black", label="printed in the paper")
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(table.index), [f"{x:,}" for x in table.index])
        axes.minorticks_off()
        axes.set_yscale("log")
        spell_out(axes.yaxis)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.legend(frameon=False)
        spread_labels(figure)
    return figure
