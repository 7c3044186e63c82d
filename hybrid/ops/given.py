"""What an op is given: shapes, dtypes and devices, checked before a kernel sees them."""

import torch
from torch import Tensor

ACTIVATIONS = (torch.float32, torch.bfloat16)

Shaped = dict[str, tuple[Tensor | None, tuple[int, ...]]]  # None: not there, which is right


def sizes(op: str, name: str, tensor: Tensor) -> torch.Size:
    """Return the shape of a tensor; ValueError unless it has its name's letters, none empty."""
    letters = name.partition("_")[2]
    if tensor.dim() != len(letters) or 0 in tensor.shape:
        raise ValueError(
            f"{op}: {name} has shape {tuple(tensor.shape)}; "
            f"it needs {len(letters)} extents, each at least 1"
        )
    return tensor.shape


def check(op: str, activations: Shaped, others: Shaped) -> bool:
    """Return whether a gradient may be asked for.

    Raises TypeError unless `activations` are float32 or bfloat16, all like the first, and `others`
    float32, on one device; ValueError unless each has the shape beside it.
    """
    first, (x, _) = next(iter(activations.items()))
    assert x is not None
    if x.dtype not in ACTIVATIONS:
        raise TypeError(
            f"{op}: {first} is {x.dtype} on {x.device}; "
            "this kernel takes torch.float32 and torch.bfloat16"
        )
    asked = False
    for name, (tensor, wanted) in (activations | others).items():
        if tensor is None:
            continue
        dtype = x.dtype if name in activations else torch.float32
        if tensor.dtype is not dtype or tensor.device != x.device:
            raise TypeError(
                f"{op}: {name} is {tensor.dtype} on {tensor.device}; "
                f"beside {first} it must be {dtype} on {x.device}"
            )
        if tensor.shape != wanted:
            raise ValueError(
                f"{op}: {name} has shape {tuple(tensor.shape)}; "
                f"beside {first} it must be {tuple(wanted)}"
            )
        asked = asked or tensor.requires_grad
    return asked and torch.is_grad_enabled()
