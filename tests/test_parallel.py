"""Two processes, really started by torchrun, learn what one process learns."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch

from hybrid import codec
from hybrid import ops as backends
from sweeps.trial import records, run_folder
from sweeps.trial.data.sources import PackagedText
from sweeps.trial.engine import Compile, Engine, Parallel
from sweeps.trial.parallel import process_group
from sweeps.trial.record import Label, Outcome
from sweeps.trial.run import not_run, run, run_id
from tests.text import write_text
from tests.together import CUT_AT, SPEC, TIED, engine_of, recipe_of, seen_of

ROOT = Path(__file__).parents[1]
# fp32: what differs is the order of sums, and what eight steps make of it, a few in 10 million. A
# balance loss from the loads of half of the batch is off by four in ten thousand.
RELATIVE = 1e-5
SECONDS = 240  # for a machine that is busy; ten or so on one that is not


def torchrun(*arguments: str, processes: int = 2) -> subprocess.CompletedProcess[str]:
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.run(
        [sys.executable, *command, "-m", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


@pytest.fixture(scope="module")
def text(tmp_path_factory, cache_folder) -> Path:
    path = tmp_path_factory.mktemp("text") / "tale.txt"
    write_text(path)
    return path


@pytest.fixture(scope="module")
def cached(cache_folder) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYBRID_CACHE", str(cache_folder))
        yield


@pytest.fixture(scope="module")
def two(text, cached, tmp_path_factory) -> list[dict[str, Any]]:
    """What each of two processes saw of the trials in tests/together.py."""
    folder = tmp_path_factory.mktemp("two")
    done = torchrun("tests.together", str(text), str(folder))
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def one(text, cached) -> dict[str, dict[str, Any]]:
    """What one process sees of the same."""
    recipe = recipe_of(text)
    plain, tied = (seen_of(spec, recipe, Parallel.NONE) for spec in (SPEC, TIED))
    several = ("ddp", "fsdp", "ddp-continued", "fsdp-continued")
    return {**dict.fromkeys(several, plain), "fsdp-tied": tied}


def close(value: Any) -> Any:
    return pytest.approx(value, rel=RELATIVE)


@pytest.mark.parametrize("name", ["ddp", "fsdp", "fsdp-tied", "ddp-continued", "fsdp-continued"])
def test_two_processes_learn_what_one_does(one, two, name):
    ours, alone = two[0][name], one[name]
    assert len(ours["curve"]) == len(alone["curve"]) == 8
    for step, expected in zip(ours["curve"], alone["curve"], strict=True):
        assert {**step, "seconds": 0.0} == close({**expected, "seconds": 0.0})
    assert max(step["grad_norm"] for step in ours["curve"]) > 0.5  # it was clipped
    record, expected = ours["record"], alone["record"]
    assert record["outcome"] == Outcome.COMPLETE, record["error"]
    assert record["valid_bits_per_byte"] == close(expected["valid_bits_per_byte"])
    for router, wanted in zip(record["expert_load"], expected["expert_load"], strict=True):
        assert router == pytest.approx(wanted, abs=0.01)  # one token of 256 may go elsewhere
    assert record["cache_bytes"] == {
        str(context): size for context, size in expected["cache_bytes"].items()
    }


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_the_record_says_how_it_came_about(one, two, name):
    record, alone = two[0][name]["record"], one[name]["record"]
    assert (record["parallel"], record["world_size"]) == (name, 2)
    assert (alone["parallel"], alone["world_size"]) == ("none", 1)
    not_measured = {"train_bytes_estimate"} if name == "fsdp" else set()
    unlike = {"error"} | not_measured
    assert {k for k in record if (record[k] is None) != (alone[k] is None)} <= unlike
    assert record["run_id"] != alone["run_id"]


def test_the_first_process_watches_and_all_return_what_it_measured(two):
    first, second = (seen["ddp"] for seen in two)
    assert second["curve"] == []
    for column in ("valid_bits_per_byte", "decode_ms", "train_tokens", "outcome"):
        assert second["record"][column] == first["record"][column]


@pytest.mark.parametrize("name", ["ddp-continued", "fsdp-continued"])
def test_a_stop_stops_all_and_a_checkpoint_goes_on_from_there(two, name):
    for seen in two:
        assert seen[name]["cut"]["record"]["outcome"] == Outcome.PRUNED
        assert seen[name]["record"]["resumed_steps"] == [CUT_AT + 1]


def test_a_batch_that_cannot_be_shared_out_is_refused(two):
    for seen in two:
        assert seen["odd"] == "batch=3 must be divisible by the 2 processes that share it"


def test_a_trial_of_a_sweep_is_done_by_two_and_found(text, cached, tmp_path):
    recipe = replace(recipe_of(text), steps=2)
    label, engine = Label(sweep="tiny", scale="smoke", arm="h"), engine_of(Parallel.NONE)
    failed = replace(
        not_run(SPEC, recipe, label=label, engine=engine), outcome=Outcome.OUT_OF_MEMORY
    )
    home = run_folder.folder_of(failed.run_id, 0, tmp_path)
    home.path.mkdir(parents=True)
    run_folder.write_config(home, failed, recipe, label, engine)
    records.write(failed, [], tmp_path)
    command = ("sweeps.workers.together", str(home.config), "--parallel", "fsdp")
    done = torchrun(*command)
    assert done.returncode == 0, done.stderr[-3000:]
    before, record = records.read(tmp_path)
    assert before.outcome is Outcome.OUT_OF_MEMORY
    assert (record.run_id, record.attempt) == (failed.run_id, 1)
    assert record.outcome is Outcome.COMPLETE, record.error
    assert (record.parallel, record.world_size, record.train_tokens) == ("fsdp", 2, 2 * 4 * 32)
    assert records.read_curves(tmp_path).num_rows == 2


def test_without_torchrun_it_says_what_to_do(text, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with (
        pytest.raises(ValueError, match="RANK is not set: start this with torchrun"),
        process_group(),
    ):
        pass
    with pytest.raises(ValueError, match="parallel=ddp needs several processes"):
        run(SPEC, recipe_of(text), engine=engine_of(Parallel.DDP))


def test_an_engine_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="compile=on must be off with parallel=ddp"):
        Engine(parallel=Parallel.DDP, compile=Compile.ON)
    with pytest.raises(ValueError, match="device='cuda:1' must name no index"):
        Engine(parallel=Parallel.FSDP, device="cuda:1")


def test_one_process_keeps_its_run_id(text):
    recipe = replace(recipe_of(text), source=PackagedText())
    ids = [
        run_id(SPEC, recipe, label=Label(), engine=Engine(device="cpu", parallel=parallel))
        for parallel in Parallel
    ]
    ops = backends.find("auto", torch.device("cpu")).name
    of_one = "\n".join((codec.dumps(SPEC), codec.dumps(recipe), "cpu", ops))  # and nothing more
    assert ids[0].endswith(f"-{sha256(of_one.encode()).hexdigest()[:8]}")
    assert len(set(ids)) == 3
