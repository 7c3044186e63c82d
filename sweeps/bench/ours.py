"""This workbench as a contender, once for each back end. All that touches our model stands here."""

from collections.abc import Callable

import torch
from torch import Tensor

from hybrid import generate
from hybrid import ops as backends
from hybrid.layers.moe import balance_loss
from hybrid.model import Cache, HybridLM, build
from hybrid.spec import Mamba, ModelSpec
from hybrid.steps import Steps, prepare
from sweeps.bench.contender import Contender


class Ours(Contender):
    """Our model on one back end."""

    def __init__(self, source: HybridLM, ops: str):
        device = source.embed.weight.device
        self.model = build(source.spec, ops=backends.find(ops, device), device=device)
        self.module = self.model
        self.module.load_state_dict(source.state_dict())

    def logits(self, ids_BT: Tensor) -> Tensor:
        return self.model(ids_BT).logits_BTV

    def loss(self, ids_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        nats, routings = self.model.loss(ids_BT, targets_BT)
        return nats, balance_loss(routings).to(nats.device)

    def prefill(self, ids_BT: Tensor) -> tuple[Tensor, Cache]:
        return generate.prefill(self.model, ids_BT)

    def ready(self, cache: Cache) -> Steps:
        return prepare(self.model, cache)

    def decode(self, ids_B: Tensor, cache: Steps) -> tuple[Tensor, Steps]:
        return cache.step(ids_B), cache

    def scan(self, *, batch: int, tokens: int) -> Callable[[], Tensor]:
        """Return a call of the back end's scan over random numbers, which returns y (B, T, E).

        Sizes are those of the first Mamba layer.
        """
        spec, device = self.model.spec, self.model.embed.weight.device
        E, N = scan_sizes(spec)
        draws = torch.Generator().manual_seed(0)

        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=draws).to(device)

        u_BTE, raw_BTE, gate_BTE = (random(batch, tokens, E) for _ in range(3))
        bias_E, a_EN, d_E = random(E) - 4, -torch.exp(random(E, N)), random(E)
        b_BTN, c_BTN = random(batch, tokens, N), random(batch, tokens, N)
        scan = self.model.ops.scan
        return lambda: scan(u_BTE, raw_BTE, bias_E, a_EN, b_BTN, c_BTN, d_E, gate_BTE, None)[0]


def scan_sizes(spec: ModelSpec) -> tuple[int, int]:
    """Return (E, N) of the first Mamba layer; LookupError where there is none."""
    for layer in spec.layers:
        if isinstance(layer.mixer, Mamba):
            return layer.mixer.expand * spec.width, layer.mixer.d_state
    raise LookupError("the spec has no Mamba layer, so there is no scan to time")
