"""What each sub-layer adds to the residual stream, and a loss that keeps it small.

The activation loss of Jamba-1.5 (arXiv 2408.12570) is the mean square of activations times a
weight. The paper does not say which activations; here they are what every mixer and feed-forward
returns, mean over tokens and channels and then over sub-layers. An output of bfloat16 is widened
before it is squared and added to the stream, so that the two gradients meet in float32: in bfloat16
a small weight's would always be rounded away.

It is taken by hooks, so that a training without it runs nothing else than before. What torch has
compiled does not see hooks that come later: `sweeps/trial/attempt.py` refuses the two together.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hybrid.layers import FEED_FORWARDS, MIXERS
from hybrid.layers.moe import Routing
from hybrid.model import HybridLM

Routings = tuple[Routing, ...]
Loss = Callable[[Tensor, Tensor], tuple[Tensor, Routings]]  # as HybridLM.loss
WithSquare = Callable[[Tensor, Tensor], tuple[Tensor, Routings, Tensor]]

SUB_LAYERS = (*MIXERS.values(), *FEED_FORWARDS.values())


@contextmanager
def seen_outputs(model: HybridLM, see: Callable[[Tensor], None]) -> Iterator[None]:
    """Call `see` with what each sub-layer adds (B, T, D), in float32, meanwhile; first layer first.

    The model is the same: its stream is float32, and would widen what is added to it.
    """

    def hook(
        _module: nn.Module, _given: object, returned: tuple[Tensor, object]
    ) -> tuple[Tensor, object]:
        y_BTD = returned[0].float()
        see(y_BTD)
        return y_BTD, returned[1]

    sub_layers = [module for module in model.modules() if isinstance(module, SUB_LAYERS)]
    handles = [module.register_forward_hook(hook) for module in sub_layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def with_mean_square(loss: Loss, model: HybridLM) -> WithSquare:
    """Return `loss`, of `model`, with a third result: the mean square of outputs, with gradients.

    Of equal parts of a batch, the mean of theirs is the batch's.
    """

    def both(ids_BT: Tensor, target_BT: Tensor) -> tuple[Tensor, Routings, Tensor]:
        squares: list[Tensor] = []
        with seen_outputs(model, lambda y_BTD: squares.append(y_BTD.square().mean())):
            nats, routings = loss(ids_BT, target_BT)
        return nats, routings, torch.stack(squares).mean()

    return both


def without_square(loss: Loss) -> WithSquare:
    """Return `loss` with a third result of 0, for which nothing is computed."""

    def plain(ids_BT: Tensor, target_BT: Tensor) -> tuple[Tensor, Routings, Tensor]:
        nats, routings = loss(ids_BT, target_BT)
        return nats, routings, nats.new_zeros(())

    return plain
