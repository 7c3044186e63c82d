"""RMSNorm (arXiv 1910.07467), always computed in fp32."""

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
        self.eps, self.norm = eps, ops.norm
        self.weight = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x, self.weight, self.eps, product_dtype(x))
