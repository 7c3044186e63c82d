"""Mamba-1 with Jamba's inner norms. Its state has the same size at every length.

Source: Mamba, arXiv 2312.00752; the norms on dt, B and C: Jamba, arXiv 2403.19887, section 6.4.
Convolution and scan, softplus of dt and gate included, are computed in fp32; what goes in and out
has the precision of the matrix products, the state is in fp32.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid import spec
from hybrid.layers.norm import RMSNorm, norm_parts
from hybrid.ops import Ops
from hybrid.ops.given import at_least


class MambaState(NamedTuple):
    """What one layer of Mamba or Mamba-2 remembers, in fp32."""

    tail_BLE: Tensor  # the last d_conv - 1 inputs of the short convolution, E wide
    h_BEN: Tensor  # of Mamba-2, E = H P: its heads side by side

    def tensors(self) -> tuple[Tensor, ...]:
        return self.tail_BLE, self.h_BEN

    def branch(self, ways: int) -> "MambaState":
        """Return the state of `ways` sequences that all go on from each of these.

        Raises ValueError for fewer than one.
        """
        at_least("branch", "ways", ways, 1)
        return MambaState(*(x.repeat_interleave(ways, dim=0) for x in self))

    def writable(self) -> "MambaState":
        """Return this state in tensors that may be used outside torch's inference mode."""
        return MambaState(*(x.clone() if x.is_inference() else x for x in self))

    def misfit(self, tail_LE: tuple[int, int], h_EN: tuple[int, int]) -> str:
        """Return why this is no state of these sizes; nothing if it is one."""
        for name, x, shape in (("tail_BLE", self[0], tail_LE), ("h_BEN", self[1], h_EN)):
            if x.dim() != 3 or x.shape[1:] != shape:
                return f"{name} has shape {tuple(x.shape)}; it must be (B, {shape[0]}, {shape[1]})"
            if x.dtype is not torch.float32 and x.dtype is not torch.float64:
                return f"{name} is {x.dtype}; it must be torch.float32"
        return ""


class ShortConv(nn.Module):
    """Causal depthwise convolution and SiLU; a tail of None starts a sequence."""

    def __init__(self, width: int, E: int, ops: Ops):
        super().__init__()
        self.conv, self.look_back = ops.conv, width - 1
        self.weight_EW = nn.Parameter(torch.empty(E, width))
        self.bias_E = nn.Parameter(torch.empty(E))

    def forward(self, u_BTE: Tensor, tail_BLE: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.conv(u_BTE, self.weight_EW, self.bias_E, tail_BLE)


class NoConv(nn.Module):
    """SiLU alone, in place of the short convolution; looks back at nothing."""

    look_back = 0

    def forward(self, u_BTE: Tensor, tail_BLE: Tensor | None) -> tuple[Tensor, Tensor]:
        B, _, E = u_BTE.shape
        return F.silu(u_BTE), u_BTE.new_empty(B, 0, E, dtype=torch.float32)


class FromFew(nn.Linear):
    """A linear map, without bias, from few features to many.

    The gradient of its weight is then a product of (few, tokens) by (tokens, many), which on a CPU
    takes a fraction of the time of nn.Linear's (many, tokens) by (tokens, few).
    """

    def __init__(self, few: int, many: int):
        super().__init__(few, many, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.t().contiguous()


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
            RMSNorm(size, norm_eps, ops) if config.inner_norm else nn.Identity()
            for size in self.sizes
        )
        inner = (self.dt_norm, self.b_norm, self.c_norm)
        self.inner_norms = [norm for norm in inner if isinstance(norm, RMSNorm)]
        self.dt_proj = FromFew(R, E)
        self.dt_bias_E = nn.Parameter(torch.empty(E))
        self.a_log_EN = nn.Parameter(torch.empty(E, N))
        self.d_E = nn.Parameter(torch.empty(E))
        self.out_proj = nn.Linear(E, width, bias=False)

    def start(self, room: int) -> None:
        """Return the state that starts a sequence; its memory does not grow."""
        return

    def misfit(self, state: Any) -> str:
        """Return why `state` is none of this layer's; nothing if it is one."""
        if not isinstance(state, MambaState):
            return f"a {type(state).__name__} is no state of Mamba"
        E, N = self.a_log_EN.shape
        return state.misfit((self.short.look_back, E), (E, N))

    def forward(self, x_BTD: Tensor, state: MambaState | None) -> tuple[Tensor, MambaState]:
        tail_BLE, h_BEN = (None, None) if state is None else state
        u_BTE, gate_BTE = self.in_proj(x_BTD).chunk(2, dim=-1)
        u_BTE, tail_BLE = self.short(u_BTE, tail_BLE)
        dbc = self.x_proj(u_BTE)
        if self.inner_norms:
            dbc = norm_parts(dbc, self.inner_norms)
        dt_BTR, b_BTN, c_BTN = dbc.split(self.sizes, dim=-1)
        # The bias of dt is added in the scan, in fp32: it sets time scales over two orders of
        # magnitude.
        raw_BTE = self.dt_proj(dt_BTR)
        a_EN = -torch.exp(self.a_log_EN)
        y_BTE, h_BEN = self.scan(
            u_BTE, raw_BTE, self.dt_bias_E, a_EN, b_BTN, c_BTN, self.d_E, gate_BTE, h_BEN
        )
        return self.out_proj(y_BTE), MambaState(tail_BLE, h_BEN)
