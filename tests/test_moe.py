"""The mixture of experts against the sum written out, and its balance loss in closed form."""

import pytest
import torch
import torch.nn.functional as F

from hybrid import spec
from hybrid.layers.mlp import MLP
from hybrid.layers.moe import MoE, Routing, balance_loss
from hybrid.ops import ALL, CPU, Ops

WIDTH = 6


def swiglu(x: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    gate, up = (x @ gate_up.T).chunk(2, dim=-1)
    return (F.silu(gate) * up) @ down.T


def layer(n_experts: int, top_k: int, renormalise: bool = False, ops: Ops = CPU) -> MoE:
    config = spec.MoE(hidden=5, n_experts=n_experts, top_k=top_k, renormalise=renormalise)
    moe = MoE(config, WIDTH, ops)
    draws = torch.Generator().manual_seed(0)
    for parameter in moe.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=draws)
    return moe


def written_out(moe: MoE, x_BTD: torch.Tensor) -> torch.Tensor:
    """Every expert on every token, weighted by the router where it is among the best K."""
    probability_BTX = torch.softmax(x_BTD @ moe.router_XD.T, dim=-1)
    kept = probability_BTX.topk(moe.config.top_k, dim=-1)
    weight_BTX = torch.zeros_like(probability_BTX).scatter(-1, kept.indices, kept.values)
    if moe.config.renormalise:
        weight_BTX = weight_BTX / weight_BTX.sum(-1, keepdim=True)
    every = [swiglu(x_BTD, *w) for w in zip(moe.gate_up_XFD, moe.down_XDF, strict=True)]
    return (weight_BTX[..., None] * torch.stack(every, dim=2)).sum(dim=2)


@pytest.mark.parametrize("ops", ALL.values(), ids=ALL)
@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize(("n_experts", "top_k"), [(1, 1), (4, 1), (4, 2), (4, 4), (16, 3)])
def test_equals_the_sum_over_all_experts(n_experts, top_k, renormalise, ops):
    moe = layer(n_experts, top_k, renormalise, ops)
    x_BTD = torch.randn(2, 7, WIDTH, generator=torch.Generator().manual_seed(1))
    y_BTD, (routing,) = moe(x_BTD)
    torch.testing.assert_close(y_BTD, written_out(moe, x_BTD))
    assert routing.load_X.sum().item() == pytest.approx(top_k)
    assert routing.probability_X.sum().item() == pytest.approx(1)


def test_an_expert_that_gets_no_token_is_no_trouble():
    moe = layer(8, 1)
    y_BTD, (routing,) = moe(torch.randn(1, 1, WIDTH))
    assert y_BTD.shape == (1, 1, WIDTH)
    assert (routing.load_X == 0).sum() == 7
    y_BTD.sum().backward()


def test_balance_is_top_k_when_even_and_more_when_not():
    even = Routing(torch.full((4,), 0.5), torch.full((4,), 0.25))
    collapsed = Routing(torch.tensor([1.0, 1, 0, 0]), torch.tensor([0.5, 0.5, 0, 0]))
    assert balance_loss((even,)).item() == pytest.approx(2)
    assert balance_loss((collapsed,)).item() == pytest.approx(4)
    assert balance_loss((even, collapsed)).item() == pytest.approx(3)
    assert balance_loss(()).item() == 0


def test_training_on_the_balance_alone_evens_the_load():
    moe = layer(4, 1)
    with torch.no_grad():
        moe.router_XD[0] += 1.0
    x_BTD = 1 + torch.randn(4, 64, WIDTH, generator=torch.Generator().manual_seed(2))
    optimizer = torch.optim.Adam([moe.router_XD], lr=0.02)
    before = moe(x_BTD)[1][0].load_X.max().item()
    for _ in range(150):
        optimizer.zero_grad()
        balance_loss(moe(x_BTD)[1]).backward()
        optimizer.step()
    assert before > 0.9
    assert moe(x_BTD)[1][0].load_X.max().item() < 0.5


def test_swiglu_is_written_as_published():
    mlp = MLP(spec.MLP(hidden=5), 4, CPU)
    gate, up, down, x = (
        torch.randn(5, 4),
        torch.randn(5, 4),
        torch.randn(4, 5),
        torch.randn(1, 3, 4),
    )
    with torch.no_grad():
        mlp.gate_up.weight.copy_(torch.cat([gate, up]))
        mlp.down.weight.copy_(down)
    expected = (F.silu(x @ gate.T) * (x @ up.T)) @ down.T
    torch.testing.assert_close(mlp(x)[0], expected)
