"""Attention, of every Ops object: windows, fewer key heads, pieces, a cache beside new tokens."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hybrid.ops import CPU, REFERENCE, Ops, native
from tests.ops.samples import Op, assert_near, results, strided, truth


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
