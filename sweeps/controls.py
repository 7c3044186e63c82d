"""Models that should learn look-ups, for positive controls of tasks.

    CONTROLS["Mamba-2, state 64"](256, 64)

A task on which no control learns says nothing about the models that are compared on it. Attention
behind a short convolution, the usual control, is not among them: a spec has no convolution in front
of attention. Hybrids have one in each of their Mamba layers, and take its place.

All start by fan-in, and an MLP is twice as wide as the model.
"""

from collections.abc import Callable
from dataclasses import replace

from hybrid.jamba import jamba
from hybrid.spec import Attention, Init, Mamba, Mamba2, ModelSpec, Rope, StateSpace

HEAD_WIDTH = 16


def hybrid_half(vocab: int, width: int) -> ModelSpec:
    """Return four layers, Mamba and attention in turn, without positions."""
    return _model(vocab, width, layers=4, ratio=(1, 1), mamba=Mamba())


def hybrid_quarter(vocab: int, width: int) -> ModelSpec:
    """Return four layers, the third of them attention, the others Mamba, without positions."""
    return _model(vocab, width, layers=4, ratio=(1, 3), mamba=Mamba())


def two_attention_layers(vocab: int, width: int) -> ModelSpec:
    """Return two layers of attention with RoPE, the least that forms an induction head."""
    return _model(vocab, width, layers=2, ratio=(1, 0), positions=Rope())


def mamba2(vocab: int, width: int) -> ModelSpec:
    """Return four layers of Mamba-2 with a state of 64."""
    heads = Mamba2(d_state=64, head_width=HEAD_WIDTH)
    return _model(vocab, width, layers=4, ratio=(0, 1), mamba=heads)


def _model(
    vocab: int,
    width: int,
    *,
    layers: int,
    ratio: tuple[int, int],
    mamba: StateSpace | None = None,
    positions: Rope | None = None,
) -> ModelSpec:
    heads = width // HEAD_WIDTH
    spec = jamba(
        vocab=vocab,
        width=width,
        hidden=2 * width,
        blocks=1,
        l=layers,
        ratio=ratio,
        attention=Attention(heads=heads, kv_heads=heads, positions=positions),
        mamba=mamba,
    )
    return replace(spec, init=Init.FAN_IN)


CONTROLS: dict[str, Callable[[int, int], ModelSpec]] = {
    "hybrid 1:1": hybrid_half,
    "hybrid 1:3": hybrid_quarter,
    "two layers of attention, RoPE": two_attention_layers,
    "Mamba-2, state 64": mamba2,
}
