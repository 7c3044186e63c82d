"""Mamba-2: heads with one decay each, in place of a decay for every channel and state.

Source: Mamba-2, arXiv 2405.21060, section 7 (figure 6, the parallel block), and mamba-ssm's
`mamba2.py`, whose order of the projections and of gate and norm this keeps. As in Mamba-1, the
convolution and the decays are computed in fp32 and the state is in fp32; what goes in and out, and
the products inside `ops.ssd`, have the precision of the matrix products.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid import spec
from hybrid.layers.mamba import MambaState, NoConv, ShortConv
from hybrid.layers.norm import RMSNorm
from hybrid.ops import Ops


class GatedNorm(nn.Module):
    """RMSNorm of each group of heads by itself."""

    def __init__(self, E: int, groups: int, norm_eps: float, ops: Ops):
        super().__init__()
        self.norms = nn.ModuleList(RMSNorm(E // groups, norm_eps, ops) for _ in range(groups))

    def forward(self, y_BTE: Tensor) -> Tensor:
        parts = y_BTE.chunk(len(self.norms), dim=-1)
        ys = [norm(part) for norm, part in zip(self.norms, parts, strict=True)]
        return ys[0] if len(ys) == 1 else torch.cat(ys, dim=-1)


class Mamba2(nn.Module):
    """A state-space mixer of heads; the kernels are `ops.conv` and `ops.ssd`."""

    def __init__(self, config: spec.Mamba2, width: int, norm_eps: float, ops: Ops):
        super().__init__()
        E, convolved, H = config.projected(width)
        self.config, self.ssd = config, ops.ssd
        self.sizes = [E, convolved, H]
        self.in_proj = nn.Linear(width, sum(self.sizes), bias=False)
        self.short = NoConv() if config.d_conv is None else ShortConv(config.d_conv, convolved, ops)
        self.dt_bias_H = nn.Parameter(torch.empty(H))
        self.a_log_H = nn.Parameter(torch.empty(H))
        self.d_H = nn.Parameter(torch.empty(H))
        self.norm = (
            GatedNorm(E, config.groups, norm_eps, ops) if config.gated_norm else nn.Identity()
        )
        self.out_proj = nn.Linear(E, width, bias=False)

    def start(self, room: int) -> None:
        """Return the state that starts a sequence; its memory does not grow."""
        return

    def misfit(self, state: Any) -> str:
        """Return why `state` is none of this layer's; nothing if it is one."""
        if not isinstance(state, MambaState):
            return f"a {type(state).__name__} is no state of Mamba-2"
        E, convolved, _ = self.sizes
        return state.misfit((self.short.look_back, convolved), (E, self.config.d_state))

    def forward(self, x_BTD: Tensor, state: MambaState | None) -> tuple[Tensor, MambaState]:
        (E, _, H), G, N = self.sizes, self.config.groups, self.config.d_state
        tail, h_BEN = (None, None) if state is None else state
        gate_BTE, joint, raw_BTH = self.in_proj(x_BTD).split(self.sizes, dim=-1)
        joint, tail = self.short(joint, tail)
        u_BTE, b_BTI, c_BTI = joint.split([E, G * N, G * N], dim=-1)
        y_BTHP, h_BHPN = self.ssd(
            u_BTE.unflatten(-1, (H, -1)),
            raw_BTH,
            self.dt_bias_H,
            -torch.exp(self.a_log_H),
            b_BTI.unflatten(-1, (G, N)),
            c_BTI.unflatten(-1, (G, N)),
            self.d_H,
            None if h_BEN is None else h_BEN.unflatten(1, (H, -1)),
        )
        y_BTE = self.norm(y_BTHP.flatten(2) * F.silu(gate_BTE))
        return self.out_proj(y_BTE), MambaState(tail, h_BHPN.flatten(1, 2))
