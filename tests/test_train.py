"""The training loop: schedule, weight groups, balance loss, and that it learns."""

from dataclasses import replace

import pytest
import torch

from hybrid.model import build
from sweeps.trial.optimizers import build_optimizer, weight_groups
from sweeps.trial.recipe import Precision, Recipe
from sweeps.trial.train import Step, learning_rate, train
from tests.models import SPECS, VOCAB

RECIPE = Recipe(steps=40, batch=8, tokens=16, lr=1e-2)


def repeated_halves(step: int):
    """Random first half, repeated as second half; only the second half can be predicted."""
    draws = torch.Generator().manual_seed(step)
    half_BT = torch.randint(VOCAB, (8, 8), generator=draws)
    ids_BT = torch.cat([half_BT, half_BT], dim=1)
    return ids_BT[:, :-1], ids_BT[:, 1:]


def trained(name: str, recipe: Recipe = RECIPE, precision: Precision = Precision.FP32):
    model = build(SPECS[name], seed=recipe.seed)
    optimizer = build_optimizer(model, recipe)
    return model, list(train(model, optimizer, repeated_halves, recipe, precision))


def losses(steps: list[Step]) -> list[float]:
    return [step.nats_per_token for step in steps]


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
@pytest.mark.parametrize("name", ["hybrid", "hybrid-tied", "feed_forward-moe"])
def test_same_seed_same_run_bit_for_bit(name, precision):
    recipe = replace(RECIPE, steps=5)
    (first, a), (second, b) = (trained(name, recipe, precision) for _ in range(2))
    assert losses(a) == losses(b)
    assert all(
        torch.equal(x, y) for x, y in zip(first.parameters(), second.parameters(), strict=True)
    )
    assert losses(trained(name, replace(recipe, seed=1), precision)[1]) != losses(a)


def test_the_schedule_warms_up_and_decays():
    rates = [learning_rate(replace(RECIPE, steps=100, lr=1.0), step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == max(rates) == pytest.approx(1.0)
    assert rates[99] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert learning_rate(replace(RECIPE, steps=1, lr=1.0), 0) == 1.0


def test_vectors_and_a_do_not_decay():
    model = build(SPECS["hybrid"])
    names = {id(p): name for name, p in model.named_parameters()}
    groups = weight_groups(dict(model.named_parameters()), 0.1)
    decayed, kept = ([names[id(p)] for p in g["params"]] for g in groups)
    assert set(decayed) | set(kept) == set(names.values())
    ends = ("norm.weight", "a_log_EN", "d_E", "dt_bias_E", "bias_E")
    assert all(name.endswith(ends) for name in kept)
    assert not any(name.endswith(ends) for name in decayed)
    assert [g["weight_decay"] for g in groups] == [0.1, 0.0]


def test_the_balance_loss_really_trains_the_router():
    def router_after(balance: float) -> torch.Tensor:
        model, _ = trained("feed_forward-moe", replace(RECIPE, steps=3, balance=balance))
        return model.blocks[0].feeding.feed_forward.router_XD

    assert not torch.equal(router_after(0.0), router_after(1.0))


def test_steps_say_what_happened():
    _, steps = trained("feed_forward-moe", replace(RECIPE, steps=3))
    assert [step.step for step in steps] == [0, 1, 2]
    assert [step.tokens for step in steps] == [120, 240, 360]
    assert all(step.balance >= 2 for step in steps)  # top_k is the least there is
    assert all(step.grad_norm > 0 and step.seconds > 0 for step in steps)


def test_gradients_are_clipped():
    free, _ = trained("hybrid", replace(RECIPE, steps=1, clip_norm=1e9))
    short, _ = trained("hybrid", replace(RECIPE, steps=1, clip_norm=1e-12))
    start = build(SPECS["hybrid"])
    # AdamW's eps is far above gradients clipped to nothing, so only the decay moves the weights.
    moved = [
        sum((p - q).abs().sum() for p, q in zip(m.parameters(), start.parameters(), strict=True))
        for m in (free, short)
    ]
    assert moved[1] < 0.1 * moved[0]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("steps", 0, "steps=0 must be an integer of 1 or more"),
        ("lr", 0.0, "lr=0.0 must be above 0"),
        ("warmup", 1.5, r"warmup=1.5 must lie in 0..1"),
        ("balance", -1.0, "balance=-1.0 must be 0 or more"),
        ("activation", -1e-5, "activation=-1e-05 must be 0 or more"),
        ("measure_int8", 1, "measure_int8=1 must be True or False"),
        ("seed", -1, "seed=-1 must be a whole number"),
        ("contexts", (0,), "contexts=0 must be"),
        ("precision", "fp8", "precision='fp8' must be one of auto, fp32, bf16"),
    ],
)
def test_a_wrong_recipe_says_why(field, value, message):
    with pytest.raises(ValueError, match=message):
        replace(RECIPE, **{field: value})
