"""Each phase of a contender as a task of the clock: what is prepared, and what is timed."""

import time
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from sweeps.bench.agree import prompt, training_batch
from sweeps.bench.clock import Clock, Task
from sweeps.bench.contender import Contender
from sweeps.bench.ours import Ours
from sweeps.bench.setting import Phase, Setting
from sweeps.trial.device import autocast

BALANCE = 0.001  # weight of the load-balancing loss; Jamba's released configuration
CLIP_NORM = 1.0
LEARNING_RATE = 1e-6  # so small that no contender's routing or numbers drift from the others'


def train_step(contender: Contender, setting: Setting) -> Task:
    """Return one training step: forward, loss, backward, clip, AdamW, gradients dropped.

    Batches follow each other in an order that is the same for all; making one is not timed.
    """
    module, steps = contender.module.train(), count()
    optimizer = torch.optim.AdamW(module.parameters(), lr=LEARNING_RATE, fused=True)

    def step(batch: tuple[Tensor, Tensor]) -> None:
        with autocast(setting.precision, setting.device):
            nats, balance = contender.loss(*batch)
        (nats + BALANCE * balance).backward()
        nn.utils.clip_grad_norm_(module.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return Task(prepare=lambda: training_batch(setting, next(steps)), call=step)


def prefill(contender: Contender, setting: Setting, context: int) -> Task:
    """Return the reading of one prompt of `context` tokens, into a cache."""
    contender.module.eval()
    ids_1T = prompt(setting, context)

    @torch.inference_mode()
    def read(_: object) -> None:
        with autocast(setting.precision, setting.device):
            contender.prefill(ids_1T)

    return Task(prepare=lambda: None, call=read)


def decode(contender: Contender, setting: Setting, context: int) -> Task:
    """Return the greedy continuation of one prompt; reading the prompt anew is not timed."""
    contender.module.eval()
    ids_1T = prompt(setting, context)

    @torch.inference_mode()
    def read() -> tuple[Tensor, Any]:
        with autocast(setting.precision, setting.device):
            logits_1V, cache = contender.prefill(ids_1T)
            return logits_1V, contender.ready(cache)

    @torch.inference_mode()
    def go_on(start: tuple[Tensor, Any]) -> None:
        logits_1V, cache = start
        with autocast(setting.precision, setting.device):
            for _ in range(setting.decode_tokens):
                logits_1V, cache = contender.decode(logits_1V.argmax(dim=-1), cache)

    return Task(prepare=read, call=go_on)


def scan(contender: Contender, setting: Setting) -> Task:
    """Return a scan alone, forward, without gradients, at the sizes of training."""
    assert isinstance(contender, Ours)
    call = contender.scan(batch=setting.batch, tokens=setting.tokens)

    @torch.inference_mode()
    def run(_: object) -> None:
        call()

    return Task(prepare=lambda: None, call=run)


def scan_step(contender: Contender, setting: Setting) -> Task:
    """Return a scan alone as training has it: forward, and the gradients of all its inputs."""
    assert isinstance(contender, Ours)
    call = contender.scan_step(batch=setting.batch, tokens=setting.tokens, dtype=setting.dtype)
    return Task(prepare=lambda: None, call=lambda _: call())


def task(contender: Contender, setting: Setting, phase: Phase, context: int | None) -> Task:
    """Return the task of a phase; `context` is None unless tokens are read into a cache."""
    if context is None:
        alone = {Phase.TRAIN: train_step, Phase.SCAN: scan, Phase.SCAN_TRAIN: scan_step}
        return alone[phase](contender, setting)
    return {Phase.PREFILL: prefill, Phase.DECODE: decode}[phase](contender, setting, context)


def tokens_of(setting: Setting, phase: Phase, context: int | None) -> int:
    """Return how many tokens one call brings forward."""
    of_phase = {
        Phase.TRAIN: setting.batch * setting.tokens,
        Phase.PREFILL: context,
        Phase.DECODE: setting.decode_tokens,
        Phase.SCAN: setting.batch * setting.tokens,
        Phase.SCAN_TRAIN: setting.batch * setting.tokens,
    }
    tokens = of_phase[phase]
    assert tokens is not None
    return tokens


def clock(device: torch.device) -> Clock:
    """Return the clock of a device: it waits until the device has done what it was given."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return now
