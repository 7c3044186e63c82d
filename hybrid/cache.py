"""Checks the token ids and the cache that a model is given, before a layer or a kernel sees them.

A cache is a list of one state for each layer. Letters are those of `hybrid/__init__.py`.
"""

from typing import Any

import torch
from torch import Tensor

from hybrid.layers.keys_values import KeysValues
from hybrid.layers.mamba import MambaState
from hybrid.ops.given import INDICES

Cache = list[KeysValues | MambaState | None]  # one state per layer


def rows_of(model: Any, cache: Cache) -> int | None:
    """Return how many sequences a cache holds, or None for a cache that starts and holds none yet.

    Raises ValueError unless there is one state for each layer of the model, of the layer's kind and
    sizes, all of equally many sequences.
    """
    if len(cache) != len(model.blocks):
        raise ValueError(
            f"cache has {len(cache)} states; the model's {len(model.blocks)} layers need one each"
        )
    rows = None
    for i, (block, state) in enumerate(zip(model.blocks, cache, strict=True)):
        if state is None:
            continue
        if wrong := block.mixing.mixer.misfit(state):
            raise ValueError(f"cache[{i}]: {wrong}")
        for tensor in state.tensors():
            rows = len(tensor) if rows is None else rows
            if len(tensor) != rows:
                raise ValueError(f"cache[{i}] holds {len(tensor)} sequences; others hold {rows}")
    return rows


def require_ids(
    name: str, ids: Tensor, extents: int, rows: int | None, device: torch.device | None
) -> None:
    """Require token ids of so many extents, for so many sequences, None for any number.

    Raises TypeError unless `ids` is a tensor of int64 or int32 on `device` (None is any), and
    ValueError for another shape. Torch's embedding does not compare devices: beside weights on a
    CPU it takes ids on the meta device and returns whatever the memory held.
    """
    if not isinstance(ids, Tensor) or ids.dtype not in INDICES:
        kind = ids.dtype if isinstance(ids, Tensor) else type(ids).__name__
        raise TypeError(f"{name} is {kind}; token ids are a tensor of torch.int64 or torch.int32")
    if device is not None and ids.device != device:
        raise TypeError(f"{name} is on {ids.device}; the model's weights are on {device}")
    shape = ids.shape
    if len(shape) != extents or 0 in shape:
        raise ValueError(
            f"{name} has shape {tuple(shape)}; it needs {extents} extents, each at least 1"
        )
    if rows is not None and shape[0] != rows:
        raise ValueError(f"{name} has {shape[0]} rows; the cache holds {rows} sequences")


def require_in_vocabulary(name: str, ids: Tensor, vocab: int) -> None:
    """Raise IndexError for an id outside 0..vocab-1.

    On a GPU, where reading the ids would wait for it, torch raises a RuntimeError later.
    """
    if not ids.is_cpu:
        torch._assert_async(((ids >= 0) & (ids < vocab)).all())
        return
    low, high = (x.item() for x in ids.aminmax())
    if low < 0 or high >= vocab:
        raise IndexError(
            f"{name} holds {low if low < 0 else high}; token ids lie in 0..{vocab - 1}"
        )


def writable(cache: Cache) -> Cache:
    """Return a cache that may be used where gradients are recorded or memory is written.

    A tensor of torch's inference mode can do neither outside it, and is copied there.
    """
    if torch.is_inference_mode_enabled():
        return cache
    return [None if state is None else state.writable() for state in cache]
