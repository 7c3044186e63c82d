"""Why a trial's process died: its exit code, and what the kernel counts."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

from sweeps.trial.record import Outcome

CGROUPS = Path("/sys/fs/cgroup")


def kernel_kills() -> int:
    """Return how often the kernel has killed for want of memory, as far as this process can see.

    The sum over the counters of its control group (versions 1 and 2) and of the whole machine,
    so only a rise has a meaning.
    """
    return sum(map(_count, _counters()))


def _counters() -> Iterator[Path]:
    yield Path("/proc/vmstat")
    groups = Path("/proc/self/cgroup")
    for line in groups.read_text().splitlines() if groups.exists() else ():
        _, kinds, path = line.split(":", 2)
        if not kinds:
            yield CGROUPS / path.lstrip("/") / "memory.events"
        elif kinds == "memory":
            yield CGROUPS / "memory" / path.lstrip("/") / "memory.oom_control"


def _count(path: Path) -> int:
    try:
        found = re.search(r"^oom_kill (\d+)$", path.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


def explain(exitcode: int | None, kernel_killed: bool) -> tuple[Outcome, str]:
    """Return outcome and reason of a process that ended by itself or was ended by others.

    `kernel_killed` says whether `kernel_kills` rose meanwhile.
    """
    if exitcode == -signal.SIGKILL and kernel_killed:
        return Outcome.OUT_OF_MEMORY, "the kernel ended the trial's process for want of memory"
    how = f"exit code {exitcode}"
    if exitcode is not None and exitcode < 0:
        how = f"signal {signal.Signals(-exitcode).name}"
    return Outcome.CRASHED, f"the trial's process ended with {how}"
