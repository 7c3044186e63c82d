"""Counted operations against torch's own counter, and against the mistakes others have published.

Torch counts what a matrix product computes, so all pairs of the reference attention, also the
masked ones: `uncausal` puts them back. It is asked from two tokens on: a single row is no matrix
product to it. The scan it does not see at all; `Elementwise` counts that.
"""

from dataclasses import replace

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from hybrid import ops
from hybrid.flops import Flops, forward_flops, training_flops, visible_pairs
from hybrid.model import build
from hybrid.ops import reference
from hybrid.presets import JAMBA_V0_1, MIXTRAL_8X7B
from hybrid.spec import MLP, Attention, Layer, Mamba, Mamba2, Mixer, ModelSpec, MoE, Rope

REPEATABLE = settings(deadline=None, derandomize=True, database=None)
WIDTH = st.sampled_from((8, 16, 24))


@st.composite
def attentions(draw) -> Attention:
    kv_heads = draw(st.sampled_from((1, 2)))
    return Attention(
        heads=kv_heads * draw(st.sampled_from((1, 2))),
        kv_heads=kv_heads,
        window=draw(st.none() | st.integers(1, 40)),
        positions=draw(st.none() | st.just(Rope())),
    )


@st.composite
def mambas(draw) -> Mamba:
    return Mamba(
        d_state=draw(st.integers(1, 9)),
        d_conv=draw(st.none() | st.integers(1, 4)),
        expand=draw(st.integers(1, 3)),
        dt_rank=draw(st.none() | st.integers(1, 6)),
        inner_norm=draw(st.booleans()),
    )


@st.composite
def mamba2s(draw) -> Mamba2:
    return Mamba2(
        d_state=draw(st.integers(1, 9)),
        d_conv=draw(st.none() | st.integers(1, 4)),
        expand=draw(st.integers(1, 3)),
        head_width=draw(st.sampled_from((1, 2, 4))),
        groups=draw(st.integers(1, 2)),
        gated_norm=draw(st.booleans()),
    )


@st.composite
def moes(draw) -> MoE:
    n_experts = draw(st.integers(1, 6))
    top_k = draw(st.integers(1, n_experts))
    return MoE(hidden=draw(st.integers(1, 20)), n_experts=n_experts, top_k=top_k)


def mlps():
    return st.builds(MLP, hidden=st.integers(1, 40))


def specs(mixers, feed_forwards):
    layer = st.builds(Layer, mixer=mixers, feed_forward=feed_forwards)
    return st.builds(
        ModelSpec,
        vocab=st.integers(2, 50),
        width=WIDTH,
        layers=st.lists(layer, min_size=1, max_size=3).map(tuple),
        tied=st.booleans(),
    )


KINDS = {
    "attention": specs(attentions(), st.none()),
    "mamba": specs(mambas(), st.none()),
    "mamba2": specs(mamba2s(), st.none()),
    "mlp": specs(attentions(), mlps()),
    "moe": specs(attentions(), moes()),
    "hybrid": specs(attentions() | mambas() | mamba2s(), st.none() | mlps() | moes()),
}


def uncausal(spec: ModelSpec, flops: Flops, tokens: int) -> int:
    """Return what torch should count: every pair of a square, and no scan."""
    D = spec.width
    layers = [layer for layer in spec.layers if isinstance(layer.mixer, Attention)]
    square = len(layers) * 2 * 2 * tokens**2 * D  # heads times head width is the width
    return flops.total - flops.scan - flops.attention_pairs + square


@pytest.mark.parametrize("kind", KINDS)
def test_products_are_those_torch_counts(kind):
    @settings(REPEATABLE, max_examples=30, phases=[Phase.generate])
    @given(spec=KINDS[kind], tokens=st.integers(2, 24), batch=st.integers(1, 2))
    def check(spec, tokens, batch):
        model = build(spec, ops=ops.REFERENCE)
        ids_BT = torch.arange(batch * tokens).reshape(batch, tokens) % spec.vocab
        forward = FlopCounterMode(display=False)
        with forward:
            logits_BTV = model(ids_BT).logits_BTV
        flops = forward_flops(spec, tokens=tokens)
        counted = batch * uncausal(spec, flops, tokens)
        assert forward.get_total_flops() == pytest.approx(counted, rel=0.01)
        backward = FlopCounterMode(display=False)
        with backward:
            logits_BTV.sum().backward()
        # Torch takes the weight gradient of a depthwise convolution for that of a full one.
        conv = backward.get_flop_counts()["Global"].get(torch.ops.aten.convolution_backward, 0)
        products = 2 * (counted - batch * flops.conv)
        assert backward.get_total_flops() - conv == pytest.approx(products, rel=0.01)

    check()


class Elementwise(TorchDispatchMode):
    """Counts one operation for each value an elementwise op makes, and each value a sum takes."""

    MAKES = ("mul", "exp", "add")
    FREE = ("unsqueeze", "select", "slice", "stack", "alias", "view")
    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name == "sum":
            self.count += args[0].numel()
        elif name in self.MAKES:
            self.count += out.numel()
        else:
            assert name in self.FREE, name
        return out


@pytest.mark.parametrize(("tokens", "d_state", "expand"), [(1, 1, 1), (7, 4, 2), (12, 16, 1)])
def test_the_scan_is_what_the_reference_does(tokens, d_state, expand):
    E, N = expand * 16, d_state
    row, channel = torch.rand(1, tokens, E), torch.rand(1, tokens, N)
    a_EN, d_E, h_BEN = -torch.rand(E, N), torch.rand(E), torch.zeros(1, E, N)
    with Elementwise() as counter:
        reference.recurrence(row, row, a_EN, channel, channel, d_E, h_BEN)
    assert flops_of(Mamba(d_state=N, expand=expand), tokens).scan == counter.count


@pytest.mark.parametrize(("tokens", "d_state", "heads"), [(1, 1, 1), (7, 4, 2), (12, 16, 8)])
def test_the_scan_of_mamba2_is_what_the_reference_does(tokens, d_state, heads):
    H, P, N = heads, 32 // heads, d_state
    u_BTHP, dt_BTH, b_BTHN = (torch.rand(1, tokens, H, *x) for x in ((P,), (), (N,)))
    a_H, d_H, h_BHPN = -torch.rand(H), torch.rand(H), torch.zeros(1, H, P, N)
    with Elementwise() as counter:
        reference.head_recurrence(u_BTHP, dt_BTH, a_H, b_BTHN, b_BTHN, d_H, h_BHPN)
    assert flops_of(Mamba2(d_state=N, head_width=P), tokens).scan == counter.count


def flops_of(mixer: Mixer, tokens: int, **rest) -> Flops:
    layer = Layer(mixer=mixer, feed_forward=rest.pop("feed_forward", None))
    return forward_flops(ModelSpec(vocab=10, width=16, layers=(layer,)), tokens=tokens, **rest)


@given(st.integers(1, 40), st.integers(0, 40), st.none() | st.integers(1, 50))
@REPEATABLE
def test_pairs_are_those_of_the_mask(tokens, seen, window):
    mask_TS = reference.visible(tokens, seen + tokens, window, torch.device("cpu"))
    assert visible_pairs(tokens=tokens, seen=seen, window=window) == mask_TS.sum()


def test_causal_attention_is_half_the_square():
    assert visible_pairs(tokens=4096) == pytest.approx(4096**2 / 2, rel=1e-3)


# ---- the mistakes of others ----------------------------------------------------------------------


def test_mamba_layers_are_not_charged_for_attention():
    flops = flops_of(Mamba(), 4096)
    assert flops.attention_pairs == flops.attention_projections == 0
    assert flops_of(Mamba(), 8192).total == 2 * flops.total  # linear in the length
    # Of Jamba's layers four attend: their pairs cost an eighth of those of 32 such layers.
    jamba, mixtral = (forward_flops(s, tokens=4096) for s in (JAMBA_V0_1, MIXTRAL_8X7B))
    assert 8 * jamba.attention_pairs == mixtral.attention_pairs


def test_attention_grows_with_the_square_of_the_length():
    attention = Attention(heads=4, kv_heads=2)
    short, long = (flops_of(attention, tokens) for tokens in (2048, 4096))
    assert long.attention_projections == 2 * short.attention_projections
    assert long.attention_pairs == pytest.approx(4 * short.attention_pairs, rel=1e-3)
    per_token = [training_flops(JAMBA_V0_1, tokens=tokens) for tokens in (4096, 262_144)]
    assert per_token[1] > 1.3 * per_token[0]


def test_a_window_stops_that_growth():
    attention = Attention(heads=4, kv_heads=2, window=64)
    short, long = (flops_of(attention, tokens) for tokens in (4096, 8192))
    assert long.attention_pairs == pytest.approx(2 * short.attention_pairs, rel=0.01)


def test_only_chosen_experts_are_counted():
    def experts(n_experts: int, top_k: int) -> Flops:
        moe = MoE(hidden=24, n_experts=n_experts, top_k=top_k)
        return flops_of(Mamba(), 8, feed_forward=moe)

    dense = flops_of(Mamba(), 8, feed_forward=MLP(hidden=24))
    assert experts(4, 1).experts == experts(64, 1).experts == dense.mlp
    assert experts(64, 2).experts == 2 * dense.mlp
    assert experts(64, 1).router == 16 * experts(4, 1).router  # the router does see them all


def test_the_state_size_is_no_factor_of_the_projections():
    small, large = (flops_of(Mamba(d_state=n), 8) for n in (4, 64))
    added = large.mamba_projections - small.mamba_projections
    assert added == 2 * 8 * 32 * 2 * 60  # B and C alone: tokens, inner width, 2 (64 - 4)
    assert large.scan > 10 * small.scan


def test_a_decoding_step_sees_all_before_it():
    whole = forward_flops(JAMBA_V0_1, tokens=100)
    pieces = forward_flops(JAMBA_V0_1, tokens=99) + forward_flops(JAMBA_V0_1, tokens=1, seen=99)
    assert pieces == whole
    last = forward_flops(JAMBA_V0_1, tokens=100, predictions=1)
    assert replace(last, logits=whole.logits) == whole
    assert 100 * last.logits == whole.logits
    with pytest.raises(ValueError, match=r"tokens=0 must be 1 or more"):
        forward_flops(JAMBA_V0_1, tokens=0)
