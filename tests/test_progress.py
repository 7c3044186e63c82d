"""What a log file sees of a running sweep."""

import io
from dataclasses import replace

from rich.console import Console

from sweeps import ratio
from sweeps.show.progress import SweepProgress
from sweeps.trial.data.sources import PackagedText
from sweeps.trial.engine import Engine
from sweeps.trial.record import Label, Outcome
from sweeps.trial.run import not_run
from sweeps.trial.train import Step

POINT = ratio.SWEEP.points("smoke", PackagedText())[0]
STEP = Step(step=2, tokens=768, nats_per_token=6.25, balance=0, grad_norm=1, lr=1e-3, seconds=0.128)


class Clock:
    """A clock that goes on when it is told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def shown(terminal: bool, *, slow: bool = True, **changes) -> list[str]:
    """Return the lines printed for one trial: three steps, its end, and waiting for others.

    A slow one takes 20 seconds a step.
    """
    file, clock = io.StringIO(), Clock()
    console = Console(file=file, width=120, force_terminal=terminal, color_system=None)
    record = not_run(
        POINT.spec, POINT.recipe, label=Label(arm=POINT.arm), engine=Engine(device="cpu")
    )
    with SweepProgress(console, total=10, done=4, clock=clock) as progress:
        progress.started(POINT)
        for step in range(3):
            clock.now += 20.0 if slow else 0.1
            progress.event(replace(STEP, step=step))
        progress.bars.refresh()
        progress.ended(replace(record, **changes))
        progress.settled(5)
        for _ in range(4):
            clock.now += 20.0 if slow else 0.1
            progress.waiting(2)
    return file.getvalue().splitlines()


COMPLETE = {"outcome": Outcome.COMPLETE, "error": None, "valid_bits_per_byte": {"books": 2.5}}


def test_a_log_has_a_line_at_start_and_end_and_one_now_and_then():
    assert shown(terminal=False, **COMPLETE) == [
        "[4/10] 1:0 seed 0 starts: 6 steps of 256 tokens",
        # two steps of six in 40 s, and five trials and two thirds to go
        "[4/10] 1:0 seed 0 step 2/6  loss 6.250 nats/token  2,000 tokens/s  left 11:20",
        "[4/10] 1:0 seed 0  bits/byte: books 2.500  (0 s)",
        "[5/10] waiting for 2 trial(s) of another worker",
        "[5/10] waiting for 2 trial(s) of another worker",
    ]


def test_a_log_of_quick_trials_has_two_lines_each():
    assert len(shown(terminal=False, slow=False, **COMPLETE)) == 2


def test_a_terminal_shows_bars():
    output = "".join(shown(terminal=True, **COMPLETE))
    assert "trials" in output
    assert "2,000 tokens/s" in output
    assert "starts" not in output


def test_a_failure_shows_its_last_line():
    error = "Traceback\nValueError: no [1]\n\nthe last lines of log.txt:\nstep 1/2"
    failed = {"outcome": Outcome.FAILED, "error": error}
    assert "[4/10] 1:0 seed 0  failed: ValueError: no [1]" in shown(terminal=False, **failed)
    nothing = {"outcome": Outcome.CRASHED, "error": None}
    assert "[4/10] 1:0 seed 0  crashed: " in shown(terminal=False, **nothing)
