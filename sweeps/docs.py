"""The parts of the documentation that are made from code and records, and where they stand.

`python -m sweeps docs` writes them; a test holds the committed text against what they would be.
"""

from dataclasses import fields
from pathlib import Path

from sweeps import measured_laws, ratio, results
from sweeps.bench import page as speed
from sweeps.bench.limits import LimitRow
from sweeps.bench.profile import PartRow
from sweeps.bench.record import Row
from sweeps.eval.record import NeedleScore, Score
from sweeps.show import table
from sweeps.trial.columns import Change, schema_of
from sweeps.trial.record import CHANGES, Record

COLUMNS = Path("docs/results.md")
LAWS = Path("docs/laws.md")
SPEED = Path("docs/speed.md")
README = Path("README.md")
TABLE = "ratio table"  # between its marks in README
TIMED = ("prefill_tokens_per_s.", "decode_ms.", "cache_bytes.")

HEAD = """# Columns of the records

One row is one trial. Made by `python -m sweeps docs` from `sweeps/trial/record.py`; do not edit.
Null means not measured. `sweeps.results.load` turns a map into one column for each key, such as
`decode_ms.1024`.

The folder of a sweep, such as `results/local/ratio/`:

| | |
|---|---|
| `trials/RUN-ATTEMPT.parquet` | a record, written when its trial ends and never changed |
| `curves/RUN-ATTEMPT.parquet` | a row for each of its steps, written just before |
| `trials.parquet`, `curves.parquet` | the same, after `python -m sweeps compact` |
| `runs/RUN-ATTEMPT/` | what a person looks at: `config.json`, `log.txt`, `curve.csv` |
| `aside/` | files that could not be read, under their own names; nothing here is deleted or read |
| `study.sqlite3` | Optuna's study, made from the records again where it is lost |

All trials together are the rows of `trials.parquet` and of the files in `trials/`; a trial that is
in both, by `run_id` and `attempt`, is counted once. Committed results are compacted.

A file of older code lacks columns, which are null then; the columns came to be so:

"""
HEADS = {
    Record: "",
    Row: """
## Benchmark

One row is one contender in one phase; one file in `bench/` is one run of `python -m sweeps bench`.
""",
    PartRow: """
## Profile

One row is one part of a training step; a file `bench/profile-*` is one `python -m sweeps profile`.
""",
    LimitRow: """
## Limits

One row is one batch in one phase; a file `bench/limits-*` is one run of `python -m sweeps limits`.
""",
    Score: """
## Evaluation

One row is one metric of one task; a file `eval/*-TASK.parquet` is one task of one
`python -m sweeps eval RUN`, written when it has finished. `sweeps.eval.record.load` reads them all.
""",
    NeedleScore: """
## Needles

One row is one cell of the heat map; a file `eval/*-needle.parquet` is one
`python -m sweeps eval RUN --suite needle`, with its heat map beside it.
""",
}
TABLE_HEAD = """
| column | type | unit | meaning |
|---|---|---|---|
"""


def pages(root: Path) -> dict[Path, str]:
    """Return what each page under `root` should hold; README keeps all but its table."""
    text = readme(root)
    return {
        COLUMNS: columns(),
        LAWS: measured_laws.page(root / results.PUBLISHED),
        SPEED: speed.page(root / results.PUBLISHED),
        README: between(text, ratio_table(root), TABLE),
    }


def readme(root: Path) -> str:
    """Return the README of the checkout at `root`; FileNotFoundError where that is none."""
    if not ((root / README).is_file() and (root / results.PUBLISHED).is_dir()):
        raise FileNotFoundError(
            f"{root.resolve()} is no checkout of this project, which has {README} and "
            f"{results.PUBLISHED}/: go into a clone of it and say this again"
        )
    return (root / README).read_text()


def columns() -> str:
    """Return the data dictionary: a table for each kind of record, a row for each field."""
    return (
        HEAD
        + _changes()
        + "".join(head + TABLE_HEAD + _fields(kind) for kind, head in HEADS.items())
    )


def _changes() -> str:
    """Return a line for each change of the columns."""
    return "".join(
        f"- version {change.version}, commit {change.commit}: {_change(change)}\n"
        for change in CHANGES
    )


def _change(change: Change) -> str:
    added = [f"`{name}`" for name in change.added]
    renamed = [f"`{old}` became `{new}`" for old, new in change.renamed.items()]
    parts = ([f"{' and '.join(added)} added"] if added else []) + renamed
    return "; ".join(parts) or "the first columns"


def _fields(kind: type) -> str:
    types = schema_of(kind)
    return "".join(
        f"| `{f.name}` | {types.field(f.name).type} | {f.metadata['unit'] or '-'} "
        f"| {f.metadata['meaning']} |\n"
        for f in fields(kind)
    )


def ratio_table(root: Path) -> str:
    """Return the losses of the committed ratio sweep as Markdown.

    Its speeds and caches are left out: README has those of the quieter records.
    """
    trials = results.load("ratio", folder=root / results.PUBLISHED, scale="cpu")
    timed = [name for name in trials if str(name).startswith(TIMED)]
    return table.as_markdown(trials.drop(columns=timed), ratio.SWEEP.arms)


def between(text: str, new: str, name: str) -> str:
    """Return `text` with `new` between the marks of `name`; ValueError where they are missing."""
    first, last = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not (begin and end):
        raise ValueError(f"{README} must hold the lines {first!r} and {last!r}, in this order")
    return f"{before}{first}\n{new}\n{last}{after}"
