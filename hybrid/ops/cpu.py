"""The ops on CPU: attention through torch, scan and convolution through the kernels beside this file.

This file holds what stands between torch and a kernel: checks, padding of the channels to whole
blocks of lanes, the partition of the work over threads, and the registration of each kernel and of
its gradient as a torch operator. Letters are those of `hybrid/__init__.py`. The kernels take
float32 only, and are compiled when first called; numba keeps them on disk for later processes.
"""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid.ops import cpu_kernels as kernels
from hybrid.ops.reference import visible

LANES = kernels.LANES
# Tokens between two saved states: they then take as much memory as one activation per 16 of N.
CHUNK = 16
# The backward scan splits a row only where rows are fewer: each part sums over its own channels.
JOBS = 16
# Below so many multiplications, waking a second thread costs more than it saves.
INLINE = 1 << 17
PIECES_PER_THREAD = 4


def attend(q_BTHP: Tensor, k_BSKP: Tensor, v_BSKP: Tensor, window: int | None) -> Tensor:
    """Return causal grouped-query attention, (B, T, H, P); scores are scaled by 1/sqrt(P).

    Torch's kernel reads each key and value head once per group, and needs a mask only where a
    window or a cache hides something that "causal from the first key" does not describe.
    """
    T, S = q_BTHP.shape[1], k_BSKP.shape[1]
    causal = window is None and 1 < T == S
    all_seen = window is None and T == 1
    mask_TS = None if causal or all_seen else visible(T, S, window, q_BTHP.device)
    y_BHTP = F.scaled_dot_product_attention(
        q_BTHP.transpose(1, 2),
        k_BSKP.transpose(1, 2),
        v_BSKP.transpose(1, 2),
        attn_mask=mask_TS,
        is_causal=causal,
        enable_gqa=True,
    )
    return y_BHTP.transpose(1, 2)


def scan(
    u_BTE: Tensor,
    dt_BTE: Tensor,
    a_EN: Tensor,
    b_BTN: Tensor,
    c_BTN: Tensor,
    d_E: Tensor,
    h_BEN: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return Mamba's selective scan: (y (B, T, E), the last state (B, E, N)).

    dt * a must not be above 0. Raises TypeError for tensors that are not float32 on the CPU, and
    ValueError for shapes that disagree or are empty. Meaning and source: `reference.scan`.
    """
    (B, T, E), N = _sizes("scan", "u_BTE", u_BTE), _sizes("scan", "a_EN", a_EN)[1]
    inputs = {
        "u_BTE": (u_BTE, (B, T, E)),
        "dt_BTE": (dt_BTE, (B, T, E)),
        "a_EN": (a_EN, (E, N)),
        "b_BTN": (b_BTN, (B, T, N)),
        "c_BTN": (c_BTN, (B, T, N)),
        "d_E": (d_E, (E,)),
        "h_BEN": (h_BEN, (B, E, N)),
    }
    save = _check("scan", inputs)
    y_BTE, last_BEN, _ = _scan(u_BTE, dt_BTE, a_EN, b_BTN, c_BTN, d_E, h_BEN, save)
    return y_BTE, last_BEN


def conv(
    x_BTE: Tensor, weight_EW: Tensor, bias_E: Tensor, tail_BLE: Tensor
) -> tuple[Tensor, Tensor]:
    """Return (SiLU of the causal depthwise convolution (B, T, E), the new tail (B, W-1, E)).

    Raises TypeError for tensors that are not float32 on the CPU, and ValueError for shapes that
    disagree or are empty (a tail of length 0 is right where W = 1). Meaning: `reference.conv`.
    """
    (B, T, E), W = _sizes("conv", "x_BTE", x_BTE), _sizes("conv", "weight_EW", weight_EW)[1]
    inputs = {
        "x_BTE": (x_BTE, (B, T, E)),
        "weight_EW": (weight_EW, (E, W)),
        "bias_E": (bias_E, (E,)),
        "tail_BLE": (tail_BLE, (B, W - 1, E)),
    }
    _check("conv", inputs)
    return _conv(x_BTE, weight_EW, bias_E, tail_BLE)


def _sizes(op: str, name: str, tensor: Tensor) -> torch.Size:
    """Return the shape of a tensor, checked to have the letters of its name and no empty extent."""
    letters = name.partition("_")[2]
    if tensor.dim() != len(letters) or 0 in tensor.shape:
        raise ValueError(
            f"{op}: {name} has shape {tuple(tensor.shape)}; "
            f"it needs {len(letters)} extents, each at least 1"
        )
    return tensor.shape


def _check(op: str, inputs: dict[str, tuple[Tensor, tuple[int, ...]]]) -> bool:
    """Raise where a tensor is not as wanted; return whether a gradient may be asked for."""
    for name, (tensor, wanted) in inputs.items():
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            raise TypeError(
                f"{op}: {name} is {tensor.dtype} on {tensor.device}; "
                "this kernel takes torch.float32 on cpu"
            )
        if tensor.shape != wanted:
            first = next(iter(inputs))
            raise ValueError(
                f"{op}: {name} has shape {tuple(tensor.shape)}; "
                f"beside {first} it must be {tuple(wanted)}"
            )
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor, _ in inputs.values())


# ---- threads -----------------------------------------------------------------------------------

_pools: list[ThreadPoolExecutor] = []
os.register_at_fork(after_in_child=_pools.clear)  # threads do not survive a fork


def _pool() -> ThreadPoolExecutor:
    """Return the process's pool; it starts threads only as they are needed, and never stops them."""
    if not _pools:
        _pools.append(ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="hybrid-ops"))
    return _pools[0]


def _run(kernel: Callable[..., None], jobs: int, work: int, *arguments: Any) -> None:
    """Do all jobs, on as many threads as torch uses. No result depends on how they are shared out.

    The caller works too, so that a busy pool can delay a call but never block it.
    """
    threads = min(torch.get_num_threads(), jobs)
    if threads == 1 or work < INLINE:
        kernel(0, jobs, *arguments)
        return
    pieces = min(jobs, threads * PIECES_PER_THREAD)
    waiting = deque((jobs * i // pieces, jobs * (i + 1) // pieces) for i in range(pieces))

    def work_off() -> None:
        while True:
            try:
                first, last = waiting.popleft()
            except IndexError:
                return
            kernel(first, last, *arguments)

    helpers = [_pool().submit(work_off) for _ in range(threads - 1)]
    work_off()
    for helper in helpers:
        if not helper.cancel():
            helper.result()


# ---- blocks of lanes -----------------------------------------------------------------------------


def _padded(E: int) -> int:
    return -(-E // LANES) * LANES


def _array(tensor: Tensor, dim: int | None = None) -> Any:
    """Return a contiguous array of the tensor, zeros after its channels, which lie along `dim`."""
    tensor = tensor.detach()
    if dim is not None and tensor.shape[dim] % LANES:
        extra = _padded(tensor.shape[dim]) - tensor.shape[dim]
        tensor = F.pad(tensor, [0, 0] * (tensor.dim() - 1 - dim) + [0, extra])
    return tensor.contiguous().numpy()


def _cut(tensor: Tensor, dim: int, E: int) -> Tensor:
    return tensor if tensor.shape[dim] == E else tensor.narrow(dim, 0, E).contiguous()


# ---- scan ----------------------------------------------------------------------------------------


@torch.library.custom_op("hybrid::scan_cpu", mutates_args=(), device_types="cpu")
def _scan(
    u: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, h: Tensor, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (y, the last state, the states before each chunk, none unless `save`)."""
    (B, T, E), N = u.shape, a.shape[1]
    blocks = _padded(E) // LANES
    y, last = u.new_empty(B, T, blocks * LANES), u.new_empty(B, blocks * LANES, N)
    saved = u.new_empty(B, -(-T // CHUNK) if save else 0, blocks, N, LANES)
    _run(
        kernels.scan_forward,
        B * blocks,
        B * T * E * N,
        CHUNK,
        _array(u, 2),
        _array(dt, 2),
        _array(a, 0),
        _array(b),
        _array(c),
        _array(d, 0),
        _array(h, 1),
        y.numpy(),
        last.numpy(),
        saved.numpy(),
    )
    return _cut(y, 2, E), _cut(last, 1, E), saved


@_scan.register_fake
def _(
    u: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, h: Tensor, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    (B, T, E), N = u.shape, a.shape[1]
    saved = u.new_empty(B, -(-T // CHUNK) if save else 0, _padded(E) // LANES, N, LANES)
    return u.new_empty(B, T, E), u.new_empty(B, E, N), saved


@torch.library.custom_op("hybrid::scan_cpu_backward", mutates_args=(), device_types="cpu")
def _scan_backward(
    u: Tensor,
    dt: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    saved: Tensor,
    gy: Tensor,
    glast: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of u, dt, a, b, c, d and h."""
    (B, T, E), N = u.shape, a.shape[1]
    blocks = _padded(E) // LANES
    groups = min(blocks, -(-JOBS // B))
    gu, gdt = (u.new_empty(B, T, blocks * LANES) for _ in range(2))
    ga, gh = (u.new_empty(B, blocks * LANES, N) for _ in range(2))
    gb, gc = (u.new_empty(B, groups, T, N) for _ in range(2))
    gd = u.new_empty(B, blocks * LANES)
    _run(
        kernels.scan_backward,
        B * groups,
        B * T * E * N,
        CHUNK,
        _array(u, 2),
        _array(dt, 2),
        _array(a, 0),
        _array(b),
        _array(c),
        _array(d, 0),
        _array(saved),
        _array(gy, 2),
        _array(glast, 1),
        *(g.numpy() for g in (gu, gdt, ga, gb, gc, gd, gh)),
    )
    return (
        _cut(gu, 2, E),
        _cut(gdt, 2, E),
        _cut(ga.sum(0), 0, E),
        gb.sum(1),
        gc.sum(1),
        _cut(gd.sum(0), 0, E),
        _cut(gh, 1, E),
    )


@_scan_backward.register_fake
def _(
    u: Tensor,
    dt: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    saved: Tensor,
    gy: Tensor,
    glast: Tensor,
) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(x) for x in (u, dt, a, b, c, d, glast))


def _scan_keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:6], output[2])


def _scan_gradients(
    ctx: Any, gy: Tensor | None, glast: Tensor | None, _: Any
) -> tuple[Tensor | None, ...]:
    u, dt, a, b, c, d, saved = ctx.saved_tensors
    gy = torch.zeros_like(u) if gy is None else gy
    glast = u.new_zeros(len(u), *a.shape) if glast is None else glast
    return (*_scan_backward(u, dt, a, b, c, d, saved, gy, glast), None)


_scan.register_autograd(_scan_gradients, setup_context=_scan_keep)


# ---- convolution ---------------------------------------------------------------------------------


@torch.library.custom_op("hybrid::conv_cpu", mutates_args=(), device_types="cpu")
def _conv(x: Tensor, weight: Tensor, bias: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    """Return (activated convolution, new tail)."""
    (B, T, E), W = x.shape, weight.shape[1]
    blocks = _padded(E) // LANES
    y, new_tail = x.new_empty(B, T, blocks * LANES), x.new_empty(B, W - 1, blocks * LANES)
    _run(
        kernels.conv_forward,
        B * blocks,
        B * T * E * W,
        _array(x, 2),
        _array(weight, 0),
        _array(bias, 0),
        _array(tail, 2),
        y.numpy(),
        new_tail.numpy(),
    )
    return _cut(y, 2, E), _cut(new_tail, 2, E)


@_conv.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(tail.shape)


@torch.library.custom_op("hybrid::conv_cpu_backward", mutates_args=(), device_types="cpu")
def _conv_backward(
    x: Tensor, weight: Tensor, bias: Tensor, tail: Tensor, gy: Tensor, gnew: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight, bias and tail."""
    (B, T, E), W = x.shape, weight.shape[1]
    blocks = _padded(E) // LANES
    gx, gtail = x.new_empty(B, T, blocks * LANES), x.new_empty(B, W - 1, blocks * LANES)
    gweight, gbias = x.new_empty(B, blocks * LANES, W), x.new_empty(B, blocks * LANES)
    _run(
        kernels.conv_backward,
        B * blocks,
        B * T * E * W,
        _array(x, 2),
        _array(weight, 0),
        _array(bias, 0),
        _array(tail, 2),
        _array(gy, 2),
        _array(gnew, 2),
        *(g.numpy() for g in (gx, gweight, gbias, gtail)),
    )
    return (
        _cut(gx, 2, E),
        _cut(gweight.sum(0), 0, E),
        _cut(gbias.sum(0), 0, E),
        _cut(gtail, 2, E),
    )


@_conv_backward.register_fake
def _(
    x: Tensor, weight: Tensor, bias: Tensor, tail: Tensor, gy: Tensor, gnew: Tensor
) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(t.shape) for t in (x, weight, bias, tail))


def _conv_keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs)


def _conv_gradients(ctx: Any, gy: Tensor | None, gnew: Tensor | None) -> tuple[Tensor, ...]:
    x, weight, bias, tail = ctx.saved_tensors
    gy = torch.zeros_like(x) if gy is None else gy
    gnew = torch.zeros_like(tail) if gnew is None else gnew
    return _conv_backward(x, weight, bias, tail, gy, gnew)


_conv.register_autograd(_conv_gradients, setup_context=_conv_keep)
