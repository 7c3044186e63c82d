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
from sweeps.bench import record
from sweeps.bench.limits import LimitRow
from sweeps.bench.profile import PartRow
from sweeps.bench.record import Origin, Row, Status
from sweeps.bench.setting import Phase
from sweeps.show.figures import STYLE, label, look, spell_out, spread_labels

# Equal in all rows, or their points are not comparable.
ALIKE = ["machine", "threads", "device", "precision", "width", "hidden", "depth", "vocab"]
# Equal in all rows of one line; that of `limits` is of several batches.
LINE = ["ratio", "phase", "limits"]
ALIKE_IN_LINE = ["contender", "git_commit", "spec", "trained_batch"]
KINDS = (Row, LimitRow, PartRow)


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

    Raises LookupError where nothing in them was timed, and ValueError where the points of one line
    are of several models, batches of training, back ends or commits.
    """
    kinds = {path: record.kind_of(path, KINDS) for path in files}
    parts = [_points(path, kind) for path, kind in kinds.items() if kind is not PartRow]
    rows = pd.concat(parts) if parts else pd.DataFrame()
    if not len(rows):
        raise LookupError(
            "the figure needs files of `python -m sweeps bench` or `python -m sweeps limits` with "
            f"something timed; given {', '.join(map(str, files)) or 'none'}"
        )
    for name, line in rows.groupby(LINE):
        _require_one(line[ALIKE_IN_LINE], f"the line {name[0]}, {name[1]}, is")
    rows = rows.sort_values("started_utc", kind="stable")
    return rows.drop_duplicates(["ratio", "phase", "limits", "x"], keep="last")


def throughput(rows: pd.DataFrame) -> Figure:
    """Return tokens/s against context and batch, with quartiles.

    Raises ValueError for rows of several machines or sizes, or of limits after several contexts.
    """
    _require_one(rows[ALIKE], "the figure is")
    _require_one(rows[rows["limits"]][["context"]], "the figure is")
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


def _points(path: Path, kind: type[Origin]) -> pd.DataFrame:
    """Return the timed points of one file with columns ratio, x, low, middle and high."""
    of_limits = kind is LimitRow
    frame = record.read(path, kind)
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
        hidden=[_hidden(spec) for spec in specs],
        trained_batch=None if of_limits else frame["batch"],
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


def _hidden(spec: ModelSpec) -> str:
    """Return the widths inside the feed-forwards."""
    widths = {layer.feed_forward.hidden for layer in spec.layers if layer.feed_forward is not None}
    return ", ".join(map(str, sorted(widths)))


def _require_one(rows: pd.DataFrame, what: str) -> None:
    """Raise ValueError, with the values of each column that differs, unless all rows are equal."""
    found = {str(c): list(dict.fromkeys(map(str, rows[c]))) for c in rows}
    differ = {column: values for column, values in found.items() if len(values) > 1}
    said = "; ".join(f"{column} {' and '.join(values)}" for column, values in differ.items())
    require(not differ, f"{what} of one machine, model, context and commit; given {said}")


def _attention_share(ratio: str) -> float:
    a, m = parse_ratio(ratio)
    return a / (a + m)


def _title(rows: pd.DataFrame) -> str:
    row, params = rows.iloc[-1], rows["params"]
    sizes = dict.fromkeys(count_text(number) for number in (params.min(), params.max()))
    who = ", ".join(dict.fromkeys(rows["contender"]))
    commits = [str(commit)[:8] for commit in dict.fromkeys(rows["git_commit"])]
    who += f", commits {', '.join(commits)}" if len(commits) > 1 else ""
    return (
        f"attention:Mamba layers; {' to '.join(sizes)} parameters, {who}, {row['machine']}, "
        f"{row['precision']}; bands are quartiles"
    )
