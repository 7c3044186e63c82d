"""The mixture of experts: a router, SwiGLU experts, and what is needed to balance them.

Router as in Jamba (released configuration, and transformers' Jamba): softmax over all experts, the
top K taken, weights not renormalised unless the spec asks. n stands for batch times new tokens.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hybrid import spec
from hybrid.layers.precision import product_dtype
from hybrid.ops import Ops


class Routing(NamedTuple):
    """What one router did with one batch."""

    load_X: Tensor  # choices of each expert / tokens; sums to top_k
    probability_X: Tensor  # mean router probability of each expert; sums to one


def balance_loss(routings: tuple[Routing, ...]) -> Tensor:
    """Return the load-balancing loss, mean over routers; its least value is top_k.

    X * sum_x load_x * probability_x (Switch Transformer, arXiv 2101.03961, equations 4 to 6, summed
    over the top_k choices). Taken for each router apart: pooled over layers, a layer that always
    picks expert 1 could be excused by another that always picks expert 2. Without a router: 0.
    """
    if not routings:
        return torch.zeros(())
    each = [len(r.load_X) * (r.load_X.detach() * r.probability_X).sum() for r in routings]
    return torch.stack(each).mean()


# (rows sorted by their expert, how many each has) -> what that expert makes of each
Experts = Callable[[Tensor, Tensor], Tensor]


class MoE(nn.Module):
    """`top_k` of `n_experts` SwiGLU experts for each token; tokens are sorted by expert."""

    def __init__(self, config: spec.MoE, width: int, ops: Ops):
        super().__init__()
        self.config, self.ops = config, ops
        X, F, D = config.n_experts, config.hidden, width
        self.router_XD = nn.Parameter(torch.empty(X, D))
        self.gate_up_XFD = nn.Parameter(torch.empty(X, 2 * F, D))  # each gate above up
        self.down_XDF = nn.Parameter(torch.empty(X, D, F))

    def forward(self, x_BTD: Tensor) -> tuple[Tensor, tuple[Routing]]:
        return mixture(self.config, self.router_XD, x_BTD, self._experts)

    def _experts(self, x_nD: Tensor, count_X: Tensor) -> Tensor:
        grouped, dtype = self.ops.grouped, x_nD.dtype
        hidden = self.ops.silu_and_mul(grouped(x_nD, self.gate_up_XFD.to(dtype), count_X))
        return grouped(hidden, self.down_XDF.to(dtype), count_X)


def mixture(
    config: spec.MoE, router_XD: Tensor, x_BTD: Tensor, experts: Experts
) -> tuple[Tensor, tuple[Routing]]:
    """Return (the chosen experts' results, each weighted by the router (B, T, D), its Routing)."""
    x_nD = x_BTD.flatten(0, 1)
    probability_nX = _probabilities(router_XD, x_nD)
    weight_nK, choice_nK = probability_nX.topk(config.top_k, dim=-1)
    if config.renormalise:
        weight_nK = weight_nK / weight_nK.sum(dim=-1, keepdim=True)
    # Not bincount, which on a GPU waits for the counts.
    count_X = (choice_nK[..., None] == torch.arange(config.n_experts, device=x_nD.device)).sum(
        dim=(0, 1)
    )
    y_nKD = _sorted_by_expert(x_nD, choice_nK, count_X, experts)
    y_nD = (weight_nK[..., None] * y_nKD.float()).sum(dim=1)
    routing = Routing(count_X / len(x_nD), probability_nX.mean(dim=0))
    return y_nD.view(x_BTD.shape), (routing,)


def _probabilities(router_XD: Tensor, x_nD: Tensor) -> Tensor:
    # In fp32: two experts' logits that bf16 rounds together would swap at random.
    with torch.autocast(x_nD.device.type, enabled=False):
        return torch.softmax(x_nD.float() @ router_XD.T, dim=-1)


def _sorted_by_expert(x_nD: Tensor, choice_nK: Tensor, count_X: Tensor, experts: Experts) -> Tensor:
    """Return what every chosen expert makes of its token, (n, K, D)."""
    K = choice_nK.shape[1]
    order = choice_nK.flatten().argsort(stable=True)
    y = experts(x_nD.to(product_dtype(x_nD)).index_select(0, order // K), count_X)
    back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    return y.index_select(0, back).view(len(x_nD), K, -1)
