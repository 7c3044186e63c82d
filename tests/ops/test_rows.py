"""Norms, SwiGLU's product, products by expert and cross entropy, of every Ops object."""

import pytest
import torch

from hybrid.ops import CPU, REFERENCE, Ops
from hybrid.ops.reference import IGNORED
from tests.ops.samples import FLOATS, assert_near, results, tolerance, truth


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
