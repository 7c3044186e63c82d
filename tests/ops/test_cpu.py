"""What only the CPU's kernels promise: threads, rounding, registration, errors, a cache on disk."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from numba import njit
from torch import Tensor

from hybrid.ops import CPU
from hybrid.ops.cpu import attend as cpu_attend
from hybrid.ops.cpu import conv as cpu_conv
from hybrid.ops.cpu import lanes, team
from hybrid.ops.cpu import rows as cpu_rows
from hybrid.ops.cpu import run as cpu_run
from hybrid.ops.cpu import scan as cpu_scan
from tests.ops.samples import Op, Tensors, conv_inputs, results, scan_inputs, strided


def big_calls(draw: Callable[..., Tensor]) -> list[tuple[Op, Tensors, Tensors]]:
    """Return calls with enough work to be shared among threads."""
    scans = [(1, 70, 272, 17), (3, 70, 100, 17)]
    calls = [
        (CPU.scan, scan_inputs(draw, *shape, True), [draw(*shape[:3]), draw(shape[0], *shape[2:])])
        for shape in scans
    ]
    assert all(torch.Size(shape).numel() > cpu_run.INLINE for shape in scans)
    conv = (CPU.conv, conv_inputs(draw, 3, 70, 272, 17), [draw(3, 70, 272), draw(3, 16, 272)])
    sequences = [draw(3, 70, 4, 20), draw(3, 70, 2, 20), draw(3, 70, 2, 20)]
    attend = (lambda q, k, v: (CPU.attend(q, k, v, None),), sequences, [draw(3, 70, 4, 20)])
    return [*calls, conv, attend]


@pytest.mark.parametrize("native", [False, True])
def test_results_do_not_depend_on_threads(draw, threads, native, monkeypatch) -> None:
    if native and not team.entry():
        pytest.skip("torch has no OpenMP threads here that others can enter")
    if not native:
        monkeypatch.setattr(team, "entry", lambda: 0)
    for call in big_calls(draw):
        found = []
        for count in (1, 2, 2, 5):
            threads(count)
            found.append(results(*call))
        for other in found[1:]:
            assert all(map(torch.equal, found[0], other))


def test_calls_from_several_python_threads(draw) -> None:
    calls = big_calls(draw)
    alone = [results(*call) for call in calls]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda call: results(*call), calls * 4))
    for place, found in enumerate(together):
        assert all(map(torch.equal, found, alone[place % len(calls)]))


@pytest.mark.parametrize("by_instruction", [False, True])
def test_bfloat16_is_rounded_as_torch_does(draw, monkeypatch, by_instruction: bool) -> None:
    if by_instruction and not lanes.ROUNDS:
        pytest.skip("this processor has no instruction for it")
    monkeypatch.setattr(lanes, "ROUNDS", by_instruction)

    @njit
    def rounded(x, y):
        for at in range(0, len(x), lanes.LANES):
            lanes.store(y, at, lanes.load(x, at))

    halves = torch.arange(1 << 16, dtype=torch.int32) << 15  # every bfloat16, and what lies halfway
    x = torch.cat([halves.view(torch.float32), draw(1 << 12) * 100])
    x = torch.cat([x, -x, torch.tensor([float("inf"), -float("inf"), 3.4e38, 0.0] * 4)])
    x = x[(x == 0) | ~(x.abs() < torch.finfo(torch.float32).tiny)]  # not those below the normal
    x = x[: len(x) // lanes.LANES * lanes.LANES]
    found = torch.empty(len(x), dtype=torch.int16)
    rounded(x.numpy(), found.numpy())
    torch.testing.assert_close(
        found.view(torch.bfloat16), x.bfloat16(), rtol=0, atol=0, equal_nan=True
    )


@pytest.mark.slow
def test_scan_is_registered_as_torch_wants(draw) -> None:
    inputs = scan_inputs(draw, 2, 35, 20, 3, True)
    torch.library.opcheck(cpu_scan._scan, (*inputs, False))
    for form in (Tensor.clone, strided):
        given = [form(x) for x in inputs]
        y_BTE, h_BEN, saved = cpu_scan._scan(*given, True)
        kept = (*given[:8], saved)
        torch.library.opcheck(cpu_scan._scan_backward, (*kept, form(y_BTE), form(h_BEN)))
        torch.library.opcheck(cpu_scan._scan_backward, (*kept, None, None))
        torch.library.opcheck(cpu_scan._scan, (*(x.requires_grad_() for x in given), True))
        torch.library.opcheck(cpu_scan._scan, (*given[:8], None, True))


def test_rows_are_registered_as_torch_wants(draw) -> None:
    x, weight = draw(3, 4, 20).requires_grad_(), draw(20).requires_grad_()
    for sizes in ([20], [3, 17]):
        torch.library.opcheck(cpu_rows._norm, (x, weight, sizes, 1e-5, torch.bfloat16))
    torch.library.opcheck(cpu_rows._silu, (x,))
    pull = draw(3, 4, 10)
    torch.library.opcheck(cpu_rows._silu_backward, (x.detach(), pull))
    torch.library.opcheck(
        cpu_rows._norm_backward, (x.detach(), weight.detach(), [3, 17], 1e-5, draw(3, 4, 20))
    )


def test_attend_is_registered_as_torch_wants(draw) -> None:
    q, k, v = draw(2, 9, 4, 8), draw(2, 9, 2, 8), draw(2, 9, 2, 8)
    kept = cpu_attend._attend(q, k, v)
    torch.library.opcheck(cpu_attend._attend_backward, (q, k, v, *kept, draw(2, 9, 4, 8)))
    torch.library.opcheck(cpu_attend._attend, tuple(x.requires_grad_() for x in (q, k, v)))


@pytest.mark.parametrize("W", [1, 4])
def test_conv_is_registered_as_torch_wants(draw, W: int) -> None:
    inputs = conv_inputs(draw, 2, 9, 20, W)
    for form in (Tensor.clone, strided):
        given = [form(x) for x in inputs]
        pulls = [form(x) for x in cpu_conv._conv(*given)]
        torch.library.opcheck(cpu_conv._conv_backward, (*given, *pulls))
        torch.library.opcheck(cpu_conv._conv, tuple(x.requires_grad_() for x in given))


SCAN_NAMES = [
    "u_BTE",
    "raw_BTE",
    "bias_E",
    "a_EN",
    "b_BTN",
    "c_BTN",
    "d_E",
    "gate_BTE",
    "h_BEN",
]
CONV_NAMES = ["x_BTE", "weight_EW", "bias_E", "tail_BLE"]
ARGUMENTS = [("scan", name) for name in SCAN_NAMES] + [("conv", name) for name in CONV_NAMES]


def arguments(draw: Callable[..., Tensor], op: str) -> dict[str, Tensor]:
    if op == "scan":
        return dict(zip(SCAN_NAMES, scan_inputs(draw, 2, 5, 16, 3, True), strict=True))
    return dict(zip(CONV_NAMES, conv_inputs(draw, 2, 5, 16, 4), strict=True))


@pytest.mark.parametrize(("op", "name"), ARGUMENTS)
def test_a_wrong_dtype_is_named(draw, op: str, name: str) -> None:
    given = arguments(draw, op)
    given[name] = given[name].double()
    with pytest.raises(
        TypeError, match=rf"{op}: {name} is torch\.float64 on cpu; .*torch\.float32"
    ):
        getattr(CPU, op)(**given)


@pytest.mark.parametrize(("op", "name"), [x for x in ARGUMENTS if x[1] not in ("u_BTE", "x_BTE")])
def test_a_wrong_shape_is_named(draw, op: str, name: str) -> None:
    given = arguments(draw, op)
    given[name] = torch.cat([given[name], given[name]])
    with pytest.raises(ValueError, match=rf"{op}: {name} has shape \({len(given[name])},.*must be"):
        getattr(CPU, op)(**given)


@pytest.mark.parametrize(("op", "name"), [("scan", "u_BTE"), ("conv", "x_BTE")])
def test_an_empty_sequence_is_refused(draw, op: str, name: str) -> None:
    given = arguments(draw, op)
    given[name] = given[name][:, :0]
    with pytest.raises(ValueError, match=rf"{op}: {name} has shape \(2, 0, 16\).*at least 1"):
        getattr(CPU, op)(**given)


@pytest.mark.slow
def test_a_second_process_finds_the_kernels_on_disk(tmp_path) -> None:
    """Also those for several threads, which a closure would compile anew in every process."""
    program = """
import torch
from hybrid.ops.cpu import row_kernels, rows
rows.silu_and_mul(torch.ones(512, 256))
kernel = row_kernels.silu_forward
print(sum(x.stats.cache_hits[s] for x in (kernel.alone, kernel.shared) for s in x.stats.cache_hits))
"""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    hits = [
        int(subprocess.run([sys.executable, "-c", program], env=environment, **TEXT).stdout)
        for _ in range(2)
    ]
    assert hits[0] == 0
    assert hits[1] > 0


TEXT: Any = {"capture_output": True, "text": True, "check": True}
