"""The dense feed-forward: SwiGLU (arXiv 2002.05202)."""

import torch.nn.functional as F
from torch import Tensor, nn

from hybrid import spec


def swiglu(x: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """Return down(silu(gate(x)) * up(x)); `gate_up` (2F, D) is gate above up, `down` is (D, F)."""
    gate, up = F.linear(x, gate_up).chunk(2, dim=-1)
    return F.linear(F.silu(gate) * up, down)


class MLP(nn.Module):
    """One SwiGLU for every token; it has no router, so it returns no routing."""

    def __init__(self, config: spec.MLP, width: int):
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, width, bias=False)

    def forward(self, x_BTD: Tensor) -> tuple[Tensor, tuple[()]]:
        return swiglu(x_BTD, self.gate_up.weight, self.down.weight), ()
