"""The contract of all ops: what the reference refuses every implementation refuses, and no call
that is wrong, of an op or of a decoder, ends the process or returns a result.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from hybrid.ops import ALL, REFERENCE, cuda
from tests.ops import wrong_calls
from tests.test_ops_triton import needs_interpreter, needs_triton

OPS = tuple(wrong_calls.right_calls(0))
ENOUGH = 2000  # wrong calls of the fuzz


def child(*arguments: str, interpreted: str = "0") -> Any:
    """Return what `tests/ops/wrong_calls.py` prints. A signal fails the test with the last call."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.ops.wrong_calls", *arguments],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"TRITON_INTERPRET": interpreted},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", [name for name in ALL if name != REFERENCE.name])
@pytest.mark.parametrize("op", OPS)
def test_an_implementation_does_what_the_reference_does(name: str, op: str) -> None:
    assert wrong_calls.disagreements(ALL[name], (op,)) == []


@needs_triton
@needs_interpreter
@pytest.mark.interpreter
@pytest.mark.slow
def test_triton_in_its_interpreter_does_what_the_reference_does() -> None:
    assert child("triton", interpreted="1") == []


@pytest.mark.parametrize("op", ["attend", "conv", "scan"])
def test_kernels_of_other_packages_see_no_wrong_call(op: str, monkeypatch) -> None:
    """With bfloat16 for attention, which is all that flash-attn takes."""
    called = AssertionError("a kernel was called")

    def kernel(*_: Any, **__: Any) -> None:
        raise called

    monkeypatch.setattr(cuda, "flash", kernel)
    monkeypatch.setattr(cuda, "kernels", kernel)
    tried = 0
    for name, _, arguments in wrong_calls.changed_calls(wrong_calls.SEED, (op,)):
        if op == "attend":
            arguments = [
                x.bfloat16() if getattr(x, "dtype", None) is torch.float32 else x for x in arguments
            ]
        wanted = wrong_calls.outcome(lambda given=arguments: getattr(REFERENCE, op)(*given))
        found = wrong_calls.outcome(lambda given=arguments: getattr(cuda, op)(*given))
        if isinstance(wanted, Exception):
            assert isinstance(found, wrong_calls.ERRORS), f"{name}: {found!r}"
            tried += 1
    assert tried > 20


def test_a_wrong_call_is_an_error_and_never_a_result_or_a_signal() -> None:
    found = child("fuzz", "900")
    assert found["wrong"] == []
    assert found["refused"] >= ENOUGH
