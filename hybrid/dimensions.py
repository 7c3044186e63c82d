"""The numbers of a spec that `fit.match` may solve for, by name. Free of torch.

A Scale can grow without end and prefers round values; a Choice has few values that make sense. A
number that several layers share is changed in all of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import gcd, lcm
from types import UnionType
from typing import Any

from hybrid.spec import MLP, Attention, Layer, Mamba2, ModelSpec, MoE, StateSpace

MOST_EXPERTS = 1024
MOST_EXPAND = 16

Put = Callable[[ModelSpec, int], ModelSpec]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A width: any multiple of `step(spec)`."""

    put: Put
    step: Callable[[ModelSpec], int]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A count: one of `values(spec)`, none where the spec has no such layer."""

    put: Put
    values: Callable[[ModelSpec], Sequence[int]]


def _put_width(spec: ModelSpec, x: int) -> ModelSpec:
    return replace(spec, width=x)


def _width_step(spec: ModelSpec) -> int:
    """Every number of heads must divide the width; rotary positions need an even head width.

    Of Mamba-2, heads of a width and their groups divide the inner width.
    """
    attention = (a.heads * (1 if a.positions is None else 2) for a in _attentions(spec))
    mamba2 = (_inner_step(m) // gcd(_inner_step(m), m.expand) for m in _mamba2s(spec))
    return lcm(*attention, *mamba2)


def _inner_step(mamba2: Mamba2) -> int:
    return mamba2.head_width * mamba2.groups


def _put_periods(spec: ModelSpec, x: int) -> ModelSpec:
    return replace(spec, layers=_period(spec) * x)


def _period(spec: ModelSpec) -> tuple[Layer, ...]:
    """Return the shortest run of layers that the model repeats."""
    layers = spec.layers
    lengths = (n for n in range(1, len(layers) + 1) if len(layers) % n == 0)
    return next(layers[:n] for n in lengths if layers[:n] * (len(layers) // n) == layers)


def _put_mixer(kind: type | UnionType, field: str) -> Put:
    """Return what sets `field` of every mixer of that kind."""

    def change(layer: Layer, x: int) -> Layer:
        mixer: Any = layer.mixer
        return replace(layer, mixer=replace(mixer, **{field: x}))

    def put(spec: ModelSpec, x: int) -> ModelSpec:
        layers = (change(y, x) if isinstance(y.mixer, kind) else y for y in spec.layers)
        return replace(spec, layers=tuple(layers))

    return put


def _put_feed_forward(kind: type, field: str) -> Put:
    """Return what sets `field` of every feed-forward of that kind."""

    def change(layer: Layer, x: int) -> Layer:
        feed_forward: Any = layer.feed_forward
        return replace(layer, feed_forward=replace(feed_forward, **{field: x}))

    def put(spec: ModelSpec, x: int) -> ModelSpec:
        layers = (change(y, x) if isinstance(y.feed_forward, kind) else y for y in spec.layers)
        return replace(spec, layers=tuple(layers))

    return put


def _attentions(spec: ModelSpec) -> list[Attention]:
    return [layer.mixer for layer in spec.layers if isinstance(layer.mixer, Attention)]


def _mamba2s(spec: ModelSpec) -> list[Mamba2]:
    return [layer.mixer for layer in spec.layers if isinstance(layer.mixer, Mamba2)]


def _moes(spec: ModelSpec) -> list[MoE]:
    return [x.feed_forward for x in spec.layers if isinstance(x.feed_forward, MoE)]


def _expert_counts(spec: ModelSpec) -> Sequence[int]:
    least = max((moe.top_k for moe in _moes(spec)), default=None)
    return () if least is None else range(least, MOST_EXPERTS + 1)


def _top_ks(spec: ModelSpec) -> Sequence[int]:
    return range(1, 1 + min((moe.n_experts for moe in _moes(spec)), default=0))


def _kv_heads(spec: ModelSpec) -> Sequence[int]:
    shared = gcd(*(a.heads for a in _attentions(spec)))
    return [x for x in range(1, shared + 1) if shared % x == 0]


def _expands(spec: ModelSpec) -> Sequence[int]:
    step = lcm(*(_inner_step(m) for m in _mamba2s(spec)))
    return [x for x in range(1, MOST_EXPAND + 1) if x * spec.width % step == 0]


def _any(spec: ModelSpec) -> int:
    return 1


FREE: dict[str, Scale | Choice] = {
    "width": Scale(put=_put_width, step=_width_step),
    "mlp_hidden": Scale(put=_put_feed_forward(MLP, "hidden"), step=_any),
    "expert_hidden": Scale(put=_put_feed_forward(MoE, "hidden"), step=_any),
    "d_state": Scale(put=_put_mixer(StateSpace, "d_state"), step=_any),
    "window": Scale(put=_put_mixer(Attention, "window"), step=_any),
    # Repeats of the shortest run of layers that makes up the model.
    "periods": Scale(put=_put_periods, step=_any),
    "n_experts": Choice(put=_put_feed_forward(MoE, "n_experts"), values=_expert_counts),
    "top_k": Choice(put=_put_feed_forward(MoE, "top_k"), values=_top_ks),
    "expand": Choice(put=_put_mixer(StateSpace, "expand"), values=_expands),
    "kv_heads": Choice(put=_put_mixer(Attention, "kv_heads"), values=_kv_heads),
}
