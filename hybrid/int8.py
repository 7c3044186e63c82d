"""A trained model whose experts are held in 8 bits, and what experts hold.

    smaller = with_int8_experts(model)      # answers; not for training
    expert_bytes(smaller) / expert_bytes(model)

The same bytes by arithmetic: `expert_bytes` and `expert_scale_bytes` in `hybrid/cost.py`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hybrid import layers
from hybrid.model import Feeding, HybridLM
from hybrid.spec import require


def with_int8_experts(model: HybridLM) -> HybridLM:
    """Return the model with the weights of its experts in 8 bits, its other weights shared.

    `model` stays as it is. What is returned runs uncompiled. Raises ValueError for a model without
    experts, and for one whose experts are in 8 bits already.
    """
    mixtures = [m for m in model.modules() if isinstance(m, layers.MoE)]
    require(bool(mixtures), "with_int8_experts: no layer of the model has experts in floats")
    with torch.device("meta"):
        twin = HybridLM(model.spec, model.ops)
    twin.load_state_dict(model.state_dict(), assign=True)
    if model.spec.tied:
        twin.head.weight = twin.embed.weight
    for feeding in [m for m in twin.modules() if isinstance(m, Feeding)]:
        if isinstance(feeding.feed_forward, layers.MoE):
            feeding.feed_forward = layers.Int8MoE(feeding.feed_forward)
    return twin.train(model.training)


def expert_bytes(model: HybridLM) -> int:
    """Return the bytes that the weights of all experts hold, their scales included."""
    held = [tensor for m in model.modules() if type(m) in HELD for tensor in HELD[type(m)](m)]
    return sum(tensor.untyped_storage().nbytes() for tensor in held)


HELD: dict[type, Callable[[Any], tuple[Tensor, ...]]] = {
    layers.MoE: lambda moe: (moe.gate_up_XFD, moe.down_XDF),
    layers.Int8MoE: lambda moe: tuple(moe.buffers()),
}
