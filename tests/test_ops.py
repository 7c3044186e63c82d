"""What every Ops object must do: agree with the reference in double precision, gradients included.

Each test takes the object as an argument and runs once per entry of `hybrid.ops.ALL`; those about
the CPU kernels alone (errors, threads, registration) come last. One file,
since one contract runs over all of them.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from numba import njit
from torch import Tensor

from hybrid.ops import ALL, CPU, REFERENCE, Ops, find, names_for, native
from hybrid.ops.cpu import attend as cpu_attend
from hybrid.ops.cpu import conv as cpu_conv
from hybrid.ops.cpu import lanes, team
from hybrid.ops.cpu import rows as cpu_rows
from hybrid.ops.cpu import run as cpu_run
from hybrid.ops.cpu import scan as cpu_scan
from hybrid.ops.reference import IGNORED, recurrence

Op = Callable[..., tuple[Tensor, Tensor]]
Tensors = list[Any]  # of tensors, and None for a state that starts

# Every value beside most of the others: a stride without a factor in common with any list's length.
SCAN_SHAPES = list(
    product(
        [1, 3], [1, 2, 5, 16, 17, 33, 64], [1, 8, 16, 20, 48], [1, 3, 16, 17, 40], [False, True]
    )
)[::23]
CONV_SHAPES = list(
    product([1, 3], [1, 2, 5, 31, 33, 64, 70], [1, 8, 16, 20, 48], [1, 2, 4, 7, 40], [False, True])
)[::17]


@pytest.fixture(params=ALL.values(), ids=list(ALL))
def ops(request: pytest.FixtureRequest) -> Ops:
    return request.param


def draws() -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator)


@pytest.fixture
def draw() -> Callable[..., Tensor]:
    return draws()


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def scan_inputs(
    draw: Callable[..., Tensor], B: int, T: int, E: int, N: int, started: bool
) -> Tensors:
    """Return what a scan takes, of the sizes Mamba's initialisation gives it, roughly."""
    raw_BTE, bias_E = draw(B, T, E), draw(E) - 2
    a_EN = -draw(E, N).abs() * 4
    wide = [draw(B, T, E), raw_BTE, bias_E, a_EN, draw(B, T, N), draw(B, T, N), draw(E)]
    return [*wide, draw(B, T, E), draw(B, E, N) if started else None]


def conv_inputs(
    draw: Callable[..., Tensor], B: int, T: int, E: int, W: int, started: bool = True
) -> Tensors:
    return [draw(B, T, E), draw(E, W), draw(E), draw(B, W - 1, E) if started else None]


def results(op: Op, inputs: Tensors, pulls: Tensors) -> Tensors:
    """Return both outputs, then the gradient of every input when each output is pulled so."""
    leaves = [x if x is None else x.detach().requires_grad_() for x in inputs]
    outputs = op(*leaves)
    gradients = torch.autograd.grad(outputs, [x for x in leaves if x is not None], pulls)
    return [x.detach() for x in (*outputs, *gradients)]


def assert_near(
    found: Tensors, wanted: Tensors, tolerance: float = 3e-6, floor: float = 1e-30
) -> None:
    """Compare against the largest element of each tensor, or `floor`: sums cancel in the others."""
    for place, (one, other) in enumerate(zip(found, wanted, strict=True)):
        assert one.shape == other.shape
        if one.numel():
            error = (one.double() - other).abs().max() / other.abs().max().clamp_min(floor)
            assert error <= tolerance, f"result {place}: relative error {error:.1e}"


def truth(reference: Op, inputs: Tensors, pulls: Tensors) -> Tensors:
    doubles = [x if x is None else x.double() for x in inputs]
    return results(reference, doubles, [x.double() for x in pulls])


# ---- scan ----------------------------------------------------------------------------------------


@cache
def scan_case(B: int, T: int, E: int, N: int, started: bool) -> tuple[Tensors, Tensors, Tensors]:
    """Return (inputs, pulls, the truth), computed once for all implementations."""
    draw = draws()
    inputs, pulls = scan_inputs(draw, B, T, E, N, started), [draw(B, T, E), draw(B, E, N)]
    return inputs, pulls, truth(REFERENCE.scan, inputs, pulls)


@pytest.mark.parametrize("shape", SCAN_SHAPES, ids=str)
def test_scan_agrees(ops: Ops, shape: tuple[int, int, int, int, bool]) -> None:
    inputs, pulls, wanted = scan_case(*shape)
    assert_near(results(ops.scan, inputs, pulls), wanted)


@pytest.mark.parametrize("raw", [-80.0, -15.0, 50.0, 1e4])
def test_scan_agrees_at_extreme_steps(ops: Ops, draw, raw: float) -> None:
    inputs = scan_inputs(draw, 2, 40, 20, 5, True)
    inputs[1].fill_(raw)
    inputs[2].zero_()
    inputs[3].fill_(-16.0)
    pulls = [draw(2, 40, 20), draw(2, 20, 5)]
    assert_near(results(ops.scan, inputs, pulls), truth(REFERENCE.scan, inputs, pulls))


def decay(ops: Ops, raw_E: Tensor, a: float) -> Tensor:
    """Return exp(softplus(raw) a), read off a state of one that nothing drives."""
    E = len(raw_E)
    none_11E, one_1E1 = torch.zeros(1, 1, E), torch.ones(1, E, 1)
    none_111, none_E = torch.zeros(1, 1, 1), torch.zeros(E)
    rest = (torch.full((E, 1), a), none_111, none_111, none_E, none_11E, one_1E1)
    return ops.scan(none_11E, raw_E[None, None], none_E, *rest)[1][0, :, 0]


def test_decay_is_exact_at_the_ends(ops: Ops) -> None:
    found = decay(ops, torch.tensor([-300.0, 1e4, 1e9, 1e30]), -1.0)
    assert found.tolist() == [1.0, 0.0, 0.0, 0.0]


def test_decay_is_as_precise_as_its_argument(ops: Ops) -> None:
    raw_E = torch.linspace(-20, 80, 50_000)
    a = -0.8125
    dt_E = torch.nn.functional.softplus(raw_E.double(), threshold=100)
    wanted_E = torch.exp(dt_E * a)
    error_E = (decay(ops, raw_E, a).double() / wanted_E - 1).abs()
    # A dt rounded by r half-units in the last place moves exp(dt a) by r |dt a| of its own.
    assert (error_E <= 2.5e-7 + 2.0**-24 * 4 * (dt_E * -a)).all()


def test_the_recurrence_is_the_scan_without_its_ends(draw) -> None:
    u, raw, bias, a, b, c, d, gate, h = (x.double() for x in scan_inputs(draw, 2, 9, 4, 3, True))
    dt = torch.nn.functional.softplus(raw + bias)
    y, last = recurrence(u, dt, a, b, c, d, h)
    found = REFERENCE.scan(u, raw, bias, a, b, c, d, gate, h)
    torch.testing.assert_close(found, (y * torch.nn.functional.silu(gate), last))


@pytest.mark.parametrize("place", range(9))
def test_scan_does_not_hide_a_nan(ops: Ops, draw, place: int) -> None:
    inputs = scan_inputs(draw, 1, 3, 16, 2, True)
    inputs[place].view(-1)[0] = float("nan")
    assert ops.scan(*inputs)[0].isnan().any()


@pytest.mark.parametrize("first", [1, 16, 31, 45])
def test_scan_in_two_calls_is_one(ops: Ops, draw, first: int) -> None:
    def in_two(u, raw, bias, a, b, c, d, gate, h) -> tuple[Tensor, Tensor]:
        ys = []
        for part in (slice(None, first), slice(first, None)):
            u1, raw1, b1, c1, gate1 = (x[:, part] for x in (u, raw, b, c, gate))
            y, h = ops.scan(u1, raw1, bias, a, b1, c1, d, gate1, h)
            ys.append(y)
        return torch.cat(ys, dim=1), h

    inputs, pulls = scan_inputs(draw, 2, 46, 20, 3, True), [draw(2, 46, 20), draw(2, 20, 3)]
    assert_near(results(in_two, inputs, pulls), results(ops.scan, inputs, pulls))


@pytest.mark.parametrize("place", [0, 1])
def test_scan_gradient_of_one_output_alone(ops: Ops, draw, place: int) -> None:
    def gradients(op: Op, inputs: Tensors, pull: Tensor) -> Tensors:
        leaves = [x.detach().requires_grad_() for x in inputs]
        output = op(*leaves)[place]
        return list(torch.autograd.grad(output, leaves, pull, materialize_grads=True))

    inputs = scan_inputs(draw, 2, 5, 8, 3, True)
    pull = draw(2, 5, 8) if place == 0 else draw(2, 8, 3)
    wanted = gradients(REFERENCE.scan, [x.double() for x in inputs], pull.double())
    assert_near(gradients(ops.scan, inputs, pull), wanted)


# ---- convolution ---------------------------------------------------------------------------------


@cache
def conv_case(B: int, T: int, E: int, W: int, started: bool) -> tuple[Tensors, Tensors, Tensors]:
    """Return (inputs, pulls, the truth), computed once for all implementations."""
    draw = draws()
    inputs, pulls = conv_inputs(draw, B, T, E, W, started), [draw(B, T, E), draw(B, W - 1, E)]
    return inputs, pulls, truth(REFERENCE.conv, inputs, pulls)


@pytest.mark.parametrize("shape", CONV_SHAPES, ids=str)
def test_conv_agrees(ops: Ops, shape: tuple[int, int, int, int, bool]) -> None:
    inputs, pulls, wanted = conv_case(*shape)
    assert_near(results(ops.conv, inputs, pulls), wanted)


def test_conv_agrees_where_the_activation_saturates(ops: Ops, draw) -> None:
    inputs = conv_inputs(draw, 1, 9, 16, 4)
    inputs[2] = torch.linspace(-300, 300, 16)
    pulls = [draw(1, 9, 16), draw(1, 3, 16)]
    assert_near(results(ops.conv, inputs, pulls), truth(REFERENCE.conv, inputs, pulls))


@pytest.mark.parametrize("first", [1, 2, 32, 40])
def test_conv_in_two_calls_is_one(ops: Ops, draw, first: int) -> None:
    def in_two(x, weight, bias, tail) -> tuple[Tensor, Tensor]:
        y1, tail = ops.conv(x[:, :first], weight, bias, tail)
        y2, tail = ops.conv(x[:, first:], weight, bias, tail)
        return torch.cat([y1, y2], dim=1), tail

    inputs, pulls = conv_inputs(draw, 2, 41, 20, 4), [draw(2, 41, 20), draw(2, 3, 20)]
    assert_near(results(in_two, inputs, pulls), results(ops.conv, inputs, pulls))


# ---- both ----------------------------------------------------------------------------------------


def strided(x: Tensor) -> Tensor:
    """Return an equal tensor whose elements do not lie next to each other."""
    return torch.stack([x, x], dim=-1)[..., 0].transpose(0, -1).contiguous().transpose(0, -1)


def test_inputs_need_not_be_contiguous(ops: Ops, draw) -> None:
    for op, inputs, pulls in (
        (ops.scan, scan_inputs(draw, 3, 18, 20, 5, True), [draw(3, 18, 20), draw(3, 20, 5)]),
        (ops.conv, conv_inputs(draw, 3, 18, 20, 4), [draw(3, 18, 20), draw(3, 3, 20)]),
    ):
        moved = results(op, [strided(x) for x in inputs], [strided(x) for x in pulls])
        assert_near(moved, results(op, inputs, pulls))


@pytest.mark.parametrize("started", [False, True])
def test_scan_and_conv_take_bfloat16(ops: Ops, draw, started: bool) -> None:
    scan = scan_inputs(draw, 3, 35, 48, 5, started), {0, 1, 4, 5, 7}, draw(3, 48, 5)
    conv = conv_inputs(draw, 3, 35, 48, 4, started), {0}, draw(3, 3, 48)
    for name, (inputs, activations, state) in {"scan": scan, "conv": conv}.items():
        given = [x.bfloat16() if i in activations else x for i, x in enumerate(inputs)]
        pulls = [draw(3, 35, 48).bfloat16(), state]
        found = results(getattr(ops, name), given, pulls)
        dtypes = [x.dtype for x in given if x is not None]
        assert [x.dtype for x in found] == [torch.bfloat16, torch.float32, *dtypes]
        assert_near(found, truth(getattr(REFERENCE, name), given, pulls), tolerance=1e-2)


# ---- rows ----------------------------------------------------------------------------------------

FLOATS = [torch.float32, torch.bfloat16]


def tolerance(*dtypes: torch.dtype) -> float:
    return 1e-2 if torch.bfloat16 in dtypes else 3e-6


@pytest.mark.parametrize("out", FLOATS, ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("D", [1, 8, 16, 33, 96])
def test_norm_agrees(ops: Ops, draw, D: int, dtype: torch.dtype, out: torch.dtype) -> None:
    x, weight = draw(2, 37, 3 * D).to(dtype)[..., D : 2 * D], draw(D)
    pulls = [draw(2, 37, D).to(out)]
    found = results(lambda x, w: (ops.norm(x, w, 1e-3, out),), [x, weight], pulls)
    assert [y.dtype for y in found] == [out, dtype, torch.float32]
    wanted = truth(lambda x, w: (REFERENCE.norm(x, w, 1e-3, torch.float64),), [x, weight], pulls)
    assert_near(found, wanted, tolerance(dtype, out))


@pytest.mark.parametrize("out", FLOATS, ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("sizes", [(5,), (8, 16, 16), (1, 33, 2), (16, 7)], ids=str)
def test_norms_agree(
    ops: Ops, draw, sizes: tuple[int, ...], dtype: torch.dtype, out: torch.dtype
) -> None:
    D = sum(sizes)
    x, weight, pulls = (
        draw(2, 37, 3 * D).to(dtype)[..., D : 2 * D],
        draw(D),
        [draw(2, 37, D).to(out)],
    )
    found = results(lambda x, w: (ops.norms(x, w, sizes, 1e-3, out),), [x, weight], pulls)
    assert [y.dtype for y in found] == [out, dtype, torch.float32]
    wide = torch.float64
    wanted = truth(lambda x, w: (REFERENCE.norms(x, w, sizes, 1e-3, wide),), [x, weight], pulls)
    assert_near(found, wanted, tolerance(dtype, out))


def test_norms_of_other_widths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"sizes=\(3, 4\) make 7; x is 8 wide, and its weight 8"):
        CPU.norms(torch.ones(2, 8), torch.ones(8), (3, 4), 1e-5, torch.float32)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("width", [1, 8, 16, 40])
def test_silu_and_mul_agrees(ops: Ops, draw, width: int, dtype: torch.dtype) -> None:
    x, pulls = draw(3, 7, 2 * width).to(dtype) * 3, [draw(3, 7, width).to(dtype)]
    found = results(lambda x: (ops.silu_and_mul(x),), [x], pulls)
    wanted = truth(lambda x: (REFERENCE.silu_and_mul(x),), [x], pulls)
    assert found[0].dtype == dtype
    assert_near(found, wanted, tolerance(dtype) * 2)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("counts", [[3, 0, 5], [0, 8, 0], [8], [1, 2, 3]])
@pytest.mark.parametrize(("D", "F"), [(8, 16), (12, 5)])
def test_grouped_agrees(ops: Ops, draw, D: int, F: int, counts: list[int], dtype) -> None:
    count_X = torch.tensor(counts)
    inputs = [draw(sum(counts), D).to(dtype), draw(len(counts), F, D).to(dtype)]
    pulls = [draw(sum(counts), F).to(dtype)]
    found = results(lambda x, w: (ops.grouped(x, w, count_X),), inputs, pulls)
    assert found[0].dtype == dtype
    wanted = truth(lambda x, w: (REFERENCE.grouped(x, w, count_X),), inputs, pulls)
    assert_near(found, wanted, tolerance(dtype))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("V", [1, 7, 16, 100])
def test_cross_entropy_agrees_with_torch(ops: Ops, draw, V: int, dtype: torch.dtype) -> None:
    logits, target = (draw(9, V) * 8).to(dtype), torch.arange(9) * 5 % V
    target[4] = IGNORED
    leaf = logits.double().requires_grad_()
    wanted = torch.nn.functional.cross_entropy(leaf, target, reduction="none")
    (gradient,) = torch.autograd.grad(wanted.sum(), leaf)
    nats, found = ops.cross_entropy(logits.clone(), target)
    assert (nats.dtype, found.dtype) == (torch.float32, dtype)
    torch.testing.assert_close(nats.double(), wanted, rtol=1e-5, atol=2e-6)
    rounding = 4e-3 if dtype is torch.bfloat16 else 5e-7
    torch.testing.assert_close(found.double(), gradient, rtol=0, atol=rounding)


@pytest.mark.parametrize("wrong", [-1, 20])
def test_a_target_outside_the_vocabulary_is_refused(wrong: int) -> None:
    with pytest.raises(IndexError, match=rf"target {wrong} must lie in 0..19.*-100"):
        CPU.cross_entropy(torch.zeros(2, 20), torch.tensor([0, wrong]))


def test_cross_entropy_of_what_is_not_finite_is_not_finite(ops: Ops) -> None:
    for bad in (float("nan"), float("inf")):
        logits = torch.zeros(2, 20)
        logits[1, 3] = bad
        nats, _ = ops.cross_entropy(logits, torch.zeros(2, dtype=torch.long))
        assert nats.isfinite().tolist() == [True, False]


# ---- attention -----------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [None, 1, 3, 100])
@pytest.mark.parametrize(("T", "S"), [(1, 1), (1, 9), (9, 9), (4, 9)])
@pytest.mark.parametrize(("H", "K"), [(4, 4), (4, 2), (3, 1)])
def test_attend_agrees(ops: Ops, draw, H: int, K: int, T: int, S: int, window: int | None) -> None:
    def under(op: Callable[..., Tensor]) -> Op:
        return lambda q, k, v: (op(q, k, v, window),)

    inputs = [draw(2, T, H, 8), draw(2, S, K, 8), draw(2, S, K, 8)]
    pulls = [draw(2, T, H, 8)]
    wanted = truth(under(REFERENCE.attend), inputs, pulls)
    # A query that sees one key has no gradient: the floor is for what rounding leaves there.
    assert_near(results(under(ops.attend), inputs, pulls), wanted, floor=1.0)


@pytest.mark.parametrize(("T", "P"), [(16, 16), (33, 20), (50, 40)])
def test_attend_agrees_beyond_a_block(ops: Ops, draw, T: int, P: int) -> None:
    def under(op: Callable[..., Tensor]) -> Op:
        return lambda q, k, v: (op(q, k, v, None),)

    inputs, pulls = [draw(2, T, 4, P), draw(2, T, 2, P), draw(2, T, 2, P)], [draw(2, T, 4, P)]
    wanted = truth(under(REFERENCE.attend), inputs, pulls)
    assert_near(results(under(ops.attend), inputs, pulls), wanted)
    moved = results(under(ops.attend), [strided(x) for x in inputs], [strided(x) for x in pulls])
    assert_near(moved, wanted)
    given, pulls = [x.bfloat16() for x in inputs], [x.bfloat16() for x in pulls]
    found = results(under(ops.attend), given, pulls)
    assert {x.dtype for x in found} == {torch.bfloat16}
    assert_near(found, truth(under(REFERENCE.attend), given, pulls), tolerance=2e-2)


@pytest.mark.parametrize("window", [None, 3, 6])
@pytest.mark.parametrize(("T", "S"), [(9, 9), (4, 9)])
def test_attend_in_pieces_agrees(draw, monkeypatch, T: int, S: int, window: int | None) -> None:
    monkeypatch.setattr(native, "MASK_ELEMENTS", 20)
    q, k, v = draw(2, T, 4, 8), draw(2, S, 2, 8), draw(2, S, 2, 8)
    wanted = REFERENCE.attend(q.double(), k.double(), v.double(), window)
    assert_near([native.attend(q, k, v, window)], [wanted])


@pytest.mark.parametrize(("T", "S", "window"), [(9, 9, None), (1, 9, None), (4, 9, 3)])
def test_attend_takes_bfloat16(ops: Ops, draw, T: int, S: int, window: int | None) -> None:
    q, k, v = (x.bfloat16() for x in (draw(2, T, 4, 8), draw(2, S, 2, 8), draw(2, S, 2, 8)))
    found = ops.attend(q, k, v, window)
    assert found.dtype == torch.bfloat16
    wanted = REFERENCE.attend(q.double(), k.double(), v.double(), window)
    assert_near([found], [wanted], tolerance=2e-2)


@pytest.mark.parametrize("H", [4, 2])
@pytest.mark.parametrize(("T", "S"), [(4, 9), (8, 9), (2, 700)])
@torch.inference_mode()
def test_attend_joins_the_cache_and_the_new_tokens(draw, H: int, T: int, S: int) -> None:
    q, k, v = draw(2, T, H, 8), draw(2, S, 2, 8), draw(2, S, 2, 8)
    q[:, 0] *= 30  # scores so large that one part may outweigh the other by all that fp32 can hold
    wanted = REFERENCE.attend(q.double(), k.double(), v.double(), None)
    assert_near([CPU.attend(q, k, v, None)], [wanted])
    q, k, v = q.bfloat16(), k.bfloat16(), v.bfloat16()
    found = CPU.attend(q, k, v, None)
    assert found.dtype == torch.bfloat16
    wanted = REFERENCE.attend(q.double(), k.double(), v.double(), None)
    assert_near([found], [wanted], tolerance=2e-2)


# ---- the CPU kernels alone -----------------------------------------------------------------------


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


# ---- choosing ------------------------------------------------------------------------------------

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
