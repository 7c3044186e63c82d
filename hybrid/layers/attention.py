"""Grouped-query attention. Its state is the keys and values it may still look at."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hybrid import spec
from hybrid.layers.rope import rotate
from hybrid.ops import Ops


class KeysValues(NamedTuple):
    """What one attention layer remembers; with a window, only the tokens inside it."""

    k_BSKP: Tensor
    v_BSKP: Tensor
    seen: int  # tokens since the start of the sequence, also those no longer kept

    def tensors(self) -> tuple[Tensor, ...]:
        return self.k_BSKP, self.v_BSKP


class Attention(nn.Module):
    """Causal attention as its spec describes it; the kernel is `ops.attend`."""

    def __init__(self, config: spec.Attention, width: int, norm_eps: float, ops: Ops):
        super().__init__()
        self.config, self.attend = config, ops.attend
        self.head_width = width // config.heads
        kv_width = config.kv_heads * self.head_width
        self.qkv = nn.Linear(width, width + 2 * kv_width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x_BTD: Tensor, state: KeysValues | None) -> tuple[Tensor, KeysValues]:
        B, T, D = x_BTD.shape
        H, K, P = self.config.heads, self.config.kv_heads, self.head_width
        q, k, v = self.qkv(x_BTD).split([H * P, K * P, K * P], dim=-1)
        q, k, v = q.view(B, T, H, P), k.view(B, T, K, P), v.view(B, T, K, P)
        seen = 0 if state is None else state.seen
        if self.config.positions is not None:
            q = rotate(q, self.config.positions, seen)
            k = rotate(k, self.config.positions, seen)
        if state is not None:
            k = torch.cat([state.k_BSKP, k], dim=1)
            v = torch.cat([state.v_BSKP, v], dim=1)
        y_BTHP = self.attend(q, k, v, self.config.window)
        y_BTD = self.out(y_BTHP.reshape(B, T, D))
        # A query never looks further left than the window, its own token included.
        left = slice(None) if self.config.window is None else slice(-self.config.window, None)
        return y_BTD, KeysValues(_own(k[:, left]), _own(v[:, left]), seen + T)


def _own(x_BSKP: Tensor) -> Tensor:
    """Return `x_BSKP` in memory that holds nothing else, so that a cache keeps only what it counts.

    While gradients are recorded the graph keeps the whole anyway, and a copy would only cost time.
    """
    whole = x_BSKP.untyped_storage().nbytes() == x_BSKP.nbytes
    return x_BSKP if whole or torch.is_grad_enabled() else x_BSKP.clone()
