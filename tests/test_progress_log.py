"""Whatever takes longer than half a minute says what it is at, on a clock of the test's own."""

import io
import json
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise

import pytest
from rich.console import Console

from hybrid.spec import ModelSpec
from sweeps.show.progress import SweepProgress
from sweeps.trial import progress_log
from sweeps.trial.data.sources import Synthetic
from sweeps.trial.data.tasks import Mqar, Probe
from sweeps.trial.engine import Engine
from sweeps.trial.events import Activity
from sweeps.trial.progress_log import LOG_SECONDS, LOOK_SECONDS, ProgressLog, saying
from sweeps.trial.recipe import Recipe
from sweeps.trial.run import run
from sweeps.trial.train import Step
from sweeps.workers import together
from tests.models import SPECS
from tests.test_progress import POINT, STEP, Clock

HALF_A_MINUTE = 30.0
TASK = Mqar(pairs=2)
RECIPE = Recipe(
    source=Synthetic(tasks=(TASK,), probes=(Probe(task=TASK, length=16),)),
    steps=3,
    batch=2,
    tokens=16,
    lr=1e-3,
    valid_tokens=32,
    contexts=(8, 12),
)
SPEC: ModelSpec = replace(SPECS["hybrid"], vocab=64)


def test_a_line_comes_at_least_every_half_minute_whatever_is_done():
    clock, lines = Clock(), []
    log = ProgressLog(lambda line: lines.append((clock.now, line)), clock)
    log.now("measuring")
    for _ in range(40):  # what the thread does
        clock.now += LOOK_SECONDS
        log.look()
    assert LOG_SECONDS + LOOK_SECONDS < HALF_A_MINUTE
    times = [1000.0, *(at for at, _ in lines)]
    assert len(lines) >= 5
    assert all(b - a <= HALF_A_MINUTE for a, b in pairwise(times))
    assert lines[0][1] == "measuring (28 s so far)"


def test_what_ends_quickly_says_nothing():
    clock, lines = Clock(), []
    log = ProgressLog(lines.append, clock)
    for doing in ("opening", "building", "training"):
        log.now(doing)
        clock.now += LOG_SECONDS / 4
        log.look()
    assert lines == []


def test_a_line_of_somebody_else_counts():
    clock, lines = Clock(), []
    log = ProgressLog(lines.append, clock)
    log.now("waiting")
    for _ in range(10):
        clock.now += LOG_SECONDS / 2
        log.said()
        log.look()
    assert lines == []


def test_a_thread_looks_while_a_single_call_lasts(monkeypatch):
    monkeypatch.setattr(progress_log, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(progress_log, "LOG_SECONDS", 0.001)
    lines: list[str] = []
    with saying("one long call", lines.append):
        end = time.monotonic() + 5
        while not lines and time.monotonic() < end:
            time.sleep(0.001)
    assert lines[0] == "one long call"
    before = len(lines)
    time.sleep(0.02)
    assert len(lines) == before  # the thread has ended with the body


def test_by_default_it_is_said_on_standard_error(monkeypatch, capsys):
    monkeypatch.setattr(progress_log, "LOG_SECONDS", 0.0)
    with saying("importing"):
        pass
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.startswith("importing\n")


def test_a_trial_tells_all_that_it_does():
    told: list[str] = []
    assert run(SPEC, RECIPE, engine=Engine(device="cpu"), tell=told.append).error is None
    assert told == [
        "opening the data",
        "building the model",
        "training its first step",
        "measuring right answers of length 16 pairs 2 (valid)",
        "measuring speed at 8 tokens of context",
        "measuring speed at 12 tokens of context",
    ]


def test_a_trial_on_text_tells_which_domain_is_measured(source):
    told: list[str] = []
    recipe = replace(RECIPE, source=source, measure_test=True, lengths=(8,))
    spec = replace(SPECS["hybrid"], vocab=300)
    assert run(spec, recipe, engine=Engine(device="cpu"), tell=told.append).error is None
    losses = [doing for doing in told if "loss" in doing]
    assert losses == [
        f"measuring the loss on text ({split})" for split in ("valid", "test", "test")
    ]


def test_run_in_python_speaks_by_itself(monkeypatch, capsys):
    monkeypatch.setattr(progress_log, "LOG_SECONDS", 0.0)
    seen: list[Step] = []
    assert run(SPEC, RECIPE, engine=Engine(device="cpu"), watch=seen.append).error is None
    said = capsys.readouterr().err
    for part in ("opening the data", "step 1/3  loss ", "tokens/s  left 0:00", "measuring speed"):
        assert part in said
    assert [step.step for step in seen] == [0, 1, 2]  # the caller's own watcher sees steps alone


def test_run_in_python_that_is_quick_says_nothing(capsys):
    assert run(SPEC, RECIPE, engine=Engine(device="cpu")).error is None
    assert capsys.readouterr().err == ""


def test_a_log_says_what_a_trial_is_measured_by():
    file, clock = io.StringIO(), Clock()
    console = Console(file=file, width=120, color_system=None)
    progress = SweepProgress(console, total=10, done=4, clock=clock)  # its thread is not begun
    progress.started(POINT)
    progress.event(replace(STEP, step=5))
    progress.doing("measuring speed at 64,000 tokens of context")
    for _ in range(3):
        clock.now += LOG_SECONDS
        progress.log.look()
    assert file.getvalue().splitlines()[1:] == [
        "[4/10] 1:0 seed 0 is measuring speed at 64,000 tokens of context (25 s so far)",
        "[4/10] 1:0 seed 0 is measuring speed at 64,000 tokens of context (50 s so far)",
        "[4/10] 1:0 seed 0 is measuring speed at 64,000 tokens of context (75 s so far)",
    ]


def test_a_terminal_shows_it_in_its_bars():
    file = io.StringIO()
    console = Console(file=file, width=120, force_terminal=True, color_system=None)
    with SweepProgress(console, total=10, done=4) as progress:
        progress.started(POINT)
        progress.doing("measuring speed at 64,000 tokens")
        progress.bars.refresh()
    assert "measuring speed at 64,000 tokens" in file.getvalue()


def test_an_activity_is_plain_data():
    assert Activity("training") == Activity("training")


def test_what_speaks_while_torch_is_imported_imports_no_torch():
    code = "import sys, sweeps.trial.progress_log as x; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read: JSONDecodeError"),
        ("[]", "must be a JSON object, got list"),
        ("{}", "key 'engine' is missing"),
        (
            json.dumps(dict.fromkeys(("run_id", "spec", "recipe", "label", "engine"), 1)),
            "spec: 1 must",
        ),
    ],
)
def test_a_config_that_is_none_is_named(text, message, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as refused:
        together.read(path)
    assert str(path) in str(refused.value)
