"""The only writer and reader of results/, which is only ever added to.

    results/local/ratio/trials/ratio-cpu-1to7-s0-3f9c2a1b-0.parquet     the Record
    results/local/ratio/curves/ratio-cpu-1to7-s0-3f9c2a1b-0.parquet     its steps
    results/local/ratio/trials.parquet, curves.parquet                  the same, compacted

The Record is written last, and whole or not at all: a trial has finished exactly when its Record is
there.
"""

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sweeps.trial.parquet import remove_dead_scratch, write_new
from sweeps.trial.record import (
    COLUMNS,
    CURVE_COLUMNS,
    CURVE_SCHEMA,
    SCHEMA,
    Outcome,
    Record,
    RecordNotWritten,
)
from sweeps.trial.shelf import Shelf, Stamp, many_of, ones_of, stamp_of
from sweeps.trial.train import Step

Key = tuple[str, int]  # run_id and attempt: what a record is known by
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


def next_attempt(run_id: str, folder: Path) -> int | None:
    """Return the next free attempt at a run; None where one of its records is settled."""
    before = Ledger(folder).by_run().get(run_id, [])
    if any(record.outcome.settled for record in before):
        return None
    return max((record.attempt + 1 for record in before), default=0)


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
