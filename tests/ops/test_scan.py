"""Mamba's scan, of every Ops object: agrees with the reference, gradients included."""

from functools import cache
from itertools import product

import pytest
import torch
from torch import Tensor

from hybrid.ops import REFERENCE, Ops
from hybrid.ops.reference import recurrence
from tests.ops.samples import Op, Tensors, assert_near, draws, results, scan_inputs, truth

# Every value beside most of the others: a stride without a factor in common with any list's length.
SCAN_SHAPES = list(
    product(
        [1, 3], [1, 2, 5, 16, 17, 33, 64], [1, 8, 16, 20, 48], [1, 3, 16, 17, 40], [False, True]
    )
)[::23]


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
