"""Mamba-1 with Jamba's inner norms. Its state has the same size at every length.

Source: Mamba, arXiv 2312.00752; the norms on dt, B and C: Jamba, arXiv 2403.19887, section 6.4.
dt, the scan and the convolution run in fp32 whatever the precision of the matrix products.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid import spec
from hybrid.layers.norm import RMSNorm
from hybrid.ops import Ops


class MambaState(NamedTuple):
    """What one Mamba layer remembers, in fp32."""

    tail_BLE: Tensor  # the last d_conv - 1 inputs of the short convolution
    h_BEN: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        return self.tail_BLE, self.h_BEN


class ShortConv(nn.Module):
    """Causal depthwise convolution and SiLU; looks back `tail` tokens."""

    def __init__(self, width: int, E: int, ops: Ops):
        super().__init__()
        self.conv, self.tail = ops.conv, width - 1
        self.weight_EW = nn.Parameter(torch.empty(E, width))
        self.bias_E = nn.Parameter(torch.empty(E))

    def forward(self, u_BTE: Tensor, tail_BLE: Tensor) -> tuple[Tensor, Tensor]:
        return self.conv(u_BTE, self.weight_EW, self.bias_E, tail_BLE)


class NoConv(nn.Module):
    """SiLU alone, in place of the short convolution; looks back at nothing."""

    tail = 0

    def forward(self, u_BTE: Tensor, tail_BLE: Tensor) -> tuple[Tensor, Tensor]:
        return F.silu(u_BTE), tail_BLE


class Mamba(nn.Module):
    """A selective state-space mixer; the kernels are `ops.conv` and `ops.scan`."""

    def __init__(self, config: spec.Mamba, width: int, norm_eps: float, ops: Ops):
        super().__init__()
        E, N, R = config.expand * width, config.d_state, config.rank(width)
        self.config, self.scan = config, ops.scan
        self.sizes = [R, N, N]
        self.in_proj = nn.Linear(width, 2 * E, bias=False)
        self.short = NoConv() if config.d_conv is None else ShortConv(config.d_conv, E, ops)
        self.x_proj = nn.Linear(E, R + 2 * N, bias=False)
        self.dt_norm, self.b_norm, self.c_norm = (
            RMSNorm(size, norm_eps) if config.inner_norm else nn.Identity() for size in self.sizes
        )
        self.dt_proj = nn.Linear(R, E, bias=False)
        self.dt_bias_E = nn.Parameter(torch.empty(E))
        self.a_log_EN = nn.Parameter(torch.empty(E, N))
        self.d_E = nn.Parameter(torch.empty(E))
        self.out_proj = nn.Linear(E, width, bias=False)

    def forward(self, x_BTD: Tensor, state: MambaState | None) -> tuple[Tensor, MambaState]:
        u_BTE, gate_BTE = self.in_proj(x_BTD).chunk(2, dim=-1)
        state = self._start(x_BTD) if state is None else state
        u_BTE, tail_BLE = self.short(u_BTE.float(), state.tail_BLE)
        dt_BTR, b_BTN, c_BTN = self.x_proj(u_BTE).split(self.sizes, dim=-1)
        # The bias is added in fp32: it sets time scales over two orders of magnitude.
        dt_BTE = F.softplus(self.dt_proj(self.dt_norm(dt_BTR)).float() + self.dt_bias_E)
        a_EN = -torch.exp(self.a_log_EN)
        b_BTN, c_BTN = self.b_norm(b_BTN).float(), self.c_norm(c_BTN).float()
        y_BTE, h_BEN = self.scan(u_BTE, dt_BTE, a_EN, b_BTN, c_BTN, self.d_E, state.h_BEN)
        y_BTD = self.out_proj(y_BTE * F.silu(gate_BTE.float()))
        return y_BTD, MambaState(tail_BLE, h_BEN)

    def _start(self, x_BTD: Tensor) -> MambaState:
        B, (E, N) = x_BTD.shape[0], self.a_log_EN.shape
        device = x_BTD.device
        return MambaState(
            torch.zeros(B, self.short.tail, E, device=device),
            torch.zeros(B, E, N, device=device),
        )
