"""Each kind of layer learns a task that needs it, and fails where it is taken away."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from hybrid.model import build
from hybrid.spec import MLP, Attention, Layer, Mamba, Mamba2, Mixer, ModelSpec, MoE, Rope
from sweeps.trial.data.documents import Split
from sweeps.trial.data.synthetic import accuracy, chance, draw
from sweeps.trial.data.tasks import Recall, Task, Xor
from sweeps.trial.optimizers import build_optimizer
from sweeps.trial.recipe import Precision, Recipe
from sweeps.trial.train import train

WIDTH, VOCAB, LENGTH = 32, 16, 16
RECIPE = Recipe(steps=300, batch=32, tokens=LENGTH, lr=1e-2, weight_decay=0.0)
MLP_LAYER = MLP(hidden=64)


def final_accuracy(task: Task, *layers: Layer, recipe: Recipe = RECIPE) -> float:
    """Train on `task` and return the accuracy on a batch that training did not see."""

    def batch(step: int, split: Split = Split.TRAIN):
        return draw(
            task,
            seed=0,
            step=step,
            split=split,
            batch=recipe.batch,
            length=recipe.tokens,
            vocab=VOCAB,
        )

    model = build(ModelSpec(vocab=VOCAB, width=WIDTH, layers=layers))
    for _ in train(model, build_optimizer(model, recipe), batch, recipe, Precision.FP32):
        pass
    ids_BT, targets_BT = batch(0, Split.VALID)
    with torch.no_grad():
        return accuracy(model(ids_BT).logits_BTV.argmax(dim=-1), targets_BT)


MIXERS = {
    "attention": Attention(heads=4, kv_heads=2),
    "attention_rope": Attention(heads=4, kv_heads=4, positions=Rope()),
    "attention_window": Attention(heads=4, kv_heads=1, window=12, positions=Rope()),
    "mamba": Mamba(),
    "mamba_no_conv": Mamba(d_conv=None),
    "mamba2": Mamba2(d_state=16, head_width=16),
    "mamba_plain": Mamba(inner_norm=False, d_state=8, d_conv=2),
}
BLIND = Attention(heads=4, kv_heads=2, window=1)  # every token sees itself alone


def recall_accuracy(mixer: Mixer) -> float:
    layer = Layer(mixer=mixer, feed_forward=MLP_LAYER)
    return final_accuracy(Recall(), layer, layer, recipe=replace(RECIPE, steps=150))


def some_slow(cases: dict, *quick: str) -> list:
    """Return all cases as parameters, those not named `quick` with the mark `slow`."""
    return [
        pytest.param(case, id=name, marks=() if name in quick else pytest.mark.slow)
        for name, case in cases.items()
    ]


@pytest.mark.parametrize("mixer", some_slow(MIXERS, "attention", "mamba", "mamba2"))
def test_a_mixer_carries_what_came_before(mixer):
    assert recall_accuracy(mixer) > 0.3


def test_without_a_mixer_there_is_chance():
    assert abs(recall_accuracy(BLIND) - chance(Recall(), VOCAB)) < 0.06


# One head: with several, products of scores can imitate a little of what the feed-forward does.
ONE_HEAD = Attention(heads=1, kv_heads=1, positions=Rope())
FEED_FORWARDS = {
    "mlp": MLP_LAYER,
    "moe": MoE(hidden=32, n_experts=4, top_k=2),
    "moe_renormalised": MoE(hidden=32, n_experts=4, top_k=2, renormalise=True),
}


def xor_accuracy(feed_forward: MLP | MoE | None) -> float:
    layer = Layer(mixer=ONE_HEAD, feed_forward=feed_forward)
    return final_accuracy(Xor(), layer)


@cache
def without_a_feed_forward() -> float:
    return xor_accuracy(None)


@pytest.mark.parametrize("feed_forward", some_slow(FEED_FORWARDS, "mlp", "moe"))
def test_a_feed_forward_computes_what_a_mixer_cannot(feed_forward):
    assert xor_accuracy(feed_forward) > without_a_feed_forward() + 0.2
