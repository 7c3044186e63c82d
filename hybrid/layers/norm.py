"""RMSNorm (arXiv 1910.07467), always computed in fp32."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hybrid.layers.precision import product_dtype
from hybrid.ops import Ops


class RMSNorm(nn.Module):
    """Scale the last dimension to unit mean square, times a learned weight.

    What comes out has the dtype of matrix products, since one of them reads it.
    """

    def __init__(self, width: int, eps: float, ops: Ops):
        super().__init__()
        self.eps, self.ops = eps, ops
        self.weight = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.ops.norm(x, self.weight, self.eps, product_dtype(x))


def norm_parts(x: Tensor, norms: Sequence[RMSNorm]) -> Tensor:
    """Return `x`, each part of its last dimension through the norm of that width, in one call."""
    weight, sizes = torch.cat([norm.weight for norm in norms]), [len(x.weight) for x in norms]
    return norms[0].ops.norms(x, weight, sizes, norms[0].eps, product_dtype(x))
