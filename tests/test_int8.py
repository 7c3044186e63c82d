"""Experts in 8 bits: the error of a weight, of an answer, and the bytes that are really held."""

import pytest
import torch

from hybrid import cost, generate, steps
from hybrid.cost import Weights
from hybrid.int8 import expert_bytes, with_int8_experts
from hybrid.layers import Int8MoE, MoE
from hybrid.layers.int8_moe import LARGEST, Int8Matrices, quantised
from hybrid.model import HybridLM, build
from hybrid.ops import ALL, CPU
from hybrid.spec import ModelSpec
from tests.models import SPECS, VOCAB

WITH_EXPERTS = [name for name, spec in SPECS.items() if cost.param_parts(spec).experts]
ROUNDED = 0.02  # of the largest logit: what eight bits make of tiny random experts


def with_large_experts(spec: ModelSpec) -> HybridLM:
    """Return a model whose experts matter; as they are drawn, they add next to nothing."""
    model = build(spec, ops=CPU)
    draws = torch.Generator().manual_seed(5)
    for module in model.modules():
        if isinstance(module, MoE):
            for weight in (module.gate_up_XFD, module.down_XDF):
                torch.nn.init.normal_(weight, std=0.5, generator=draws)
    return model


def ids(batch: int, tokens: int) -> torch.Tensor:
    return torch.randint(VOCAB, (batch, tokens), generator=torch.Generator().manual_seed(3))


def test_no_weight_moves_by_more_than_half_a_scale():
    weight_XFD = torch.randn(3, 7, 20, generator=torch.Generator().manual_seed(1))
    weight_XFD[1] *= 1e-3
    weight_XFD[2, 4] = 0
    whole_XFD, scale_XF = quantised(weight_XFD)
    assert (whole_XFD.dtype, scale_XF.dtype) == (torch.int8, torch.float32)
    back_XFD = whole_XFD * scale_XF[..., None]
    assert ((weight_XFD - back_XFD).abs() <= 0.5001 * scale_XF[..., None]).all()
    assert back_XFD[2, 4].eq(0).all()
    full = whole_XFD.abs().amax(dim=-1)
    assert full.flatten().tolist() == [0 if i == 18 else LARGEST for i in range(21)]


def test_a_scale_is_of_one_row_of_one_expert():
    weight_XFD = torch.ones(2, 2, 4)
    weight_XFD[0, 0] = 1000.0  # would leave nothing of the others in one scale for all
    whole_XFD, scale_XF = quantised(weight_XFD)
    torch.testing.assert_close(whole_XFD * scale_XF[..., None], weight_XFD)


@pytest.mark.parametrize("ops", ALL.values(), ids=ALL)
@pytest.mark.parametrize("counts", [[0, 2, 1], [3, 0, 9], [0, 0, 0]], ids=["few", "many", "none"])
def test_a_product_is_that_with_the_rounded_weights(counts, ops):
    draws = torch.Generator().manual_seed(2)
    matrices = Int8Matrices(torch.randn(3, 8, 8, generator=draws), ops)
    x_nD = torch.randn(sum(counts), 8, generator=draws)
    rounded_XFD = matrices.whole_XFD * matrices.scale_XF[..., None]
    rows = x_nD.split(counts)
    expected = torch.cat([x @ w.T for x, w in zip(rows, rounded_XFD, strict=True)])
    torch.testing.assert_close(matrices(x_nD, torch.tensor(counts)), expected)


@pytest.mark.parametrize("name", WITH_EXPERTS)
def test_an_answer_is_near_that_of_the_model_which_stays_as_it_is(name):
    model, ids_BT = with_large_experts(SPECS[name]), ids(2, 12)
    smaller = with_int8_experts(model)
    with torch.inference_mode():
        whole, found = (m(ids_BT).logits_BTV for m in (model, smaller))
        assert not torch.equal(whole, found)
        torch.testing.assert_close(found, whole, rtol=0, atol=ROUNDED * whole.abs().max().item())
        # None of it comes from the rest of the model, nor from the model having changed.
        for feeding, plain in zip(smaller.blocks, model.blocks, strict=True):
            if isinstance(getattr(feeding.feeding, "feed_forward", None), Int8MoE):
                feeding.feeding.feed_forward = plain.feeding.feed_forward
        assert torch.equal(smaller(ids_BT).logits_BTV, whole)
    assert smaller.embed.weight.data_ptr() == model.embed.weight.data_ptr()
    assert (smaller.head.weight is smaller.embed.weight) == SPECS[name].tied


@pytest.mark.parametrize("name", WITH_EXPERTS)
def test_bytes_by_arithmetic_are_those_held(name):
    spec = SPECS[name]
    model = build(spec)
    assert expert_bytes(model) == cost.expert_bytes(spec, Weights.FP32)
    counted = cost.expert_bytes(spec, Weights.INT8) + cost.expert_scale_bytes(spec)
    assert expert_bytes(with_int8_experts(model)) == counted


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", WITH_EXPERTS)
def test_prepared_steps_continue_a_prompt_as_the_model_does(name, batch, precision):
    smaller, ids_BT = with_int8_experts(with_large_experts(SPECS[name])), ids(batch, 12)
    with torch.inference_mode():
        whole = smaller(ids_BT).logits_BTV[:, 7:]
    with torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16):
        _, cache = generate.prefill(smaller, ids_BT[:, :7])
        taker = steps.prepare(smaller, cache)
        assert isinstance(taker, steps.CpuSteps)
        found = torch.stack([taker.step(ids_B) for ids_B in ids_BT[:, 7:].unbind(1)], dim=1)
    rtol, part = (1e-4, 1e-5) if precision is torch.float32 else (0.1, 0.05)
    torch.testing.assert_close(found, whole, rtol=rtol, atol=part * whole.abs().max().item())


def test_a_model_without_experts_in_floats_says_so():
    for model in (build(SPECS["mixer-mamba"]), with_int8_experts(build(SPECS["hybrid"]))):
        with pytest.raises(ValueError, match="no layer of the model has experts in floats"):
            with_int8_experts(model)
