"""How `python -m sweeps status` looks: a grid of arms and seeds, or a search's trials one by one.

Words, not colours, carry the meaning, so that a log file says the same as a terminal.
"""

import time
from collections.abc import Callable, Iterator

from rich.console import Console, Group, RenderableType
from rich.live import Live as Refreshed
from rich.table import Table
from rich.text import Text

from sweeps.study.status import Live, State, Status, Task

STYLES = {
    State.DONE: "green",
    State.RUNNING: "cyan",
    State.WAITING: "dim",
    State.STOPPED: "yellow",
    State.FAILED: "red",
}
WATCH_SECONDS = 2.0
LOG_SECONDS = 30.0  # between two prints where there is no terminal to refresh


def as_rich(status: Status, title: str) -> RenderableType:
    """Return what is shown of a sweep at one moment."""
    table = _trials(status, title) if status.objectives else _grid(status, title)
    lines = [Text(line) for line in (*_running(status), *_failed(status), *_totals(status))]
    return Group(table, *lines)


def watch(look: Callable[[], Status], title: str, console: Console) -> None:
    """Show the status until nothing is left to do; a log file gets it now and then, if changed."""
    if not console.is_terminal:
        before = None
        while not (now := look()).is_over:
            if now.tasks != before:
                console.print(as_rich(now, title))
            before = now.tasks
            time.sleep(LOG_SECONDS)
        console.print(as_rich(now, title))
        return
    with Refreshed(console=console, auto_refresh=False) as shown:
        while True:
            now = look()
            shown.update(as_rich(now, title), refresh=True)
            if now.is_over:
                return
            time.sleep(WATCH_SECONDS)


def _grid(status: Status, title: str) -> Table:
    """Return a row for each arm, a column for each seed."""
    seeds = list(dict.fromkeys(task.seed for task in status.tasks))
    cells = {(task.arm, task.seed): task for task in status.tasks}
    table = Table(title=title)
    for heading in ("arm", *(f"seed {seed}" for seed in seeds)):
        table.add_column(heading, no_wrap=True)
    for arm in dict.fromkeys(task.arm for task in status.tasks):
        row = [cells.get((arm, seed)) for seed in seeds]
        table.add_row(arm, *(Text("") if task is None else _cell(task) for task in row))
    return table


def _trials(status: Status, title: str) -> Table:
    """Return a row for each trial of a search."""
    names = list(dict.fromkeys(name for task in status.tasks for name in task.params))
    table = Table(title=title)
    for heading in ("trial", "state", *names, *status.objectives):
        table.add_column(heading, justify="right")
    for task in status.tasks:
        chosen = (_short(task.params.get(name, "")) for name in names)
        values = [f"{value:,.4g}" for value in task.values] or [""] * len(status.objectives)
        number = f"{'*' if task.best else ''}{task.seed}"
        table.add_row(number, _cell(task), *chosen, *values)
    table.caption = "* none is better" + (" in everything" if len(status.objectives) > 1 else "")
    return table


def _cell(task: Task) -> Text:
    word = str(task.state)
    if task.live is not None and task.live.steps:
        word = f"{100 * task.live.fraction:.0f}%"
    elif task.state in (State.FAILED, State.STOPPED) and task.outcome:
        word = task.outcome
    if task.state is State.WAITING and task.attempts:
        word = f"again, after {task.outcome}"
    return Text(word, style=STYLES[task.state])


def _running(status: Status) -> Iterator[str]:
    for task in status.tasks:
        if task.live is not None:
            again = f", attempt {task.attempts + 1}" if task.attempts else ""
            yield f"running  {_name(task)}{again}: {_progress(task.live)}"


def _progress(live: Live) -> str:
    parts = ["no step yet"]
    if live.step is not None:
        of = "" if live.steps is None else f"/{live.steps} ({100 * live.fraction:.0f}%)"
        parts = [f"step {live.step}{of}", f"loss {live.nats_per_token:.3f} nats/token"]
    if live.quiet_s is not None:
        parts.append(f"last step {duration(live.quiet_s)} ago")
    if live.worker is not None:
        parts.append(live.worker)
    return ", ".join(parts)


def _failed(status: Status) -> Iterator[str]:
    for task in status.tasks:
        if task.why and task.state is not State.DONE:
            tries = f" ({task.attempts} attempts)" if task.attempts > 1 else ""
            outcome = task.outcome or str(task.state)
            said = "" if task.why == outcome else f": {task.why}"
            yield f"{outcome}  {_name(task)}{tries}{said}"


def _totals(status: Status) -> Iterator[str]:
    counts = ", ".join(f"{n} {state}" for state in State if (n := status.count(state)))
    yield f"{len(status.tasks)} trials: {counts or 'none yet'}"
    if not status.is_over:
        workers, left = status.count(State.RUNNING), status.seconds_left
        who = f"{workers} running" if workers else "nothing is running; one worker"
        about = "not known before one is done" if left is None else f"about {duration(left)}"
        yield f"time left: {about} ({who})"
    if status.retry and status.count(State.FAILED):
        yield f"what failed is tried again after: {status.retry}"
    if status.set_aside:
        yield f"{status.set_aside} files could not be read and lie in aside/"


def _name(task: Task) -> str:
    return f"{task.arm} seed {task.seed}" if task.arm else f"trial {task.seed}"


def duration(seconds: float) -> str:
    """Return a time to read: 45 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
