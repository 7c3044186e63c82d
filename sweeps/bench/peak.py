"""The memory a phase takes, in a process of its own, so that it is nobody else's.

That process makes the contender, lets it do one tiny piece of everything (libraries, kernels and
threads are then there), notes what it holds, and calls the phase twice. Decoding is charged for its
cache, and on the CPU also for what reading the context left with the allocator.
"""

import ctypes
import gc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from hybrid.model import build
from sweeps.bench.agree import PROMPT, training_batch
from sweeps.bench.contender import Contender
from sweeps.bench.entries import ALL
from sweeps.bench.phases import decode, task
from sweeps.bench.setting import Phase, Setting
from sweeps.trial.device import PeakMemory
from sweeps.workers.server import process_context

CLEAR_REFS = Path("/proc/self/clear_refs")  # Linux; elsewhere a peak counts from the birth


def peak_bytes(setting: Setting, name: str, phase: Phase, context: int | None) -> int:
    """Return by how much memory grew at its peak; `Died` if the process did."""
    return in_process(_measure, setting, name, phase, context)


class Died(RuntimeError):
    """A process ended without an answer."""

    def __init__(self, exit_code: int | None):
        super().__init__(
            f"memory was not measured: the process for it ended with exit code {exit_code}"
        )
        self.exit_code = exit_code


def in_process(measure: Callable[..., Any], *arguments: Any, parent: bool = False) -> Any:
    """Return what `measure` returns in a process of its own, with the settings of a trial's.

    What it raises is raised here; `Died` if there is no answer. `parent`: it begins processes too.
    """
    ours, theirs = process_context().Pipe()
    process = process_context().Process(
        target=_send, args=(theirs, measure, arguments), daemon=not parent
    )
    process.start()
    theirs.close()
    try:
        answer, error = ours.recv()
    except (EOFError, ConnectionResetError):
        process.join()
        raise Died(process.exitcode) from None
    finally:
        process.join()
    if error is not None:
        raise error
    return answer


def growth(run: Callable[[], object], device: torch.device) -> int:
    """Return by how much memory grew at its peak while `run` ran, in a process that did little."""
    forget_peak(device)
    memory = PeakMemory(device)
    run()
    return memory.peak_bytes() - memory.baseline_bytes


def _send(pipe: Connection, measure: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    with suppress(KeyboardInterrupt):  # it went to the one who waits as well
        try:
            pipe.send((measure(*arguments), None))
        except Exception as error:
            pipe.send((None, error))


def _measure(setting: Setting, name: str, phase: Phase, context: int | None) -> int:
    source = build(setting.spec, seed=setting.seed, device=setting.device)
    contender = ALL[name](source)
    touch(contender, setting)
    todo = task(contender, setting, phase, context)

    def twice() -> None:
        todo.call(todo.prepare())
        prepared = todo.prepare()
        forget_peak(setting.device)
        todo.call(prepared)

    return growth(twice, setting.device)


def touch(contender: Contender, setting: Setting) -> None:
    """Do one tiny piece of everything, and keep nothing of it."""
    small = replace(setting, batch=1, tokens=PROMPT, decode_tokens=1)
    nats, _ = contender.loss(*training_batch(small, 0))
    nats.backward()
    contender.module.zero_grad(set_to_none=True)
    try:
        serving = decode(contender, small, PROMPT)
        serving.call(serving.prepare())
    except Exception:  # it may train and not serve; the phase itself will say so
        return


def forget_peak(device: torch.device) -> None:
    """Give back what nobody holds, and let the peak count from now on."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError, AttributeError):  # GNU's C library has it
        ctypes.CDLL(None).malloc_trim(0)
    if CLEAR_REFS.exists():
        CLEAR_REFS.write_text("5")  # `man 5 proc`: resets the peak of the resident set
