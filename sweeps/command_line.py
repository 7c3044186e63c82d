"""Writes commands as a shell takes them, for messages that advise one."""

import shlex


def command(package: str, *words: str) -> str:
    """Return `python -m package` with these words, quoted where a shell needs it."""
    return shlex.join(["python", "-m", package, *words])
