"""Models of equal size that differ in one thing, by the width of their MLPs.

Every model has as many parameters as the plain hybrid of its scale, within 1 %. Matrices start with
a standard deviation of 1/sqrt(inputs) (fan-in). Pure attention has rotary positions, and so has a
model that begins with attention. Hybrids have none, as in the paper.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

from hybrid import cost
from hybrid.fit import fit
from hybrid.jamba import jamba, parse_ratio
from hybrid.spec import Attention, Init, ModelSpec, MoE, Rope, StateSpace

ATTENTION, THREE, SEVEN, MAMBA = "1:0", "1:3", "1:7", "0:1"
MATCHED = f"total parameters, within 1 % of {SEVEN}, by the width of the MLPs"
EXPERTS_EVERY = 2  # layers, e of the paper


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What all arms of a scale share."""

    vocab: int
    width: int
    hidden: int  # of the plain hybrid's MLPs
    blocks: int
    l: int = 8  # noqa: E741 - the paper's letter: layers of a block
    heads: int
    kv_heads: int
    n_experts: int = 8


@cache  # rates and seeds share it
def matched(
    shape: Shape,
    ratio: str,
    *,
    mamba: StateSpace | None = None,
    rope: bool = False,
    attention_offset: int | None = None,
    like: str = SEVEN,
    init: Init = Init.FAN_IN,
) -> ModelSpec:
    """Return the model of attention:Mamba `ratio`, as large as the plain model of ratio `like`.

    `attention_offset` is the 0-based place of the attention layer in each period, None the middle.
    """
    return fit(
        lambda hidden: _spec(
            shape,
            ratio,
            hidden,
            mamba=mamba,
            rope=rope,
            attention_offset=attention_offset,
            init=init,
        ),
        cost.params,
        cost.params(_spec(shape, like, shape.hidden)),
    )


@cache
def with_experts(shape: Shape, *, top_k: int = 2, init: Init = Init.FAN_IN) -> ModelSpec:
    """Return the plain hybrid with experts in every second layer, at equal active parameters.

    The width of the experts is such that a token uses as many parameters as in the dense hybrid.
    """

    def of_width(hidden: int) -> ModelSpec:
        moe = MoE(hidden=hidden, n_experts=shape.n_experts, top_k=top_k)
        return _spec(shape, SEVEN, shape.hidden, moe=moe, init=init)

    return fit(of_width, cost.active_params, cost.params(_spec(shape, SEVEN, shape.hidden)))


def model(
    ratio: str, shape_of: Callable[..., Shape] = lambda scale: scale.shape, **options
) -> Callable[..., ModelSpec]:
    """Return a function from a scale to the model of `ratio`, with the `options` of `matched`."""
    return lambda scale: matched(shape_of(scale), ratio, **options)


def _spec(
    shape: Shape,
    ratio: str,
    hidden: int,
    *,
    mamba: StateSpace | None = None,
    rope: bool = False,
    attention_offset: int | None = None,
    moe: MoE | None = None,
    init: Init = Init.FAN_IN,
) -> ModelSpec:
    positions = Rope() if rope else None
    spec = jamba(
        vocab=shape.vocab,
        width=shape.width,
        hidden=hidden,
        blocks=shape.blocks,
        l=shape.l,
        ratio=parse_ratio(ratio),
        attention=Attention(heads=shape.heads, kv_heads=shape.kv_heads, positions=positions),
        mamba=mamba,
        attention_offset=attention_offset,
        moe=moe,
        e=EXPERTS_EVERY,
    )
    return replace(spec, init=init)
