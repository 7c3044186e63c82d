"""Devices as the roofline sees them: memory, bandwidth, arithmetic. Free of torch.

Figures are the vendors' own and dense: a data sheet's rate "with sparsity" is twice this. `fp32` is
of ordinary cores, without TF32; `bf16` of matrix units that add in fp32. Memory is in units of
10^9 bytes, as the data sheets write it. `this`, the machine at hand, is measured by
`hybrid/machine.py`.
"""

from dataclasses import dataclass
from enum import StrEnum

from hybrid.spec import require


class Rate(StrEnum):
    """The precision of the inputs of a matrix product."""

    FP32 = "fp32"
    BF16 = "bf16"


@dataclass(frozen=True, kw_only=True)
class Device:
    """One accelerator, or one machine."""

    name: str
    memory_bytes: int
    bytes_per_s: float
    fp32_flops_per_s: float
    bf16_flops_per_s: float

    def __post_init__(self):
        for field in ("memory_bytes", "bytes_per_s", "fp32_flops_per_s", "bf16_flops_per_s"):
            value = getattr(self, field)
            require(value > 0, f"Device {self.name}: {field}={value} must be above 0")

    def flops_per_s(self, rate: Rate) -> float:
        return self.fp32_flops_per_s if rate is Rate.FP32 else self.bf16_flops_per_s


_ALL = (
    # NVIDIA A100 Tensor Core GPU data sheet: 80GB SXM and 80GB PCIe.
    Device(
        name="a100-80gb-sxm",
        memory_bytes=80 * 10**9,
        bytes_per_s=2.039e12,
        fp32_flops_per_s=19.5e12,
        bf16_flops_per_s=312e12,
    ),
    Device(
        name="a100-80gb-pcie",
        memory_bytes=80 * 10**9,
        bytes_per_s=1.935e12,
        fp32_flops_per_s=19.5e12,
        bf16_flops_per_s=312e12,
    ),
    # NVIDIA H100 Tensor Core GPU data sheet: SXM; bf16 is half the rate given with sparsity.
    Device(
        name="h100-sxm",
        memory_bytes=80 * 10**9,
        bytes_per_s=3.35e12,
        fp32_flops_per_s=67e12,
        bf16_flops_per_s=989e12,
    ),
    # NVIDIA H200 Tensor Core GPU data sheet: SXM; the arithmetic of the H100.
    Device(
        name="h200-sxm",
        memory_bytes=141 * 10**9,
        bytes_per_s=4.8e12,
        fp32_flops_per_s=67e12,
        bf16_flops_per_s=989e12,
    ),
    # NVIDIA Ada GPU architecture white paper, appendix A: peak BF16 with FP32 accumulate.
    Device(
        name="rtx-4090",
        memory_bytes=24 * 10**9,
        bytes_per_s=1.008e12,
        fp32_flops_per_s=82.6e12,
        bf16_flops_per_s=165.2e12,
    ),
)
DEVICES = {device.name: device for device in _ALL}


def find_device(name: str) -> Device:
    """Return the device of that name; LookupError lists those there are."""
    if name not in DEVICES:
        raise LookupError(
            f"there is no device {name!r}; there are: {', '.join(DEVICES)}, "
            "and `this`, the machine at hand, measured"
        )
    return DEVICES[name]
