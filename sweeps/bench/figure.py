"""Throughput against context and against batch, a line for each ratio, from runs of several ratios.

Bench files give prefill and decode at batch 1, limits files decode by batch. Of each ratio the
baseline of its run is drawn, at the batch and context measured last.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hybrid import codec
from hybrid.jamba import parse_ratio
from hybrid.spec import ModelSpec, require
from hybrid.units import count_text
from sweeps.bench import limits, profile, record
from sweeps.bench.limits import LimitRow
from sweeps.bench.record import Row, Status
from sweeps.bench.setting import Phase
from sweeps.show.figures import STYLE, label, look, spell_out, spread_labels

# Equal in all rows, or their points are not comparable.
ALIKE = ["machine", "threads", "precision", "width", "depth", "vocab"]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One part of the figure: which rows, and against what."""

    title: str
    phase: Phase
    limits: bool  # rows of `python -m sweeps limits`, else of `bench`
    x: str  # column
    x_label: str


PANELS = (
    Panel(
        title="Prefill, batch 1",
        phase=Phase.PREFILL,
        limits=False,
        x="context",
        x_label="tokens of the prompt",
    ),
    Panel(
        title="Decode, batch 1",
        phase=Phase.DECODE,
        limits=False,
        x="context",
        x_label="tokens of context",
    ),
    Panel(
        title="Decode, all sequences",
        phase=Phase.DECODE,
        limits=True,
        x="batch",
        x_label="sequences at once",
    ),
)


def read(files: Sequence[Path]) -> pd.DataFrame:
    """Return what is drawn of these files: a row for each point, the last measured of each.

    Raises LookupError where nothing in them was timed.
    """
    parts = [_points(path) for path in files if not path.name.startswith(profile.PREFIX)]
    rows = pd.concat(parts) if parts else pd.DataFrame()
    if not len(rows):
        raise LookupError(
            "the figure needs files of `python -m sweeps bench` or `python -m sweeps limits` with "
            f"something timed; given {', '.join(map(str, files)) or 'none'}"
        )
    rows = rows.sort_values("started_utc", kind="stable")
    return rows.drop_duplicates(["ratio", "phase", "limits", "x"], keep="last")


def throughput(rows: pd.DataFrame) -> Figure:
    """Return tokens/s against context and batch, with quartiles.

    Raises ValueError for rows of several machines or sizes, or of limits after several contexts.
    """
    _require_one(rows[ALIKE])
    _require_one(rows[rows["limits"]][["context"]])
    ratios = sorted(rows["ratio"].unique(), key=_attention_share, reverse=True)
    panels = [panel for panel in PANELS if len(_of(rows, panel))]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.5 * len(panels) + 0.5, 4), layout="constrained")
        places = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, panel in zip(places, panels, strict=True):
            _draw(axes, panel, _of(rows, panel), ratios)
        figure.suptitle(_title(rows), x=0.01, ha="left", fontsize=9)
        spread_labels(figure)
    return figure


def _points(path: Path) -> pd.DataFrame:
    """Return the timed points of one file with columns ratio, x, low, middle and high."""
    of_limits = path.name.startswith(limits.PREFIX)
    frame = record.read(path, LimitRow if of_limits else Row)
    drawn = [panel.phase for panel in PANELS if panel.limits == of_limits]
    frame = frame[(frame["status"] == Status.TIMED) & frame["phase"].isin(drawn)]
    if not of_limits:
        frame = frame[frame["contender"] == frame["baseline"]]
    specs = [codec.loads(ModelSpec, text) for text in frame["spec"]]
    tokens = frame["batch"] if of_limits else frame["call_tokens"]
    return frame.assign(
        ratio=[spec.ratio for spec in specs],
        width=[spec.width for spec in specs],
        depth=[len(spec.layers) for spec in specs],
        vocab=[spec.vocab for spec in specs],
        limits=of_limits,
        x=frame["batch" if of_limits else "context"],
        low=tokens / frame["high_s"],
        middle=tokens / frame["median_s"],
        high=tokens / frame["low_s"],
    )


def _of(rows: pd.DataFrame, panel: Panel) -> pd.DataFrame:
    return rows[(rows["phase"] == panel.phase) & (rows["limits"] == panel.limits)]


def _draw(axes: Axes, panel: Panel, rows: pd.DataFrame, ratios: Sequence[str]) -> None:
    for index, ratio in enumerate(ratios):
        line = rows[rows["ratio"] == ratio].sort_values("x")
        if not len(line):
            continue
        colour, marker = look(index)
        axes.fill_between(line["x"], line["low"], line["high"], color=colour, alpha=0.2, lw=0)
        axes.plot(line["x"], line["middle"], color=colour, marker=marker, ms=4)
        label(axes, ratio, (line["x"].iloc[-1], line["middle"].iloc[-1]), colour, marker)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    spell_out(axes.yaxis)
    places = sorted(rows["x"].unique())
    axes.set_xticks(places, [_short(place) for place in places])
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel("tokens/s")
    axes.set_title(panel.title)


def _short(number: float) -> str:
    """Return 4096 as 4K, as lengths are written."""
    return f"{number / 1024:.0f}K" if number >= 1024 and number % 1024 == 0 else f"{number:.0f}"


def _require_one(rows: pd.DataFrame) -> None:
    found = rows.drop_duplicates().to_dict("records")
    require(len(found) <= 1, f"the figure is of one machine, size and context; given {found}")


def _attention_share(ratio: str) -> float:
    a, m = parse_ratio(ratio)
    return a / (a + m)


def _title(rows: pd.DataFrame) -> str:
    row, params = rows.iloc[-1], rows["params"]
    sizes = dict.fromkeys(count_text(number) for number in (params.min(), params.max()))
    who = ", ".join(dict.fromkeys(rows["contender"]))
    return (
        f"attention:Mamba layers; {' to '.join(sizes)} parameters, {who}, {row['machine']}, "
        f"{row['precision']}; bands are quartiles"
    )
