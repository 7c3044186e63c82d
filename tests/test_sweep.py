"""A sweep survives: it resumes, repeats nothing, and records what dies."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import TrialState

from hybrid import cost
from hybrid.spec import ModelSpec
from sweeps import catalog, figures, ratio, study
from sweeps.execute import points_by_run_id
from sweeps.process import run_in_process
from sweeps.sweep import Point, Sweep
from sweeps.trial import record as records
from sweeps.trial import weights
from sweeps.trial.data.sources import PackagedText, TextFile
from sweeps.trial.data.streams import open_tokens
from sweeps.trial.engine import Engine
from sweeps.trial.measure import held_out_loss
from sweeps.trial.recipe import Precision, Recipe
from sweeps.trial.record import Label, Outcome, Record
from sweeps.trial.train import Step
from sweeps.worker import Worker
from tests.models import HYBRID, SPECS

LETTERS = {"h": HYBRID, "a": SPECS["mixer-attention"]}

HERE = Engine(device="cpu")


def tiny_point(arm: str, seed: int, steps: int) -> tuple[ModelSpec, Recipe]:
    spec = replace(LETTERS[arm], vocab=300)
    recipe = Recipe(
        steps=steps, batch=2, tokens=16, lr=1e-3, seed=seed, valid_tokens=64, contexts=(8,)
    )
    return spec, recipe


TINY = Sweep(
    name="tiny",
    question="Does it run?",
    arms=("h", "a"),
    seeds={"smoke": (0, 1)},
    scales={"smoke": 2},
    point=tiny_point,
    matched="nothing but the width",
    figure=figures.ratio,
)


class Notes:
    """A watcher that remembers, and can be told to raise at a step."""

    def __init__(self, raise_at: int | None = None):
        self.points: list[tuple[str, int]] = []
        self.records: list[Record] = []
        self.steps = 0
        self.raise_at = raise_at

    def started(self, point: Point) -> None:
        self.points.append((point.arm, point.seed))

    def step(self, step: Step) -> None:
        self.steps += 1
        if self.steps == self.raise_at:
            raise KeyboardInterrupt

    def ended(self, record: Record) -> None:
        self.records.append(record)

    def waiting(self, others: int) -> None:
        raise AssertionError("no other worker is there")


def worker(folder: Path, source: TextFile) -> Worker:
    points = points_by_run_id(TINY, "smoke", source, HERE)
    opened = study.open_study(study.study_name("tiny", "smoke", points), study.sqlite_url(folder))
    return Worker(
        study=opened,
        points=points,
        sweep="tiny",
        scale="smoke",
        engine=HERE,
        folder=folder,
    )


def states(made: Worker) -> list[TrialState]:
    return [trial.state for trial in made.study.get_trials()]


def test_a_sweep_runs_every_point_once_and_a_second_call_nothing(tmp_path, source):
    first, second = Notes(), Notes()
    worker(tmp_path, source).work(first)
    made = worker(tmp_path, source)
    made.work(second)
    assert {r.matched for r in first.records} == {"nothing but the width"}
    assert first.points == [("h", 0), ("a", 0), ("h", 1), ("a", 1)]
    assert [r.outcome for r in first.records] == [Outcome.COMPLETE] * 4
    assert second.points == []
    assert states(made) == [TrialState.COMPLETE] * 4
    assert made.study.best_value == min(map(study.objective_value, first.records))


def test_an_interrupted_sweep_goes_on(tmp_path, source):
    with pytest.raises(KeyboardInterrupt):
        worker(tmp_path, source).work(Notes(raise_at=4))  # in the middle of the second trial
    assert len(records.read(tmp_path)) == 1
    rest = Notes()
    worker(tmp_path, source).work(rest)
    assert len(rest.points) == 3
    assert len({r.run_id for r in records.read(tmp_path)}) == 4


def test_a_lost_study_is_rebuilt_from_the_records(tmp_path, source):
    worker(tmp_path, source).work(Notes())
    (tmp_path / "study.sqlite3").unlink()
    again = Notes()
    made = worker(tmp_path, source)
    made.work(again)
    assert again.points == []
    assert states(made) == [TrialState.COMPLETE] * 4


def test_weights_are_kept_when_asked_for(tmp_path, source):
    (point,) = TINY.points("smoke", source)[:1]
    label = Label(sweep="tiny", scale="smoke", arm="h")
    record = run_in_process(point, label, HERE, tmp_path, lambda step: None, keep_weights=True)
    model = weights.load(point.spec, weights.path_of(record, tmp_path))
    tokens = open_tokens(source, point.spec.vocab)
    loss = held_out_loss(model, tokens, "tale", point.recipe, Precision(record.precision))
    assert loss.bits_per_byte == record.valid_bits_per_byte["tale"]


def test_a_process_that_dies_is_a_record(tmp_path, source):
    def kill_children(step: Step) -> None:
        children = f"/proc/{os.getpid()}/task/{os.getpid()}/children"
        server = [p for p in Path(children).read_text().split() if _is_fork_server(p)]
        grandchildren = Path(f"/proc/{server[0]}/task/{server[0]}/children").read_text().split()
        for pid in grandchildren:
            os.kill(int(pid), signal.SIGKILL)

    (point,) = TINY.points("smoke", source)[:1]
    label = Label(sweep="tiny", scale="smoke", arm="h")
    record = run_in_process(point, label, HERE, tmp_path, kill_children)
    assert record.outcome is Outcome.CRASHED
    assert "signal SIGKILL, after step" in record.error
    assert records.read(tmp_path) == [record]


def _is_fork_server(pid: str) -> bool:
    return b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_failure_is_tried_twice_and_then_left(tmp_path, source):
    lost = TextFile(path="nowhere.txt")
    notes = Notes()
    points = points_by_run_id(TINY, "smoke", lost, HERE)
    opened = study.open_study("lost", study.sqlite_url(tmp_path))
    made = Worker(
        study=opened,
        points=points,
        sweep="tiny",
        scale="smoke",
        engine=HERE,
        folder=tmp_path,
    )
    made.work(notes)
    assert [r.outcome for r in notes.records] == [Outcome.FAILED] * 8
    assert sorted(r.attempt for r in records.read(tmp_path)) == [0] * 4 + [1] * 4
    assert "nowhere.txt" in notes.records[0].error


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_and_doubles_nothing(tmp_path, source):
    """Kill the whole command at several moments; the last call completes the design."""
    command = [
        *(sys.executable, "-m", "sweeps", "run", "ratio", "--scale", "smoke", "--device", "cpu"),
        *("--text", source.path, "--results", str(tmp_path)),
    ]
    for seconds in (6.0, 9.5, 13.0):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "ratio-smoke.png" in done.stdout
    folder = tmp_path / "ratio-tale"
    found = records.read(folder)
    points = points_by_run_id(catalog.find("ratio"), "smoke", source, HERE)
    assert sorted(r.run_id for r in found) == sorted(points)
    assert all(r.outcome is Outcome.COMPLETE for r in found)
    assert list(folder.rglob(".*.tmp")) == []


@pytest.mark.parametrize("scale", ratio.SCALES)
def test_the_arms_of_the_ratio_sweep_have_equal_parameters(scale):
    points = ratio.SWEEP.points(scale, PackagedText())
    counts = {p.arm: cost.params(p.spec) for p in points}
    assert set(counts) == set(ratio.ARMS)
    assert max(counts.values()) - min(counts.values()) <= 0.02 * counts[ratio.MATCHED_TO]
    for count in counts.values():
        assert abs(count - counts[ratio.MATCHED_TO]) <= 0.01 * counts[ratio.MATCHED_TO]
    assert {p.spec.ratio for p in points} == set(ratio.ARMS)


def test_an_unknown_sweep_or_scale_lists_those_that_exist():
    with pytest.raises(ValueError, match="there is no sweep 'ratoi'; there are: ratio"):
        catalog.find("ratoi")
    with pytest.raises(ValueError, match="no scale 'huge'; it has smoke, cpu, gpu"):
        ratio.SWEEP.points("huge", PackagedText())
