"""The seam between layers and kernels: one `Ops` object per implementation.

`reference.py` defines what is correct; every other object may only agree with it
(`tests/test_ops.py`). Which one runs is an argument of `hybrid.model.build`, never a global.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hybrid.ops import native, reference
from hybrid.ops.cpu import conv, rows, scan

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Ops:
    """One implementation of what layers do besides matrix products.

    Signatures, shapes and meaning are those of the functions in `hybrid/ops/reference.py`.
    """

    name: str
    attend: Callable[[Tensor, Tensor, Tensor, int | None], Tensor]
    conv: Callable[[Tensor, Tensor, Tensor, Tensor | None], Pair]
    scan: Callable[..., Pair]
    norm: Callable[[Tensor, Tensor, float, torch.dtype], Tensor]
    silu_and_mul: Callable[[Tensor], Tensor]
    grouped: Callable[[Tensor, Tensor, Tensor], Tensor]
    cross_entropy: Callable[[Tensor, Tensor], Pair]


REFERENCE = Ops(
    name="reference",
    attend=reference.attend,
    conv=reference.conv,
    scan=reference.scan,
    norm=reference.norm,
    silu_and_mul=reference.silu_and_mul,
    grouped=reference.grouped,
    cross_entropy=reference.cross_entropy,
)
TORCH = Ops(
    name="torch",
    attend=native.attend,
    conv=reference.conv,
    scan=reference.scan,
    norm=native.norm,
    silu_and_mul=native.silu_and_mul,
    grouped=native.grouped,
    cross_entropy=native.cross_entropy,
)
CPU = Ops(
    name="cpu",
    attend=native.attend,
    conv=conv.conv,
    scan=scan.scan,
    norm=rows.norm,
    silu_and_mul=rows.silu_and_mul,
    grouped=native.grouped,
    cross_entropy=rows.cross_entropy,
)
ALL = {ops.name: ops for ops in (REFERENCE, TORCH, CPU)}


def best_for(device: torch.device) -> Ops:
    """Return the fastest implementation that runs on `device`."""
    return CPU if device.type == "cpu" else TORCH
