"""docs/speed.md, from the runs of the benchmark that came with the checkout."""

from pathlib import Path

import pandas as pd

from sweeps.bench.profile import PREFIX, PartRow
from sweeps.bench.record import FOLDER, Row, read
from sweeps.bench.table import as_markdown

HEAD = f"""# Speed beside other implementations

Made by `python -m sweeps docs` from `results/published/{FOLDER}`; do not edit. The figures are what
`python -m sweeps bench` prints: every contender has the same weights, is first held against the
baseline, and is timed in turn with the others. A time relative to the baseline's is the median over
rounds of the ratio within a round; n is their number. Brackets hold quartiles. Training is a whole
step (forward, loss, backward, clipping, AdamW); prefill and decode run at batch 1. Memory is growth
over a process that has the model ready. "Of the machine" is arithmetic, or for decoding the bytes
that must be read, beside what a matrix product or a copy reached in the same run.
"""
NOT_MEASURED = "Not measured.\n"
PROFILE_HEAD = """| part | share | ms a step | calls a step |
|---|---:|---:|---:|
"""


def page(folder: Path) -> str:
    """Return the page for the results under `folder`, such as results/published."""
    files = sorted((folder / FOLDER).glob("*.parquet"))
    runs = [read(path, Row) for path in files if not path.name.startswith(PREFIX)]
    profiles = [read(path, PartRow) for path in files if path.name.startswith(PREFIX)]
    cpu, gpu = ([run for run in runs if _device(run) == kind] for kind in ("cpu", "cuda"))
    return "\n".join(
        [
            HEAD,
            _section("On the CPU", [as_markdown(run) + "\n" for run in cpu]),
            *[_section(f"On {run['machine'].iloc[0]}", [as_markdown(run) + "\n"]) for run in gpu],
            *([] if gpu else [_section("On a GPU", [])]),
            _section("Where the time of a training step goes", [profile(x) for x in profiles]),
        ]
    )


def profile(frame: pd.DataFrame) -> str:
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


def _section(title: str, parts: list[str]) -> str:
    return f"## {title}\n\n" + ("\n".join(parts) or NOT_MEASURED)


def _device(run: pd.DataFrame) -> str:
    return str(run["device"].iloc[0])
