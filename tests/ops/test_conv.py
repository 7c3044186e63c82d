"""The causal convolution, of every Ops object; and what holds for it and for the scan."""

from functools import cache
from itertools import product

import pytest
import torch
from torch import Tensor

from hybrid.ops import REFERENCE, Ops
from tests.ops.samples import (
    Tensors,
    assert_near,
    conv_inputs,
    draws,
    results,
    scan_inputs,
    strided,
    truth,
)

# Every value beside most of the others: a stride without a factor in common with any list's length.
CONV_SHAPES = list(
    product([1, 3], [1, 2, 5, 31, 33, 64, 70], [1, 8, 16, 20, 48], [1, 2, 4, 7, 40], [False, True])
)[::17]


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
