"""This workbench as a contender, once for each back end. All that touches our model stands here."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid import generate
from hybrid.layers.moe import balance_loss
from hybrid.model import Cache, HybridLM, build
from hybrid.ops import Ops
from hybrid.spec import Mamba, ModelSpec
from sweeps.bench.contender import Contender


class Ours(Contender):
    """Our model on one back end."""

    def __init__(self, source: HybridLM, ops: Ops):
        self.model = build(source.spec, ops=ops, device=source.embed.weight.device)
        self.module = self.model
        self.module.load_state_dict(source.state_dict())

    def logits(self, ids_BT: Tensor) -> Tensor:
        return self.model(ids_BT).logits_BTV

    def loss(self, ids_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        output = self.model(ids_BT)
        nats = F.cross_entropy(output.logits_BTV.flatten(0, 1).float(), targets_BT.flatten())
        return nats, balance_loss(output.routings).to(nats.device)

    def prefill(self, ids_BT: Tensor) -> tuple[Tensor, Cache]:
        return generate.prefill(self.model, ids_BT)

    def decode(self, ids_B: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        return generate.decode(self.model, ids_B, cache)

    def scan(self, *, batch: int, tokens: int) -> Callable[[], Tensor]:
        """Return a call of the back end's scan over random numbers, which returns y (B, T, E).

        Sizes are those of the first Mamba layer.
        """
        spec, device = self.model.spec, self.model.embed.weight.device
        E, N = scan_sizes(spec)
        draws = torch.Generator().manual_seed(0)

        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=draws).to(device)

        u_BTE, dt_BTE = random(batch, tokens, E), F.softplus(random(batch, tokens, E) - 4)
        a_EN, d_E, h_BEN = -torch.exp(random(E, N)), random(E), random(batch, E, N)
        b_BTN, c_BTN = random(batch, tokens, N), random(batch, tokens, N)
        scan = self.model.ops.scan
        return lambda: scan(u_BTE, dt_BTE, a_EN, b_BTN, c_BTN, d_E, h_BEN)[0]


def scan_sizes(spec: ModelSpec) -> tuple[int, int]:
    """Return (E, N) of the first Mamba layer; LookupError where there is none."""
    for layer in spec.layers:
        if isinstance(layer.mixer, Mamba):
            return layer.mixer.expand * spec.width, layer.mixer.d_state
    raise LookupError("the spec has no Mamba layer, so there is no scan to time")
