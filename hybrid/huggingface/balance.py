"""The load-balancing loss as transformers' Jamba computes it: pooled over layers."""

import torch
from torch import Tensor

from hybrid.layers.moe import Routing
from hybrid.spec import require


def pooled_balance_loss(routings: tuple[Routing, ...]) -> Tensor:
    """Return X * sum_x load_x * probability_x, both first averaged over all routers.

    It is `load_balancing_loss_func` of transformers' Jamba without an attention mask, the loss that
    the coefficient in a released configuration multiplies. `hybrid.layers.moe.balance_loss` takes
    routers apart instead and is what this workbench trains with; on one router they are equal.
    Raises ValueError without a router and for routers of unequal numbers of experts.
    """
    sizes = sorted({len(routing.load_X) for routing in routings})
    require(
        len(sizes) == 1,
        f"pooled_balance_loss: routers with {sizes} experts; "
        "there must be at least one router, all with the same number of experts",
    )
    load_X = torch.stack([routing.load_X for routing in routings]).mean(dim=0)
    probability_X = torch.stack([routing.probability_X for routing in routings]).mean(dim=0)
    return sizes[0] * (load_X.detach() * probability_X).sum()
