"""The machine at hand as a Device, by the clock. The one file of the cost model that needs torch.

Bandwidth is that of a copy too large for any cache (each byte read and written); arithmetic that of
a square matrix product. The best of a few repeats, on as many threads as torch uses: these are
upper bounds that this machine has reached, not what a data sheet promises.
"""

import time
from collections.abc import Callable

import psutil
import torch

from hybrid.devices import Device

COPY_BYTES = {"cpu": 1 << 28, "cuda": 1 << 30}
SIDE = {"cpu": 1536, "cuda": 8192}  # of the matrices
REPEATS = 5
LONG_S = 1.0  # of runs, after which there is no other: bf16 where the processor has none is slow


def this_machine(kind: str | None = None) -> Device:
    """Return the device of that kind, "cpu" or "cuda", with rates measured now.

    None takes CUDA if torch sees it, else the CPU.
    """
    if kind is None:
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    return Device(
        name="this",
        memory_bytes=_memory(kind),
        bytes_per_s=bandwidth(kind),
        fp32_flops_per_s=products(kind, torch.float32),
        bf16_flops_per_s=products(kind, torch.bfloat16),
    )


def _memory(kind: str) -> int:
    if kind == "cuda":
        return torch.cuda.get_device_properties(0).total_memory
    return psutil.virtual_memory().total


def bandwidth(kind: str) -> float:
    """Return the bytes/s of a copy, read and written."""
    source = torch.ones(COPY_BYTES[kind], dtype=torch.uint8, device=kind)
    target = torch.empty_like(source)
    return 2 * source.numel() / _fastest_s(lambda: target.copy_(source), kind)


def products(kind: str, dtype: torch.dtype) -> float:
    """Return the operations/s of a matrix product."""
    side = SIDE[kind]
    a, b = (torch.ones(side, side, dtype=dtype, device=kind) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * side**3 / _fastest_s(lambda: torch.mm(a, b, out=out), kind)


def _fastest_s(run: Callable[[], object], kind: str) -> float:
    """Return the seconds of the fastest of REPEATS runs, fewer long ones, after one to warm up."""
    run()
    seconds: list[float] = []
    while len(seconds) < REPEATS and sum(seconds) < LONG_S:
        start = _now(kind)
        run()
        seconds.append(_now(kind) - start)
    return min(seconds)


def _now(kind: str) -> float:
    if kind == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
