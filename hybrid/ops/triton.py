"""Scan and convolution in Triton kernels of our own: nothing to build, any recent NVIDIA card.

This file checks what is given, and registers the kernels and their gradients as torch operators, so
that torch.compile traces through them. `triton_scan.py` and `triton_conv.py` run them. Letters are
those of `hybrid/__init__.py`; meanings are those of `hybrid/ops/reference.py`.

Activations are float32 or bfloat16, all of one dtype, their channels side by side (others are
copied); parameters and states are float32. Sums are in float32 and in a fixed order: the same call
gives the same bits. Gradients of gradients there are none.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hybrid.ops import given, triton_conv, triton_scan
from hybrid.ops.given import ACTIVATIONS


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

    `a_EN` must not be above 0. Raises TypeError for dtypes and devices these kernels do not take,
    and ValueError for shapes that disagree or are empty. Meaning and source: `reference.scan`.
    """
    _where("scan", u_BTE)
    rest = (b_BTN, c_BTN, d_E, gate_BTE, h_BEN)
    differentiable = given.scan(u_BTE, raw_BTE, bias_E, a_EN, *rest, ACTIVATIONS)
    bias_E, a_EN, d_E = bias_E.contiguous(), a_EN.contiguous(), d_E.contiguous()
    h_BEN = None if h_BEN is None else h_BEN.contiguous()
    inputs = (u_BTE, raw_BTE, bias_E, a_EN, b_BTN, c_BTN, d_E, gate_BTE, h_BEN)
    if u_BTE.shape[1] == 1 and not differentiable:
        return _step(*inputs)
    y_BTE, last_BEN, _ = _scan(*inputs, differentiable)
    return y_BTE, last_BEN


def conv(
    x_BTE: Tensor, weight_EW: Tensor, bias_E: Tensor, tail_BLE: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return (SiLU of the causal depthwise convolution (B, T, E), the new tail (B, W-1, E)).

    Raises TypeError for dtypes and devices these kernels do not take, and ValueError for shapes
    that disagree or are empty (a tail of length 0 is right where W = 1). Meaning: `reference.conv`.
    """
    _where("conv", x_BTE)
    given.conv(x_BTE, weight_EW, bias_E, tail_BLE, ACTIVATIONS)
    tail_BLE = None if tail_BLE is None else tail_BLE.contiguous()
    return _conv(x_BTE, weight_EW.contiguous(), bias_E.contiguous(), tail_BLE)


def _where(op: str, x: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}: given a {type(x).__name__}; it takes tensors")
    if x.device.type != "cuda" and not triton_scan.INTERPRETED:
        raise TypeError(
            f"{op}: given tensors on {x.device}; Triton's kernels want a CUDA device, "
            "or TRITON_INTERPRET=1 before the start, which tests them slowly on any"
        )


def _operator(name: str) -> Callable[[Callable[..., Any]], Any]:
    """Register a function as a torch operator, and stand the operator in its place.

    `torch.library.custom_op` would do the same, but takes longer for each call and imports torch's
    compiler at the first.
    """

    def register(function: Callable[..., Any]) -> Any:
        torch.library.define(name, torch.library.infer_schema(function, mutates_args=()))
        torch.library.impl(name, ("CPU", "CUDA"), function)
        return getattr(torch.ops.hybrid, name.partition("::")[2]).default

    return register


# ---- scan ----------------------------------------------------------------------------------------

_step = _operator("hybrid::scan_step_triton")(triton_scan.step)
_scan = _operator("hybrid::scan_triton")(triton_scan.forward)
_scan_backward = _operator("hybrid::scan_triton_backward")(triton_scan.backward)


@torch.library.register_fake("hybrid::scan_step_triton")
def _(*inputs: Any) -> tuple[Tensor, Tensor]:
    u, a = inputs[0], inputs[3]
    return u.new_empty(u.shape), a.new_empty(len(u), *a.shape)


@torch.library.register_fake("hybrid::scan_triton")
def _(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    u, a, save = inputs[0], inputs[3], inputs[-1]
    (B, T, E), N = u.shape, a.shape[1]
    chunks = -(-T // triton_scan.CHUNK) if save else 0
    return u.new_empty(B, T, E), a.new_empty(B, E, N), a.new_empty(B, chunks, N, E)


@torch.library.register_fake("hybrid::scan_triton_backward")
def _(*inputs: Any) -> tuple[Tensor, ...]:
    u, a = inputs[0], inputs[3]
    return (*(x.new_empty(x.shape) for x in inputs[:8]), a.new_empty(len(u), *a.shape))


def _scan_keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:8], output[2])
    ctx.at_rest = inputs[8] is None


def _scan_gradients(
    ctx: Any, gy: Tensor | None, glast: Tensor | None, _: Any
) -> tuple[Tensor | None, ...]:
    gy = torch.zeros_like(ctx.saved_tensors[0]) if gy is None else gy
    *gradients, gh = _scan_backward(*ctx.saved_tensors, gy, glast)
    return (*gradients, None if ctx.at_rest else gh, None)


torch.library.register_autograd("hybrid::scan_triton", _scan_gradients, setup_context=_scan_keep)


# ---- convolution ---------------------------------------------------------------------------------

_conv = _operator("hybrid::conv_triton")(triton_conv.forward)
_conv_backward = _operator("hybrid::conv_triton_backward")(triton_conv.backward)


@torch.library.register_fake("hybrid::conv_triton")
def _(x: Tensor, weight: Tensor, bias: Tensor, tail: Tensor | None) -> tuple[Tensor, Tensor]:
    (B, _, E), W = x.shape, weight.shape[1]
    return x.new_empty(x.shape), weight.new_empty(B, W - 1, E)


@torch.library.register_fake("hybrid::conv_triton_backward")
def _(*inputs: Any) -> tuple[Tensor, ...]:
    x, weight, bias = inputs[:3]
    (B, _, E), W = x.shape, weight.shape[1]
    return (*(x.new_empty(x.shape) for x in (x, weight, bias)), weight.new_empty(B, W - 1, E))


def _conv_keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs)


def _conv_gradients(ctx: Any, gy: Tensor | None, gnew: Tensor | None) -> tuple[Tensor | None, ...]:
    x, weight, bias, tail = ctx.saved_tensors
    gy = torch.zeros_like(x) if gy is None else gy
    *gradients, gtail = _conv_backward(x, weight, bias, tail, gy, gnew)
    return (*gradients, None if tail is None else gtail)


torch.library.register_autograd("hybrid::conv_triton", _conv_gradients, setup_context=_conv_keep)
