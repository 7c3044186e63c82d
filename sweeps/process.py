"""One trial in a process of its own, so that its memory peak is its own and its death is only its.

The process is forked from a server that has imported torch once and done nothing else, so a trial
starts in a fraction of a second. It writes its record itself; this side only watches.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from hybrid import ops as backends
from hybrid.model import HybridLM, build
from hybrid.spec import Attention, Layer, Mamba, ModelSpec
from sweeps.sweep import Point
from sweeps.trial import record as records
from sweeps.trial import weights
from sweeps.trial.device import choose_device
from sweeps.trial.engine import Engine
from sweeps.trial.record import Label, Outcome, Record
from sweeps.trial.run import not_run, run
from sweeps.trial.train import Step

STOP_SECONDS = 10
# How long a thread of torch's spins for the others before it sleeps. GNU OpenMP's own choice burns
# milliseconds at each of hundreds of barriers a step as soon as another program wants a core, which
# made a step seven times slower (docs/log.md); waiting less costs nothing measurable when idle.
SPIN_COUNT = "3000"
# GNU's C library cuts torch's aligned memory a little larger than asked and keeps the rest for
# small requests. A tensor's memory, once free, is then too short for the next tensor of its size,
# and the heap grows far beyond what is alive (docs/log.md). Without those shelves for small pieces
# they are joined again; the thresholds are those that the library comes to by itself, but for the
# last: freed memory at the end of the heap would be given back and asked for again in every layer.
# Other C libraries do not read this.
HEAP = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in {
        "tcache_count": 0,
        "mxfast": 0,
        "mmap_threshold": 32 << 20,
        "trim_threshold": 256 << 20,
    }.items()
)


def run_in_process(
    point: Point,
    label: Label,
    engine: Engine,
    folder: Path,
    watch: Callable[[Step], None],
    keep_weights: bool = False,
) -> Record:
    """Run one trial in a new process and return its record, which is then in `folder`.

    A process that dies gives a record with the outcome `crashed`. An exception raised here while
    waiting (KeyboardInterrupt) ends the process first, and then leaves no record.
    """
    context = process_context()
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_trial, args=(theirs, point, label, engine, folder, keep_weights), daemon=True
    )
    process.start()
    theirs.close()
    curve: list[Step] = []
    try:
        path = _follow(ours, curve, watch)
        process.join()
    finally:
        _end(process)
    if path is not None:
        return records.read_one(path)
    known = not_run(point.spec, point.recipe, label=label, engine=engine)
    return _crashed(known, folder, curve, process.exitcode)


def warm_up(engine: Engine) -> None:
    """Compile kernels into their cache on disk, in a process that ends."""
    process = process_context().Process(target=_touch_kernels, args=(engine,), daemon=True)
    process.start()
    try:
        process.join()
    finally:
        _end(process)
    if process.exitcode != 0:
        raise RuntimeError(f"warming up {engine} failed with exit code {process.exitcode}")


def _touch_kernels(engine: Engine) -> None:
    device = choose_device(engine.device)
    layers = (
        Layer(mixer=Mamba(), feed_forward=None),
        Layer(mixer=Attention(heads=1, kv_heads=1), feed_forward=None),
    )
    spec = ModelSpec(vocab=8, width=16, layers=layers)
    model = build(spec, ops=backends.find(engine.ops, device), device=device)
    ids_BT = torch.zeros(2, 32, dtype=torch.long, device=device)
    model(ids_BT).logits_BTV.sum().backward()
    with torch.inference_mode():
        model(ids_BT)


def process_context() -> multiprocessing.context.ForkServerContext:
    """Return what forks processes from a server that has torch and this module loaded."""
    # Both have an effect only before torch is loaded, or the process begun: hence not in the trial.
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    os.environ.setdefault("GLIBC_TUNABLES", HEAP)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sweeps.process"])
    return context


def _trial(
    pipe: Connection,
    point: Point,
    label: Label,
    engine: Engine,
    folder: Path,
    keep_weights: bool,
) -> None:
    """Run, write and report: what happens in the new process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which ends us
    curve: list[Step] = []

    def watch(step: Step) -> None:
        curve.append(step)
        try:
            pipe.send(step)
        except BrokenPipeError:
            # The parent is dead and its trial will be done again: leave no record of ours.
            raise SystemExit(1) from None

    def keep(model: HybridLM) -> None:
        if keep_weights:
            known = not_run(point.spec, point.recipe, label=label, engine=engine)
            weights.save(model, weights.path_of(known, folder))

    record = run(point.spec, point.recipe, label=label, engine=engine, watch=watch, keep=keep)
    try:
        pipe.send(records.write(record, curve, folder))
    except FileExistsError:  # another worker was quicker, and its record stands
        pipe.send(records.path_of(record, folder))


def _follow(pipe: Connection, curve: list[Step], watch: Callable[[Step], None]) -> Path | None:
    """Return the record's path when the process reports it, None if it dies before."""
    while True:
        try:
            message = pipe.recv()
        except (EOFError, ConnectionResetError):
            return None
        if isinstance(message, Path):
            return message
        curve.append(message)
        watch(message)


def _end(process: multiprocessing.process.BaseProcess) -> None:
    if process.is_alive():
        process.terminate()
        process.join(STOP_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()


def _crashed(known: Record, folder: Path, curve: list[Step], exitcode: int | None) -> Record:
    how = f"exit code {exitcode}"
    if exitcode is not None and exitcode < 0:
        how = f"signal {signal.Signals(-exitcode).name}"
    after = f"after step {curve[-1].step}" if curve else "before the first step"
    record = replace(
        known,
        outcome=Outcome.CRASHED,
        error=f"the trial's process ended with {how}, {after}",
        wall_s=sum(step.seconds for step in curve),
    )
    records.write(record, curve, folder)
    return record
