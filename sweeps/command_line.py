"""Writes commands as a shell takes them, for messages that advise one."""

import shlex
from pathlib import Path

from sweeps.results import LOCAL


def command(package: str, *words: str) -> str:
    """Return `python -m package` with these words, quoted where a shell needs it."""
    return shlex.join(["python", "-m", package, *words])


def retry_command(folder: Path, scale: str, storage: str) -> str:
    """Return the command that lets failed trials of a sweep's `folder` be tried again.

    `storage` "" is the SQLite file in that folder.
    """
    words = ["--scale", scale, *results_option(folder.parent)]
    words += ["--storage", storage] if storage else []
    return command("sweeps", "retry", folder.name, *words)


def results_option(results: Path) -> list[str]:
    """Return the words that choose a folder of results; none for the one by default."""
    return [] if results.resolve() == LOCAL.resolve() else ["--results", str(results)]
