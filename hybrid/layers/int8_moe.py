"""The mixture of experts for answering: weights of experts in 8 bits, all else as it was trained.

A matrix is whole numbers times one float32 scale for each of its rows, an output channel: symmetric
around 0, the largest of a row at 127. The whole numbers go into the product as they are (bfloat16
holds each of them exactly), and the result is scaled. Source of the idea: ExpertsInt8, Jamba-1.5
(arXiv 2408.12570), which does so inside a fused kernel; here that holds for decoding on a CPU
(`hybrid/steps.py`), and elsewhere weights are turned into floats for one product and dropped.
"""

import torch
from torch import Tensor, nn

from hybrid.layers.moe import MoE, Routing, mixture
from hybrid.ops import Ops

LARGEST = 127


def quantised(weight_XFD: Tensor) -> tuple[Tensor, Tensor]:
    """Return (whole numbers in int8 (X, F, D), scales in float32 (X, F)); rows are output channels.

    No weight moves by more than half of its row's scale.
    """
    scale_XF = weight_XFD.detach().float().abs().amax(dim=-1) / LARGEST
    scale_XF = scale_XF.where(scale_XF > 0, 1.0)  # a row of zeros stays one
    whole_XFD = (weight_XFD.detach().float() / scale_XF[..., None]).round()
    return whole_XFD.to(torch.int8), scale_XF


class Int8Matrices(nn.Module):
    """A matrix for each expert, in 8 bits."""

    whole_XFD: Tensor
    scale_XF: Tensor

    def __init__(self, weight_XFD: Tensor, ops: Ops):
        super().__init__()
        self.grouped = ops.grouped
        whole_XFD, scale_XF = quantised(weight_XFD)
        self.register_buffer("whole_XFD", whole_XFD)
        self.register_buffer("scale_XF", scale_XF)

    def forward(self, x_nD: Tensor, count_X: Tensor) -> Tensor:
        """Return each row times the matrix of its expert, as `ops.grouped` does."""
        n, X = len(x_nD), len(count_X)
        expert_n = torch.repeat_interleave(count_X, output_size=n)
        if n <= X:  # only what was chosen is read, and a GPU does not wait for the counts
            y_nF = (self.whole_XFD[expert_n].to(x_nD.dtype) @ x_nD[:, :, None])[:, :, 0]
        else:
            y_nF = self.grouped(x_nD, self.whole_XFD.to(x_nD.dtype), count_X)
        return (y_nF * self.scale_XF[expert_n]).to(x_nD.dtype)


class Int8MoE(nn.Module):
    """What a trained `MoE` does, to the precision of its experts; it shares that one's router."""

    def __init__(self, moe: MoE):
        super().__init__()
        self.config, self.ops, self.router_XD = moe.config, moe.ops, moe.router_XD
        self.gate_up = Int8Matrices(moe.gate_up_XFD, moe.ops)
        self.down = Int8Matrices(moe.down_XDF, moe.ops)

    def forward(self, x_BTD: Tensor) -> tuple[Tensor, tuple[Routing]]:
        return mixture(self.config, self.router_XD, x_BTD, self._experts)

    def _experts(self, x_nD: Tensor, count_X: Tensor) -> Tensor:
        return self.down(self.ops.silu_and_mul(self.gate_up(x_nD, count_X)), count_X)
