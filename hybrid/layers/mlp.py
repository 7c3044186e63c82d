"""The dense feed-forward: SwiGLU (arXiv 2002.05202)."""

from torch import Tensor, nn

from hybrid import spec
from hybrid.ops import Ops


class MLP(nn.Module):
    """One SwiGLU for every token; it has no router, so it returns no routing."""

    def __init__(self, config: spec.MLP, width: int, ops: Ops):
        super().__init__()
        self.silu_and_mul = ops.silu_and_mul
        self.gate_up = nn.Linear(width, 2 * config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, width, bias=False)

    def forward(self, x_BTD: Tensor) -> tuple[Tensor, tuple[()]]:
        return self.down(self.silu_and_mul(self.gate_up(x_BTD))), ()
