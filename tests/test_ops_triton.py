"""The Triton kernels agree with the reference: in Triton's interpreter here, compiled on a GPU.

The interpreter has float32 alone (its bfloat16 is wrong), small tiles, and no GPU's memory order;
the `gpu` tests are what a kernel is trusted for.
"""

import importlib.util
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch


def triton_version() -> str:
    """Return the installed version, "0.0" where there is none."""
    try:
        return metadata.version("triton")
    except metadata.PackageNotFoundError:
        return "0.0"


needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="pip install triton"
)
needs_interpreter = pytest.mark.skipif(
    tuple(map(int, triton_version().split(".")[:2])) < (3, 9),
    reason="the interpreter of triton before 3.9 does not run with NumPy 2.4",
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

TOLERANCE = 1e-5  # of the largest entry, in float32; sums over tokens cancel and lose digits
# Softplus of a compiled kernel goes through the card's approximate exp2, and so do decays
ON_GPU = {torch.float32: 5e-5, torch.bfloat16: 2e-2}


def child(*arguments: str, interpreted: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the repository's root, its kernels interpreted ("1") or compiled ("0")."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"TRITON_INTERPRET": interpreted},
        capture_output=True,
        text=True,
        check=False,
    )


@needs_triton
@needs_interpreter
@pytest.mark.interpreter
def test_kernels_agree_with_the_reference_in_the_interpreter():
    done = child("-m", "tests.triton_cases", interpreted="1")
    assert done.returncode == 0, done.stderr[-3000:]
    cases = json.loads(done.stdout)
    wrong = {
        f"{case}: {name}": error
        for case, found in cases.items()
        for name, error in found.items()
        if not error <= TOLERANCE
    }
    assert cases
    assert not wrong


@needs_triton
@pytest.mark.slow
def test_kernels_compile_for_a_gpu_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    done = child("-m", "tests.triton_compiled", interpreted="0")
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(json.loads(done.stdout).values())


@needs_triton
def test_tensors_on_another_device_are_refused():
    program = """
import torch
from hybrid.ops import triton
x = torch.zeros(1, 2, 3)
triton.conv(x, torch.zeros(3, 4), torch.zeros(3), None)
"""
    done = child("-c", program, interpreted="0")
    assert "conv: given tensors on cpu; Triton's kernels want a CUDA device" in done.stderr


@needs_gpu
@needs_triton
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ON_GPU, ids=str)
def test_kernels_agree_with_the_reference_on_a_gpu(dtype):
    from tests import triton_cases

    wrong = {
        f"{case}: {name}": error
        for case, what in triton_cases.LARGE.items()
        for name, error in triton_cases.errors(what, "cuda", dtype).items()
        if not error <= ON_GPU[dtype]
    }
    assert not wrong


@needs_gpu
@needs_triton
@pytest.mark.gpu
def test_the_same_call_gives_the_same_bits_on_a_gpu():
    from hybrid.ops import triton
    from tests import triton_cases as cases

    case = cases.LARGE["ragged"]
    inputs = [x.cuda() for x in cases.draw_scan(case)]
    once, again = (
        cases.with_gradients(triton.scan, cases.SCAN_NAMES, inputs, case) for _ in range(2)
    )
    assert all(torch.equal(once[name], again[name]) for name in once)
