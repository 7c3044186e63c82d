"""Score and NeedleScore: what a model got, one row of Parquet each; one file is one finished task.

    results/local/eval/20260101T120000-1a2b3c4d-5e6f7a8b-hellaswag.parquet  Scores, one a metric
    results/local/eval/20260101T120000-1a2b3c4d-5e6f7a8b-needle.parquet     NeedleScores, one a cell

Files are written by sweeps/trial/parquet.py. What was not measured is null. The columns of a file
say of which class its rows are, not its name.
"""

import hashlib
import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from hybrid import codec, cost
from hybrid.model import HybridLM
from sweeps.eval.scoring import Scorer
from sweeps.trained import Trained
from sweeps.trial import provenance
from sweeps.trial.columns import Change, Columns, column, columns_of
from sweeps.trial.device import machine_name
from sweeps.trial.parquet import NotOurs, parse, write_new

FOLDER = "eval"  # under results/local and results/published
PACKAGES = (*provenance.PACKAGES, "lm-eval", "datasets", "transformers")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a score comes from."""

    eval_id: str = column(
        "moment and commit of the command and eight drawn digits; its files begin with it"
    )
    started_utc: str = column("of the command, ISO 8601")
    command: str = column("that was typed")
    model: str = column("run id or folder, as it was asked for")
    weights_sha256: str | None = column(
        "of the parameters' names, types, shapes and values; null in older records", optional=True
    )
    run_id: str | None = column("of the run; null for a folder", optional=True)
    attempt: int | None = column("of the run; null for a folder", optional=True)
    spec: str = column("the ModelSpec as JSON; hybrid.codec.loads reads it")
    params: int = column("all parameters, by arithmetic", "parameters")
    git_commit: str | None = column("of the code; null outside a checkout", optional=True)
    git_dirty: bool | None = column("whether the checkout had other changes", optional=True)
    versions: dict[str, str] = column("of Python and the packages that compute, lm-eval's too")
    device: str = column("cpu or cuda")
    machine: str = column("model name of the processor or GPU")
    threads: int = column("of torch on the CPU", "threads")
    ops: str = column("implementation that ran")
    precision: str = column("of matrix products: fp32 or bf16")
    batch: int = column("sequences scored at once", "sequences")
    longest: int | None = column(
        "that was read of a sequence, the beginning cut off; null is all", "tokens", optional=True
    )


@dataclass(frozen=True, kw_only=True)
class Score(Origin):
    """One metric of one task."""

    suite: str = column("such as jamba-paper")
    task: str = column("lm-eval's name, or that of a file in sweeps/eval/tasks")
    task_version: str = column("as the task's definition says")
    ours: bool = column("whether the definition is ours, not lm-eval's")
    shots: int = column("examples before each question")
    shots_from: str = column("split of the examples; the question's own is never among them")
    evaluated: str = column("split of the questions")
    data: str = column("folder of the records, or hub")
    data_sha256: str | None = column(
        "of the questions and of the examples to choose from; null in older records", optional=True
    )
    metric: str = column("acc, acc_norm, exact_match, f1 or valid_label")
    filter: str = column("lm-eval's name of what was done to the answers before")
    value: float = column("mean over the questions")
    stderr: float | None = column("of the mean; null for one question", optional=True)
    n: int = column("questions", "questions")
    limited: bool = column("whether there are more questions than were asked")
    wall_s: float = column("for the whole task, its records being there", "s")


@dataclass(frozen=True, kw_only=True)
class NeedleScore(Origin):
    """One cell: needles hidden at one depth of contexts of one length."""

    source: str = column("text of the haystack, as JSON; its split `test`")
    text_sha256: str | None = column(
        "of the haystack's split `test`; null in older records", optional=True
    )
    context: int = column("tokens from the first to the question's last", "tokens")
    depth: float = column("where the needle lies: 0 is the beginning, 1 just before the question")
    n: int = column("needles", "needles")
    exact: float = column("share of greedy answers that are the number")
    exact_chance: float = column("the same of a number drawn at random")
    first: float = column("share where no other number is likelier than the one hidden")
    first_chance: float = column("the same of a model that does not look")
    beaten: float = column("mean share of the other numbers that are less likely; chance is 0.5")
    candidates: int = column("numbers compared, the hidden one among them", "numbers")
    wall_s: float = column("for the whole cell", "s")


CHANGES = (
    Change(version=1, commit="bbfbb1d"),
    Change(version=2, commit="312ef35", added=("weights_sha256", "data_sha256", "text_sha256")),
)
COLUMNS: dict[type[Origin], Columns] = {
    kind: columns_of(kind, CHANGES) for kind in (Score, NeedleScore)
}


def origin(trained: Trained, scorer: Scorer, command: str) -> Origin:
    """Return where the scores of a command that begins now come from."""
    commit, dirty = provenance.git_commit()
    started = provenance.now_utc()
    stamp = started.partition("+")[0].replace("-", "").replace(":", "")
    device, known = trained.model.embed.weight.device, trained.record
    return Origin(
        eval_id=f"{stamp}-{(commit or 'nocommit')[:8]}-{uuid4().hex[:8]}",
        started_utc=started,
        command=command,
        model=trained.name,
        weights_sha256=weights_sha256(trained.model),
        run_id=known.run_id if known else None,
        attempt=known.attempt if known else None,
        spec=codec.dumps(trained.model.spec),
        params=cost.params(trained.model.spec),
        git_commit=commit,
        git_dirty=dirty,
        versions=provenance.versions(PACKAGES),
        device=device.type,
        machine=machine_name(device),
        threads=torch.get_num_threads(),
        ops=trained.model.ops.name,
        precision=str(scorer.precision),
        batch=scorer.batch,
        longest=scorer.longest,
    )


def weights_sha256(model: HybridLM) -> str:
    """Return the sha256 of a model's state: two checkpoints of one name have two."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def sha256_of(values: Iterable[Any]) -> str:
    """Return the sha256 of records or texts, in their order; what JSON lacks is told by `repr`."""
    found = hashlib.sha256()
    for value in values:
        found.update(json.dumps(value, sort_keys=True, default=repr).encode() + b"\n")
    return found.hexdigest()


def path_of(start: Origin, task: str, folder: Path) -> Path:
    """Return where the scores of a task lie; `folder` is that of all results."""
    return folder / FOLDER / f"{start.eval_id}-{task}.parquet"


def write(rows: Sequence[Origin], task: str, folder: Path) -> Path:
    """Write the rows of one task, all of one class; FileExistsError if they are there."""
    path = path_of(rows[0], task, folder)
    write_new(as_table(rows), path, replace=False)
    return path


def load(folder: Path, kind: type[Origin] = Score) -> pd.DataFrame:
    """Return all rows of one class under the results in `folder`; LookupError without any.

    A file that cannot be read is warned of.
    """
    files = sorted((folder / FOLDER).glob("*.parquet"))
    tables = [table for path in files if (table := _read(path, kind)) is not None]
    if not tables:
        raise LookupError(f"no {kind.__name__} under {folder}: run `python -m sweeps eval RUN`")
    return pa.concat_tables(tables).to_pandas()


def _read(path: Path, kind: type[Origin]) -> pa.Table | None:
    """Return the rows of a file; None for one of another class, and, with a warning, of none."""
    data = path.read_bytes()
    try:
        return parse(data, COLUMNS[kind]).table
    except NotOurs as error:
        if _kind_of(data) in (kind, None):
            warnings.warn(f"{path} is left out: {error}", stacklevel=3)
        return None


def _kind_of(data: bytes) -> type[Origin] | None:
    """Return the class that a file has most columns of; None for a file that cannot be read."""
    try:
        names = set(pq.read_schema(pa.BufferReader(data)).names)
    except (pa.ArrowException, OSError):
        return None
    return max(COLUMNS, key=lambda kind: len(names & set(COLUMNS[kind].schema.names)))


def as_table(rows: Sequence[Any]) -> pa.Table:
    """Return rows of one class as they are written."""
    return pa.Table.from_pylist([asdict(row) for row in rows], COLUMNS[type(rows[0])].schema)
