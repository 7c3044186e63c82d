"""The machine a trial runs on: which device and precision, and what they are called in a record."""

import os
import platform
import re
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import torch

from sweeps.trial.recipe import Precision

CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # proc(5): reset the peak resident set size to the current value


def choose_device(name: str) -> torch.device:
    """Return the device for "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N".

    Raises ValueError for another name, for CUDA where torch sees none, and for a GPU beyond those
    that torch sees.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device(name)
    found = re.fullmatch(r"cuda(?::(0|[1-9][0-9]*))?", name)
    if found is None:
        raise ValueError(f"device={name!r} must be auto, cpu, cuda or cuda:N")
    if not torch.cuda.is_available():
        raise ValueError(f"device={name!r}: torch {torch.__version__} sees no CUDA device here")
    count = torch.cuda.device_count()
    if found[1] is not None and int(found[1]) >= count:
        raise ValueError(
            f"device={name!r}: torch sees {count} CUDA devices here, cuda:0 to cuda:{count - 1}"
        )
    return torch.device(name)


def choose_precision(precision: Precision, device: torch.device) -> Precision:
    """Return FP32 or BF16: the one asked for, or what the device does in hardware."""
    if precision is not Precision.AUTO:
        return precision
    if device.type == "cuda":
        with torch.cuda.device(device):
            return Precision.BF16 if torch.cuda.is_bf16_supported() else Precision.FP32
    return Precision.BF16 if "bf16" in _cpu_flags() else Precision.FP32


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager:
    """Return the context in which matrix products run in `precision` (not AUTO)."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision is Precision.BF16)


def itemsize(precision: Precision) -> int:
    """Return the bytes of one value of `precision` (not AUTO)."""
    return {Precision.FP32: 4, Precision.BF16: 2}[precision]


def machine_name(device: torch.device) -> str:
    """Return the name of the processor or GPU, without the name of the host.

    A processor's family and model are added where the system tells them: virtual machines call
    processors with and without bf16 by one name.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = _cpu_line("model name") or platform.processor() or platform.machine()
    family, model = _cpu_line("cpu family"), _cpu_line("model")
    return f"{name}, family {family} model {model}" if family and model else name


def cores() -> int:
    """Return the number of processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resident_bytes() -> int:
    """Return the bytes of memory this process holds now."""
    return psutil.Process().memory_info().rss


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an exception means that memory was exhausted, on a GPU or on the CPU."""
    # On the CPU torch has no class of its own for this, only a message.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        "can't allocate memory" in str(error)
    )


class PeakMemory:
    """Watches the peak from its making on: CUDA's allocator, or the process's resident set.

    The kernel keeps a process's peak from its birth, so on the CPU the peak counts from `baseline`
    only in a process whose earlier life was smaller, as a trial's own process is.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.baseline_bytes = self._now()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def restart(self) -> None:
        """Forget the peak so far, on CUDA and Linux; elsewhere the kernel keeps its own."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif CLEAR_REFS.exists():
            CLEAR_REFS.write_text(RESET_PEAK)

    def peak_bytes(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        # The kernel keeps its peak less exactly than its present count, and may be a little behind.
        return max(_resident_peak_bytes(), resident_bytes(), self.baseline_bytes)

    def _now(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.memory_allocated(self.device)
        return resident_bytes()


def _resident_peak_bytes() -> int:
    import resource  # not on Windows

    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes if platform.system() == "Darwin" else kilobytes * 1024


def _cpu_line(key: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in pairs if name.strip() == key), "")


def _cpu_flags() -> str:
    """Return processor features: avx512_bf16 and amx_bf16 on x86 Linux, bf16 on Arm Linux."""
    return _cpu_line("flags") or _cpu_line("Features")
