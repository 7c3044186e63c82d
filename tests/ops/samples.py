"""Inputs of operations, and their results held against the reference's in double precision."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Op = Callable[..., tuple[Tensor, Tensor]]
Tensors = list[Any]  # of tensors, and None for a state that starts


def draws() -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator)


def scan_inputs(
    draw: Callable[..., Tensor], B: int, T: int, E: int, N: int, started: bool
) -> Tensors:
    """Return what a scan takes, of the sizes Mamba's initialisation gives it, roughly."""
    raw_BTE, bias_E = draw(B, T, E), draw(E) - 2
    a_EN = -draw(E, N).abs() * 4
    wide = [draw(B, T, E), raw_BTE, bias_E, a_EN, draw(B, T, N), draw(B, T, N), draw(E)]
    return [*wide, draw(B, T, E), draw(B, E, N) if started else None]


def conv_inputs(
    draw: Callable[..., Tensor], B: int, T: int, E: int, W: int, started: bool = True
) -> Tensors:
    return [draw(B, T, E), draw(E, W), draw(E), draw(B, W - 1, E) if started else None]


def results(op: Op, inputs: Tensors, pulls: Tensors) -> Tensors:
    """Return both outputs, then the gradient of every input when each output is pulled so."""
    leaves = [x if x is None else x.detach().requires_grad_() for x in inputs]
    outputs = op(*leaves)
    gradients = torch.autograd.grad(outputs, [x for x in leaves if x is not None], pulls)
    return [x.detach() for x in (*outputs, *gradients)]


def assert_near(
    found: Tensors, wanted: Tensors, tolerance: float = 3e-6, floor: float = 1e-30
) -> None:
    """Compare against the largest element of each tensor, or `floor`: sums cancel in the others."""
    for place, (one, other) in enumerate(zip(found, wanted, strict=True)):
        assert one.shape == other.shape
        if one.numel():
            error = (one.double() - other).abs().max() / other.abs().max().clamp_min(floor)
            assert error <= tolerance, f"result {place}: relative error {error:.1e}"


def truth(reference: Op, inputs: Tensors, pulls: Tensors) -> Tensors:
    doubles = [x if x is None else x.double() for x in inputs]
    return results(reference, doubles, [x.double() for x in pulls])


def strided(x: Tensor) -> Tensor:
    """Return an equal tensor whose elements do not lie next to each other."""
    return torch.stack([x, x], dim=-1)[..., 0].transpose(0, -1).contiguous().transpose(0, -1)


FLOATS = [torch.float32, torch.bfloat16]


def tolerance(*dtypes: torch.dtype) -> float:
    return 1e-2 if torch.bfloat16 in dtypes else 3e-6
