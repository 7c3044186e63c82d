"""Starts workers on this machine, each a process with its share of the cores, or its GPU.

A worker that dies is started again a few times; Ctrl-C ends all of them and is answered when the
last one has ended. What they print comes line by line with their number before it. Which trials
they take is the study's business: nothing here knows it.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO

from hybrid.cost import training_bytes
from hybrid.spec import ModelSpec, require
from sweeps.terminal import termination_as_interrupt

RESTARTS = 3
FIRST_PAUSE_SECONDS = 1.0  # before a worker is started again; doubles
LOOK_SECONDS = 0.2
INTERRUPTED = 130  # what a shell says of a command that Ctrl-C ended
WRONG_USE = 2  # what a command line says of itself; another try would say the same
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one worker may use."""

    cores: tuple[int, ...]
    gpu: str | None = None  # as CUDA_VISIBLE_DEVICES names it

    @property
    def environment(self) -> dict[str, str]:
        threads = dict.fromkeys(THREADS, str(len(self.cores)))
        return threads if self.gpu is None else {**threads, "CUDA_VISIBLE_DEVICES": self.gpu}


def shares(workers: int, cores: Sequence[int], gpus: Sequence[str] = ()) -> list[Share]:
    """Share cores and GPUs out; with fewer of them than workers, several workers have the same.

    >>> shares(2, cores=(0, 1, 2, 3), gpus=("0",))
    [Share(cores=(0, 1), gpu='0'), Share(cores=(2, 3), gpu='0')]
    """
    require(workers > 0, f"launch: workers={workers} must be above 0")
    n = len(cores)
    return [
        Share(
            cores=tuple(cores[i * n // workers : (i + 1) * n // workers]) or (cores[i % n],),
            gpu=gpus[i % len(gpus)] if gpus else None,
        )
        for i in range(workers)
    ]


def own_cores() -> tuple[int, ...]:
    """Return the cores this process may use."""
    if sys.platform == "linux":
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def visible_gpus() -> tuple[str, ...]:
    """Return the CUDA devices this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return tuple(name for name in named.split(",") if name)
    import torch  # a launcher on a machine without GPUs does not wait for it to load

    return tuple(str(i) for i in range(torch.cuda.device_count()))


def trials_per_gpu(
    spec: ModelSpec,
    *,
    batch: int,
    tokens: int,
    memory_bytes: int,
    process_bytes: int,
    itemsize: int = 2,
) -> int:
    """Return how many trials of `spec` fit a GPU at once; 0 if none does.

    `memory_bytes` is the GPU's (`hybrid.devices.find_device`), `process_bytes` what a process takes
    of it before it trains (CUDA's context and libraries' work space: measure it; some hundreds of
    MiB). Whether several are faster than one is for a clock to say.
    """
    need = training_bytes(spec, batch=batch, tokens=tokens, itemsize=itemsize, device="cuda").total
    return memory_bytes // (need + process_bytes)


def launch(
    command: Sequence[str],
    workers: int,
    *,
    gpus: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    restarts: int = RESTARTS,
    out: IO[str] | None = None,
) -> int:
    """Run `command` in `workers` processes until all have ended; return the exit status for ours.

    0 if all ended with 0, 130 after Ctrl-C or SIGTERM, else 1. `gpus` are dealt round: twice as
    many workers as GPUs are two on each. A worker whose own launcher dies goes on by itself.
    """
    team = Team(out=out or sys.stdout)
    inherited = os.environ if environment is None else environment
    members = [
        Member(
            team=team,
            number=number,
            command=tuple(command),
            share=share,
            environment={**inherited, **share.environment},
            restarts=restarts,
        )
        for number, share in enumerate(shares(workers, own_cores(), gpus))
    ]
    threads = [threading.Thread(target=member.run, daemon=True) for member in members]
    with termination_as_interrupt():
        try:
            for thread in threads:
                thread.start()
            _wait(threads)
        except KeyboardInterrupt:
            _end(team, members, threads)
            return INTERRUPTED
    return 0 if all(member.status == 0 for member in members) else 1


@dataclass(kw_only=True)
class Team:
    """What the members share."""

    out: IO[str]
    ending: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def say(self, line: str) -> None:
        with self._lock:
            self.out.write(line + "\n")
            self.out.flush()


@dataclass(kw_only=True)
class Member:
    """One worker and its successors after its deaths; `run` is a thread's whole life."""

    team: Team
    number: int
    command: tuple[str, ...]
    share: Share
    environment: dict[str, str]
    restarts: int
    status: int | None = None  # of the last process, negative for a signal
    _process: subprocess.Popen[str] | None = None

    def run(self) -> None:
        if sys.platform == "linux":
            os.sched_setaffinity(0, self.share.cores)  # of this thread, and so of its children
        for used in range(self.restarts + 1):
            self.status = self._run_once()
            if self.team.ending.is_set() or self.status in (0, WRONG_USE):
                return
            if used == self.restarts:
                self._say(f"{ended(self.status)}; given up after {used} restarts")
                return
            self._say(f"{ended(self.status)}; restart {used + 1} of {self.restarts}")
            if self.team.ending.wait(FIRST_PAUSE_SECONDS * 2**used):
                return

    def send(self, number: int) -> None:
        """Send a signal to the worker that runs, if one does."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _run_once(self) -> int:
        # In a group of its own: Ctrl-C at a terminal goes to the whole foreground group, and a
        # worker that is cleaning up must not be interrupted a second time by what we forward.
        with subprocess.Popen(
            self.command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            process_group=0,
        ) as process:
            self._process = process
            if self.team.ending.is_set():  # set between the last look and the start
                self.send(signal.SIGINT)
            reader = threading.Thread(target=self._repeat, args=(process.stdout,), daemon=True)
            reader.start()
            process.wait()
            with suppress(ProcessLookupError):  # what a killed worker leaves behind holds the pipe
                os.killpg(process.pid, signal.SIGKILL)
            reader.join()
        return process.returncode

    def _repeat(self, output: IO[str]) -> None:
        for line in output:
            self._say(line.rstrip("\n"))

    def _say(self, text: str) -> None:
        self.team.say(f"[worker {self.number}] {text}")


def ended(status: int) -> str:
    """Return in words how a process ended.

    >>> ended(-9)
    'ended by SIGKILL'
    """
    return f"ended by {signal.Signals(-status).name}" if status < 0 else f"ended with {status}"


def _wait(threads: Sequence[threading.Thread]) -> None:
    while any(thread.is_alive() for thread in threads):
        time.sleep(LOOK_SECONDS)  # and not join, which Ctrl-C would not end everywhere


def _end(team: Team, members: Sequence[Member], threads: Sequence[threading.Thread]) -> None:
    """Ask all workers to end and wait for them; a second Ctrl-C kills them."""
    team.ending.set()
    team.say(f"ending {len(members)} workers; Ctrl-C again kills them")
    try:
        for member in members:
            member.send(signal.SIGINT)
        _wait(threads)
    except KeyboardInterrupt:
        for member in members:
            member.send(signal.SIGKILL)
        _wait(threads)
