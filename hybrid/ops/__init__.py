"""The seam between layers and kernels: one `Ops` object per implementation.

`reference.py` defines what is correct. Every other object agrees with it where it computes, and
refuses what it refuses (`given.py`, `tests/ops`). An object may also refuse, with a TypeError or
ValueError, a dtype, a device or a width that its kernels do not take. Which one runs is an argument
of `hybrid.model.build`, never a global.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hybrid.ops import native, reference, ssd
from hybrid.ops.cpu import attend, conv, rows, scan

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Ops:
    """One implementation of what layers do besides matrix products.

    Signatures, shapes and meaning are those of the functions in `hybrid/ops/reference.py`.
    """

    name: str
    devices: tuple[str, ...] = ("cpu", "cuda")
    attend: Callable[[Tensor, Tensor, Tensor, int | None], Tensor]
    conv: Callable[[Tensor, Tensor, Tensor, Tensor | None], Pair]
    scan: Callable[..., Pair]
    ssd: Callable[..., Pair]
    norm: Callable[[Tensor, Tensor, float, torch.dtype], Tensor]
    norms: Callable[[Tensor, Tensor, Sequence[int], float, torch.dtype], Tensor]
    silu_and_mul: Callable[[Tensor], Tensor]
    grouped: Callable[[Tensor, Tensor, Tensor], Tensor]
    cross_entropy: Callable[[Tensor, Tensor], Pair]


REFERENCE = Ops(
    name="reference",
    attend=reference.attend,
    conv=reference.conv,
    scan=reference.scan,
    ssd=reference.ssd,
    norm=reference.norm,
    norms=reference.norms,
    silu_and_mul=reference.silu_and_mul,
    grouped=reference.grouped,
    cross_entropy=reference.cross_entropy,
)
TORCH = Ops(
    name="torch",
    attend=native.attend,
    conv=reference.conv,
    scan=reference.scan,
    ssd=ssd.ssd,
    norm=native.norm,
    norms=native.norms,
    silu_and_mul=native.silu_and_mul,
    grouped=native.grouped,
    cross_entropy=native.cross_entropy,
)
CPU = Ops(
    name="cpu",
    devices=("cpu",),
    attend=attend.attend,
    conv=conv.conv,
    scan=scan.scan,
    ssd=ssd.ssd,
    norm=rows.norm,
    norms=rows.norms,
    silu_and_mul=rows.silu_and_mul,
    grouped=native.grouped,
    cross_entropy=rows.cross_entropy,
)
ALL = {ops.name: ops for ops in (REFERENCE, TORCH, CPU)}  # those that need nothing but torch


def _triton() -> Ops:
    try:
        from hybrid.ops.triton import conv, scan
    except ImportError as error:
        raise ImportError(f"triton cannot be imported: {error}; pip install triton") from error

    return replace(TORCH, name="triton", devices=("cuda",), conv=conv, scan=scan)


def _mamba_ssm() -> Ops:
    from hybrid.ops.cuda import conv, kernels, scan

    kernels()
    return replace(TORCH, name="mamba-ssm", devices=("cuda",), conv=conv, scan=scan)


def _mamba_ssm_flash() -> Ops:
    from hybrid.ops.cuda import attend, flash

    flash()
    return replace(_mamba_ssm(), name="mamba-ssm+flash-attn", attend=attend)


# Those for a GPU are imported when they are asked for. The last takes no fp32, so it is never auto.
GPU: dict[str, Callable[[], Ops]] = {
    "mamba-ssm": _mamba_ssm,
    "triton": _triton,
    "mamba-ssm+flash-attn": _mamba_ssm_flash,
}
NAMES = (*ALL, *GPU)


def find(name: str, device: torch.device) -> Ops:
    """Return the implementation of that name for a device; "auto" is the best that is installed.

    Raises ValueError for a name that does not exist or a device it does not run on, and
    ImportError, with the commands that install it, for one that is not there: nothing else takes
    its place.
    """
    if name == "auto":
        return best_for(device)
    if name not in NAMES:
        raise ValueError(f"ops={name!r} must be auto or one of {', '.join(NAMES)}")
    if name in GPU and device.type != "cuda":
        raise ValueError(f"ops={name!r} runs on cuda, not on {device.type}")
    ops = ALL[name] if name in ALL else GPU[name]()
    if device.type not in ops.devices:
        raise ValueError(f"ops={name!r} runs on {', '.join(ops.devices)}, not on {device.type}")
    return ops


def best_for(device: torch.device) -> Ops:
    """Return the fastest implementation that is installed and runs on `device`."""
    if device.type == "cpu":
        return CPU
    for name in ("mamba-ssm", "triton"):
        with suppress(ImportError):
            return GPU[name]()
    return TORCH


def names_for(device: torch.device) -> tuple[str, ...]:
    """Return the names of the implementations for a device, also of those not installed."""
    plain = tuple(ops.name for ops in ALL.values() if device.type in ops.devices)
    return plain + (tuple(GPU) if device.type == "cuda" else ())
