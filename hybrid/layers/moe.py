"""The mixture of experts: a router, SwiGLU experts, and what is needed to balance them.

Router as in Jamba (released configuration, and transformers' Jamba): softmax over all experts, the
top K taken, weights not renormalised unless the spec asks. n stands for batch times new tokens.
"""

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
        x_nD = x_BTD.flatten(0, 1)
        probability_nX = self._probabilities(x_nD)
        weight_nK, choice_nK = probability_nX.topk(self.config.top_k, dim=-1)
        if self.config.renormalise:
            weight_nK = weight_nK / weight_nK.sum(dim=-1, keepdim=True)
        # Not bincount, which on a GPU waits for the counts.
        X = self.config.n_experts
        count_X = (choice_nK[..., None] == torch.arange(X, device=x_nD.device)).sum(dim=(0, 1))
        y_nKD = self._experts(x_nD, choice_nK, count_X)
        y_nD = (weight_nK[..., None] * y_nKD.float()).sum(dim=1)
        routing = Routing(count_X / len(x_nD), probability_nX.mean(dim=0))
        return y_nD.view(x_BTD.shape), (routing,)

    def _probabilities(self, x_nD: Tensor) -> Tensor:
        # In fp32: two experts' logits that bf16 rounds together would swap at random.
        with torch.autocast(x_nD.device.type, enabled=False):
            return torch.softmax(x_nD.float() @ self.router_XD.T, dim=-1)

    def _experts(self, x_nD: Tensor, choice_nK: Tensor, count_X: Tensor) -> Tensor:
        """Return what every chosen expert makes of its token, (n, K, D)."""
        K, grouped, dtype = self.config.top_k, self.ops.grouped, product_dtype(x_nD)
        order = choice_nK.flatten().argsort(stable=True)
        x = x_nD.to(dtype).index_select(0, order // K)
        hidden = self.ops.silu_and_mul(grouped(x, self.gate_up_XFD.to(dtype), count_X))
        y = grouped(hidden, self.down_XDF.to(dtype), count_X)
        back = torch.empty_like(order).scatter_(
            0, order, torch.arange(len(order), device=order.device)
        )
        return y.index_select(0, back).view(len(x_nD), K, -1)
