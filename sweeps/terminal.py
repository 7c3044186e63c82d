"""What command lines share: where they print, and what ends them."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console

LOG_WIDTH = 160  # of a table that goes to a file
console = Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Take SIGTERM, which batch systems send before they kill, for Ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
