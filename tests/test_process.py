"""A trial's process may be killed, starve, hang or crash: that is a record, and a run goes on.

One file: each way to die needs the same text, point and watcher.
"""

import contextlib
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from uuid import uuid4

import pandas as pd
import psutil
import pytest
import torch

from sweeps.sweep import Point
from sweeps.trial import records, weights
from sweeps.trial.deaths import kernel_kills
from sweeps.trial.engine import Engine
from sweeps.trial.events import Event, Stop
from sweeps.trial.measure import Speeds
from sweeps.trial.recipe import Precision, Recipe
from sweeps.trial.record import Label, MachineError, Outcome, Record, RecordNotWritten
from sweeps.trial.run_folder import RunFolder, folder_of, without_log
from sweeps.trial.train import Step
from sweeps.workers.process import Limits, run_in_process
from tests.disks import fill, make_room
from tests.faults import Harm
from tests.models import SPECS
from tests.test_checkpoint import small_disk

__all__ = ["small_disk"]  # a fixture

HERE = Engine(device="cpu")
LABEL = Label(sweep="tiny", scale="smoke", arm="h")
MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")


def point_of(source, steps: int = 6, **others) -> Point:
    recipe = Recipe(
        source=source,
        steps=steps,
        batch=2,
        tokens=16,
        lr=1e-3,
        precision=Precision.FP32,
        valid_tokens=64,
        contexts=(8,),
    )
    spec = replace(SPECS["hybrid"], vocab=300)
    return Point(arm="h", seed=0, spec=spec, recipe=replace(recipe, **others))


def nothing(event: Event) -> None:
    pass


def home_of(record: Record, folder: Path) -> RunFolder:
    return folder_of(record.run_id, record.attempt, folder)


def fork_servers() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if any("forkserver" in word for word in child.cmdline())]


def trial_processes() -> list[psutil.Process]:
    """Return the processes forked from our fork server."""
    return [trial for server in fork_servers() for trial in server.children()]


def kill_trials() -> None:
    for trial in trial_processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            trial.send_signal(signal.SIGKILL)


def exact(curve: pd.DataFrame) -> pd.DataFrame:
    return curve.drop(columns="seconds").reset_index(drop=True)


def test_a_run_has_a_folder_that_can_be_read_while_it_runs(tmp_path, source):
    point = point_of(source)
    home: list[pd.DataFrame] = []

    def look(event: Event) -> None:
        (path,) = (tmp_path / "runs").iterdir()
        home.append(pd.read_csv(RunFolder(path).curve))

    record = run_in_process(point, LABEL, HERE, tmp_path, look)
    assert record.outcome is Outcome.COMPLETE
    assert len(home) == 6
    assert all(len(seen) >= step + 1 for step, seen in enumerate(home))
    at = home_of(record, tmp_path)
    curve = records.read_curves(tmp_path).to_pandas().drop(columns=["run_id", "attempt"])
    pd.testing.assert_frame_equal(pd.read_csv(at.curve), curve)
    config = json.loads(at.config.read_text())
    assert config["spec"] == json.loads(record.spec)
    assert config["recipe"] == json.loads(record.recipe)
    assert config["label"]["sweep"] == "tiny"
    assert "step 6/6: 192 tokens" in at.log.read_text()
    assert "complete after" in at.log.read_text()
    assert not at.checkpoint.exists()


def test_a_server_that_dies_while_a_trial_is_started_is_replaced(tmp_path, source):
    run_in_process(point_of(source), LABEL, HERE, tmp_path / "before", nothing)
    (server,) = fork_servers()
    server.suspend()  # so that it takes the request, and dies before it answers
    killer = threading.Timer(0.5, server.kill)
    killer.start()
    record = run_in_process(point_of(source), LABEL, HERE, tmp_path / "after", nothing)
    killer.join()
    assert record.outcome is Outcome.COMPLETE
    assert server not in fork_servers()


def test_a_trial_outlives_the_server_that_it_was_forked_from(tmp_path, source):
    killed: list[psutil.Process] = []

    def kill_server(event: Event) -> None:
        if event.step == 1:
            killed.extend(fork_servers())
            killed[0].kill()

    point = point_of(source, steps=20)
    record = run_in_process(point, LABEL, HERE, tmp_path / "one", kill_server)
    assert len(killed) == 1
    assert record.outcome is Outcome.COMPLETE
    assert record.train_tokens == 20 * 32
    assert record.resumed_steps == []
    assert records.read(tmp_path / "one") == [record]
    other = run_in_process(point, LABEL, HERE, tmp_path / "other", nothing)
    assert other.valid_bits_per_byte == record.valid_bits_per_byte
    assert killed[0] not in fork_servers()


def test_a_killed_trial_is_a_record_and_the_next_attempt_goes_on(tmp_path, source):
    point = point_of(source, steps=8)
    whole = run_in_process(point, LABEL, HERE, tmp_path / "whole", nothing, keep_weights=True)
    kinds = [signal.SIGKILL, signal.SIGTERM]
    for attempt, (kind, at_step) in enumerate(zip(kinds, (1, 4), strict=True)):

        def kill(event: Event, kind=kind, at_step=at_step) -> None:
            if event.step == at_step:
                last = max((tmp_path / "runs").iterdir())
                (last / "checkpoint" / ".begun.tmp").touch()
                trial_processes()[0].send_signal(kind)

        label = replace(LABEL, attempt=attempt)
        dead = run_in_process(point, label, HERE, tmp_path, kill, checkpoint_seconds=0)
        assert dead.outcome is Outcome.CRASHED
        assert not dead.outcome.settled
        assert f"ended with signal {kind.name}, after step" in dead.error
        assert dead.train_tokens > 0
        assert not list(tmp_path.rglob("*.tmp"))
        assert "runs tiny-smoke-h" in dead.error.splitlines()[-1] or "step" in dead.error
    seen: list[Step] = []
    label = replace(LABEL, attempt=2)
    last = run_in_process(point, label, HERE, tmp_path, seen.append, keep_weights=True)
    assert last.outcome is Outcome.COMPLETE
    assert len(last.resumed_steps) == 2
    assert last.resumed_steps[0] >= 2
    assert last.resumed_steps[1] >= 5
    assert [step.step for step in seen] == list(range(8))
    assert last.valid_bits_per_byte == whole.valid_bits_per_byte
    curves = records.read_curves(tmp_path).to_pandas().query("attempt == 2")
    others = records.read_curves(tmp_path / "whole").to_pandas()
    pd.testing.assert_frame_equal(
        exact(curves).drop(columns="attempt"),
        exact(others).drop(columns="attempt"),
        check_exact=True,
    )
    both = [
        weights.load(point.spec, weights.path_of(record, folder)).state_dict()
        for record, folder in ((last, tmp_path), (whole, tmp_path / "whole"))
    ]
    assert all(torch.equal(both[0][name], value) for name, value in both[1].items())
    assert not home_of(last, tmp_path).checkpoint.exists()


def test_a_crash_of_native_code_is_in_the_log_and_in_the_record(tmp_path):
    record = run_in_process(point_of(Harm(fault="crash")), LABEL, HERE, tmp_path, nothing)
    assert record.outcome is Outcome.CRASHED
    assert without_log(record.error).endswith("signal SIGSEGV, before the first step")
    assert "Segmentation fault" in home_of(record, tmp_path).log.read_text()
    assert "in crash" in home_of(record, tmp_path).log.read_text()
    assert records.read(tmp_path) == [record]


def test_a_trial_that_hangs_is_ended_and_says_where(tmp_path):
    begun = time.monotonic()
    limits = Limits(seconds=2.0)
    point = point_of(Harm(fault="hang"))
    record = run_in_process(point, LABEL, HERE, tmp_path, nothing, limits=limits)
    assert record.outcome is Outcome.TIMED_OUT
    assert "longer than its limit of 2 s, before the first step" in record.error
    assert "about to hang" in record.error
    assert "in hang" in record.error
    assert 2 <= record.wall_s < time.monotonic() - begun < 20
    assert trial_processes() == []


def test_a_trial_over_its_memory_limit_is_ended(tmp_path):
    limits = Limits(memory_bytes=1 << 30)
    point = point_of(Harm(fault="allocate"))
    record = run_in_process(point, LABEL, HERE, tmp_path, nothing, limits=limits)
    assert record.outcome is Outcome.OUT_OF_MEMORY
    assert "its limit is 1,073,741,824, before the first step" in record.error
    assert record.error.splitlines()[-1].startswith("holding")


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group with 64 MiB of memory, for processes that are moved into it."""
    group = MEMORY_GROUPS / f"hybrid-test-{uuid4().hex[:8]}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(64 << 20))
    except OSError as error:
        pytest.skip(f"no control group of memory can be made here: {error}")
    yield group
    while (group / "cgroup.procs").read_text():
        time.sleep(0.05)
    group.rmdir()


def test_a_trial_killed_by_the_kernel_ran_out_of_memory(tmp_path, small_group):
    before = kernel_kills()

    def starve() -> None:
        while not any("holding" in x.read_text() for x in tmp_path.glob("runs/*/log.txt")):
            time.sleep(0.02)
        (small_group / "cgroup.procs").write_text(str(trial_processes()[0].pid))

    threading.Thread(target=starve, daemon=True).start()
    limits = Limits(seconds=60)
    point = point_of(Harm(fault="allocate"))
    record = run_in_process(point, LABEL, HERE, tmp_path, nothing, limits=limits)
    assert kernel_kills() > before
    assert record.outcome is Outcome.OUT_OF_MEMORY
    assert "the kernel ended the trial's process for want of memory, before" in record.error
    assert record.error.splitlines()[-1].startswith("holding")


def test_a_diverging_trial_says_where_and_is_settled(tmp_path, source):
    point = point_of(source, steps=40, lr=1e6, warmup=0.0)
    record = run_in_process(point, LABEL, HERE, tmp_path, nothing, checkpoint_seconds=0)
    assert record.outcome is Outcome.DIVERGED
    assert without_log(record.error).startswith("the training loss of step")
    assert record.error.splitlines()[-1].startswith("diverged after")
    assert not home_of(record, tmp_path).checkpoint.exists()


def test_a_failure_carries_its_traceback_and_its_log(tmp_path, source):
    record = run_in_process(point_of(Harm(fault="refuse")), LABEL, HERE, tmp_path, nothing)
    assert record.outcome is Outcome.FAILED
    assert "never any good" in without_log(record.error).splitlines()[-1]
    assert record.error.splitlines()[-1].startswith("failed after")


def test_a_text_that_went_away_is_no_failure_of_the_trial(tmp_path, source, monkeypatch):
    lost = replace(source, path=str(tmp_path / "nowhere.txt"), text_sha256="0" * 64)
    with pytest.raises(MachineError, match=r"cannot run on this machine: .*nowhere\.txt"):
        run_in_process(point_of(lost), LABEL, HERE, tmp_path, nothing)
    assert records.read(tmp_path) == []


def test_stop_crosses_to_the_trial_and_its_record_is_pruned(tmp_path, source):
    seen: list[Event] = []

    def stop_at_two(event: Event) -> None:
        seen.append(event)
        if event.step == 2:
            raise Stop("rung 0")

    point = point_of(source, steps=500)
    record = run_in_process(point, LABEL, HERE, tmp_path, stop_at_two, checkpoint_seconds=0)
    assert record.outcome is Outcome.PRUNED
    assert without_log(record.error) == "rung 0"
    assert len(seen) == 3
    assert 3 * 32 <= record.train_tokens < 500 * 32
    assert records.read_curves(tmp_path).num_rows * 32 == record.train_tokens
    assert not home_of(record, tmp_path).checkpoint.exists()


def test_stop_after_the_speeds_trains_nothing(tmp_path, source):
    seen: list[Event] = []

    def stop(event: Event) -> None:
        seen.append(event)
        raise Stop("dominated")

    record = run_in_process(point_of(source), LABEL, HERE, tmp_path, stop, cheap_first=True)
    assert [type(event) for event in seen] == [Speeds]
    assert record.outcome is Outcome.PRUNED
    assert record.decode_ms == seen[0].decode_ms
    assert record.train_tokens is None
    assert records.read_curves(tmp_path).num_rows == 0


def test_speeds_come_first_and_training_goes_on(tmp_path, source):
    seen: list[Event] = []
    point = point_of(source, steps=2)
    record = run_in_process(point, LABEL, HERE, tmp_path, seen.append, cheap_first=True)
    assert [type(event) for event in seen] == [Speeds, Step, Step]
    assert record.outcome is Outcome.COMPLETE
    assert asdict(seen[0])["decode_ms"] == record.decode_ms


def test_a_record_that_finds_no_room_says_where_and_leaves_nothing(small_disk, source):
    """The disk fills up while the trial trains: the checkpoint stays, for when there is room."""

    def fill_up(event: Event) -> None:
        if event.step == 4:
            fill(small_disk, leave_bytes=0)

    point = point_of(source, steps=40)
    with pytest.raises(RecordNotWritten, match=rf"written into {small_disk}: .*No space left"):
        run_in_process(point, LABEL, HERE, small_disk, fill_up, checkpoint_seconds=0)
    assert [*small_disk.glob("trials/*"), *small_disk.glob("trials/.*")] == []
    assert [*small_disk.glob("curves/*"), *small_disk.glob("curves/.*")] == []
    make_room(small_disk)
    record = run_in_process(point, LABEL, HERE, small_disk, nothing)
    assert record.outcome is Outcome.COMPLETE
    assert record.resumed_steps[0] >= 4
    assert records.read(small_disk) == [record]


PARENT = """
import sys
from pathlib import Path
from tests.test_process import HERE, LABEL, Harm, nothing, point_of, run_in_process
run_in_process(point_of(Harm(fault="hang")), LABEL, HERE, Path(sys.argv[1]), nothing)
"""


def test_a_trial_that_hangs_dies_with_its_parent(tmp_path):
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    parent = subprocess.Popen(command, cwd=Path(__file__).parents[1])
    begun = time.monotonic()
    while not (logs := list(tmp_path.glob("runs/*/log.txt"))) or "hang" not in logs[0].read_text():
        assert time.monotonic() - begun < 60
        time.sleep(0.05)
    (trial,) = (p for p in psutil.Process(parent.pid).children(recursive=True) if _runs(p, logs[0]))
    parent.kill()
    parent.wait()
    while trial.is_running() and trial.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() - begun < 60
        time.sleep(0.05)
    assert records.read(tmp_path) == []


def _runs(process: psutil.Process, log: Path) -> bool:
    return f"process {process.pid} runs" in log.read_text()


@pytest.mark.slow
def test_kill_9_at_random_moments_changes_nothing(tmp_path, source):
    point = point_of(source, steps=60)
    whole = run_in_process(point, LABEL, HERE, tmp_path / "whole", nothing)
    attempts, record = 0, None
    draws = random.Random(1)
    while record is None or record.outcome is not Outcome.COMPLETE:
        first: list[Step] = []
        patience = draws.randint(0, 12) if attempts < 20 else 10_000

        done = 0 if record is None else record.train_tokens // 32

        def kill(event: Event, first=first, patience=patience + done) -> None:
            first.append(event)
            if len(first) > patience:
                time.sleep(draws.random() * 0.02)
                kill_trials()

        label = replace(LABEL, attempt=attempts)
        record = run_in_process(point, label, HERE, tmp_path, kill, checkpoint_seconds=0)
        attempts += 1
    assert attempts > 5
    assert len(record.resumed_steps) == attempts - 1
    assert record.valid_bits_per_byte == whole.valid_bits_per_byte
    last = records.read_curves(tmp_path).to_pandas().query(f"attempt == {attempts - 1}")
    others = records.read_curves(tmp_path / "whole").to_pandas()
    names = ["step", "tokens", "nats_per_token", "grad_norm", "balance", "lr"]
    assert (last[names].to_numpy() == others[names].to_numpy()).all()
