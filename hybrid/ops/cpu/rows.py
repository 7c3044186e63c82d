"""RMSNorm, SiLU-and-multiply and cross entropy on the CPU. Meaning: `hybrid/ops/reference.py`."""

from collections.abc import Sequence
from functools import cache
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hybrid.ops import given
from hybrid.ops.cpu import row_kernels
from hybrid.ops.cpu.lanes import LANES
from hybrid.ops.cpu.run import added, array, operator, require_cpu, rows, run, whole
from hybrid.ops.given import ACTIVATIONS

JOBS = 32  # of the norm's backward pass: each sums the weight's gradient over its own rows
NORM, SILU, SOFTMAX = 2, 10, 20  # multiplications an element costs, about


def norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """Return RMSNorm over the last dimension, in `dtype`.

    Raises TypeError unless `x` and `dtype` are float32 or bfloat16 and `weight` is float32, and
    ValueError unless `x` and `weight` are equally wide.
    """
    require_cpu("norm", x)
    given.norm(x, weight, dtype, ACTIVATIONS)
    return _norm(x, weight, x.shape[-1:], eps, dtype)


def norms(
    x: Tensor, weight: Tensor, sizes: Sequence[int], eps: float, dtype: torch.dtype
) -> Tensor:
    """Return RMSNorm over each of the last dimension's parts by itself, in `dtype`.

    Raises TypeError unless `x` and `dtype` are float32 or bfloat16 and `weight` is float32, and
    ValueError unless the parts make up the last dimension.
    """
    require_cpu("norms", x)
    given.norms(x, weight, sizes, dtype, ACTIVATIONS)
    return _norm(x, weight, sizes, eps, dtype)


def silu_and_mul(gate_up: Tensor) -> Tensor:
    """Return silu(first half) * second half of the last dimension, in the dtype given.

    Raises TypeError unless that is float32 or bfloat16, and ValueError for an odd width.
    """
    require_cpu("silu_and_mul", gate_up)
    given.silu_and_mul(gate_up, ACTIVATIONS)
    return _silu(gate_up)


def cross_entropy(logits_nV: Tensor, target_n: Tensor) -> tuple[Tensor, Tensor]:
    """Return (-log softmax at the target (n), its gradient by the logits (n, V)).

    Both are 0 where the target is IGNORED; the gradient takes the memory of `logits_nV`. Raises
    TypeError unless that is float32 or bfloat16 and targets are int64, ValueError unless there are
    n targets, and IndexError for any other target outside 0..V-1.
    """
    require_cpu("cross_entropy", logits_nV)
    given.cross_entropy(logits_nV, target_n, ACTIVATIONS)
    n, V = logits_nV.shape
    logits_nV, nats_n = logits_nV.contiguous(), torch.empty(n)
    target, logits = target_n.contiguous().numpy(), rows(logits_nV)[0]
    run(row_kernels.cross_entropy, n, n * V * SOFTMAX, V, logits, target, nats_n.numpy())
    return nats_n, logits_nV


def _longer(weight: Tensor) -> Any:
    """Return the weight and a block of zeros, which the end of a last part is multiplied with."""
    longer = np.zeros(len(weight) + LANES, np.float32)
    longer[: len(weight)] = array(weight)
    return longer


@cache
def _edges(sizes: tuple[int, ...]) -> Any:
    return np.cumsum((0, *sizes))


@operator("hybrid::norm_cpu")
def _norm(
    x: Tensor, weight: Tensor, sizes: Sequence[int], eps: float, dtype: torch.dtype
) -> Tensor:
    n, D = prod(x.shape[:-1]), x.shape[-1]
    y = x.new_empty(x.shape, dtype=dtype)
    arguments = (_edges(tuple(sizes)), *rows(x), _longer(weight), rows(y)[0])
    run(row_kernels.norm_forward, n, n * D * NORM, eps, *arguments)
    return y


@torch.library.register_fake("hybrid::norm_cpu")
def _(x: Tensor, weight: Tensor, sizes: Sequence[int], eps: float, dtype: torch.dtype) -> Tensor:
    return x.new_empty(x.shape, dtype=dtype)


@operator("hybrid::norm_cpu_backward")
def _norm_backward(
    x: Tensor, weight: Tensor, sizes: Sequence[int], eps: float, gy: Tensor
) -> tuple[Tensor, Tensor]:
    n, D = prod(x.shape[:-1]), x.shape[-1]
    per_job = -(-n // JOBS)
    jobs = -(-n // per_job)
    gx, gweight = x.new_empty(x.shape), weight.new_empty(jobs, D + whole(1))
    inputs = (_edges(tuple(sizes)), *rows(x), _longer(weight), *rows(gy))
    arguments = (*inputs, rows(gx)[0], gweight.numpy())
    run(row_kernels.norm_backward, jobs, 2 * n * D * NORM, per_job, n, eps, *arguments)
    return gx, added(gweight, 0)[:D].contiguous()


@torch.library.register_fake("hybrid::norm_cpu_backward")
def _(
    x: Tensor, weight: Tensor, sizes: Sequence[int], eps: float, gy: Tensor
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape)


def _norm_keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.sizes, ctx.eps = inputs[2:4]
    ctx.save_for_backward(*inputs[:2])


def _norm_gradients(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    return (*_norm_backward(x, weight, ctx.sizes, ctx.eps, gy), None, None, None)


torch.library.register_autograd("hybrid::norm_cpu", _norm_gradients, setup_context=_norm_keep)


@operator("hybrid::silu_cpu")
def _silu(gate_up: Tensor) -> Tensor:
    *shape, double = gate_up.shape
    n, width = prod(shape), double // 2
    y = gate_up.new_empty(*shape, width)
    run(row_kernels.silu_forward, n, n * width * SILU, width, *rows(gate_up), rows(y)[0])
    return y


@torch.library.register_fake("hybrid::silu_cpu")
def _(gate_up: Tensor) -> Tensor:
    return gate_up.new_empty(*gate_up.shape[:-1], gate_up.shape[-1] // 2)


@operator("hybrid::silu_cpu_backward")
def _silu_backward(gate_up: Tensor, gy: Tensor) -> Tensor:
    n, width = prod(gate_up.shape[:-1]), gate_up.shape[-1] // 2
    gx = torch.empty_like(gate_up, memory_format=torch.contiguous_format)
    arguments = (*rows(gate_up), *rows(gy), rows(gx)[0])
    run(row_kernels.silu_backward, n, n * width * SILU, width, *arguments)
    return gx


@torch.library.register_fake("hybrid::silu_cpu_backward")
def _(gate_up: Tensor, gy: Tensor) -> Tensor:
    return gate_up.new_empty(gate_up.shape)


def _silu_keep(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _silu_gradients(ctx: Any, gy: Tensor) -> Tensor:
    return _silu_backward(*ctx.saved_tensors, gy)


torch.library.register_autograd("hybrid::silu_cpu", _silu_gradients, setup_context=_silu_keep)
