"""What a kernel may be given: raises where a tensor is not as wanted, naming it."""

from collections.abc import Mapping

import torch
from torch import Tensor

Activations = Mapping[str, tuple[Tensor, tuple[int, ...]]]
Parameters = Mapping[str, tuple[Tensor | None, tuple[int, ...]]]
FLOATS = (torch.float32, torch.bfloat16)


def sizes(op: str, name: str, tensor: Tensor) -> torch.Size:
    """Return the shape of a tensor, checked to have the letters of its name and no empty extent."""
    letters = name.partition("_")[2]
    if tensor.dim() != len(letters) or 0 in tensor.shape:
        raise ValueError(
            f"{op}: {name} has shape {tuple(tensor.shape)}; "
            f"it needs {len(letters)} extents, each at least 1"
        )
    return tensor.shape


def activations(op: str, inputs: Activations) -> None:
    """Raise unless all are float32, or all bfloat16, on the CPU and of the shapes beside them."""
    first = next(iter(inputs))
    dtype = inputs[first][0].dtype
    for name, (tensor, _) in inputs.items():
        if tensor.dtype not in FLOATS or tensor.dtype is not dtype or not tensor.is_cpu:
            raise TypeError(
                f"{op}: {name} is {tensor.dtype} on {tensor.device}; activations must be all "
                f"torch.float32 or all torch.bfloat16, on cpu ({first} is {dtype})"
            )
    _shapes(op, inputs)


def parameters(op: str, inputs: Parameters) -> None:
    """Raise unless those that are given are float32 on the CPU and of the shapes beside them."""
    given = {name: (x, wanted) for name, (x, wanted) in inputs.items() if x is not None}
    for name, (tensor, _) in given.items():
        if tensor.dtype is not torch.float32 or not tensor.is_cpu:
            raise TypeError(
                f"{op}: {name} is {tensor.dtype} on {tensor.device}; "
                "parameters and states must be torch.float32 on cpu"
            )
    _shapes(op, given)


def _shapes(op: str, inputs: Activations) -> None:
    for name, (tensor, wanted) in inputs.items():
        if tensor.shape != wanted:
            raise ValueError(
                f"{op}: {name} has shape {tuple(tensor.shape)}; "
                f"beside the others it must be {tuple(wanted)}"
            )
