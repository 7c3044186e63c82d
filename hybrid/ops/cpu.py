"""The ops on CPU: attention through torch, scan and convolution through the kernels beside it.

This file checks what is given, and registers each kernel and its gradient as a torch operator.
Letters are those of `hybrid/__init__.py`. Scan and convolution take float32 only. Their kernels are
compiled when first called, in a few seconds; numba keeps them on disk for later processes.
A little longer than other files, so that each operator stands beside its gradient.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid.ops import cpu_kernels as kernels
from hybrid.ops.cpu_kernels import LANES
from hybrid.ops.cpu_run import added, array, cut, gradient, operator, run, whole
from hybrid.ops.reference import visible

# Tokens between two states saved for the backward pass: no slower than half as many, and smaller.
CHUNK = 32
# Below so many rows, the backward scan splits them into groups of channels. Each group has its own
# sums for b and c, so fewer are less work; their number must not depend on that of the threads.
JOBS = 16
PIECE = 32  # tokens of a row that are one job of the convolution
ACTIVATION = 8  # multiplications a SiLU costs, about


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
        if tensor.dtype is not torch.float32 or not tensor.is_cpu:
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


# ---- scan ----------------------------------------------------------------------------------------


@operator("hybrid::scan_cpu")
def _scan(
    u: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, h: Tensor, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (y, the last state, the states before each chunk, none unless `save`)."""
    (B, T, E), N = u.shape, a.shape[1]
    blocks = whole(E) // LANES
    y, last = u.new_empty(B, T, blocks * LANES), u.new_empty(B, blocks * LANES, N)
    saved = u.new_empty(B, -(-T // CHUNK) if save else 0, blocks, N, LANES)
    run(
        kernels.scan_forward,
        B * blocks,
        B * T * E * N,
        CHUNK,
        array(u, 2),
        array(dt, 2),
        array(a, 0),
        array(b),
        array(c),
        array(d, 0),
        array(h, 1),
        y.numpy(),
        last.numpy(),
        saved.numpy(),
    )
    return cut(y, 2, E), cut(last, 1, E), saved


@torch.library.register_fake("hybrid::scan_cpu")
def _(
    u: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, h: Tensor, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    (B, T, E), N = u.shape, a.shape[1]
    saved = u.new_empty(B, -(-T // CHUNK) if save else 0, whole(E) // LANES, N, LANES)
    return u.new_empty(B, T, E), u.new_empty(B, E, N), saved


@operator("hybrid::scan_cpu_backward")
def _scan_backward(
    u: Tensor,
    dt: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    saved: Tensor,
    gy: Tensor | None,
    glast: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of u, dt, a, b, c, d and h; an incoming None stands for zeros."""
    (B, T, E), N = u.shape, a.shape[1]
    assert saved.shape[1] == -(-T // CHUNK), "the forward pass was run without `save`"
    blocks = whole(E) // LANES
    groups = min(blocks, -(-JOBS // B))
    gu, gdt = (u.new_empty(B, T, blocks * LANES) for _ in range(2))
    ga, gh = (u.new_empty(B, blocks * LANES, N) for _ in range(2))
    gb, gc = (u.new_empty(B, groups, T, N) for _ in range(2))
    gd = u.new_empty(B, blocks * LANES)
    run(
        kernels.scan_backward,
        B * groups,
        B * T * E * N,
        CHUNK,
        array(u, 2),
        array(dt, 2),
        array(a, 0),
        array(b),
        array(c),
        array(d, 0),
        array(saved),
        gradient(gy, (B, T, E), 2),
        gradient(glast, (B, E, N), 1),
        *(g.numpy() for g in (gu, gdt, ga, gb, gc, gd, gh)),
    )
    return (
        cut(gu, 2, E),
        cut(gdt, 2, E),
        cut(added(ga, 0), 0, E),
        added(gb, 1),
        added(gc, 1),
        cut(added(gd, 0), 0, E),
        cut(gh, 1, E),
    )


@torch.library.register_fake("hybrid::scan_cpu_backward")
def _(*inputs: Any) -> tuple[Tensor, ...]:
    u, _, a = inputs[:3]
    return (*(x.new_empty(x.shape) for x in inputs[:6]), u.new_empty(len(u), *a.shape))


def _scan_keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:6], output[2])


def _scan_gradients(
    ctx: Any, gy: Tensor | None, glast: Tensor | None, _: Any
) -> tuple[Tensor | None, ...]:
    return (*_scan_backward(*ctx.saved_tensors, gy, glast), None)


torch.library.register_autograd("hybrid::scan_cpu", _scan_gradients, setup_context=_scan_keep)


# ---- convolution ---------------------------------------------------------------------------------


@operator("hybrid::conv_cpu")
def _conv(x: Tensor, weight: Tensor, bias: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    """Return (activated convolution, new tail)."""
    (B, T, E), W = x.shape, weight.shape[1]
    y, new_tail = x.new_empty(B, T, whole(E)), x.new_empty(B, W - 1, whole(E))
    run(
        kernels.conv_forward,
        B * -(-T // PIECE),
        B * T * E * (W + ACTIVATION),
        PIECE,
        array(x, 2),
        array(weight.t(), 1),
        array(bias, 0),
        array(tail, 2),
        y.numpy(),
        new_tail.numpy(),
    )
    return cut(y, 2, E), cut(new_tail, 2, E)


@torch.library.register_fake("hybrid::conv_cpu")
def _(x: Tensor, weight: Tensor, bias: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(tail.shape)


@operator("hybrid::conv_cpu_backward")
def _conv_backward(
    x: Tensor, weight: Tensor, bias: Tensor, tail: Tensor, gy: Tensor | None, gnew: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight, bias and tail; an incoming None stands for zeros."""
    (B, T, E), W = x.shape, weight.shape[1]
    jobs = B * -(-T // PIECE)
    gx, gtail = x.new_empty(B, T, whole(E)), x.new_empty(B, W - 1, whole(E))
    gweight, gbias = x.new_empty(jobs, W, whole(E)), x.new_empty(jobs, whole(E))
    run(
        kernels.conv_backward,
        jobs,
        B * T * E * (W + ACTIVATION),
        PIECE,
        array(x, 2),
        array(weight.t(), 1),
        array(bias, 0),
        array(tail, 2),
        gradient(gy, (B, T, E), 2),
        gradient(gnew, (B, W - 1, E), 2),
        *(g.numpy() for g in (gx, gweight, gbias, gtail)),
    )
    return (
        cut(gx, 2, E),
        cut(added(gweight, 0).t(), 0, E).contiguous(),
        cut(added(gbias, 0), 0, E),
        cut(gtail, 2, E),
    )


@torch.library.register_fake("hybrid::conv_cpu_backward")
def _(*inputs: Any) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in inputs[:4])


def _conv_keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs)


def _conv_gradients(ctx: Any, gy: Tensor | None, gnew: Tensor | None) -> tuple[Tensor, ...]:
    return _conv_backward(*ctx.saved_tensors, gy, gnew)


torch.library.register_autograd("hybrid::conv_cpu", _conv_gradients, setup_context=_conv_keep)
