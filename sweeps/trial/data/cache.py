"""The cache folder: atomic writes, content that is checked before it is believed, one builder.

What is correct never rests on the lock: a file appears whole under its name or not at all, and what
is read is compared with its sha256. The lock only keeps several workers from doing the same work.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

LOCK = "lock"


class BrokenCache(Exception):
    """A cached file was cut short or altered: build it again."""


def cache_folder() -> Path:
    """$HYBRID_CACHE, else the user's cache folder (XDG Base Directory Specification)."""
    if chosen := os.environ.get("HYBRID_CACHE"):
        return Path(chosen)
    user_cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(user_cache) / "hybrid-workbench"


def write_atomically(path: Path, content: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_named_by_content(folder: Path, suffix: str, content: bytes) -> str:
    """Writes content under its sha256 and returns that."""
    sha256 = hashlib.sha256(content).hexdigest()
    write_atomically(folder / (sha256 + suffix), content)
    return sha256


def checked_path(folder: Path, sha256: str, suffix: str) -> Path:
    """The file that `write_named_by_content` wrote, read in full and found unchanged.

    Raises FileNotFoundError, or BrokenCache.
    """
    path = folder / (sha256 + suffix)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise BrokenCache(f"{path} was altered or cut short: its sha256 is {found}")
    return path


def write_manifest(path: Path, body: dict[str, Any]) -> None:
    text = json.dumps(body)  # keys in their order: that of domains is part of the content
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    write_atomically(path, f"{sha256}\n{text}".encode())


def read_manifest(path: Path) -> dict[str, Any]:
    """What `write_manifest` wrote; raises FileNotFoundError, or BrokenCache."""
    sha256, _, text = path.read_bytes().partition(b"\n")
    if hashlib.sha256(text).hexdigest().encode() != sha256:
        raise BrokenCache(f"{path} was altered or cut short")
    return json.loads(text)


@contextlib.contextmanager
def only_builder(folder: Path) -> Iterator[None]:
    """Wait until no other process builds in `folder`, then clear what a killed one left.

    Where building fails, the folder is removed unless something was built in it.
    """
    with _locked(folder / LOCK):
        for leftover in folder.glob("*.tmp"):
            leftover.unlink(missing_ok=True)
        try:
            yield
        except BaseException:
            _remove_empty(folder)
            raise


def _locked(path: Path) -> TextIO:
    """Return the locked file `path`, made with its folder; closing it frees the lock."""
    # Another builder may fail and remove file and folder until this one has the lock.
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            if path.parent.is_file():
                raise
            continue  # it was there, and is not any more
        with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as stack:
            lock = stack.enter_context(path.open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)  # the system frees it, also of a killed process
            if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                stack.pop_all()
                return lock


def _remove_empty(folder: Path) -> None:
    """Remove a folder that holds a lock alone."""
    if [path.name for path in folder.iterdir()] == [LOCK]:
        (folder / LOCK).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another has come
            folder.rmdir()
