"""Workers as processes: shares, deaths, Ctrl-C; jobs of Slurm by submitit's local executor."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hybrid.cost import training_bytes
from hybrid.devices import find_device
from sweeps.workers import slurm
from sweeps.workers.launch import Share, ended, launch, own_cores, shares, trials_per_gpu
from tests.models import HYBRID


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.mark.parametrize(
    ("workers", "cores", "expected"),
    [
        (1, (0, 1, 2), [(0, 1, 2)]),
        (2, (0, 1, 2, 3), [(0, 1), (2, 3)]),
        (2, (4, 5, 6), [(4,), (5, 6)]),
        (3, (0, 1), [(0,), (0,), (1,)]),
    ],
)
def test_cores_are_shared_out(workers, cores, expected):
    assert [share.cores for share in shares(workers, cores)] == expected


def test_gpus_are_dealt_round():
    dealt = shares(4, (0, 1, 2, 3), gpus=("2", "5"))
    assert [share.gpu for share in dealt] == ["2", "5", "2", "5"]
    assert dealt[1].environment["CUDA_VISIBLE_DEVICES"] == "5"
    assert "CUDA_VISIBLE_DEVICES" not in Share(cores=(0,)).environment


def test_a_gpu_holds_as_many_trials_as_its_memory_says():
    need = training_bytes(HYBRID, batch=2, tokens=16, itemsize=2, device="cuda").total
    shape = {"batch": 2, "tokens": 16}
    room = find_device("h100-sxm").memory_bytes
    fit = trials_per_gpu(HYBRID, **shape, memory_bytes=room, process_bytes=10**9)
    assert fit * (need + 10**9) <= room < (fit + 1) * (need + 10**9)
    assert trials_per_gpu(HYBRID, **shape, memory_bytes=10**9, process_bytes=10**9) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="affinity is Linux's")
def test_each_worker_has_its_share_and_its_number():
    out = io.StringIO()
    code = "import os; print(*os.sched_getaffinity(0), os.environ['OMP_NUM_THREADS'])"
    assert launch(python(code), 2, out=out) == 0
    expected = [
        f"[worker {i}] {' '.join(map(str, share.cores))} {len(share.cores)}"
        for i, share in enumerate(shares(2, own_cores()))
    ]
    assert sorted(out.getvalue().splitlines()) == expected
    assert own_cores() == tuple(sorted(os.sched_getaffinity(0)))


def test_a_worker_that_dies_is_started_again_but_not_for_ever(tmp_path):
    out = io.StringIO()
    mark = tmp_path / "seen"
    once = f"import os, pathlib; p = pathlib.Path({str(mark)!r})\nif not p.exists(): p.touch(); "
    assert launch(python(once + "os.kill(os.getpid(), 9)"), 1, out=out) == 0
    assert out.getvalue() == "[worker 0] ended by SIGKILL; restart 1 of 3\n"
    out = io.StringIO()
    assert launch(python("raise SystemExit(7)"), 1, restarts=0, out=out) == 1
    assert out.getvalue() == "[worker 0] ended with 7; given up after 0 restarts\n"


def test_what_a_killed_worker_leaves_behind_ends_with_it():
    code = "import os, subprocess; subprocess.Popen(['sleep', '60']); os.kill(os.getpid(), 9)"
    start = time.monotonic()
    assert launch(python(code), 1, restarts=0, out=io.StringIO()) == 1
    assert time.monotonic() - start < 30


def test_a_command_that_is_wrong_is_not_tried_again():
    out = io.StringIO()
    assert launch(python("raise SystemExit(2)"), 1, out=out) == 1
    assert out.getvalue() == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_all_workers_and_waits_for_them(number):
    worker = (
        "import time\\n"
        "try: print('up', flush=True); time.sleep(60)\\n"
        "except KeyboardInterrupt: time.sleep(0.3); print('tidied', flush=True)"
    )
    code = (
        "import sys; from sweeps.workers.launch import launch; "
        f"sys.exit(launch([sys.executable, '-c', \"{worker}\"], 2))"
    )
    with subprocess.Popen(python(code), stdout=subprocess.PIPE, text=True) as parent:
        up = [parent.stdout.readline() for _ in range(2)]
        assert sorted(up) == ["[worker 0] up\n", "[worker 1] up\n"]
        time.sleep(0.1)
        parent.send_signal(number)
        rest = parent.stdout.read()
    assert parent.returncode == 130
    assert sorted(re.findall(r"\[worker (\d)\] tidied", rest)) == ["0", "1"]


def test_how_a_process_ended_in_words():
    assert ended(-15) == "ended by SIGTERM"
    assert ended(3) == "ended with 3"


def test_slurm_jobs_run_the_command(tmp_path):
    pytest.importorskip("submitit", reason="needs the extra `slurm`")
    code = f"import os; open(r'{tmp_path}/' + str(os.getpid()), 'w').close()"
    jobs = slurm.submit(python(code), 2, folder=tmp_path / "logs", cluster="local")
    for job in jobs:
        assert job.result() is None
    assert len([path for path in Path(tmp_path).iterdir() if path.is_file()]) == 2


def test_an_option_slurm_does_not_have_is_an_error(tmp_path):
    pytest.importorskip("submitit", reason="needs the extra `slurm`")
    with pytest.raises(ValueError, match="Unknown argument 'partitoin'"):
        slurm.submit(["true"], 1, folder=tmp_path, cluster="local", slurm_partitoin="gpu")
