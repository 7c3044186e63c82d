"""This workbench as a contender, once for each back end and each way to compile it.

All that touches our model stands here.
"""

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
from sweeps.trial.engine import Compile

RECOMPILES = 64  # of one function: phases, precisions and lengths are each compiled anew


class Ours(Contender):
    """Our model on one back end, `compiled` as a sweep would."""

    def __init__(self, source: HybridLM, ops: str, compiled: Compile = Compile.OFF):
        device = source.embed.weight.device
        self.model = build(source.spec, ops=backends.find(ops, device), device=device)
        self.graphs = compiled is Compile.GRAPHS
        if compiled is not Compile.OFF:
            _fail_rather_than_run_eager()
            self.model.compile_passes(compiled.mode)
        self.module = self.model
        self.module.load_state_dict(source.state_dict())

    def logits(self, ids_BT: Tensor) -> Tensor:
        return self.model(ids_BT).logits_BTV

    def loss(self, ids_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        nats, routings = self.model.loss(ids_BT, targets_BT)
        return nats, balance_loss(routings).to(nats.device)

    def prefill(
        self, ids_BT: Tensor, *, chunk: int = generate.CHUNK, room: int = 0
    ) -> tuple[Tensor, Cache]:
        return generate.prefill(self.model, ids_BT, chunk=chunk, room=room)

    def ready(self, cache: Cache) -> Steps:
        return prepare(self.model, cache, graphs=self.graphs)

    def decode(self, ids_B: Tensor, cache: Steps) -> tuple[Tensor, Steps]:
        return cache.step(ids_B), cache

    def scan(self, *, batch: int, tokens: int) -> Callable[[], Tensor]:
        """Return a call of the back end's scan over random numbers, which returns y (B, T, E)."""
        inputs, scan = self._scan_inputs(batch, tokens, torch.float32), self.model.ops.scan
        return lambda: scan(*inputs, None)[0]

    def scan_step(
        self, *, batch: int, tokens: int, dtype: torch.dtype
    ) -> Callable[[], tuple[Tensor, ...]]:
        """Return a call of the scan as training has it: y, and the gradients of all its inputs.

        Activations are of that dtype. Gradients are those of the sum of y.
        """
        inputs, scan = self._scan_inputs(batch, tokens, dtype), self.model.ops.scan
        leaves = [x.requires_grad_() for x in inputs]

        def call() -> tuple[Tensor, ...]:
            y_BTE, _ = scan(*leaves, None)
            return (y_BTE.detach(), *torch.autograd.grad(y_BTE, leaves, torch.ones_like(y_BTE)))

        return call

    def _scan_inputs(self, batch: int, tokens: int, dtype: torch.dtype) -> list[Tensor]:
        """Return all that `scan` takes but a state, in the sizes of the first Mamba layer."""
        spec, device = self.model.spec, self.model.embed.weight.device
        E, N = scan_sizes(spec)
        draws = torch.Generator().manual_seed(0)

        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=draws).to(device)

        u_BTE, raw_BTE, gate_BTE = (random(batch, tokens, E).to(dtype) for _ in range(3))
        bias_E, a_EN, d_E = random(E) - 4, -torch.exp(random(E, N)), random(E)
        b_BTN, c_BTN = (random(batch, tokens, N).to(dtype) for _ in range(2))
        return [u_BTE, raw_BTE, bias_E, a_EN, b_BTN, c_BTN, d_E, gate_BTE]


def _fail_rather_than_run_eager() -> None:
    """Have torch's compiler raise where it would give up and run on uncompiled, in silence."""
    import torch._dynamo.config as dynamo  # takes seconds to import

    dynamo.recompile_limit, dynamo.fail_on_recompile_limit_hit = RECOMPILES, True


def scan_sizes(spec: ModelSpec) -> tuple[int, int]:
    """Return (E, N) of the first Mamba layer; LookupError where there is none."""
    for layer in spec.layers:
        if isinstance(layer.mixer, Mamba):
            return layer.mixer.expand * spec.width, layer.mixer.d_state
    raise LookupError("the spec has no Mamba layer, so there is no scan to time")
