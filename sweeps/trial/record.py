"""One trial, one Record, one Parquet row, one file; its curve is a second file. The only writer and
reader of results/, which is only ever added to.

    results/local/ratio/trials/ratio-cpu-1to7-s0-3f9c2a1b-0.parquet     the Record
    results/local/ratio/curves/ratio-cpu-1to7-s0-3f9c2a1b-0.parquet     its steps

The Record is written last, and whole or not at all: a trial has finished exactly when its Record is
there. What was not measured is null, never zero. A failure is an outcome, not an absence.
"""

import os
import types
import typing
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from sweeps.trial.train import Step


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


def column(meaning: str, unit: str = "", optional: bool = False) -> Any:
    """Return a dataclass field whose meaning and unit stand in the data dictionary."""
    default = None if optional else MISSING
    return field(default=default, metadata={"meaning": meaning, "unit": unit})


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
    precision: str | None = column("of matrix products: fp32 or bf16", optional=True)
    tokenizer_sha256: str | None = column("of the tokenizer that made the tokens", optional=True)
    text_sha256: str | None = column("of the normalised text and its split", optional=True)

    train_tokens: int | None = column("trained on", "tokens", optional=True)
    train_nats_per_token: float | None = column(
        "mean training loss of the last tenth of the steps", "nats/token", optional=True
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


def write(record: Record, curve: Sequence[Step], folder: Path) -> Path:
    """Write `record` and its curve under `folder`, and return the record's path.

    Raises FileExistsError if this run and attempt is already recorded, and RecordNotWritten, naming
    the folder, where the disk refuses.
    """
    path = path_of(record, folder)
    if path.exists():  # before the curve, which would be replaced
        raise _already(path)
    curve_path = folder / "curves" / path.name
    rows = [{"run_id": record.run_id, "attempt": record.attempt, **asdict(x)} for x in curve]
    try:
        write_new(pa.Table.from_pylist(rows, CURVE_SCHEMA), curve_path, replace=True)
        write_new(pa.Table.from_pylist([asdict(record)], SCHEMA), path, replace=False)
    except FileExistsError:
        raise
    except OSError as error:
        curve_path.unlink(missing_ok=True)
        raise RecordNotWritten(
            f"the record of {record.run_id} cannot be written into {folder}: {error}"
        ) from error
    return path


def path_of(record: Record, folder: Path) -> Path:
    """Return where the record of this run and attempt lies under `folder`."""
    return folder / "trials" / f"{record.run_id}-{record.attempt}.parquet"


def read(folder: Path) -> list[Record]:
    """Return every readable Record under `folder`, by file name; warn of files that are not one."""
    records = []
    for path, table in _tables(folder / "trials", SCHEMA):
        try:
            records += [_from_row(row) for row in table.to_pylist()]
        except (TypeError, ValueError) as error:
            warnings.warn(f"{path} is left out: {error}", stacklevel=2)
    return records


def read_one(path: Path) -> Record:
    """Return the Record in one file; raises what Arrow or Record raise if it is not one."""
    (row,) = pq.read_table(path, schema=SCHEMA).to_pylist()
    return _from_row(row)


def read_curves(folder: Path) -> pa.Table:
    """Return the steps of all recorded trials under `folder` as one table."""
    tables = [table for _, table in _tables(folder / "curves", CURVE_SCHEMA)]
    return pa.concat_tables(tables) if tables else CURVE_SCHEMA.empty_table()


def schema_of(kind: type) -> pa.Schema:
    """Return the Arrow schema of a dataclass from its annotations."""
    hints = typing.get_type_hints(kind)
    return pa.schema([(f.name, _arrow(hints[f.name])) for f in fields(kind)])


def _arrow(hint: Any) -> pa.DataType:
    arguments = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        (one,) = (option for option in arguments if option is not types.NoneType)
        return _arrow(one)
    if typing.get_origin(hint) is dict:
        return pa.map_(_arrow(arguments[0]), _arrow(arguments[1]))
    if typing.get_origin(hint) is list:
        return pa.list_(_arrow(arguments[0]))
    return ARROW_SCALARS[StrEnum if issubclass(hint, StrEnum) else hint]


ARROW_SCALARS = {
    str: pa.string(),
    StrEnum: pa.string(),
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
}
SCHEMA = schema_of(Record)
CURVE_SCHEMA = pa.schema([("run_id", pa.string()), ("attempt", pa.int64()), *schema_of(Step)])


def _from_row(row: dict[str, Any]) -> Record:
    maps = {f.name for f in SCHEMA if pa.types.is_map(f.type)}
    plain: dict[str, Any] = {
        key: dict(x) if key in maps and x is not None else x for key, x in row.items()
    }
    plain["outcome"] = Outcome(plain["outcome"])
    return Record(**plain)


def write_new(table: pa.Table, path: Path, replace: bool) -> None:
    """Write `table` so that `path` is there whole or not at all, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        with scratch.open("wb") as file:
            pq.write_table(table, file)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(scratch, path)
        else:
            _link_new(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def _link_new(scratch: Path, path: Path) -> None:
    try:
        os.link(scratch, path)  # unlike a rename, fails where the name is taken
    except FileExistsError:
        raise _already(path) from None


def _already(path: Path) -> FileExistsError:
    return FileExistsError(f"{path} is already recorded; results are only ever added")


def _tables(folder: Path, schema: pa.Schema) -> Iterator[tuple[Path, pa.Table]]:
    for path in _parquet_files(folder):
        try:
            yield path, pq.read_table(path, schema=schema)
        except (pa.ArrowException, OSError) as error:
            message = str(error).splitlines()[0]
            warnings.warn(f"{path} is left out: it cannot be read ({message})", stacklevel=3)


def _parquet_files(folder: Path) -> Iterable[Path]:
    return sorted(folder.glob("[!.]*.parquet")) if folder.is_dir() else ()
