"""Turns the one-trial files of a sweep into one file of records and one of curves.

    ratio/trials/*.parquet   ->  ratio/trials.parquet
    ratio/curves/*.parquet   ->  ratio/curves.parquet    of the trials that are recorded

Workers may go on writing and anyone may read meanwhile; sweeps/trial/shelf.py says why that is
safe. Killed at any moment it leaves each trial in one file or in both, never in none, and a second
call finishes the work. What cannot be read is set aside, what newer code wrote is left as it is.
"""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from sweeps.trial import records
from sweeps.trial.parquet import write_new
from sweeps.trial.records import Key
from sweeps.trial.shelf import Book, Shelf

LOCK = ".compact.lock"  # stays behind, empty: removing it would let two in


@dataclass(frozen=True, kw_only=True)
class Compacted:
    """How many one-trial files were taken in, and how many records of newer code were left."""

    trials: int
    curves: int
    left: int


def compact(folder: Path) -> Compacted:
    """Compact the sweep whose records are in `folder`; a second call at once waits for the first.

    Raises LookupError where there is no sweep, ValueError where the compacted file was written by
    newer code, and OSError where the file system has no locks.
    """
    trials = records.trial_shelf(folder)
    if not records.is_sweep(folder):
        raise LookupError(
            f"no records in {folder}: it has neither {trials.ones.name}/ nor {trials.many.name}; "
            "`python -m sweeps run NAME` makes some"
        )
    with _alone(folder):
        records.tidy(folder)
        taken, left = _take_in(trials, lambda path: True)
        recorded = {f"{run_id}-{attempt}" for run_id, attempt in _keys(trials)}
        # A curve without a record is of a trial that is not finished, and is written again.
        curves, _ = _take_in(records.curve_shelf(folder), lambda path: path.stem in recorded)
    return Compacted(trials=taken, curves=curves, left=left)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`; the system frees it when the process ends, however it ends."""
    with (folder / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _take_in(shelf: Shelf[pa.Table], wanted: Callable[[Path], bool]) -> tuple[int, int]:
    """Make the file of many hold the wanted files of one, then remove those.

    Returns how many were taken in and how many were left because newer code wrote them.
    """
    books = [book for book in shelf.look() if book.path == shelf.many or wanted(book.path)]
    many = [book for book in books if book.path == shelf.many]
    if any(book.newer for book in many):
        raise ValueError(f"{shelf.many} was written by newer code; compact with that")
    if shelf.many.exists() and not many:
        raise OSError(f"{shelf.many} cannot be read just now, so nothing was compacted")
    ones = [book for book in books if book.path != shelf.many and not book.newer]
    if ones:
        _write(shelf.many, [*many, *ones])
        for book in ones:
            book.path.unlink(missing_ok=True)
    return len(ones), len(books) - len(many) - len(ones)


def _write(path: Path, books: list[Book[pa.Table]]) -> None:
    """Write the rows of `books` in their order, of each key those that come first."""
    tables: list[pa.Table] = []
    seen: set[Key] = set()
    for book in books:
        keys = records.keys_of(book.content)
        if not keys & seen:
            tables.append(book.content)
        seen |= keys
    write_new(pa.concat_tables(tables).combine_chunks(), path, replace=True)


def _keys(shelf: Shelf[pa.Table]) -> set[Key]:
    table = shelf.look_at(shelf.many)
    return set() if table is None else records.keys_of(table)
