"""Which ratio to choose: loss, speed and cache of each arm at each context, and what none beats.

    points = choice.points(losses, speeds, arms)      # one row an arm and context
    choice.front(points, choice.LOSS_AND_DECODING)    # the same rows with `on_front`

Loss and speed may come from different sweeps: `losses` has seeds that were trained, `speeds` has
long contexts that were timed. Their arms have to be the same models.
"""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweeps.plans import pareto
from sweeps.results import keys
from sweeps.show.figures import MIB, STYLE, label, look, spell_out, spread_labels
from sweeps.show.statistics import interval
from sweeps.show.table import by_arm

LOSS_AND_DECODING = {"bits_per_byte": "minimize", "decode_tokens_per_s": "maximize"}
EVERYTHING = {
    **LOSS_AND_DECODING,
    "prefill_tokens_per_s": "maximize",
    "cache_MiB": "minimize",
}


def points(losses: pd.DataFrame, speeds: pd.DataFrame, arms: tuple[str, ...]) -> pd.DataFrame:
    """Return one row for each arm and context: validation loss with its 95% interval, speed, cache.

    Speeds and caches are medians over seeds at batch 1. Raises ValueError where an arm is not the
    same model in both.
    """
    timed = {rows["arm"].iloc[0]: rows for rows in by_arm(speeds, arms)}
    found = []
    for rows in by_arm(losses, arms):
        arm = rows["arm"].iloc[0]
        if set(rows["spec"]) != set(timed[arm]["spec"]):
            raise ValueError(f"points: arm {arm!r} is another model in `speeds` than in `losses`")
        found += [{"arm": arm, **_loss(rows), **cost} for cost in _costs(timed[arm])]
    return pd.DataFrame(found)


def front(points: pd.DataFrame, objectives: Mapping[str, str]) -> pd.DataFrame:
    """Return `points` with `on_front`: whether no other arm at its context is better in everything.

    `objectives` are columns, each with minimize or maximize.
    """
    marked = []
    for _, rows in points.groupby("context", sort=False):
        best = pareto.front(rows[list(objectives)].to_numpy().tolist(), list(objectives.values()))
        marked.append(rows.assign(on_front=np.isin(np.arange(len(rows)), best)))
    return pd.concat(marked).sort_index()


def figure(points: pd.DataFrame) -> Figure:
    """Return loss against decoding speed, a panel for each context; hollow marks are dominated."""
    arms = list(dict.fromkeys(points["arm"]))
    groups = list(points.groupby("context"))
    with mpl.rc_context(STYLE):
        drawn = Figure(figsize=(3 * len(groups), 3.6), layout="constrained")
        panels = drawn.subplots(1, len(groups), sharex=True, sharey=True, squeeze=False)[0]
        for axes, (context, rows) in zip(panels, groups, strict=True):
            for _, row in rows.iterrows():
                _point(axes, row, arms.index(row["arm"]))
            axes.set_title(f"after {context:,} tokens")
            axes.set_xscale("log")
            axes.margins(x=0.25, y=0.1)
            spell_out(axes.xaxis, steps=(1.0, 3.0))
            axes.set_xlabel("decoded tokens/s, batch 1")
        panels[0].set_ylabel("validation bits per byte,\nmean over domains, 95% interval")
        spread_labels(drawn)
    return drawn


def _point(axes: Axes, row: pd.Series, index: int) -> None:
    colour, marker = look(index)
    x, y = row["decode_tokens_per_s"], row["bits_per_byte"]
    axes.errorbar(
        x,
        y,
        row["half"],
        color=colour,
        marker=marker,
        mfc=colour if row["on_front"] else "white",
        ms=7,
        capsize=3,
    )
    label(axes, row["arm"], (x, y), colour, marker)


def _loss(rows: pd.DataFrame) -> dict[str, float]:
    """Return the mean over domains and seeds with half of its interval over seeds."""
    domains = [f"valid_bits_per_byte.{key}" for key in keys(rows, "valid_bits_per_byte")]
    mean, half, n = interval(rows[domains].mean(axis=1))
    return {"bits_per_byte": mean, "half": half, "seeds": n}


def _costs(rows: pd.DataFrame) -> list[dict[str, float]]:
    return [
        {
            "context": context,
            "prefill_tokens_per_s": rows[f"prefill_tokens_per_s.{context}"].median(),
            "decode_tokens_per_s": 1e3 / rows[f"decode_ms.{context}"].median(),
            "cache_MiB": rows[f"cache_bytes.{context}"].median() / MIB,
        }
        for context in sorted(map(int, keys(rows, "decode_ms")))
    ]
