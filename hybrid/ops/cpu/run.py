"""Between torch and a numba kernel: operators, arrays of whole lanes, jobs and threads.

Small sums and fills are left to numpy: torch shares them out among its own threads, and on a busy
machine (several trials on few cores) waits for the last of them far longer than they take.

Jobs are shared out through torch's own OpenMP threads (`team.py`). Where torch has none that we can
enter, threads of Python call the kernels, which release Python's lock; handing over a call then
takes longer than a small one runs.
"""

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid.ops.cpu import team
from hybrid.ops.cpu.lanes import LANES, Kernel

INLINE = 1 << 18  # multiplications under which a second thread costs about as much as it saves
PIECES_PER_THREAD = 4  # more than one, so that a thread slowed by something else holds up less


def operator(name: str) -> Callable[[Callable[..., Any]], Any]:
    """Register a function as a torch operator on the CPU, and stand the operator in its place.

    `torch.library.custom_op` would do the same, but takes longer for each call and imports torch's
    compiler at the first.
    """

    def register(function: Callable[..., Any]) -> Any:
        torch.library.define(name, torch.library.infer_schema(function, mutates_args=()))
        torch.library.impl(name, "CPU", function)
        return getattr(torch.ops.hybrid, name.partition("::")[2]).default

    return register


_pools: list[ThreadPoolExecutor] = []
os.register_at_fork(after_in_child=_pools.clear)  # a child has none of its parent's threads


def _pool() -> ThreadPoolExecutor:
    """Return the process's pool, which starts threads only as they are needed."""
    if not _pools:
        _pools.append(ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="hybrid-ops"))
    return _pools[0]


def run(kernel: Kernel, jobs: int, multiplications: int, *arguments: Any) -> None:
    """Call kernel(first, last, *arguments) until all jobs are done, on torch's number of threads.

    How the jobs are shared out changes no result, if no job reads what another writes.
    """
    threads = min(torch.get_num_threads(), jobs)
    if threads == 1 or multiplications < INLINE:
        kernel(0, jobs, *arguments)
    elif team.entry():
        pieces = min(jobs, threads * PIECES_PER_THREAD)
        kernel.shared(team.entry(), threads, jobs, pieces, *arguments)
    else:
        _run_in_pool(kernel, jobs, threads, arguments)


def _run_in_pool(kernel: Kernel, jobs: int, threads: int, arguments: tuple[Any, ...]) -> None:
    """The caller works too, so a busy pool can slow a call but never block it."""
    pieces = min(jobs, threads * PIECES_PER_THREAD)
    waiting = deque((jobs * i // pieces, jobs * (i + 1) // pieces) for i in range(pieces))

    def work() -> None:
        while True:
            try:
                first, last = waiting.popleft()
            except IndexError:
                return
            kernel(first, last, *arguments)

    helpers = [_pool().submit(work) for _ in range(threads - 1)]
    work()
    for helper in helpers:
        if not helper.cancel():
            helper.result()


def whole(E: int) -> int:
    """Return E, rounded up to whole blocks of lanes."""
    return -(-E // LANES) * LANES


def require_cpu(op: str, x: Tensor) -> None:
    """Raise TypeError for what is no tensor, and for a tensor of another device."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}: its input is a {type(x).__name__}; it must be a tensor")
    if not x.is_cpu:
        raise TypeError(f"{op}: its input is on {x.device}; this kernel takes tensors on cpu")


def flat(x: Tensor) -> Any:
    """Return the memory from the first to the last element of `x`, bfloat16 seen as int16.

    The last dimension must lie close together.
    """
    if x.requires_grad:
        x = x.detach()
    if x.dtype is torch.bfloat16:
        x = x.view(torch.int16)
    if x.is_contiguous():
        return x.numpy().reshape(-1)
    if x.numel() == 0:
        return x.flatten().numpy()
    last = sum((n - 1) * step for n, step in zip(x.shape, x.stride(), strict=True))
    return x.as_strided((last + 1,), (1,)).numpy()


def activation(x_BTE: Tensor) -> tuple[Any, int, int]:
    """Return (flat memory, elements from row to row, from token to token), in whole lanes.

    What lies well is not copied: half of a fused projection, say.
    """
    E = x_BTE.shape[2]
    if E % LANES:
        x_BTE = F.pad(x_BTE, [0, whole(E) - E])
    if x_BTE.stride(2) != 1:
        x_BTE = x_BTE.contiguous()
    return flat(x_BTE), x_BTE.stride(0), x_BTE.stride(1)


def fresh(like: Tensor, B: int, T: int, E: int) -> tuple[Tensor, tuple[Any, int, int]]:
    """Return (new memory for whole lanes of E channels in the dtype of `like`, its activation)."""
    x = like.new_empty(B, T, whole(E))
    return x, activation(x)


def rows(x: Tensor) -> tuple[Any, int]:
    """Return (flat memory, elements from row to row) of a tensor as rows of its last extent."""
    if x.is_contiguous():
        return flat(x), x.shape[-1]
    if x.stride(-1) != 1 or any(
        x.stride(i) != x.stride(i + 1) * x.shape[i + 1] for i in range(x.dim() - 2)
    ):
        x = x.contiguous()
    return flat(x), x.stride(-2) if x.dim() > 1 else x.shape[-1]


def array(tensor: Tensor, channels: int | None = None) -> Any:
    """Return a contiguous array, with zeros after the dimension `channels` up to whole blocks."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    if channels is not None and tensor.shape[channels] % LANES:
        extra = whole(tensor.shape[channels]) - tensor.shape[channels]
        tensor = F.pad(tensor, [0, 0] * (tensor.dim() - 1 - channels) + [0, extra])
    return tensor.contiguous().numpy()


def zeros_or(tensor: Tensor | None, shape: Sequence[int], channels: int) -> Any:
    """Return the array of a tensor; where there is none, zeros in its shape."""
    if tensor is not None:
        return array(tensor, channels)
    return np.zeros([whole(n) if i == channels else n for i, n in enumerate(shape)], np.float32)


def added(parts: Tensor, dim: int) -> Tensor:
    """Return the sum over one dimension."""
    if parts.shape[dim] == 1:
        return parts.select(dim, 0)
    return torch.from_numpy(parts.numpy().sum(dim))


def cut(tensor: Tensor, channels: int, E: int) -> Tensor:
    """Return the tensor without the filling that `array` gave its like."""
    return tensor if tensor.shape[channels] == E else tensor.narrow(channels, 0, E).contiguous()
