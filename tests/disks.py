"""A disk of one's own for tests, small enough to fill."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

FILLER = "filler"


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """Mount an empty file system of `size` (as tmpfs takes it) on `folder`; skip where one may not.

    It is taken away lazily: a process that ends late may still hold a file of it.
    """
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root may mount a small disk, and not in every container")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, leave_bytes: int) -> None:
    """Leave so much room, or less where others write at the same time."""
    free = os.statvfs(folder)
    size = free.f_bavail * free.f_frsize - leave_bytes
    with suppress(OSError):
        (folder / FILLER).write_bytes(b"\0" * size)


def make_room(folder: Path) -> None:
    (folder / FILLER).unlink()
