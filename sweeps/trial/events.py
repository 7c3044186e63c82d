"""What a running trial tells whoever watches it, and how the watcher ends it."""

from collections.abc import Callable

from sweeps.trial.measure import Speeds
from sweeps.trial.train import Step

Event = Step | Speeds
Watch = Callable[[Event], None]


class Stop(Exception):
    """Raised by a watcher to end its trial with the outcome `pruned`; its text is the reason."""
