"""How a running sweep looks: bars in a terminal, plain lines in a log file."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from sweeps.study import ATTEMPTS
from sweeps.sweep import Point
from sweeps.trial.record import Outcome, Record
from sweeps.trial.run_folder import without_log
from sweeps.trial.train import Step

LOG_SECONDS = 10.0
SMOOTHING = 0.1  # weight of the newest step in the shown speed


class SweepProgress:
    """A `worker.Watcher` that shows trial, step, loss, tokens/s and time left."""

    def __init__(self, console: Console, total: int, done: int):
        self.console, self.total, self.done = console, total, done
        self.begun = time.monotonic()
        self.first = done
        self.point: Point | None = None
        self.tokens_per_s = 0.0
        self.logged = 0.0
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
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bars.stop()

    def started(self, point: Point) -> None:
        self.point, self.tokens_per_s = point, 0.0
        name = f"{point.arm} seed {point.seed}"
        self.bars.reset(self.one, total=point.recipe.steps, visible=True, description=name)

    def step(self, step: Step) -> None:
        assert self.point is not None
        recipe = self.point.recipe
        now = recipe.batch * recipe.tokens / step.seconds
        slow = self.tokens_per_s or now
        self.tokens_per_s = slow + SMOOTHING * (now - slow)
        seen = f"loss {step.nats_per_token:.3f} nats/token  {self.tokens_per_s:,.0f} tokens/s"
        self.bars.update(self.one, completed=step.step + 1, seen=seen)
        self.bars.update(self.all, completed=self.done + (step.step + 1) / recipe.steps)
        if not self.console.is_terminal and time.monotonic() - self.logged > LOG_SECONDS:
            self.logged = time.monotonic()
            where = f"{self.point.arm} seed {self.point.seed} step {step.step + 1}/{recipe.steps}"
            self.console.print(f"[{self.done}/{self.total}] {where}  {seen}  {self._left(step)}")

    def ended(self, record: Record) -> None:
        # A failed attempt that will be repeated is not yet a trial done.
        self.done += record.outcome.settled or record.attempt + 1 == ATTEMPTS
        self.bars.update(self.all, completed=self.done)
        self.bars.update(self.one, visible=False)
        self.console.print(f"[{self.done}/{self.total}] {_summary(record)}", highlight=False)

    def waiting(self, others: int) -> None:
        self.bars.update(self.all, seen=f"waiting for {others} trial(s) of another worker")

    def _left(self, step: Step) -> str:
        """Say how long the rest takes if it goes on as it went since this call began."""
        assert self.point is not None
        finished = self.done - self.first + (step.step + 1) / self.point.recipe.steps
        seconds = (time.monotonic() - self.begun) / finished * (self.total - self.first - finished)
        return f"left {int(seconds) // 60}:{int(seconds) % 60:02d}"


def _summary(record: Record) -> str:
    head = f"{record.arm} seed {record.seed}"
    if record.outcome is not Outcome.COMPLETE or record.valid_bits_per_byte is None:
        return (
            f"{head}  {record.outcome}: {without_log(record.error or '').strip().splitlines()[-1]}"
        )
    losses = "  ".join(f"{name} {x:.3f}" for name, x in record.valid_bits_per_byte.items())
    return f"{head}  bits/byte: {losses}  ({record.wall_s:.0f} s)"
