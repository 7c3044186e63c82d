"""Which Ops object is chosen for a device, and which names are refused."""

import pytest
import torch

from hybrid.ops import ALL, CPU, find, names_for

HERE, GPU_THERE = torch.device("cpu"), torch.device("cuda")


def test_auto_on_the_cpu_is_its_kernels() -> None:
    assert find("auto", HERE) is CPU
    assert names_for(HERE) == tuple(ALL)


@pytest.mark.parametrize(
    ("name", "device", "message"),
    [
        ("cup", HERE, "ops='cup' must be auto or one of reference, torch, cpu, mamba-ssm, triton"),
        ("triton", HERE, "ops='triton' runs on cuda, not on cpu"),
        ("cpu", GPU_THERE, "ops='cpu' runs on cpu, not on cuda"),
    ],
)
def test_ops_that_cannot_run_are_refused(name: str, device: torch.device, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find(name, device)
