"""What a log file sees of a running sweep."""

import io
from dataclasses import replace

from rich.console import Console

from sweeps import ratio
from sweeps.progress import SweepProgress
from sweeps.trial.data.sources import PackagedText
from sweeps.trial.engine import Engine
from sweeps.trial.record import Label, Outcome
from sweeps.trial.run import not_run
from sweeps.trial.train import Step

POINT = ratio.SWEEP.points("smoke", PackagedText())[0]
STEP = Step(step=2, tokens=768, nats_per_token=6.25, balance=0, grad_norm=1, lr=1e-3, seconds=0.128)


def shown(terminal: bool, **changes) -> str:
    """Return what is printed for one trial that gets to its third step and then ends."""
    file = io.StringIO()
    console = Console(file=file, width=120, force_terminal=terminal, color_system=None)
    record = not_run(
        POINT.spec, POINT.recipe, label=Label(arm=POINT.arm), engine=Engine(device="cpu")
    )
    with SweepProgress(console, total=10, done=4) as progress:
        progress.started(POINT)
        progress.step(STEP)
        progress.bars.refresh()
        progress.ended(replace(record, **changes))
    return file.getvalue()


def test_a_log_shows_trial_step_loss_speed_and_time_left():
    complete = {"outcome": Outcome.COMPLETE, "error": None, "valid_bits_per_byte": {"books": 2.5}}
    lines = shown(terminal=False, **complete).splitlines()
    assert lines[0].startswith("[4/10] 1:0 seed 0 step 3/6  loss 6.250 nats/token  2,000 tokens/s")
    assert "left " in lines[0]
    assert lines[1] == "[5/10] 1:0 seed 0  bits/byte: books 2.500  (0 s)"


def test_a_terminal_shows_bars():
    output = shown(terminal=True)
    assert "trials" in output
    assert "2,000 tokens/s" in output


def test_a_failure_shows_its_last_line_and_counts_when_it_is_final():
    error = "Traceback\nValueError: no\n\nthe last lines of log.txt:\nstep 1/2"
    failed = {"outcome": Outcome.FAILED, "error": error}
    assert "[4/10] 1:0 seed 0  failed: ValueError: no" in shown(terminal=False, **failed)
    assert "[5/10]" in shown(terminal=False, **failed, attempt=1)
    assert "[5/10]" in shown(terminal=False, outcome=Outcome.DIVERGED)
