"""What command lines share: where they print, how they say what is wrong, what ends them."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import FrameType

import typer
from rich.console import Console

LOG_WIDTH = 160  # of a table that goes to a file
console = Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)


def plain_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Print what a person got wrong as one sentence, without a traceback, and exit with 2."""

    @wraps(command)
    def wrapped(*args, **kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (ValueError, LookupError, OSError, ImportError) as error:
            # As it is: brackets are no markup, as in package[extra], and a path is not broken up.
            Console(stderr=True).print(
                f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True
            )
            raise typer.Exit(2) from None

    return wrapped


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
