"""What a running trial tells whoever watches it, and how the watcher ends it."""

from collections.abc import Callable
from dataclasses import dataclass

from sweeps.trial.measure import Speeds
from sweeps.trial.train import Step

Event = Step | Speeds
Watch = Callable[[Event], None]
Tell = Callable[[str], None]  # takes what a trial does from now on, in a few words


def tell_nobody(doing: str) -> None:
    """A `Tell` for trials that nobody waits for."""


@dataclass(frozen=True)
class Activity:
    """What a trial does from now on, as its process tells another: nothing is decided by it."""

    doing: str


class Stop(Exception):
    """Raised by a watcher to end its trial with the outcome `pruned`; its text is the reason."""
