"""What one batch takes: seconds of a call and the peak of memory, the model's own included.

On CUDA the allocator counts. On the CPU it is the growth of a process of its own, which first did
one tiny piece of everything, so that libraries and threads are not counted. To run out of memory is
an answer.
"""

import signal
from dataclasses import dataclass

import torch

from hybrid.activations import working_bytes
from hybrid.cost import Weights, cache_bytes, training_bytes, weight_bytes
from hybrid.model import build
from sweeps.bench import entries, phases
from sweeps.bench.agree import prompt
from sweeps.bench.clock import Task, repeat
from sweeps.bench.judge import failure
from sweeps.bench.ours import Ours
from sweeps.bench.peak import Died, forget_peak, in_process, touch
from sweeps.bench.record import Status
from sweeps.bench.setting import Phase, Setting
from sweeps.trial.device import PeakMemory, autocast, is_out_of_memory, itemsize

WARM_UP = 2  # calls: kernels compile, the optimiser allocates
PASS_TOKENS = 1 << 14  # of all sequences, that are read in one pass into the cache


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """What became of one batch."""

    status: Status
    note: str | None = None
    seconds: tuple[float, ...] = ()  # of each call
    peak_bytes: int | None = None


def weigh(setting: Setting, name: str, phase: Phase) -> Weighed:
    """Return seconds and memory of training steps, or of single tokens after the first context."""
    if setting.device.type == "cuda":
        found = _weigh(setting, name, phase)
        torch.cuda.empty_cache()  # pieces of this batch's sizes are none of the next one's
        return found
    try:
        return in_process(_weigh, setting, name, phase)
    except Died as error:
        killed = error.exit_code == -signal.SIGKILL  # so Linux ends who takes the last memory
        return Weighed(status=Status.OUT_OF_MEMORY if killed else Status.FAILS, note=str(error))


def estimate_bytes(setting: Setting, phase: Phase) -> int:
    """Return the same memory by arithmetic: weights in fp32, keys and values as products are."""
    spec, batch, item = setting.spec, setting.batch, itemsize(setting.precision)
    if phase is Phase.TRAIN:
        kind = setting.device.type
        return training_bytes(
            spec, batch=batch, tokens=setting.tokens, itemsize=item, device=kind
        ).total
    context = setting.contexts[0]
    read = min(context, chunk(batch))
    return (
        weight_bytes(spec, Weights.FP32)
        + cache_bytes(spec, batch=batch, tokens=context + room(setting), itemsize=item)
        + working_bytes(spec, batch=batch, tokens=read, itemsize=item)
    )


def chunk(batch: int) -> int:
    """Return how many tokens of each sequence are read in one pass."""
    return max(1, PASS_TOKENS // batch)


def room(setting: Setting) -> int:
    """Return the tokens that a cache has memory for behind the context."""
    return WARM_UP + setting.decode_tokens


def decode_step(contender: Ours, setting: Setting) -> Task:
    """Return one token more for every sequence, again and again, after a context that is read now.

    Steps are prepared as decoding does, and the cache goes on growing with every call.
    """
    contender.module.eval()
    ids_BT = prompt(setting, setting.contexts[0], rows=setting.batch)
    with torch.inference_mode(), autocast(setting.precision, setting.device):
        logits_BV, cache = contender.prefill(ids_BT, chunk=chunk(setting.batch), room=room(setting))
        steps = contender.ready(cache)
    ids_B = logits_BV.argmax(dim=-1)

    @torch.inference_mode()
    def step(_: object) -> None:
        nonlocal ids_B
        with autocast(setting.precision, setting.device):
            ids_B = steps.step(ids_B).argmax(dim=-1)

    return Task(prepare=lambda: None, call=step)


def _weigh(setting: Setting, name: str, phase: Phase) -> Weighed:
    try:
        return _measured(setting, name, phase)
    except Exception as error:  # a failure is an outcome, whatever its class
        failed = failure(error)
        status = Status.OUT_OF_MEMORY if is_out_of_memory(error) else failed.status
        return Weighed(status=status, note=failed.note)


def _measured(setting: Setting, name: str, phase: Phase) -> Weighed:
    device, now = setting.device, phases.clock(setting.device)
    touch(_made(setting, name), setting)
    forget_peak(device)
    memory = PeakMemory(device)
    contender = _made(setting, name)
    forget_peak(device)  # making one took two models
    if phase is Phase.TRAIN:
        task, calls = phases.train_step(contender, setting), setting.rounds
    else:
        task, calls = decode_step(contender, setting), setting.decode_tokens
    repeat(task, WARM_UP, now)
    seconds = repeat(task, calls, now)
    grown = memory.peak_bytes() - memory.baseline_bytes
    return Weighed(status=Status.TIMED, seconds=tuple(seconds), peak_bytes=grown)


def _made(setting: Setting, name: str) -> Ours:
    source = build(setting.spec, seed=setting.seed, device=setting.device)
    contender = entries.ALL[name](source)
    assert isinstance(contender, Ours)
    return contender
