"""docs/speed.md, from the runs of the benchmark that came with the checkout."""

from collections import defaultdict
from pathlib import Path

import pandas as pd

from sweeps.bench import limits_table
from sweeps.bench.clock import COLD_S
from sweeps.bench.limits import LimitRow
from sweeps.bench.profile import PartRow
from sweeps.bench.record import FOLDER, Origin, Row, kind_of, read
from sweeps.bench.table import as_markdown

HEAD = f"""# Speed beside other implementations

Made by `python -m sweeps docs` from `results/published/{FOLDER}`; do not edit. The figures are what
`python -m sweeps bench` prints: every contender has the same weights, is first held against the
baseline, and is timed in turn with the others. A turn begins with a call that does not count, if
it takes no more than {COLD_S:.0f} s; in runs before 30 November 2026, 14:00, it did. A time
relative to the baseline's is the median over rounds of the ratio within a round; n is their
number. Brackets hold quartiles. Training is a whole step (forward, loss, backward, clipping,
AdamW); prefill and decode run at batch 1. Memory is growth over a process that has the model
ready. "Of the machine" is arithmetic, or for decoding the bytes that must be read, beside what a
matrix product or a copy reached in the same run. "Compiled" is torch.compile, "graphs" CUDA graphs
as well; a scan alone is in fp32, its training in the precision of the run. On the CPU all
contenders have the settings of heap and threads that a trial has (`sweeps/workers/server.py`),
which a program of its own would have to set. Runs of one machine kind differ: these machines are
shared, and quartiles far from the median mean that something else was running.
"""
KINDS = (Row, PartRow, LimitRow)
NOT_MEASURED = "Not measured.\n"
NO_GPU = "Not measured on a GPU.\n"
LIMITS_HEAD = """Each with a model of its own, the batch doubled. A training step is timed as above;
decoding is one token of every sequence after the context. The peak holds weights, optimiser and
cache: by CUDA's allocator, or on the CPU as the growth of a process. The arithmetic is
`hybrid/cost.py`'s, of the model's own tensors.
"""
PROFILE_HEAD = """| part | share | ms a step | calls a step |
|---|---:|---:|---:|
"""


def page(folder: Path) -> str:
    """Return the page for the results under `folder`, such as results/published."""
    runs = read_all(folder / FOLDER)
    cpu, gpu = ([x for x in runs[Row] if _device(x) == kind] for kind in ("cpu", "cuda"))
    figures = [_figure(path, folder) for path in sorted((folder / FOLDER).glob("*.png"))]
    return "\n".join(
        [
            HEAD,
            _section("On the CPU", [as_markdown(run) + "\n" for run in cpu]),
            *[_section(f"On {run['machine'].iloc[0]}", [as_markdown(run) + "\n"]) for run in gpu],
            *([] if gpu else [_section("On a GPU", [])]),
            _section("Throughput by ratio", figures),
            _section("How large a batch fits", _limits(runs[LimitRow])),
            _section("Where the time of a training step goes", [*map(parts, runs[PartRow])]),
        ]
    )


def read_all(folder: Path) -> dict[type[Origin], list[pd.DataFrame]]:
    """Return all files of a folder by the kind of their rows, the oldest first."""
    found = defaultdict[type[Origin], list[pd.DataFrame]](list)
    for path in sorted(folder.glob("*.parquet")):
        kind = kind_of(path, KINDS)
        found[kind].append(read(path, kind))
    return found


def parts(frame: pd.DataFrame) -> str:
    """Return one profile as Markdown."""
    row = frame.iloc[0]
    commit = (row["git_commit"] or "no checkout")[:12]
    changed = " with changes" if row["git_dirty"] else ""
    title = ": ".join(x for x in (row["label"], f"{row['contender']}, commit {commit}") if x)
    lines = [
        f"| {x['part']} | {100 * x['share']:.1f}% | {1e3 * x['part_s']:,.2f} | {x['calls']:,.0f} |"
        for _, x in frame.iterrows()
    ]
    where = (
        f"{row['machine']} ({row['threads']} threads), {row['precision']}, {row['steps']} steps of "
        f"{1e3 * row['step_s']:,.0f} ms under the profiler, `{row['command']}`."
    )
    return f"### {title}{changed}\n\n{PROFILE_HEAD}" + "\n".join(lines) + f"\n\n{where}\n"


def _figure(path: Path, folder: Path) -> str:
    """Return a figure as Markdown sees it from docs/, `folder` lying in results/."""
    return f"![{path.stem}](../results/{path.relative_to(folder.parent).as_posix()})\n"


def _limits(runs: list[pd.DataFrame]) -> list[str]:
    if not runs:
        return []
    unseen = [] if any(_device(run) == "cuda" for run in runs) else [NO_GPU]
    return [LIMITS_HEAD, *(limits_table.as_markdown(run) + "\n" for run in runs), *unseen]


def _section(title: str, parts: list[str]) -> str:
    return f"## {title}\n\n" + ("\n".join(parts) or NOT_MEASURED)


def _device(run: pd.DataFrame) -> str:
    return str(run["device"].iloc[0])
