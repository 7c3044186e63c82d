"""The seam between layers and kernels: one `Ops` object per implementation.

`reference.py` defines what is correct; every other object may only agree with it
(`tests/test_ops.py`). Which one runs is an argument of `hybrid.model.build`, never a global.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hybrid.ops import cpu, reference

ScanResult = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Ops:
    """One implementation of the three things layers do besides matrix products.

    Signatures, shapes and meaning are those of the functions in `hybrid/ops/reference.py`.
    """

    name: str
    attend: Callable[[Tensor, Tensor, Tensor, int | None], Tensor]
    conv: Callable[[Tensor, Tensor, Tensor, Tensor], ScanResult]
    scan: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], ScanResult]


REFERENCE = Ops(name="reference", attend=reference.attend, conv=reference.conv, scan=reference.scan)
TORCH = Ops(name="torch", attend=cpu.attend, conv=reference.conv, scan=reference.scan)
CPU = Ops(name="cpu", attend=cpu.attend, conv=cpu.conv, scan=cpu.scan)
ALL = {ops.name: ops for ops in (REFERENCE, TORCH, CPU)}


def best_for(device: torch.device) -> Ops:
    """Return the fastest implementation that runs on `device`."""
    return CPU if device.type == "cpu" else TORCH
