"""Shelf: the Parquet files of one kind in the folder of a sweep, whoever else is at work there.

    ratio/trials/ratio-cpu-1to7-s0-3f9c2a1b-0.parquet   of one trial: added, never changed
    ratio/trials.parquet                                of many, made of such by sweeps/compact.py
    ratio/aside/trials/...                              what could not be read, under its own name

Two rules keep a reader from missing anything. Compacting puts the file of many in place before it
removes a file of one, and no later file of many holds less; reading lists the files of one first
and opens the file of many last. So what is gone from the list is in what is opened, and what is in
both is the same: the file of many comes first in what `look` returns.
"""

import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import pyarrow as pa

from sweeps.trial.columns import Columns
from sweeps.trial.parquet import Content, parse

ASIDE = "aside"
# Somebody may be copying a file here under its final name; one that was changed so lately is left
# where it is and looked at again.
SETTLE_SECONDS = 5.0

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Stamp:
    """What tells two files of one name apart without reading them."""

    inode: int
    size: int
    modified_ns: int

    @classmethod
    def of(cls, seen: os.stat_result) -> "Stamp":
        return cls(seen.st_ino, seen.st_size, seen.st_mtime_ns)


@dataclass(frozen=True)
class Book(Generic[Kind]):
    """A file that was read, as `understand` made it."""

    path: Path
    stamp: Stamp
    content: Kind
    newer: bool  # written by newer code, and perhaps not all of it is here


@dataclass(frozen=True)
class Refused:
    """A file that stays where it is and is not looked at again unless it changes."""

    stamp: Stamp


class Shelf(Generic[Kind]):
    """The files of one kind; each is read once, and again only if it has changed.

    `understand` makes of a table what `look` returns, and raises ValueError or TypeError for one
    that is not what it should be.
    """

    def __init__(
        self, folder: Path, kind: str, columns: Columns, understand: Callable[[pa.Table], Kind]
    ):
        self.folder, self.columns, self.understand = folder, columns, understand
        self.ones, self.many = ones_of(folder, kind), many_of(folder, kind)
        self._known: dict[Path, Book[Kind] | Refused] = {}
        self._unknown: set[str] = set()

    def look(self) -> list[Book[Kind]]:
        """Return what can be read: the file of many first, then those of one by name.

        What cannot is named in a warning and set aside, or left where it is if it was written by
        newer code, has only just been changed, or the folder cannot be written to.
        """
        now = {path: self._open(path, stamp) for path, stamp in self._listed()}
        now |= {self.many: self._open(self.many, stamp_of(self.many))}  # last, as above
        self._known = {path: book for path, book in now.items() if book is not None}
        books = (book for book in self._known.values() if isinstance(book, Book))
        return sorted(books, key=lambda book: (book.path != self.many, book.path.name))

    def look_at(self, path: Path) -> Kind | None:
        """Return what one file holds, None where it is not there or cannot be read."""
        book = self._open(path, stamp_of(path))
        return book.content if isinstance(book, Book) else None

    def _listed(self) -> list[tuple[Path, Stamp]]:
        try:
            with os.scandir(self.ones) as entries:
                names = [e.name for e in entries if _is_ours(e.name)]
        except FileNotFoundError:
            return []
        stamps = ((self.ones / name, stamp_of(self.ones / name)) for name in sorted(names))
        return [(path, stamp) for path, stamp in stamps if stamp is not None]

    def _open(self, path: Path, stamp: Stamp | None) -> Book[Kind] | Refused | None:
        if stamp is None:
            return None
        known = self._known.get(path)
        if known is not None and known.stamp == stamp:
            return known
        try:
            with path.open("rb") as file:
                stamp, data = Stamp.of(os.fstat(file.fileno())), file.read()
        except FileNotFoundError:  # compacted since it was listed
            return None
        except OSError as error:  # the disk's trouble, not the file's
            fate = "is left out" if known is None else "is taken as it was before"
            warnings.warn(f"{path} {fate}: {error}", stacklevel=4)
            return known
        return self._understood(path, stamp, data)

    def _understood(self, path: Path, stamp: Stamp, data: bytes) -> Book[Kind] | Refused | None:
        newer = False
        try:
            content = parse(data, self.columns)
            newer = self._is_newer(path, content)
            return Book(path, stamp, self.understand(content.table), newer)
        except (TypeError, ValueError) as error:
            return self._refused(path, stamp, str(error), newer)

    def _is_newer(self, path: Path, content: Content) -> bool:
        new = set(content.unknown) - self._unknown
        if new:
            self._unknown |= new
            warnings.warn(
                f"{path} and perhaps others have columns that this code does not know: "
                f"{', '.join(sorted(new))}. They are left out; newer code wrote them",
                stacklevel=6,
            )
        return bool(content.unknown) or content.version > self.columns.version

    def _refused(self, path: Path, stamp: Stamp, reason: str, newer: bool) -> Refused | None:
        """Say that a file is left out, and move it unless it may be right after all."""
        fresh = time.time() - stamp.modified_ns / 1e9 < SETTLE_SECONDS
        if newer:
            fate = "newer code wrote it, so it stays"
        elif fresh:
            fate = "it has only just been changed, so it stays for now"
        else:
            fate = self._set_aside(path, stamp)
        warnings.warn(f"{path} is left out: {reason}; {fate}", stacklevel=6)
        return None if fresh else Refused(stamp)

    def _set_aside(self, path: Path, stamp: Stamp) -> str:
        target = self.folder / ASIDE / path.relative_to(self.folder)
        count = 0
        while target.exists():
            count += 1
            target = target.with_name(f"{path.stem}.{count}{path.suffix}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if stamp_of(path) != stamp:
                return "it has changed since, so it stays"
            os.rename(path, target)
        except OSError as error:
            return f"it stays, since it cannot be moved ({error.strerror})"
        return f"it now lies in {target}"


def ones_of(folder: Path, kind: str) -> Path:
    """Return the folder of the files of one trial each."""
    return folder / kind


def many_of(folder: Path, kind: str) -> Path:
    """Return where the file of many trials lies."""
    return folder / f"{kind}.parquet"


def stamp_of(path: Path) -> Stamp | None:
    """Return the stamp of a file, None where there is none."""
    try:
        return Stamp.of(os.stat(path))
    except FileNotFoundError:
        return None


def set_aside(folder: Path) -> list[Path]:
    """Return the files of a sweep that were set aside."""
    return sorted(path for path in (folder / ASIDE).rglob("*") if path.is_file())


def _is_ours(name: str) -> bool:
    return name.endswith(".parquet") and not name.startswith(".")
