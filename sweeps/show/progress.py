"""How a running sweep looks: bars in a terminal, plain lines in a log file.

    [4/15] 1:7 seed 0 starts: 200 steps of 1,024 tokens
    [4/15] 1:7 seed 0 step 120/200  loss 6.250 nats/token  9,476 tokens/s  left 12:40
    [4/15] 1:7 seed 0  bits/byte: books 2.353  web 2.939  (41 s)

A log gets a line when a trial starts or ends. In between it gets one at least every half minute,
which says where the trial stands, also while it is measured.
"""

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from sweeps.study.status import reason
from sweeps.sweep import Point
from sweeps.trial.events import Event
from sweeps.trial.progress_log import ProgressLog
from sweeps.trial.record import Outcome, Record
from sweeps.trial.train import Step, step_line

SMOOTHING = 0.1  # weight of the newest step in the shown speed


class SweepProgress:
    """A `worker.Watcher` that shows trial, step, loss, tokens/s and time left."""

    def __init__(
        self,
        console: Console,
        total: int,
        done: int,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.console, self.total, self.done = console, total, done
        self.clock, self.begun = clock, clock()
        self.first = done
        self.point: Point | None = None
        self.tokens_per_s = 0.0
        self.log = ProgressLog(self._line, clock)
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("{task.fields[seen]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            speed_estimate_period=300,
        )
        self.all = self.bars.add_task("trials", total=total, completed=done, seen="")
        self.one = self.bars.add_task("step", total=None, seen="", visible=False)

    def __enter__(self) -> "SweepProgress":
        self.bars.start()
        if not self.console.is_terminal:
            self.log.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bars.stop()
        if not self.console.is_terminal:
            self.log.__exit__(kind, error, trace)

    def started(self, point: Point) -> None:
        self.point, self.tokens_per_s = point, 0.0
        name, recipe = f"{point.arm} seed {point.seed}", point.recipe
        self.bars.reset(self.one, total=recipe.steps, visible=True, description=name)
        if not self.console.is_terminal:
            each = recipe.batch * recipe.tokens
            self._say(f"{name} starts: {recipe.steps:,} steps of {each:,} tokens")
            self.log.now(f"{name} starts")

    def doing(self, what: str) -> None:
        assert self.point is not None
        self.bars.update(self.one, seen=what)
        self.log.now(f"{self.point.arm} seed {self.point.seed} is {what}")

    def event(self, event: Event) -> None:
        if isinstance(event, Step):
            self._step(event)

    def _step(self, step: Step) -> None:
        assert self.point is not None
        recipe = self.point.recipe
        now = recipe.batch * recipe.tokens / step.seconds
        slow = self.tokens_per_s or now
        self.tokens_per_s = slow + SMOOTHING * (now - slow)
        line = step_line(step, recipe, self.tokens_per_s)
        self.bars.update(self.one, completed=step.step + 1, seen=line.partition("  ")[2])
        self.bars.update(self.all, completed=self.done + (step.step + 1) / recipe.steps)
        name = f"{self.point.arm} seed {self.point.seed}"
        self.log.now(f"{name} {line}  {self._left(step)}", timed=False)

    def ended(self, record: Record) -> None:
        self.bars.update(self.one, visible=False)
        self._say(_summary(record))
        self.log.now("looking for the next trial")

    def settled(self, places: int) -> None:
        self.done = places
        self.bars.update(self.all, completed=places)

    def waiting(self, others: int) -> None:
        said = f"waiting for {others} trial(s) of another worker"
        self.bars.update(self.all, seen=said)
        self.log.now(said, timed=False)

    def _say(self, line: str) -> None:
        self._line(line)
        self.log.said()

    def _line(self, line: str) -> None:
        self.console.print(
            f"[{self.done}/{self.total}] {line}", highlight=False, markup=False, soft_wrap=True
        )

    def _left(self, step: Step) -> str:
        """Say how long the rest takes if it goes on as it went since this call began."""
        assert self.point is not None
        finished = self.done - self.first + (step.step + 1) / self.point.recipe.steps
        rest = max(0.0, self.total - self.first - finished)
        seconds = (self.clock() - self.begun) / finished * rest
        return f"left {int(seconds) // 60}:{int(seconds) % 60:02d}"


def _summary(record: Record) -> str:
    head = f"{record.arm} seed {record.seed}"
    if record.outcome is not Outcome.COMPLETE:
        return f"{head}  {record.outcome}: {reason(record)}"
    return f"{head}  {held_out(record)}  ({record.wall_s:.0f} s)"


def held_out(record: Record) -> str:
    """Return what was measured on held-out data, in a line, with its unit."""
    columns = {"bits/byte": record.valid_bits_per_byte, "share right": record.task_accuracy}
    return "  ".join(
        f"{unit}: " + "  ".join(f"{name} {x:.3f}" for name, x in found.items())
        for unit, found in columns.items()
        if found is not None
    )
