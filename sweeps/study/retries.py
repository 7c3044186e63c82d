"""Failed attempts of a sweep's runs that no longer count, because a person asked for more tries.

    results/local/ratio/retries.json      {"ratio-cpu-1to7-s0-3f9c2a1b": 2}

The number is how many attempts of the run there were when more were asked for. Records are only
ever added, so the failed ones stay, and the next attempt has the next number.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from sweeps.trial.data.cache import write_atomically
from sweeps.trial.record import Record

FILE = "retries.json"
ATTEMPTS = 2  # a run that failed this often is not tried again


def forgiven(folder: Path) -> dict[str, int]:
    """Return by run id how many of its first attempts no longer count.

    Raises ValueError, naming the file, for one that holds something else.
    """
    path = folder / FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); remove it and retry again") from error
    if not isinstance(found, dict) or not all(type(n) is int for n in found.values()):
        raise ValueError(f"{path} must map run ids to numbers; remove it and retry again")
    return found


def forgive(folder: Path, attempts: Mapping[str, int]) -> None:
    """Let the first `attempts` of each of these runs no longer count."""
    told = json.dumps({**forgiven(folder), **attempts}, indent=1, sort_keys=True)
    write_atomically(folder / FILE, f"{told}\n".encode())


def is_open(attempts: Sequence[Record], forgiven: int = 0) -> bool:
    """Return whether a run with these attempts should be tried (again).

    The first `forgiven` attempts do not count.
    """
    counted = sum(record.attempt >= forgiven for record in attempts)
    return not any(r.outcome.settled for r in attempts) and counted < ATTEMPTS
