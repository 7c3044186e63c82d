"""Grouped-query attention. Its state is the keys and values it may still look at."""

from typing import Any

from torch import Tensor, nn

from hybrid import spec
from hybrid.layers.keys_values import KeysValues, extend
from hybrid.layers.rope import rotate
from hybrid.ops import Ops


class Attention(nn.Module):
    """Causal attention as its spec describes it; the kernel is `ops.attend`."""

    def __init__(self, config: spec.Attention, width: int, norm_eps: float, ops: Ops):
        super().__init__()
        self.config, self.attend = config, ops.attend
        self.head_width = width // config.heads
        kv_width = config.kv_heads * self.head_width
        self.qkv = nn.Linear(width, width + 2 * kv_width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def start(self, room: int) -> KeysValues:
        """Return the state that starts a sequence, with memory for `room` tokens to come."""
        return KeysValues(None, None, 0, 0, room)

    def misfit(self, state: Any) -> str:
        """Return why `state` is none of this layer's; nothing if it is one."""
        if not isinstance(state, KeysValues):
            return f"a {type(state).__name__} is no state of attention"
        return state.misfit(self.config.kv_heads, self.head_width)

    def forward(self, x_BTD: Tensor, state: KeysValues | None) -> tuple[Tensor, KeysValues]:
        B, T, D = x_BTD.shape
        H, K, P = self.config.heads, self.config.kv_heads, self.head_width
        q, k, v = self.qkv(x_BTD).split([H * P, K * P, K * P], dim=-1)
        q, k, v = q.view(B, T, H, P), k.view(B, T, K, P), v.view(B, T, K, P)
        state = self.start(0) if state is None else state
        if self.config.positions is not None:
            q = rotate(q, self.config.positions, state.seen)
            k = rotate(k, self.config.positions, state.seen)
        k_BSKP, v_BSKP, state = extend(state, k, v, self.config.window)
        y_BTHP = self.attend(q, k_BSKP, v_BSKP, self.config.window)
        return self.out(y_BTHP.reshape(B, T, D)), state
