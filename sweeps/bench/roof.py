"""What the machine does at best, by the clock of the same run, and the share of it that is reached.

The arithmetic of a phase is that of `hybrid.flops` whoever computes it, so a share also charges a
contender for work it does twice. Bytes that decoding must read are those of `hybrid.roofline`:
weights as they are held, in fp32, and keys and values in bf16.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from hybrid.cost import Weights
from hybrid.flops import forward_flops, training_flops
from hybrid.machine import bandwidth, products
from hybrid.roofline import read_bytes
from sweeps.bench.clock import Clock
from sweeps.bench.ours import scan_sizes
from sweeps.bench.phases import clock
from sweeps.bench.setting import SCANS, Phase, Setting

# In and out. Torch shares out among its threads only what is longer than 2^15 elements.
CACHED_FLOATS, UNCACHED_FLOATS = 1 << 17, 1 << 25
EXP_SECONDS = 0.2  # of calls, whose best is taken


@dataclass(frozen=True, kw_only=True)
class Roof:
    """Rates that this machine has reached."""

    gemm_flops_per_s: float  # of a matrix product in the precision of the run
    copy_bytes_per_s: float  # bytes read and written
    exp_cached_per_s: float  # torch.exp on fp32, elements within a cache
    exp_uncached_per_s: float


def measure(setting: Setting) -> Roof:
    """Return the rates of the setting's device, measured now."""
    kind = setting.device.type
    return Roof(
        gemm_flops_per_s=products(kind, setting.dtype),
        copy_bytes_per_s=bandwidth(kind),
        exp_cached_per_s=exp_rate(CACHED_FLOATS, setting.device),
        exp_uncached_per_s=exp_rate(UNCACHED_FLOATS, setting.device),
    )


def exp_rate(elements: int, device: torch.device) -> float:
    """Return elements/s of torch.exp on fp32, on as many threads as torch uses; the best call."""
    x, y = torch.zeros(elements, device=device), torch.empty(elements, device=device)
    return elements / _best_s(lambda: torch.exp(x, out=y), clock(device))


def flops_of_call(setting: Setting, phase: Phase, context: int | None) -> float | None:
    """Return the operations of one call; None for a phase that reading memory bounds."""
    if phase is Phase.TRAIN:
        step_tokens = setting.batch * setting.tokens
        return training_flops(setting.spec, tokens=setting.tokens) * step_tokens
    if phase is Phase.PREFILL:
        assert context is not None
        return forward_flops(setting.spec, tokens=context, predictions=1).total
    return None


def elements_of_call(setting: Setting, phase: Phase, context: int | None) -> float | None:
    """Return the (token, channel, state) elements of one call of a scan; else None."""
    if phase not in SCANS:
        return None
    E, N = scan_sizes(setting.spec)
    return setting.batch * setting.tokens * E * N


def bytes_of_call(setting: Setting, phase: Phase, context: int | None) -> float | None:
    """Return the bytes that decoding must read in one call, all its tokens; else None."""
    if phase is not Phase.DECODE:
        return None
    assert context is not None
    middle = context + setting.decode_tokens // 2
    read = read_bytes(setting.spec, batch=1, tokens=1, seen=middle, weights=Weights.FP32)
    return read.total * setting.decode_tokens


def _best_s(call: Callable[[], object], now: Clock) -> float:
    call()
    seconds: list[float] = []
    while sum(seconds) < EXP_SECONDS:
        start = now()
        call()
        seconds.append(now() - start)
    return min(seconds)
