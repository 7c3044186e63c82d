"""Triton's scan and convolution held against the reference in float64: cases, and what to compare.

`tests/test_ops_triton.py` runs them on a GPU, and in Triton's interpreter as a child process (this
file as a program). Whether kernels are interpreted is settled when they are defined: so not in a
process that may have defined them already. Letters are those of `hybrid/__init__.py`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hybrid.ops import reference, triton, triton_scan

SCAN_NAMES = ("u", "raw", "bias", "a", "b", "c", "d", "gate", "h")
CONV_NAMES = ("x", "weight", "bias", "tail")
FULL = 10**6  # room for more programs than there are: time is cut into its chunks


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One comparison: sizes, what is given, and which outputs have a gradient."""

    shape: tuple[int, int, int, int]
    state: bool = True
    room: int = 1
    raw: tuple[float, float] = (-6.0, 2.0)
    y: bool = True
    last: bool = True


@dataclass(frozen=True, kw_only=True)
class Conv:
    shape: tuple[int, int, int, int]
    tail: bool = True
    y: bool = True
    last: bool = True


# By name, for the interpreter: lengths beside chunks, channels beside blocks, as small as can be.
SMALL: dict[str, Scan | Conv] = {
    "one of each": Scan(shape=(1, 1, 1, 1)),
    "ragged": Scan(shape=(2, 11, 9, 3)),
    "ragged at rest": Scan(shape=(1, 11, 5, 3), state=False),
    "whole chunks": Scan(shape=(1, 16, 8, 1)),
    "many numbers": Scan(shape=(1, 3, 5, 16)),
    "in segments": Scan(shape=(1, 19, 9, 2), room=FULL),
    "in segments at rest": Scan(shape=(1, 19, 3, 1), room=FULL, state=False),
    "in two segments": Scan(shape=(1, 19, 3, 2), room=4),
    "hardly a step": Scan(shape=(1, 9, 3, 2), raw=(-30.0, -10.0)),
    "forgets all": Scan(shape=(1, 9, 3, 2), raw=(10.0, 1e4)),
    "both": Scan(shape=(1, 10, 3, 2), raw=(-1e4, 1e4), room=FULL),
    "y alone": Scan(shape=(1, 9, 3, 2), last=False, room=FULL),
    "last alone": Scan(shape=(1, 9, 3, 2), y=False, room=FULL),
    "conv": Conv(shape=(2, 11, 9, 4)),
    "conv at rest": Conv(shape=(2, 11, 9, 4), tail=False),
    "conv shorter than its tail": Conv(shape=(2, 2, 3, 4)),
    "conv of one token": Conv(shape=(2, 1, 3, 2), tail=False),
    "conv of width 1": Conv(shape=(1, 5, 3, 1)),
    "conv, y alone": Conv(shape=(1, 9, 3, 3), last=False),
    "conv, tail alone": Conv(shape=(1, 9, 3, 3), y=False),
}
# For a GPU, with its larger tiles.
LARGE: dict[str, Scan | Conv] = {
    "one of each": Scan(shape=(1, 1, 1, 1)),
    "ragged": Scan(shape=(2, 77, 200, 16)),
    "ragged, in segments": Scan(shape=(2, 333, 200, 16), room=FULL),
    "as it comes": Scan(shape=(2, 333, 72, 5), room=0, state=False),
    "both": Scan(shape=(2, 100, 130, 16), raw=(-1e4, 1e4), room=FULL),
    "y alone": Scan(shape=(1, 100, 130, 3), last=False),
    "last alone": Scan(shape=(1, 100, 130, 3), y=False),
    "conv": Conv(shape=(2, 333, 200, 4)),
    "conv at rest": Conv(shape=(2, 333, 200, 4), tail=False),
    "conv shorter than its tail": Conv(shape=(2, 2, 3, 4)),
}


def drawer() -> Callable[..., Tensor]:
    draws = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(shape, generator=draws)


def draw_scan(case: Scan) -> list[Tensor | None]:
    """Return the inputs in float32; u and gate, and b and c, are halves of one tensor."""
    (B, T, E, N), normal = case.shape, drawer()
    u_BTE, gate_BTE = normal(B, T, 2 * E).chunk(2, dim=-1)
    b_BTN, c_BTN = normal(B, T, 2 * N).chunk(2, dim=-1)
    low, high = case.raw
    raw_BTE = low + (high - low) * normal(B, T, E).sigmoid()
    a_EN = -torch.arange(1, N + 1) * (0.2 * normal(E, N)).exp()
    h_BEN = normal(B, E, N) if case.state else None
    return [u_BTE, raw_BTE, normal(E), a_EN, b_BTN, c_BTN, normal(E), gate_BTE, h_BEN]


def draw_conv(case: Conv) -> list[Tensor | None]:
    (B, T, E, W), normal = case.shape, drawer()
    x_BTE = normal(B, T, 2 * E).chunk(2, dim=-1)[1]
    return [x_BTE, normal(E, W), normal(E), normal(B, W - 1, E) if case.tail else None]


def with_gradients(
    op: Callable[..., tuple[Tensor, Tensor]],
    names: tuple[str, ...],
    inputs: list[Tensor | None],
    case: Scan | Conv,
) -> dict[str, Tensor]:
    """Return what `op` makes of the inputs, and the gradients of a fixed sum of it, by name."""
    leaves = [None if x is None else x.detach().requires_grad_() for x in inputs]
    y, last = op(*leaves)
    draws = torch.Generator().manual_seed(1)
    y_weight, last_weight = (torch.randn(x.shape, generator=draws).to(x.device) for x in (y, last))
    total = y.new_zeros((), dtype=last.dtype)
    if case.y:
        total = total + (y.to(last.dtype) * y_weight).sum()
    if case.last:
        total = total + (last * last_weight).sum()
    given = {name: leaf for name, leaf in zip(names, leaves, strict=True) if leaf is not None}
    gradients = torch.autograd.grad(
        total, list(given.values()), allow_unused=True, materialize_grads=True
    )
    return {"y": y.detach(), "last": last.detach()} | {
        f"d{name}": gradient for name, gradient in zip(given, gradients, strict=True)
    }


def error(given: Tensor, right: Tensor) -> float:
    """Largest difference relative to the largest entry; infinite where something is not finite."""
    if not given.numel():
        return 0.0
    if not given.isfinite().all():
        return float("inf")
    scale = right.abs().max().clamp(min=1e-30)
    return ((given.cpu().double() - right.cpu()).abs().max() / scale.cpu()).item()


def errors(case: Scan | Conv, device: str, dtype: torch.dtype) -> dict[str, float]:
    """Return the error of each result and gradient, of the same rounded inputs on both sides."""
    scan = isinstance(case, Scan)
    names = SCAN_NAMES if scan else CONV_NAMES
    active = {"u", "raw", "b", "c", "gate", "x"}
    drawn = draw_scan(case) if isinstance(case, Scan) else draw_conv(case)
    inputs = [
        None if x is None else x.to(device).to(dtype if name in active else torch.float32)
        for name, x in zip(names, drawn, strict=True)
    ]
    mine, right = (triton.scan, reference.scan) if scan else (triton.conv, reference.conv)
    usual = triton_scan.room
    if isinstance(case, Scan) and case.room:
        triton_scan.room = lambda device: case.room
    given = with_gradients(mine, names, inputs, case)
    with torch.no_grad():
        y, last = mine(*inputs)
    triton_scan.room = usual
    wide = [None if x is None else x.double() for x in inputs]
    wanted = with_gradients(right, names, wide, case)
    found = {name: error(given[name], wanted[name]) for name in wanted}
    # Without gradients other kernels run, or the same ones, saving nothing
    return found | {"y plain": error(y, wanted["y"]), "last plain": error(last, wanted["last"])}


def registrations() -> None:
    """Raise where the operators are not registered as torch's compiler needs them."""
    utilities = ("test_schema", "test_autograd_registration", "test_faketensor")
    leaves = [None if x is None else x.requires_grad_() for x in draw_scan(SMALL["one of each"])]
    torch.library.opcheck(
        torch.ops.hybrid.scan_triton.default, (*leaves, True), test_utils=utilities
    )
    torch.library.opcheck(torch.ops.hybrid.scan_step_triton.default, leaves, test_utils=utilities)
    leaves = [
        None if x is None else x.requires_grad_() for x in draw_conv(Conv(shape=(1, 2, 2, 2)))
    ]
    torch.library.opcheck(torch.ops.hybrid.conv_triton.default, leaves, test_utils=utilities)


if __name__ == "__main__":
    torch.set_num_threads(1)
    registrations()
    print(json.dumps({name: errors(case, "cpu", torch.float32) for name, case in SMALL.items()}))
