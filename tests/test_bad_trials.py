"""One sweep with trials that diverge, take too much, hang and crash: it goes on, and says why."""

import io
import json
import signal
from collections import defaultdict
from collections.abc import Mapping, Sequence

import pytest
from rich.console import Console

from hybrid import codec
from hybrid.spec import ModelSpec
from sweeps import execute
from sweeps.show import status_report
from sweeps.sweep import Point
from sweeps.trial import records
from sweeps.trial.events import Event
from sweeps.trial.recipe import Recipe
from sweeps.trial.record import Outcome, Record
from sweeps.trial.run_folder import LOG_LINES, MARK
from sweeps.workers.jobs import Job, Terms
from sweeps.workers.process import Limits
from tests import bad_sweep
from tests.test_process import trial_processes
from tests.workers import Notes, job, worker

LIMITS = Limits(seconds=10.0, memory_bytes=3 << 29)
HARM = {"hangs": signal.SIGSTOP, "crashes": signal.SIGSEGV}
OUTCOMES = {
    "diverges": [Outcome.DIVERGED],
    "too-large": [Outcome.OUT_OF_MEMORY] * 2,
    "hangs": [Outcome.TIMED_OUT] * 2,
    "crashes": [Outcome.CRASHED] * 2,
    "well": [Outcome.COMPLETE],
    "well-too": [Outcome.COMPLETE],
}
WHY = {
    "diverged  diverges seed 0": "the training loss of step",
    "out_of_memory  too-large seed 0 (2 attempts)": "the trial's process held",
    "timed_out  hangs seed 0 (2 attempts)": "the trial's process ran longer than its limit of 10 s",
    "crashed  crashes seed 0 (2 attempts)": "the trial's process ended with signal SIGSEGV",
}
LAST_WORDS = {
    "diverges": "diverged after",
    "too-large": "runs bad-smoke-too",
    "hangs": "step 1/4000",
    "crashes": "Segmentation fault",
}


class Harmful(Notes):
    """Stops or crashes the process of a trial at its first step, as its arm says."""

    def event(self, event: Event) -> None:
        arm, _ = self.points[-1]
        if arm in HARM:
            (trial,) = trial_processes()
            trial.send_signal(HARM[arm])


def attempts_by_arm(made: Job) -> Mapping[str, Sequence[Record]]:
    found: dict[str, list[Record]] = defaultdict(list)
    for record in records.read(made.records):
        found[record.arm].append(record)
    return found


def assert_says_what_was_asked(record: Record, point: Point) -> None:
    assert codec.loads(ModelSpec, record.spec) == point.spec
    assert codec.loads(Recipe, record.recipe) == point.recipe
    assert json.loads(record.trial_params)["params"] == {"arm": point.arm, "seed": point.seed}


def last_words(record: Record) -> list[str]:
    _, mark, log = record.error.partition(MARK)
    assert mark
    return log.splitlines()


def shown_status(made: Job) -> str:
    ((name, look),) = execute.look(made.records, made.scale, storage="")
    console = Console(file=io.StringIO(), width=300)
    console.print(status_report.as_rich(look(), name))
    return console.file.getvalue()


@pytest.mark.slow
def test_a_sweep_goes_on_past_trials_that_go_wrong_and_status_says_why(tmp_path, source):
    terms = Terms(limits=LIMITS, checkpoint_seconds=None)
    made = job(tmp_path, source, sweep=str(bad_sweep.__file__), terms=terms)
    worker(made).work(Harmful())
    found = attempts_by_arm(made)
    assert {arm: [r.outcome for r in found[arm]] for arm in OUTCOMES} == OUTCOMES
    for point in made.plan().points.values():
        for attempt, record in enumerate(found[point.arm]):
            assert record.attempt == attempt
            assert_says_what_was_asked(record, point)
            if point.arm in LAST_WORDS:
                words = last_words(record)
                assert len(words) <= LOG_LINES + 1
                assert any(LAST_WORDS[point.arm] in line for line in words), words
    status = shown_status(made)
    for who, why in WHY.items():
        assert f"{who}: {why}" in status
    assert "6 trials: 2 done, 4 failed" in status
    again = Notes()
    worker(made).work(again)
    assert again.points == []
