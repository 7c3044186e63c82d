"""The activation loss: its value and gradient, what it does to a training, where it is refused."""

from dataclasses import replace

import pytest
import torch

from hybrid.model import build
from sweeps.trial.engine import Compile, Engine
from sweeps.trial.inside import INSIDE, OUTPUT, largest_inside
from sweeps.trial.outputs import seen_outputs, with_mean_square, without_square
from sweeps.trial.recipe import Precision
from sweeps.trial.run import run
from tests.models import SPECS, VOCAB
from tests.test_train import RECIPE, repeated_halves, trained

IDS = torch.arange(24).reshape(2, 12) % VOCAB


def outputs_of(model) -> list[torch.Tensor]:
    """Return what sub-layers add, from the residual stream before and after each of them."""
    x_BTD, found = model.embed(IDS).float(), []
    for block in model.blocks:
        mixed_BTD, _ = block.mixing(x_BTD, None)
        fed_BTD, _ = block.feeding(mixed_BTD)
        found.append(mixed_BTD - x_BTD)
        if fed_BTD is not mixed_BTD:
            found.append(fed_BTD - mixed_BTD)
        x_BTD = fed_BTD
    return found


@pytest.mark.parametrize("name", SPECS)
def test_it_is_the_mean_square_of_what_is_added(name):
    model = build(SPECS[name])
    expected = outputs_of(model)
    seen: list[torch.Tensor] = []
    with seen_outputs(model, seen.append):
        model(IDS)
    assert len(seen) == len(expected)
    for y_BTD, wanted_BTD in zip(seen, expected, strict=True):
        torch.testing.assert_close(y_BTD, wanted_BTD, rtol=1e-4, atol=1e-7)
    nats, routings, square = with_mean_square(model.loss, model)(IDS, IDS)
    wanted = torch.stack([y_BTD.square().mean() for y_BTD in expected]).mean()
    torch.testing.assert_close(square, wanted, rtol=1e-4, atol=1e-12)
    plain, routed, nothing = without_square(model.loss)(IDS, IDS)
    assert torch.equal(plain, nats)
    assert len(routed) == len(routings)
    assert nothing == 0
    assert not nothing.requires_grad


def test_no_hook_is_left_behind():
    model = build(SPECS["hybrid"])
    with_mean_square(model.loss, model)(IDS, IDS)
    with pytest.raises(IndexError), seen_outputs(model, lambda y_BTD: None):
        model(torch.full((1, 1), VOCAB))
    assert not any(module._forward_hooks for module in model.modules())


def test_its_gradient_is_the_slope():
    model = build(SPECS["hybrid"])
    loss = with_mean_square(model.loss, model)
    draws = torch.Generator().manual_seed(0)
    for parameter in (
        model.blocks[0].mixing.mixer.out_proj.weight,  # Mamba
        model.blocks[1].feeding.feed_forward.down_XDF,  # experts
        model.blocks[2].mixing.mixer.qkv.weight,  # attention
    ):
        model.zero_grad(set_to_none=True)
        loss(IDS, IDS)[2].backward()
        way = torch.randn(parameter.shape, generator=draws) * parameter.abs().mean()
        slope = (parameter.grad * way).sum().item()
        ends, step = [], 0.05
        for sign in (1, -2):
            with torch.no_grad():
                parameter += sign * step * way
                ends.append(loss(IDS, IDS)[2].item())
        with torch.no_grad():
            parameter += step * way
        assert slope != 0
        assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=0.02)


def largest(model) -> float:
    with torch.no_grad(), largest_inside(model) as inside:
        model(IDS)
    return inside[OUTPUT]


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
@pytest.mark.parametrize("name", ["hybrid", "mixer-attention", "feed_forward-moe"])
def test_much_of_it_shrinks_outputs_and_a_little_costs_no_learning(name, precision):
    free, steps = trained(name, RECIPE, precision)
    light, few = trained(name, replace(RECIPE, activation=1e-5), precision)
    crushed, _ = trained(name, replace(RECIPE, activation=1e4), precision)
    assert largest(crushed) < 0.3 * largest(free)
    assert few[-1].nats_per_token == pytest.approx(steps[-1].nats_per_token, abs=0.05)
    # Also in bf16, where so small a gradient is lost unless it meets the other in float32.
    pairs = zip(free.parameters(), light.parameters(), strict=True)
    assert not all(torch.equal(p, q) for p, q in pairs)


def test_without_it_a_step_is_what_it_was():
    """One step by hand, without the activation loss anywhere."""
    recipe = replace(RECIPE, steps=1, balance=0.0, weight_decay=0.0, clip_norm=1e9, warmup=0.0)
    model, (step,) = trained("hybrid", recipe)
    by_hand = build(SPECS["hybrid"], seed=recipe.seed)
    nats, _ = by_hand.loss(*repeated_halves(0))
    nats.backward()
    torch.optim.AdamW(
        by_hand.parameters(), lr=recipe.lr, betas=recipe.betas, weight_decay=0.0, fused=True
    ).step()
    assert step.nats_per_token == nats.item()
    for p, q in zip(model.parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("name", SPECS)
def test_the_largest_output_is_that_of_every_kind_of_model(name):
    model = build(SPECS[name])
    with torch.no_grad(), largest_inside(model) as inside:
        model(IDS)
        model(IDS[:, :3])
        expected = max(y_BTD.abs().max().item() for y_BTD in outputs_of(model))
    assert inside[OUTPUT] == pytest.approx(expected, rel=1e-4)
    mamba = any(type(layer.mixer).__name__ == "Mamba" for layer in SPECS[name].layers)
    assert set(inside) == {OUTPUT, *(INSIDE if mamba else ())}


def test_it_looks_into_a_compiled_model_too():
    model = build(SPECS["hybrid"])
    alone = largest(model)

    def compiled(*_):
        raise AssertionError("hooks would not be seen")

    model.hidden = compiled
    assert largest(model) == alone
    assert model.hidden is compiled


def test_a_run_with_a_compiler_is_refused_and_says_why(source):
    recipe = replace(RECIPE, source=source, activation=1e-5)
    record = run(SPECS["hybrid"], recipe, engine=Engine(device="cpu", compile=Compile.ON))
    assert record.outcome == "failed"
    assert "compile=on must be off with activation=1e-05" in record.error
