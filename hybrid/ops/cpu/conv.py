"""The short convolution on the CPU: checks, and registers kernel and gradient in torch.

Letters are those of `hybrid/__init__.py`; meaning: `reference.conv`.
"""

from typing import Any

import torch
from torch import Tensor

from hybrid.ops import given
from hybrid.ops.cpu import conv_kernels
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

PIECE = 32  # tokens of a row that are one job
ACTIVATION = 8  # multiplications a SiLU costs, about


def conv(
    x_BTE: Tensor, weight_EW: Tensor, bias_E: Tensor, tail_BLE: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return (SiLU of the causal depthwise convolution (B, T, E), the new tail (B, W-1, E)).

    Raises TypeError for dtypes and devices this kernel does not take, and ValueError for shapes
    that disagree or are empty (a tail of length 0 is right where W = 1).
    """
    require_cpu("conv", x_BTE)
    given.conv(x_BTE, weight_EW, bias_E, tail_BLE, ACTIVATIONS)
    return _conv(x_BTE, weight_EW, bias_E, tail_BLE)


@operator("hybrid::conv_cpu")
def _conv(x: Tensor, weight: Tensor, bias: Tensor, tail: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return (activated convolution, new tail)."""
    (B, T, E), W = x.shape, weight.shape[1]
    y, y_memory = fresh(x, B, T, E)
    new_tail = weight.new_empty(B, W - 1, whole(E))
    run(
        conv_kernels.conv_forward,
        B * -(-T // PIECE),
        B * T * E * (W + ACTIVATION),
        PIECE,
        T,
        activation(x),
        array(weight.t(), 1),
        array(bias, 0),
        zeros_or(tail, (B, W - 1, E), 2),
        y_memory,
        new_tail.numpy(),
    )
    return cut(y, 2, E), cut(new_tail, 2, E)


@torch.library.register_fake("hybrid::conv_cpu")
def _(x: Tensor, weight: Tensor, bias: Tensor, tail: Tensor | None) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(len(x), weight.shape[1] - 1, x.shape[2])


@operator("hybrid::conv_cpu_backward")
def _conv_backward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    tail: Tensor | None,
    gy: Tensor | None,
    gnew: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight, bias and tail; an incoming None stands for zeros."""
    (B, T, E), W = x.shape, weight.shape[1]
    jobs = B * -(-T // PIECE)
    gy = x.new_zeros(1).expand(B, T, whole(E)) if gy is None else gy
    gx, gx_memory = fresh(x, B, T, E)
    gtail = weight.new_empty(B, W - 1, whole(E))
    gweight, gbias = weight.new_empty(jobs, W, whole(E)), weight.new_empty(jobs, whole(E))
    run(
        conv_kernels.conv_backward,
        jobs,
        B * T * E * (W + ACTIVATION),
        PIECE,
        T,
        activation(x),
        array(weight.t(), 1),
        array(bias, 0),
        zeros_or(tail, (B, W - 1, E), 2),
        activation(gy),
        zeros_or(gnew, (B, W - 1, E), 2),
        gx_memory,
        *(g.numpy() for g in (gweight, gbias, gtail)),
    )
    return (
        cut(gx, 2, E),
        cut(added(gweight, 0).t(), 0, E).contiguous(),
        cut(added(gbias, 0), 0, E),
        cut(gtail, 2, E),
    )


@torch.library.register_fake("hybrid::conv_cpu_backward")
def _(x: Tensor, weight: Tensor, bias: Tensor, *_: Any) -> tuple[Tensor, ...]:
    gtail = weight.new_empty(len(x), weight.shape[1] - 1, x.shape[2])
    return x.new_empty(x.shape), weight.new_empty(weight.shape), bias.new_empty(bias.shape), gtail


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.at_rest = inputs[3] is None
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, gy: Tensor | None, gnew: Tensor | None) -> tuple[Tensor | None, ...]:
    *gradients, gtail = _conv_backward(*ctx.saved_tensors, gy, gnew)
    return (*gradients, None if ctx.at_rest else gtail)


torch.library.register_autograd("hybrid::conv_cpu", _gradients, setup_context=_keep)
