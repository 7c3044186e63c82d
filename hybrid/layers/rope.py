"""Rotary position embedding (arXiv 2104.09864), in the half-split form of Llama."""

import torch
from torch import Tensor

from hybrid import spec


def rotate(x_BTHP: Tensor, rope: spec.Rope, start: int) -> Tensor:
    """Return `x_BTHP` with pair (i, i + P/2) of token t turned by (start + t) theta^(-2i/P).

    Computed in fp32 and returned in the dtype given.
    """
    T, P = x_BTHP.shape[1], x_BTHP.shape[3]
    power_F = torch.arange(0, P, 2, device=x_BTHP.device, dtype=torch.float32) / P
    t_T = torch.arange(start, start + T, device=x_BTHP.device, dtype=torch.float32)
    angle_T1F = torch.outer(t_T, rope.theta**-power_F)[:, None, :]
    cos, sin = angle_T1F.cos(), angle_T1F.sin()
    first, second = x_BTHP.float().chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return turned.to(x_BTHP.dtype)
