"""The best rate does not move with the width, where `lr_base_width` says which width it is for."""

from pathlib import Path
from statistics import mean

import pytest

from hybrid.model import build
from hybrid.spec import MLP, Attention, Init, Layer, Mamba, ModelSpec, stack
from sweeps.trial.data.batches import train_batch
from sweeps.trial.data.sources import TextFile
from sweeps.trial.data.streams import Tokens, open_tokens
from sweeps.trial.optimizers import build_optimizer
from sweeps.trial.recipe import WSD, Precision, Recipe
from sweeps.trial.train import train
from tests.text import write_text

WIDTHS = (32, 64, 128)
RATES = tuple(2.0**power for power in range(-9, -4))
VOCAB, BATCH, T, STEPS = 512, 8, 32, 150
HEAD = 16  # the width of a head, which must not grow with the model's


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch) -> Tokens:
    monkeypatch.setenv("HYBRID_CACHE", str(tmp_path / "cache"))
    write_text(tmp_path / "tale.txt", paragraphs=1000)
    return open_tokens(TextFile(path=str(tmp_path / "tale.txt")), VOCAB)


def spec_of(width: int) -> ModelSpec:
    feed_forward = MLP(hidden=2 * width)
    mamba = Layer(mixer=Mamba(d_state=8), feed_forward=feed_forward)
    heads = width // HEAD
    attention = Layer(mixer=Attention(heads=heads, kv_heads=heads), feed_forward=feed_forward)
    layers = stack("MAM", M=mamba, A=attention)
    return ModelSpec(vocab=VOCAB, width=width, layers=layers, init=Init.MUP)


def loss(width: int, lr: float, tokens: Tokens) -> float:
    """Return the mean training loss of the last tenth of the steps, nats a token."""
    schedule = WSD(warmup_steps=STEPS // 10)
    recipe = Recipe(steps=STEPS, batch=BATCH, tokens=T, lr=lr, schedule=schedule, lr_base_width=64)
    model = build(spec_of(width))

    def batch(step: int):
        return train_batch(tokens, seed=0, step=step, batch=BATCH, length=T)

    optimizer = build_optimizer(model, recipe)
    curve = list(train(model, optimizer, batch, recipe, Precision.FP32))
    return mean(step.nats_per_token for step in curve[-STEPS // 10 :])


@pytest.mark.slow
def test_the_best_rate_stays_within_a_factor_of_two_over_the_width(tokens):
    found = {width: {lr: loss(width, lr, tokens) for lr in RATES} for width in WIDTHS}
    best = {width: min(losses, key=losses.__getitem__) for width, losses in found.items()}
    assert max(best.values()) <= 2 * min(best.values()), found
    assert all(RATES[0] < rate < RATES[-1] for rate in best.values()), found
    least = [min(losses.values()) for losses in found.values()]
    assert least == sorted(least, reverse=True), found  # a wider model learns more
