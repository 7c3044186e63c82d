"""One Parquet file of results: written whole or not at all, read whatever code wrote it.

A file of older code lacks columns that are null then; one of newer code has columns that are left
out here. Everything else that is not what it should be is NotOurs, with the reason.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from sweeps.trial.columns import VERSION_KEY, Columns

SCRATCH = ".tmp"
OPTIONS: dict[str, Any] = {
    "compression": "zstd",
    "row_group_size": 1 << 16,  # one run's rows are together: its reader can skip other groups
    "write_page_checksum": True,
}


class NotOurs(ValueError):
    """These bytes are not a file of the columns that were wanted; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a file holds: its known columns, and which it has beyond them."""

    table: pa.Table
    unknown: tuple[str, ...]
    version: int  # of the columns; 0 in files from before it was written


def write_new(table: pa.Table, path: Path, replace: bool) -> None:
    """Write `table` so that `path` is there whole or not at all, also after a power cut.

    Raises FileExistsError if `path` is there and not to be replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _scratch_of(path) as (scratch, file):
        pq.write_table(table, file, **OPTIONS)
        file.flush()
        os.fsync(file.fileno())
        if replace:
            os.replace(scratch, path)
        else:
            _link_new(scratch, path)
        sync_folder(path.parent)


@contextmanager
def _scratch_of(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Open a new file of a hidden name beside `path`, which no reader looks at, and remove it.

    It is locked while its writer lives, where the file system has locks, so that others can tell.
    """
    while True:
        scratch = path.with_name(f".{path.name}.{uuid4().hex}{SCRATCH}")
        try:
            with scratch.open("xb") as file:
                with suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_EX)
                if scratch.exists():  # else taken for a dead one's before it was locked
                    yield scratch, file
                    return
        finally:
            scratch.unlink(missing_ok=True)


def remove_dead_scratch(folder: Path) -> None:
    """Remove what writers that were killed left in `folder`; those that live are let be."""
    for scratch in folder.glob(f".*{SCRATCH}"):
        with suppress(OSError), scratch.open("rb") as file:  # one that is gone, or has no locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            scratch.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Wait until the names in `folder` are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _link_new(scratch: Path, path: Path) -> None:
    try:
        os.link(scratch, path)  # unlike a rename, fails where the name is taken
    except FileExistsError:
        raise FileExistsError(f"{path} is already recorded; results are only ever added") from None


def parse(data: bytes, columns: Columns) -> Content:
    """Return what the bytes of a file hold; raises NotOurs."""
    try:
        found = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read(
            use_threads=False
        )
    except (pa.ArrowException, OSError) as error:  # Arrow has an OSError for a page cut short
        raise NotOurs(f"it cannot be read ({str(error).splitlines()[0]})") from None
    version = _version(found)
    found = _renamed(found, version, columns)
    by_name = dict(zip(found.column_names, found.columns, strict=True))
    missing = sorted(columns.required - set(by_name))
    if missing:
        raise NotOurs(f"it is of another kind: it has no column {', '.join(missing[:3])}")
    arrays = [
        _checked(field, by_name[field.name], columns)
        if field.name in by_name
        else pa.nulls(found.num_rows, field.type)
        for field in columns.schema
    ]
    return Content(
        table=pa.table(arrays, schema=columns.schema),
        unknown=tuple(name for name in by_name if columns.schema.get_field_index(name) < 0),
        version=version,
    )


def _version(found: pa.Table) -> int:
    """Return the version in the file's metadata; what is older than the first has none."""
    text = (found.schema.metadata or {}).get(VERSION_KEY, b"0")
    if not text.isdigit():
        raise NotOurs(f"it is of another kind: its version is {text!r}")
    return int(text)


def _renamed(found: pa.Table, version: int, columns: Columns) -> pa.Table:
    names = found.column_names
    for change in columns.changes:
        if change.version > version:
            names = [change.renamed.get(name, name) for name in names]
    if names == found.column_names:
        return found
    if len(set(names)) < len(names):
        raise NotOurs("it is of another kind: two of its columns have one name")
    return found.rename_columns(names)


def _checked(wanted: pa.Field, values: pa.ChunkedArray, columns: Columns) -> pa.ChunkedArray:
    if wanted.name in columns.required and values.null_count:
        raise NotOurs(f"its column {wanted.name} must not be null")
    if values.type == wanted.type:
        return values
    if pa.types.is_null(values.type):
        return values.cast(wanted.type)
    raise NotOurs(f"its column {wanted.name} is {values.type}, not {wanted.type}")
