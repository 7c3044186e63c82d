"""Compacting loses nothing, doubles nothing, and never frees a name for a second record.

One file: all of it runs the same three steps, killed or raced at each point.
"""

import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sweeps import compact as compacting
from sweeps import results
from sweeps.compact import compact
from sweeps.trial import parquet, records
from sweeps.trial.record import Record
from sweeps.workers.server import process_context
from tests.test_record import STEP, complete, failed, settle

RECORD = complete()


def nth(number: int) -> Record:
    return replace(RECORD, run_id=f"s-smoke-1to7-s0-{number:08x}", seed=number)


def put(folder: Path, numbers: range) -> list[Record]:
    written = [nth(number) for number in numbers]
    write_each(folder, written)
    return written


def write_each(folder: Path, written: list[Record]) -> None:
    for record in written:
        records.write(record, [STEP, replace(STEP, step=1)], folder)


def files(folder: Path) -> set[str]:
    """Return the names in a sweep's folder, those of one trial as their folder and a star."""
    found = (path.relative_to(folder) for path in folder.rglob("*.parquet"))
    return {f"{path.parent}/*" if len(path.parts) > 1 else path.name for path in found}


def check(folder: Path, wanted: list[Record]) -> None:
    """Assert that exactly these records are there, and two steps of each."""
    assert records.read(folder) == wanted
    curves = records.read_curves(folder).to_pandas()
    assert sorted(curves["run_id"]) == sorted(2 * [record.run_id for record in wanted])


def test_many_files_become_two(tmp_path):
    wanted = put(tmp_path, range(5))
    assert compact(tmp_path) == compacting.Compacted(trials=5, curves=5, left=0)
    assert files(tmp_path) == {"trials.parquet", "curves.parquet"}
    check(tmp_path, wanted)
    wanted += put(tmp_path, range(5, 8))
    check(tmp_path, wanted)
    assert compact(tmp_path).trials == 3
    assert compact(tmp_path).trials == 0
    assert files(tmp_path) == {"trials.parquet", "curves.parquet"}
    check(tmp_path, wanted)


def test_a_compacted_record_is_found_under_its_own_path_and_in_results(tmp_path):
    (record,) = put(tmp_path / "s", range(1))
    path = records.path_of(record, tmp_path / "s")
    compact(tmp_path / "s")
    assert records.read_one(path) == record
    with pytest.raises(FileNotFoundError, match=r"no record .*-1 in"):
        records.read_one(records.path_of(replace(record, attempt=1), tmp_path / "s"))
    assert len(results.load("s", folder=tmp_path)) == 1
    assert results.find(record.run_id, folder=tmp_path) == (record, tmp_path / "s")
    with pytest.raises(LookupError, match=r"there are: s\. "):
        results.load("t", folder=tmp_path)


def test_a_compacted_record_cannot_be_written_again(tmp_path):
    put(tmp_path, range(2))
    compact(tmp_path)
    with pytest.raises(FileExistsError, match="only ever added"):
        records.write(replace(nth(0), wall_s=7.0), [STEP], tmp_path)
    assert files(tmp_path) == {"trials.parquet", "curves.parquet"}
    records.write(replace(nth(0), attempt=1), [STEP], tmp_path)  # another attempt is another record


@pytest.mark.parametrize("before_mine", [True, False], ids=["another's", "its own"])
def test_a_record_compacted_just_before_it_is_checked(tmp_path, monkeypatch, before_mine):
    """The writer's check comes too early to see what is compacted while it writes."""
    other, mine = nth(0), replace(nth(0), wall_s=7.0, train_nats_per_token=float("nan"))
    put(tmp_path, range(1, 3))
    compact(tmp_path)
    write_new = parquet.write_new

    def meddle(table: pa.Table, path: Path, replace: bool) -> None:
        monkeypatch.setattr(records, "write_new", write_new)
        if before_mine:
            records.write(other, [STEP], tmp_path)
            compact(tmp_path)
        write_new(table, path, replace)

    def meddle_after(table: pa.Table, path: Path, replace: bool) -> None:
        write_new(table, path, replace)
        if path.parent.name == "trials":
            compact(tmp_path)

    monkeypatch.setattr(records, "write_new", meddle if before_mine else meddle_after)
    if before_mine:
        with pytest.raises(FileExistsError, match="recorded by another"):
            records.write(mine, [STEP], tmp_path)
    else:
        records.write(mine, [STEP], tmp_path)
    assert not (tmp_path / "trials" / f"{mine.run_id}-0.parquet").exists()
    found = {r.run_id: r for r in records.read(tmp_path)}
    assert len(found) == 3
    assert found[mine.run_id].wall_s == (other if before_mine else mine).wall_s


def test_what_is_not_a_finished_trial_is_left(tmp_path):
    wanted = put(tmp_path, range(2))
    orphan = tmp_path / "curves" / f"{nth(9).run_id}-0.parquet"
    pq.write_table(pq.read_table(next((tmp_path / "curves").iterdir())), orphan)
    new = records.path_of(wanted[1], tmp_path)
    newer = pq.read_table(new).append_column("energy_j", pa.array([1.0]))
    pq.write_table(newer, new)
    bad = tmp_path / "trials" / "bad.parquet"
    bad.write_bytes(b"")
    settle(bad)
    with pytest.warns(UserWarning, match=r"energy_j|bad.parquet is left out"):
        done = compact(tmp_path)
    assert (done.trials, done.curves, done.left) == (1, 1, 1)
    assert orphan.exists()
    assert pq.read_table(new).equals(newer)
    with pytest.warns(UserWarning, match="energy_j"):
        assert records.read(tmp_path) == wanted


def test_a_compacted_file_that_cannot_be_read_or_kept_is_not_replaced(tmp_path):
    put(tmp_path, range(2))
    compact(tmp_path)
    many = tmp_path / "trials.parquet"
    whole = many.read_bytes()
    put(tmp_path, range(2, 3))
    many.write_bytes(whole[:-10])  # only just: it may be on its way here
    with (
        pytest.warns(UserWarning, match="stays for now"),
        pytest.raises(OSError, match="nothing was compacted"),
    ):
        compact(tmp_path)
    assert many.read_bytes() == whole[:-10]
    many.write_bytes(whole)
    table = pq.read_table(many)
    pq.write_table(table.append_column("energy_j", pa.array([1.0, 2.0])), many)
    with (
        pytest.warns(UserWarning, match="energy_j"),
        pytest.raises(ValueError, match="compact with that"),
    ):
        compact(tmp_path)
    with pytest.raises(LookupError, match="no records in"):
        compact(tmp_path / "nowhere")


def test_failures_are_compacted_too_and_their_columns_stay_null(tmp_path):
    records.write(failed(), [], tmp_path)
    compact(tmp_path)
    assert records.read(tmp_path) == [failed()]
    assert files(tmp_path) == {"trials.parquet", "curves.parquet"}


CALLS = ((os, "fsync"), (os, "replace"), (os, "link"), (Path, "unlink"), (pq, "write_table"))


class Power(BaseException):
    """The power went."""


def test_stopped_before_any_of_its_steps_it_loses_and_doubles_nothing(tmp_path, monkeypatch):
    """Stop at the first call that touches the disk, then at the second, and so on to the last."""
    for last in itertools.count():
        folder = tmp_path / str(last)
        wanted = put(folder, range(2))
        compact(folder)
        wanted += put(folder, range(2, 4))
        left = itertools.count(last, -1)

        def counted(call: Callable, left=left) -> Callable:
            def instead(*args, **kwargs):
                if next(left) <= 0:
                    raise Power
                return call(*args, **kwargs)

            return instead

        with monkeypatch.context() as patch:
            for owner, name in CALLS:
                patch.setattr(owner, name, counted(getattr(owner, name)))
            try:
                compact(folder)
            except Power:
                stopped = True
            else:
                stopped = False
        check(folder, wanted)
        with pytest.raises(FileExistsError):
            records.write(wanted[2], [STEP], folder)
        compact(folder)
        check(folder, wanted)
        assert files(folder) == {"trials.parquet", "curves.parquet"}
        assert list(folder.glob(".*.tmp")) == []
        if not stopped:
            break
    assert last >= 10


def keep_compacting(folder: Path) -> None:
    while True:
        compact(folder)


def started(target: Callable, *args) -> multiprocessing.process.BaseProcess:
    process = process_context().Process(target=target, args=args, daemon=True)
    process.start()
    return process


def kill(process: multiprocessing.process.BaseProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL, "it ended by itself"


def chaos(folder: Path, turns: int, seed: int) -> None:
    """Each turn, kill two compactions at a random moment while one writes and this one reads."""
    moments = random.Random(seed)
    ledger = records.Ledger(folder)
    wanted = put(folder, range(30))
    seen = 0
    for turn in range(turns):
        two = [started(keep_compacting, folder) for _ in range(2)]
        new = [nth(number) for number in range(len(wanted), len(wanted) + 12)]
        writer = started(write_each, folder, new)
        until = time.monotonic() + moments.uniform(0.0, 0.5)
        while time.monotonic() < until:
            now = ledger.records()
            assert len({r.run_id for r in now}) == len(now) >= seen, f"turn {turn}"
            seen = len(now)
        for process in two:
            kill(process)
        writer.join()
        assert writer.exitcode == 0
        wanted += new
        assert ledger.records() == wanted, f"turn {turn}"
        check(folder, wanted)
    compact(folder)
    check(folder, wanted)
    assert ledger.records() == wanted
    assert files(folder) == {"trials.parquet", "curves.parquet"}


def test_kill_9_while_compacting_writing_and_reading(tmp_path):
    chaos(tmp_path, turns=1, seed=0)


@pytest.mark.slow
def test_kill_9_while_compacting_at_40_random_moments(tmp_path):
    chaos(tmp_path, turns=20, seed=1)


def test_two_at_once_take_turns(tmp_path):
    """The lock is the system's, and goes with its process."""
    wanted = put(tmp_path, range(20))
    code = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); "
        "print('held', flush=True); time.sleep(60)"
    )
    lock = tmp_path / compacting.LOCK
    holder = subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    second = started(compact, tmp_path)
    second.join(0.5)
    assert second.is_alive()
    assert "trials.parquet" not in files(tmp_path)
    holder.kill()
    holder.communicate()
    second.join()
    assert second.exitcode == 0
    check(tmp_path, wanted)


def test_scratch_of_the_dead_goes_and_that_of_the_living_stays(tmp_path, monkeypatch):
    dead = tmp_path / f".a.parquet.0{parquet.SCRATCH}"
    dead.write_bytes(b"half a file")
    seen = []

    def link(scratch, path):
        parquet.remove_dead_scratch(tmp_path)
        seen.extend(tmp_path.glob(f".*{parquet.SCRATCH}"))
        os.rename(scratch, path)

    monkeypatch.setattr(parquet, "_link_new", link)
    parquet.write_new(pa.table({"x": [1]}), tmp_path / "b.parquet", replace=False)
    assert [path.name.startswith(".b.parquet.") for path in seen] == [True]
    assert [path.name for path in tmp_path.iterdir()] == ["b.parquet"]


def test_a_writer_whose_scratch_was_taken_for_a_dead_ones_takes_another(tmp_path, monkeypatch):
    lock = parquet.fcntl.flock
    names = []

    def taken(file, how):
        names.append(file.name)
        if len(names) == 1:
            os.unlink(file.name)
        lock(file, how)

    monkeypatch.setattr(parquet.fcntl, "flock", taken)
    parquet.write_new(pa.table({"x": [1]}), tmp_path / "b.parquet", replace=False)
    assert len(set(names)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["b.parquet"]
