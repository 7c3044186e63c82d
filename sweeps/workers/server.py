"""The server that the processes of trials are forked from, and the settings that it gives them.

Nothing here loads torch: the server does (`sweeps/workers/preloaded.py`), while who asked for it
goes on loading what is its own.
"""

import multiprocessing
import os
from multiprocessing.forkserver import ensure_running

# How long a thread of torch's spins for the others before it sleeps. GNU OpenMP's own choice burns
# milliseconds at each of hundreds of barriers a step as soon as another program wants a core, which
# made a step seven times slower (docs/log.md); waiting less costs nothing measurable when idle.
SPIN_COUNT = "3000"
# GNU's C library cuts torch's aligned memory a little larger than asked and keeps the rest for
# small requests. A tensor's memory, once free, is then too short for the next tensor of its size,
# and the heap grows far beyond what is alive (docs/log.md). Without those shelves for small pieces
# they are joined again; the thresholds are those that the library comes to by itself, but for the
# last: freed memory at the end of the heap would be given back and asked for again in every layer.
# One arena: what the thread of the backward pass frees is what the forward pass takes next, and
# the two never ask at once.
# Other C libraries do not read this.
HEAP = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in {
        "arena_max": 1,
        "tcache_count": 0,
        "mxfast": 0,
        "mmap_threshold": 32 << 20,
        "trim_threshold": 256 << 20,
    }.items()
)


def begin_loading() -> None:
    """Start the server, unless it runs, and do not wait for it."""
    process_context()
    ensure_running()


def process_context() -> multiprocessing.context.ForkServerContext:
    """Return what forks processes from the server, with the settings of `SPIN_COUNT` and `HEAP`."""
    # Both have an effect only before torch is loaded, or the process begun: hence not in the trial.
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    os.environ.setdefault("GLIBC_TUNABLES", HEAP)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", "sweeps.workers.preloaded"])
    return context
