"""One trial, one Record, one Parquet row; its curve is a second file. The only writer and reader of
results/, which is only ever added to.

    results/local/ratio/trials/ratio-cpu-1to7-s0-3f9c2a1b-0.parquet     the Record
    results/local/ratio/curves/ratio-cpu-1to7-s0-3f9c2a1b-0.parquet     its steps
    results/local/ratio/trials.parquet, curves.parquet                  the same, compacted

The Record is written last, and whole or not at all: a trial has finished exactly when its Record is
there. What was not measured is null, never zero. A failure is an outcome, not an absence.
"""

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sweeps.trial.columns import Change, column, columns_of
from sweeps.trial.parquet import remove_dead_scratch, write_new
from sweeps.trial.shelf import Shelf, Stamp, many_of, ones_of, stamp_of
from sweeps.trial.train import Step

Key = tuple[str, int]  # run_id and attempt: what a record is known by


class Outcome(StrEnum):
    """How a trial ended."""

    COMPLETE = "complete"
    DIVERGED = "diverged"  # a training loss that is not finite
    PRUNED = "pruned"  # stopped on purpose; `error` holds the reason
    REFUSED = "refused"  # over a budget by arithmetic; nothing was built
    OUT_OF_MEMORY = "out_of_memory"  # of the GPU, the machine, or over the limit it was given
    TIMED_OUT = "timed_out"
    FAILED = "failed"  # an exception, in `error`
    CRASHED = "crashed"  # the process died; `error` names the signal or exit code

    @property
    def settled(self) -> bool:
        """Whether running the same trial again could not end otherwise."""
        return self in (Outcome.COMPLETE, Outcome.DIVERGED, Outcome.PRUNED, Outcome.REFUSED)


class RecordNotWritten(OSError):
    """A record could not be written, for want of space say; nothing is left of it on the disk."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """Which part of which sweep a trial is; the defaults are those of a single run."""

    sweep: str = "single"
    scale: str = "none"
    arm: str = "none"
    matched: str | None = None  # what is equal across the arms, and by which dimension
    attempt: int = 0
    trial_params: str | None = None  # what a sampler chose, as JSON


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of one trial. docs/results.md lists the columns from here."""

    run_id: str = column("sweep, scale, arm, seed and a hash of spec and recipe")
    attempt: int = column("0, or how often the same trial had failed before")
    sweep: str = column("name of the sweep that asked for the trial")
    scale: str = column("named size of the sweep: smoke, cpu or gpu")
    arm: str = column("what the sweep varied, such as the ratio 1:7")
    matched: str | None = column(
        "what the sweep made equal across its arms, and by which dimension", optional=True
    )
    trial_params: str | None = column(
        "what a sampler chose, as JSON: parameters and their distributions", optional=True
    )
    seed: int = column("of the initial weights and of the order of the data")
    outcome: Outcome = column(", ".join(Outcome))
    error: str | None = column(
        "why the outcome is not complete, then the last lines of the run's log.txt", optional=True
    )
    ratio: str = column("attention to Mamba layers, in lowest terms")
    spec: str = column("the ModelSpec as JSON; hybrid.codec.loads reads it")
    recipe: str = column("the Recipe as JSON; hybrid.codec.loads reads it")
    params: int = column("all parameters, by arithmetic", "parameters")
    active_params: int = column("parameters that one token uses, by arithmetic", "parameters")

    started_utc: str = column("when the trial started, ISO 8601")
    wall_s: float = column(
        "from start to record, set-up and measurements included; of the last process alone where "
        "the run was continued",
        "s",
    )
    resumed_steps: list[int] | None = column(
        "steps (from 0) at which it was continued from a checkpoint; empty if it never was",
        "steps",
        optional=True,
    )
    git_commit: str | None = column("of the code; null outside a checkout", optional=True)
    git_dirty: bool | None = column("whether the checkout had other changes", optional=True)
    versions: dict[str, str] = column("of Python and the packages that compute")
    device: str = column("cpu or cuda")
    machine: str = column("model name of the processor or GPU")
    threads: int = column("of torch on the CPU", "threads")
    ops: str | None = column("implementation that really ran", optional=True)
    compiled: str | None = column("by torch.compile: off, on or graphs", optional=True)
    parallel: str | None = column(
        "what its processes shared: none, ddp or fsdp (then speeds are of one process alone, the "
        "training's of all, and memory is the first one's)",
        optional=True,
    )
    world_size: int | None = column("of the training", "processes", optional=True)
    precision: str | None = column("of matrix products: fp32 or bf16", optional=True)
    tokenizer_sha256: str | None = column("of the tokenizer that made the tokens", optional=True)
    text_sha256: str | None = column("of the normalised text and its split", optional=True)

    train_tokens: int | None = column("trained on", "tokens", optional=True)
    train_nats_per_token: float | None = column(
        "mean training loss of the last tenth of the steps", "nats/token", optional=True
    )
    grad_norm_max: float | None = column(
        "largest gradient norm of a step after the first tenth, before clipping", optional=True
    )
    train_tokens_per_s: float | None = column(
        "median over steps after the first tenth, those before an interruption included; "
        "evaluation excluded",
        "tokens/s",
        optional=True,
    )
    valid_bits_per_byte: dict[str, float] | None = column(
        "held-out loss of each domain", "bits/byte", optional=True
    )
    test_bits_per_byte: dict[str, float] | None = column(
        "the same of text that nothing is chosen by; only where the recipe asks for it",
        "bits/byte",
        optional=True,
    )
    length_bits_per_byte: dict[int, float] | None = column(
        "held-out loss, mean over domains, in windows of other lengths than the training's; of the "
        "test split where the recipe asks for it, else of the valid split",
        "bits/byte",
        optional=True,
    )
    activation_max: dict[str, float] | None = column(
        "largest absolute value over held-out tokens and Mamba-1 layers: dt before its bias and "
        "softplus, b, c, and the scan's gated output",
        optional=True,
    )
    expert_load: list[list[float]] | None = column(
        "for each router, choices of each expert per held-out token", "choices/token", optional=True
    )
    baseline_bytes: int | None = column(
        "memory held before the model was built", "bytes", optional=True
    )
    train_peak_bytes: int | None = column(
        "peak while training: CUDA's allocator, or the process's resident set on the CPU",
        "bytes",
        optional=True,
    )
    train_bytes_estimate: int | None = column(
        "the same by arithmetic, without the baseline", "bytes", optional=True
    )
    prefill_tokens_per_s: dict[int, float] | None = column(
        "reading a prompt at batch 1, by its length", "tokens/s", optional=True
    )
    decode_ms: dict[int, float] | None = column(
        "one token at batch 1, by the length before it", "ms", optional=True
    )
    cache_bytes: dict[int, int] | None = column(
        "held by the cache at batch 1, by tokens read", "bytes", optional=True
    )

    def __post_init__(self):
        complete = self.outcome is Outcome.COMPLETE
        if complete != (self.valid_bits_per_byte is not None):
            raise ValueError(
                "a trial has valid_bits_per_byte exactly when it is complete; got "
                f"outcome={self.outcome}, valid_bits_per_byte={self.valid_bits_per_byte}"
            )


# How the columns came to be. A renamed column has to be entered, or older files lose it; an added
# one is read without.
CHANGES = (
    Change(version=1, commit="588f66d"),
    Change(version=2, commit="8f88edd", added=("matched",)),
    Change(version=3, commit="c6350ee", added=("compiled",)),
    Change(version=4, commit="39553dd", added=("trial_params", "resumed_steps")),
    Change(version=5, commit="c57849c", added=("parallel", "world_size")),
    Change(version=6, commit="0c224ad", added=("test_bits_per_byte",)),
    Change(
        version=7,
        commit="93d5f07",
        added=("length_bits_per_byte", "activation_max", "grad_norm_max"),
    ),
)
KEY = (("run_id", pa.string()), ("attempt", pa.int64()))  # of a step, before its own columns
COLUMNS = columns_of(Record, CHANGES)
CURVE_COLUMNS = columns_of(Step, CHANGES[:1], KEY)
SCHEMA, CURVE_SCHEMA = COLUMNS.schema, CURVE_COLUMNS.schema
MAPS = frozenset(f.name for f in SCHEMA if pa.types.is_map(f.type))
TRIALS, CURVES = "trials", "curves"  # what is kept in the folder of a sweep


class Ledger:
    """The records of a sweep's folder, for one who looks often: each file is read once."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._shelf = Shelf(folder, TRIALS, COLUMNS, _records)

    def records(self) -> list[Record]:
        """Return every readable Record by run and attempt; the rest is warned of and set aside."""
        found: dict[Key, Record] = {}
        for book in self._shelf.look():
            for record in book.content:
                found.setdefault((record.run_id, record.attempt), record)
        return [found[key] for key in sorted(found)]

    def by_run(self) -> dict[str, list[Record]]:
        """Return the attempts at each run, by run id; a run without any has an empty list."""
        found: dict[str, list[Record]] = defaultdict(list)
        for record in self.records():
            found[record.run_id].append(record)
        return found


def read(folder: Path) -> list[Record]:
    """Return every readable Record under `folder`; as Ledger does, for one who looks once."""
    return Ledger(folder).records()


def read_one(path: Path) -> Record:
    """Return the Record that was written to `path`, also if it has been compacted since.

    Raises FileNotFoundError where there is none.
    """
    folder = path.parent.parent
    shelf = Shelf(folder, TRIALS, COLUMNS, _records)
    for place in (path, shelf.many):  # in this order, as sweeps/trial/shelf.py says
        for record in shelf.look_at(place) or ():
            if path_of(record, folder) == path:
                return record
    raise FileNotFoundError(f"no record {path.stem} in {path.parent} or {shelf.many}")


def read_curves(folder: Path) -> pa.Table:
    """Return the steps of all trials under `folder` as one table, each trial's once."""
    tables: list[pa.Table] = []
    seen: set[Key] = set()
    for book in curve_shelf(folder).look():
        keys = keys_of(book.content)
        if not keys & seen:
            tables.append(book.content)
        seen |= keys
    return pa.concat_tables(tables) if tables else CURVE_SCHEMA.empty_table()


def write(record: Record, curve: Sequence[Step], folder: Path) -> Path:
    """Write `record` and its curve under `folder`, and return the record's path.

    Raises FileExistsError if this run and attempt is already recorded, compacted or not, and
    RecordNotWritten, naming the folder, where the disk refuses.

    The name of the file is taken once, but compacting frees it again. No lock is needed: the name
    is freed only after the compacted file holds the record, so whoever gets a freed name finds the
    other's record there afterwards, takes its own back and raises. Killed in between, it leaves a
    second record under the same key, which readers and the next compacting pass over.
    """
    path, many = path_of(record, folder), many_of(folder, TRIALS)
    before = stamp_of(many)
    if path.exists() or (before and _row_of(record, folder)):
        raise FileExistsError(f"{path} is already recorded; results are only ever added")
    rows = [{"run_id": record.run_id, "attempt": record.attempt, **asdict(x)} for x in curve]
    steps, curve_path = (
        pa.Table.from_pylist(rows, CURVE_SCHEMA),
        ones_of(folder, CURVES) / path.name,
    )
    row = pa.Table.from_pylist([asdict(record)], SCHEMA)
    try:
        write_new(steps, curve_path, replace=True)
        write_new(row, path, replace=False)
    except FileExistsError:
        raise
    except OSError as error:
        curve_path.unlink(missing_ok=True)
        raise RecordNotWritten(
            f"the record of {record.run_id} cannot be written into {folder}: {error}"
        ) from error
    _withdraw_if_second(record, row, path, before)
    return path


def _withdraw_if_second(record: Record, row: pa.Table, path: Path, before: Stamp | None) -> None:
    """Take back a record whose key another had when this was written; raises FileExistsError."""
    folder = path.parent.parent
    if stamp_of(many_of(folder, TRIALS)) == before:
        return
    found = _row_of(record, folder)
    # Printed, because a loss that is not a number equals nothing, itself included.
    if found is not None and repr(found) != repr(row.to_pylist()[0]):
        path.unlink(missing_ok=True)
        raise FileExistsError(f"{path} was recorded by another; results are only ever added")


def _row_of(record: Record, folder: Path) -> dict[str, Any] | None:
    """Return the row that the compacted file has under the key of `record`."""
    table = Shelf(folder, TRIALS, COLUMNS, lambda table: table).look_at(many_of(folder, TRIALS))
    if table is None:
        return None
    same_run = pc.equal(table["run_id"], record.run_id)
    same = pc.and_(same_run, pc.equal(table["attempt"], record.attempt))
    return next(iter(table.filter(same).to_pylist()), None)


def path_of(record: Record, folder: Path) -> Path:
    """Return where the record of this run and attempt is written under `folder`."""
    return ones_of(folder, TRIALS) / f"{record.run_id}-{record.attempt}.parquet"


def is_sweep(folder: Path) -> bool:
    """Return whether records were written to this folder."""
    return ones_of(folder, TRIALS).is_dir() or many_of(folder, TRIALS).exists()


def tidy(folder: Path) -> None:
    """Remove what processes that were killed while they wrote left in the folder of a sweep."""
    for place in (folder, ones_of(folder, TRIALS), ones_of(folder, CURVES)):
        remove_dead_scratch(place)


def keys_of(table: pa.Table) -> set[Key]:
    """Return the keys in a table of records or of steps."""
    pairs = table.select(["run_id", "attempt"]).group_by(["run_id", "attempt"], use_threads=False)
    return {(row["run_id"], row["attempt"]) for row in pairs.aggregate([]).to_pylist()}


def trial_shelf(folder: Path) -> Shelf[pa.Table]:
    """Return the files of records as tables, only those that a Record can be made of."""

    def checked(table: pa.Table) -> pa.Table:
        _records(table)
        return table

    return Shelf(folder, TRIALS, COLUMNS, checked)


def curve_shelf(folder: Path) -> Shelf[pa.Table]:
    """Return the files of steps as tables."""
    return Shelf(folder, CURVES, CURVE_COLUMNS, lambda table: table)


def _records(table: pa.Table) -> list[Record]:
    """Return the rows that are records; a file none of whose rows is one raises for the first."""
    found, wrong = [], []
    for row in table.to_pylist():
        try:
            found.append(_from_row(row))
        except (TypeError, ValueError) as error:
            wrong.append(f"{row['run_id']}, attempt {row['attempt']}: {error}")
    if wrong and not found:
        raise ValueError(wrong[0])
    for message in wrong:
        warnings.warn(f"a row is left out: {message}", stacklevel=2)
    return found


def _from_row(row: dict[str, Any]) -> Record:
    plain: dict[str, Any] = {
        key: dict(x) if key in MAPS and x is not None else x for key, x in row.items()
    }
    plain["outcome"] = Outcome(plain["outcome"])
    return Record(**plain)
