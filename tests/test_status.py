"""What `status` says of a sweep that runs, has failed here and there, and waits."""

import io
import json
import time
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.study import Study
from optuna.trial import TrialState, create_trial
from rich.console import Console

from sweeps.show import status_report
from sweeps.study import status
from sweeps.study.beat import BEAT
from sweeps.study.replay import DUPLICATE, OUTCOME, REFUSED, RUN_ID
from sweeps.study.status import State, Status
from sweeps.sweep import Point
from sweeps.trial import records
from sweeps.trial.recipe import Recipe
from sweeps.trial.record import Outcome, Record
from sweeps.trial.records import Ledger
from sweeps.trial.run_folder import folder_of
from tests.models import SPECS
from tests.test_record import STEP, complete, settle

RECORD = complete()
BEATS = {"count": 1, "every_s": 5.0, "host": "node3 boot pid", "pid": 411, "born": 1}
CURVE = "step,tokens,nats_per_token,balance,grad_norm,lr,seconds\n"


def points(arms: str = "ab", seeds: int = 3) -> dict[str, Point]:
    recipe = Recipe(steps=200, batch=1, tokens=4, lr=1e-3)
    return {
        f"{arm}{seed}": Point(
            arm=arm, seed=seed, spec=SPECS["hybrid"], recipe=replace(recipe, seed=seed)
        )
        for arm in arms
        for seed in range(seeds)
    }


def ended(run_id: str, folder: Path, attempt: int = 0, **changes) -> Record:
    if changes.get("outcome", Outcome.COMPLETE) is not Outcome.COMPLETE:
        changes["valid_bits_per_byte"] = None
    record = replace(RECORD, run_id=run_id, attempt=attempt, **changes)
    records.write(record, [STEP], folder)
    return record


def runs(study: Study, run_id: str, folder: Path, attempt: int, lines: str) -> None:
    """Let a trial run that has written `lines` to its curve."""
    trial = study.ask()
    trial.set_user_attr(RUN_ID, run_id)
    trial.set_user_attr(BEAT, BEATS)
    home = folder_of(run_id, attempt, folder)
    home.path.mkdir(parents=True)
    home.config.write_text(json.dumps({"recipe": {"steps": 200}}))
    home.curve.write_text(CURVE + lines)


def shown(now: Status, terminal: bool = False) -> str:
    file = io.StringIO()
    console = Console(file=file, width=120, force_terminal=terminal, color_system=None)
    console.print(status_report.as_rich(now, "tiny, scale smoke"))
    return file.getvalue()


def cells(text: str) -> list[list[str]]:
    """Return the table's rows, without its head."""
    rows = [line.split("│")[1:-1] for line in text.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in row] for row in rows]


@pytest.fixture
def grid(tmp_path) -> tuple[Study, Path]:
    """Two arms, three seeds: one of each state."""
    study = optuna.create_study()
    ended("a0", tmp_path, wall_s=100.0)
    ended("a1", tmp_path, outcome=Outcome.DIVERGED, error="the loss of step 3 is nan")
    error = "Traceback\n  File\nValueError: no\n\n\nthe last lines of log.txt:\nnoise"
    ended("a2", tmp_path, outcome=Outcome.FAILED, error=error)
    ended("a2", tmp_path, attempt=1, outcome=Outcome.CRASHED, error=error)
    ended("b0", tmp_path, outcome=Outcome.OUT_OF_MEMORY, error="out of memory")
    ended("b1", tmp_path, outcome=Outcome.FAILED, error=error)
    runs(study, "b1", tmp_path, 1, "".join(f"{n},4,{7 - n / 100},2,1,0.1,0.1\n" for n in range(50)))
    return study, tmp_path


def test_a_grid_tells_what_each_trial_is_at(grid):
    study, folder = grid
    now = status.of_grid(study, points(), Ledger(folder))
    assert {f"{t.arm}{t.seed}": (t.state, t.attempts) for t in now.tasks} == {
        "a0": (State.DONE, 1),
        "a1": (State.FAILED, 1),
        "a2": (State.FAILED, 2),
        "b0": (State.WAITING, 1),
        "b1": (State.RUNNING, 1),
        "b2": (State.WAITING, 0),
    }
    live = now.tasks[4].live
    assert (live.step, live.steps, live.fraction) == (50, 200, 0.25)
    assert live.worker == "node3 process 411"
    assert now.seconds_left == 275.0  # of 100 s each: two and three quarters, by one worker


@pytest.mark.parametrize("terminal", [True, False])
def test_a_grid_is_shown_in_words(grid, terminal):
    study, folder = grid
    text = shown(status.of_grid(study, points(), Ledger(folder)), terminal)
    assert cells(text) == [
        ["a", "done", "diverged", "crashed"],
        ["b", "again, after out_of_memory", "25%", "waiting"],
    ]
    assert "running  b seed 1, attempt 2: step 50/200 (25%), loss 6.510 nats/token, last" in text
    assert "node3 process 411" in text
    assert "diverged  a seed 1: the loss of step 3 is nan" in text
    assert "crashed  a seed 2 (2 attempts): ValueError: no" in text
    assert "6 trials: 1 done, 1 running, 2 waiting, 2 failed" in text
    assert "time left: about 5 min (1 running)" in text
    assert "aside" not in text
    assert all(len(line) <= 120 for line in text.splitlines())


def test_a_curve_being_written_and_one_not_begun(tmp_path):
    study = optuna.create_study()
    runs(study, "a0", tmp_path, 0, "0,4,7,2,1,0.1,0.1\n1,8,6.9,2")
    runs(study, "a1", tmp_path, 0, "")
    trial = study.ask()  # it has not chosen its folder yet
    trial.set_user_attr(RUN_ID, "a2")
    study.ask()  # nor this one its run
    now = status.of_grid(study, points("a"), Ledger(tmp_path))
    assert [task.state for task in now.tasks] == [State.RUNNING] * 3
    assert [task.live.step for task in now.tasks] == [1, None, None]
    text = shown(now)
    assert "running  a seed 1: no step yet" in text
    assert "time left: not known before one is done (3 running)" in text


def test_what_was_set_aside_is_counted_and_a_sweep_nobody_works_on_says_so(tmp_path):
    ended("a0", tmp_path)
    bad = tmp_path / "trials" / "bad.parquet"
    bad.write_bytes(b"")
    settle(bad)
    with pytest.warns(UserWarning, match="left out"):
        now = status.of_grid(optuna.create_study(), points("a", 2), Ledger(tmp_path))
    assert "1 files could not be read and lie in aside/" in shown(now)
    assert "(nothing is running; one worker)" in shown(now)


def search(tmp_path: Path) -> Study:
    study = optuna.create_study(directions=["minimize", "minimize"])
    lr = {"lr": FloatDistribution(1e-4, 1e-1)}

    def told(rate: float, values=None, state=TrialState.COMPLETE, **attributes) -> None:
        trial = create_trial(
            params={"lr": rate},
            distributions=lr,
            values=values,
            state=state,
            user_attrs=attributes,
        )
        study.add_trial(trial)

    told(0.001, [2.0, 5.0], **{RUN_ID: "r0"})
    told(0.002, [3.0, 6.0])
    told(0.003, [3.0, 1.0])
    told(0.004, state=TrialState.PRUNED, **{REFUSED: "1.2 GiB is over the budget of 1 GiB"})
    told(0.005, state=TrialState.FAIL, **{OUTCOME: "failed", RUN_ID: "r5"})
    told(0.006, state=TrialState.FAIL)
    told(0.007, state=TrialState.FAIL, **{OUTCOME: DUPLICATE})
    ended("r0", tmp_path, wall_s=60.0)
    ended("r5", tmp_path, outcome=Outcome.FAILED, error="ValueError: no")
    study.enqueue_trial({"lr": 0.01})
    return study


def test_a_search_lists_its_trials_and_marks_those_not_dominated(tmp_path):
    study = search(tmp_path)
    study.ask()  # takes the one that waits, and has no run yet
    study.enqueue_trial({"lr": 0.02})
    text = shown(status.of_search(study, ["bits_per_byte", "decode_ms"], Ledger(tmp_path)))
    assert cells(text) == [
        ["*0", "done", "0.001", "2", "5"],
        ["1", "done", "0.002", "3", "6"],
        ["*2", "done", "0.003", "3", "1"],
        ["3", "stopped", "0.004", "", ""],
        ["4", "failed", "0.005", "", ""],
        ["5", "failed", "0.006", "", ""],
        ["7", "running", "0.01", "", ""],
        ["8", "waiting", "0.02", "", ""],
    ]
    assert "* none is better in everything" in text
    assert "stopped  trial 3: 1.2 GiB is over the budget of 1 GiB" in text
    assert "failed  trial 4: ValueError: no" in text
    assert "failed  trial 5: its worker died" in text
    assert "8 trials: 3 done, 1 running, 1 waiting, 1 stopped, 2 failed" in text
    assert "time left: about 2 min (1 running)" in text


def test_watching_ends_when_nothing_is_left(monkeypatch, tmp_path):
    ended("a0", tmp_path)
    study, slept = optuna.create_study(), []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            ended("a1", tmp_path)

    monkeypatch.setattr(time, "sleep", sleep)
    tables = []
    for terminal in (False, True):
        file = io.StringIO()
        console = Console(file=file, width=120, force_terminal=terminal, color_system=None)

        def look() -> Status:
            return status.of_grid(study, points("a", 2), Ledger(tmp_path))

        status_report.watch(look, "tiny", console)
        assert file.getvalue().splitlines()[-1 - terminal] == "2 trials: 2 done"
        tables.append(file.getvalue().count("arm"))
    assert slept == [status_report.LOG_SECONDS] * 2
    assert tables[0] == 2  # of three looks, the second saw nothing new


@pytest.mark.parametrize(
    ("seconds", "said"), [(45, "45 s"), (89.6, "90 s"), (700, "12 min"), (12_000, "3 h 20 min")]
)
def test_durations_read_well(seconds, said):
    assert status_report.duration(seconds) == said


@pytest.mark.parametrize(
    ("config", "curve", "named"),
    [
        ("{", CURVE, "config.json"),
        ("[]", CURVE, "config.json"),
        ('{"recipe": {}}', CURVE, "config.json"),
        ('{"recipe": {"steps": 2}}', CURVE + "0,4\n", "curve.csv"),
    ],
)
def test_what_is_no_run_of_ours_is_named(tmp_path, config, curve, named):
    home = folder_of("a0", 0, tmp_path)
    home.path.mkdir(parents=True)
    home.config.write_text(config)
    home.curve.write_text(curve)
    with pytest.raises(ValueError, match=rf"{home.path / named}: cannot be read: "):
        (status._last_step(home), status._steps(home))


def test_a_run_that_has_no_folder_yet_is_no_error(tmp_path):
    home = folder_of("a0", 0, tmp_path)
    assert status._steps(home) is None
    assert status._last_step(home) == (None, None)
