"""Where a record comes from: the commit, the versions and the moment."""

import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "torch",
    "numpy",
    "numba",
    "optuna",
    "tokenizers",
    "mamba-ssm",
    "causal-conv1d",
    "triton",
)


@cache
def git_commit() -> tuple[str | None, bool | None]:
    """Return (commit, whether files differ from it), or (None, None) outside a checkout.

    Asked once a process: what changes later is not the code that runs.
    """
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--", "*.py", "pyproject.toml")
    if not commit or changes is None:
        return None, None
    return commit, changes != ""


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Return the versions of Python and of the packages that compute, those installed."""
    return dict(_versions(packages))


@cache
def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def now_utc() -> str:
    """Return the present moment, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
