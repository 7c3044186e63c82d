"""Unembedding and cross entropy in one pass over the tokens, a piece at a time.

The logits of a piece are made, turned into their own gradient and multiplied on at once, so that
all logits are never held, let alone twice, and the backward pass has nothing left to compute.
"""

from typing import Any

import torch
from torch import Tensor

from hybrid.activations import piece_tokens
from hybrid.ops import Ops, given
from hybrid.ops.given import IGNORED


def next_token_nats(x_nD: Tensor, weight_VD: Tensor, target_n: Tensor, ops: Ops) -> Tensor:
    """Return the mean of -log softmax(x weight^T) at the targets, a float32 scalar.

    The mean is over the targets that are not IGNORED; without any it is NaN, as torch's.
    Products are taken in the dtype of `x_nD`; gradients are added up in float32. Raises ValueError
    and TypeError unless there is one target of int64 for each row of x, and what
    `ops.cross_entropy` raises.
    """
    given.targets("next_token_nats", target_n, len(x_nD), x_nD)
    return _NextTokenLoss.apply(x_nD, weight_VD, target_n, ops)


class _NextTokenLoss(torch.autograd.Function):
    """Its gradients are made in the forward pass and given away, so it goes backward once: torch
    refuses a second time, since what was saved has been changed in place.
    """

    @staticmethod
    def forward(ctx: Any, x_nD: Tensor, weight_VD: Tensor, target_n: Tensor, ops: Ops) -> Tensor:
        with torch.autocast(x_nD.device.type, enabled=False):
            nats, gx_nD, gweight_VD = _forward(x_nD, weight_VD, target_n, ops, ctx)
        ctx.save_for_backward(gx_nD, gweight_VD)
        return nats

    @staticmethod
    def backward(ctx: Any, pull: Tensor) -> tuple[Tensor | None, ...]:
        gx_nD, gweight_VD = ctx.saved_tensors
        return (
            None if gx_nD is None else gx_nD.mul_(pull),
            None if gweight_VD is None else gweight_VD.mul_(pull),
            None,
            None,
        )


def _forward(
    x_nD: Tensor, weight_VD: Tensor, target_n: Tensor, ops: Ops, ctx: Any
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return (mean nats, its gradient by x, by the weight), None where none is asked for."""
    n, V = len(x_nD), len(weight_VD)
    weight = weight_VD.to(x_nD.dtype)
    gx_nD = torch.empty_like(x_nD) if ctx.needs_input_grad[0] else None
    gweight_VD = torch.zeros_like(weight_VD) if ctx.needs_input_grad[1] else None
    nats = torch.zeros((), device=x_nD.device)
    tokens = piece_tokens(V, x_nD.device.type)
    for x, target, at in zip(
        x_nD.split(tokens), target_n.split(tokens), range(0, n, tokens), strict=True
    ):
        nats_n, g_nV = ops.cross_entropy(x @ weight.T, target)
        nats += nats_n.sum()
        if gx_nD is not None:
            torch.mm(g_nV, weight, out=gx_nD[at : at + tokens])
        if gweight_VD is not None:
            gweight_VD += g_nV.T @ x
    counted = (target_n != IGNORED).sum()
    for gradient in (gx_nD, gweight_VD):
        if gradient is not None:
            gradient /= counted
    return nats / counted, gx_nD, gweight_VD
