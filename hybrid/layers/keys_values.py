"""The keys and values of one attention layer: memory that grows in place, page by page.

A state is a value: whoever keeps an old one may go on from it again. Memory is shared between a
state and the one that follows it, and written only behind the last token that any state holds.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hybrid.ops.given import FLOATS, at_least

PAGE = 256  # tokens that memory grows by when it is full


@dataclass(slots=True)
class Memory:
    """Keys, or values, with room for C tokens; the first `filled` belong to some state."""

    x_BCKP: Tensor
    filled: int


class KeysValues(NamedTuple):
    """What one attention layer remembers; with a window, only the tokens inside it."""

    k: Memory | None  # none before the first token
    v: Memory | None
    kept: int  # tokens of this state, the first in its memory
    seen: int  # tokens since the start of the sequence, also those no longer kept
    room: int  # tokens to make memory for at the first

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the memory held, whole."""
        return () if self.k is None or self.v is None else (self.k.x_BCKP, self.v.x_BCKP)

    def branch(self, ways: int) -> "KeysValues":
        """Return the state of `ways` sequences that all go on from each of these.

        Raises ValueError for fewer than one.
        """
        at_least("branch", "ways", ways, 1)
        k, v = (None if m is None else _branched(m, self.kept, ways) for m in (self.k, self.v))
        return self._replace(k=k, v=v)

    def writable(self) -> "KeysValues":
        """Return this state in memory that may be written outside torch's inference mode."""
        if not any(x.is_inference() for x in self.tensors()):
            return self
        k, v = (None if m is None else _branched(m, self.kept, 1) for m in (self.k, self.v))
        return self._replace(k=k, v=v)

    def misfit(self, heads: int, width: int) -> str:
        """Return why this is no state of so many heads, so wide; nothing if it is one."""
        if (self.k is None) != (self.v is None):
            return "it has keys without values, or values without keys"
        if self.k is None or self.v is None:
            return "" if self.kept == 0 else f"kept is {self.kept}, without keys"
        k, v = self.k.x_BCKP, self.v.x_BCKP
        if k.shape != v.shape or k.dim() != 4 or k.shape[2:] != (heads, width):
            return (
                f"keys have shape {tuple(k.shape)} and values {tuple(v.shape)}; "
                f"both must be (B, C, {heads}, {width})"
            )
        if k.dtype is not v.dtype or k.dtype not in FLOATS:
            return f"keys are {k.dtype} and values {v.dtype}; both must be one of {FLOATS}"
        if not 0 <= self.kept <= k.shape[1]:
            return f"kept is {self.kept}; its memory has room for {k.shape[1]} tokens"
        return ""


def _branched(memory: Memory, kept: int, ways: int) -> Memory:
    return Memory(memory.x_BCKP[:, :kept].repeat_interleave(ways, dim=0), kept)


def extend(
    state: KeysValues, k_BTKP: Tensor, v_BTKP: Tensor, window: int | None
) -> tuple[Tensor, Tensor, KeysValues]:
    """Return (all keys that the new queries may see, their values, the state that holds them)."""
    T = k_BTKP.shape[1]
    join = _appended if window is None and not torch.is_grad_enabled() else _joined
    (k_BSKP, k), (v_BSKP, v) = (
        join(memory, state, x_BTKP, window)
        for memory, x_BTKP in ((state.k, k_BTKP), (state.v, v_BTKP))
    )
    kept = min(k_BSKP.shape[1], window or k_BSKP.shape[1])
    return k_BSKP, v_BSKP, KeysValues(k, v, kept, state.seen + T, state.room)


def _appended(
    memory: Memory | None, state: KeysValues, x_BTKP: Tensor, _: int | None
) -> tuple[Tensor, Memory]:
    """Write behind the kept tokens; into new memory where there is no room, or another state's."""
    B, T, K, P = x_BTKP.shape
    S = state.kept + T
    if memory is None:
        memory = Memory(x_BTKP.new_empty(B, max(T, state.room), K, P), 0)
    elif memory.filled != state.kept or memory.x_BCKP.shape[1] < S:
        larger = Memory(x_BTKP.new_empty(B, S - S % -PAGE, K, P), state.kept)
        larger.x_BCKP[:, : state.kept] = memory.x_BCKP[:, : state.kept]
        memory = larger
    memory.x_BCKP[:, state.kept : S] = x_BTKP
    memory.filled = S
    return memory.x_BCKP[:, :S], memory


def _joined(
    memory: Memory | None, state: KeysValues, x_BTKP: Tensor, window: int | None
) -> tuple[Tensor, Memory]:
    """Join old and new in new memory: for gradients, and where a window bounds what is kept."""
    x_BSKP = x_BTKP
    if memory is not None:
        x_BSKP = torch.cat([memory.x_BCKP[:, : state.kept], x_BTKP], dim=1)
    # A query never looks further left than the window, its own token included.
    kept = x_BSKP if window is None else x_BSKP[:, -window:]
    return x_BSKP, Memory(_own(kept), kept.shape[1])


def _own(x_BSKP: Tensor) -> Tensor:
    """Return `x_BSKP` in memory that holds nothing else, so that a cache keeps only what it counts.

    While gradients are recorded the graph keeps the whole anyway, and a copy would only cost time.
    """
    if torch.is_grad_enabled():  # asked first: torch's compiler cannot trace what follows
        return x_BSKP
    whole = x_BSKP.untyped_storage().nbytes() == x_BSKP.numel() * x_BSKP.element_size()
    return x_BSKP if whole else x_BSKP.clone()
