"""The selective scan on the CPU: checks what is given, and registers kernel and gradient in torch.

Letters are those of `hybrid/__init__.py`; meaning and source: `reference.scan`. Kernels are
compiled when first called, in a few seconds; numba keeps them on disk for later processes.
"""

from typing import Any

import torch
from torch import Tensor

from hybrid.ops import given
from hybrid.ops.cpu import scan_kernels
from hybrid.ops.cpu.lanes import LANES
from hybrid.ops.cpu.run import (
    activation,
    added,
    array,
    cut,
    fresh,
    operator,
    require_cpu,
    run,
    whole,
    zeros_or,
)
from hybrid.ops.given import ACTIVATIONS

# Tokens between two states saved for the backward pass: no slower than half as many, and smaller.
CHUNK = 32
# Below so many rows, the backward scan splits them into groups of channels. Each group has its own
# sums for b and c, so fewer are less work; their number must not depend on that of the threads.
JOBS = 16


def scan(
    u_BTE: Tensor,
    raw_BTE: Tensor,
    bias_E: Tensor,
    a_EN: Tensor,
    b_BTN: Tensor,
    c_BTN: Tensor,
    d_E: Tensor,
    gate_BTE: Tensor,
    h_BEN: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return Mamba's selective scan, gated: (y (B, T, E), the last state (B, E, N)).

    `a` must not be above 0. Raises TypeError for dtypes and devices this kernel does not take, and
    ValueError for shapes that disagree or are empty.
    """
    require_cpu("scan", u_BTE)
    inputs = (u_BTE, raw_BTE, bias_E, a_EN, b_BTN, c_BTN, d_E, gate_BTE, h_BEN)
    save = given.scan(*inputs, ACTIVATIONS)
    y_BTE, last_BEN, _ = _scan(*inputs, save)
    return y_BTE, last_BEN


@operator("hybrid::scan_cpu")
def _scan(
    u: Tensor,
    raw: Tensor,
    bias: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    gate: Tensor,
    h: Tensor | None,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (y, the last state, the states before each chunk, none unless `save`)."""
    (B, T, E), N = u.shape, a.shape[1]
    blocks = whole(E) // LANES
    y, y_memory = fresh(u, B, T, E)
    last = a.new_empty(B, blocks * LANES, N)
    saved = a.new_empty(B, -(-T // CHUNK) if save else 0, blocks, N, LANES)
    run(
        scan_kernels.scan_forward,
        B * blocks,
        B * T * E * N,
        CHUNK,
        activation(u),
        activation(raw),
        array(bias, 0),
        array(a, 0),
        array(b.float()),
        array(c.float()),
        array(d, 0),
        activation(gate),
        zeros_or(h, (B, E, N), 1),
        y_memory,
        last.numpy(),
        saved.numpy(),
    )
    return cut(y, 2, E), cut(last, 1, E), saved


@torch.library.register_fake("hybrid::scan_cpu")
def _(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    u, a, save = inputs[0], inputs[3], inputs[9]
    (B, T, E), N = u.shape, a.shape[1]
    saved = a.new_empty(B, -(-T // CHUNK) if save else 0, whole(E) // LANES, N, LANES)
    return u.new_empty(B, T, E), a.new_empty(B, E, N), saved


@operator("hybrid::scan_cpu_backward")
def _scan_backward(
    u: Tensor,
    raw: Tensor,
    bias: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    gate: Tensor,
    saved: Tensor,
    gy: Tensor | None,
    glast: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of u, raw, bias, a, b, c, d, gate and h; None comes in for zeros."""
    (B, T, E), N = u.shape, a.shape[1]
    assert saved.shape[1] == -(-T // CHUNK), "the forward pass was run without `save`"
    blocks = whole(E) // LANES
    groups = min(blocks, -(-JOBS // B))
    gy = u.new_zeros(1).expand(B, T, whole(E)) if gy is None else gy
    (gu, gu_memory), (graw, graw_memory), (ggate, ggate_memory) = (
        fresh(u, B, T, E) for _ in range(3)
    )
    ga, gh = (a.new_empty(B, blocks * LANES, N) for _ in range(2))
    gb, gc = (a.new_empty(B, groups, T, N) for _ in range(2))
    gbias, gd = (a.new_empty(B, blocks * LANES) for _ in range(2))
    run(
        scan_kernels.scan_backward,
        B * groups,
        B * T * E * N,
        CHUNK,
        activation(u),
        activation(raw),
        array(bias, 0),
        array(a, 0),
        array(b.float()),
        array(c.float()),
        array(d, 0),
        activation(gate),
        array(saved),
        activation(gy),
        zeros_or(glast, (B, E, N), 1),
        gu_memory,
        graw_memory,
        *(g.numpy() for g in (gbias, ga, gb, gc, gd)),
        ggate_memory,
        gh.numpy(),
    )
    return (
        cut(gu, 2, E),
        cut(graw, 2, E),
        cut(added(gbias, 0), 0, E),
        cut(added(ga, 0), 0, E),
        added(gb, 1).to(b.dtype),
        added(gc, 1).to(c.dtype),
        cut(added(gd, 0), 0, E),
        cut(ggate, 2, E),
        cut(gh, 1, E),
    )


@torch.library.register_fake("hybrid::scan_cpu_backward")
def _(*inputs: Any) -> tuple[Tensor, ...]:
    u, a = inputs[0], inputs[3]
    return (*(x.new_empty(x.shape) for x in inputs[:8]), a.new_empty(len(u), *a.shape))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.at_rest = inputs[8] is None
    ctx.save_for_backward(*inputs[:8], output[2])


def _gradients(
    ctx: Any, gy: Tensor | None, glast: Tensor | None, _: Any
) -> tuple[Tensor | None, ...]:
    *gradients, gh = _scan_backward(*ctx.saved_tensors, gy, glast)
    return (*gradients, None if ctx.at_rest else gh, None)


torch.library.register_autograd("hybrid::scan_cpu", _gradients, setup_context=_keep)
