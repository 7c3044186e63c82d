"""What a spec holds: parameters, and the bytes of weights, cache and training. Free of torch.

Letters are those of `hybrid/__init__.py`. Counts of parameters and cache bytes are exact (the tests
hold them against allocated tensors). What is computed with them is counted in `flops.py`, what
fits a memory in `memory.py`; the clock's side is `sweeps/trial/measure.py`.
"""

from dataclasses import astuple, dataclass
from enum import StrEnum
from typing import assert_never

from hybrid.activations import FP32_BYTES, passing_bytes, piece_tokens, saved_bytes
from hybrid.spec import (
    MLP,
    Attention,
    FeedForward,
    Mamba,
    Mamba2,
    Mixer,
    ModelSpec,
    MoE,
    StateSpace,
)


class Weights(StrEnum):
    """How weights are stored. INT8 counts one byte for each, scales left out.

    EXPERTS_INT8 is Jamba-1.5's (arXiv 2408.12570): experts in int8, all else in bf16.
    """

    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"
    EXPERTS_INT8 = "experts-int8"


ITEM_BYTES = {Weights.FP32: 4, Weights.BF16: 2, Weights.INT8: 1, Weights.EXPERTS_INT8: 2}
EXPERT_BYTES = {**ITEM_BYTES, Weights.EXPERTS_INT8: 1}


@dataclass(frozen=True, kw_only=True)
class ParamParts:
    """Where the parameters are; a tied embedding counts once."""

    embedding: int
    unembedding: int
    attention: int
    mamba: int  # of either kind, their inner norms included
    mlp: int
    router: int
    experts: int
    norms: int

    @property
    def total(self) -> int:
        return sum(astuple(self))


def params(spec: ModelSpec) -> int:
    """Return the number of parameters; a tied embedding counts once."""
    return param_parts(spec).total


def param_parts(spec: ModelSpec) -> ParamParts:
    """Return the parameters by part."""
    D = spec.width
    mixers = [layer.mixer for layer in spec.layers]
    feed_forwards = [layer.feed_forward for layer in spec.layers if layer.feed_forward is not None]
    moes = [x for x in feed_forwards if isinstance(x, MoE)]
    routers = sum(D * moe.n_experts for moe in moes)
    return ParamParts(
        embedding=spec.vocab * D,
        unembedding=0 if spec.tied else spec.vocab * D,
        attention=sum(mixer_params(x, D) for x in mixers if isinstance(x, Attention)),
        mamba=sum(mixer_params(x, D) for x in mixers if isinstance(x, StateSpace)),
        mlp=sum(feed_forward_params(x, D) for x in feed_forwards if isinstance(x, MLP)),
        router=routers,
        experts=sum(feed_forward_params(moe, D) for moe in moes) - routers,
        norms=(len(mixers) + len(feed_forwards) + 1) * D,
    )


def active_params(spec: ModelSpec) -> int:
    """Return the parameters one token uses: `top_k` of `n_experts` experts, all of the rest."""
    return params(spec) - sum(_idle_params(x.feed_forward, spec.width) for x in spec.layers)


def mixer_params(mixer: Mixer, D: int) -> int:
    """Return the parameters of a mixer in a model of width D."""
    match mixer:
        case Attention(heads=H, kv_heads=K):
            P = D // H
            return 2 * D * H * P + 2 * D * K * P
        case Mamba(d_state=N, d_conv=W, expand=expand, inner_norm=inner_norm):
            E, R = expand * D, mixer.rank(D)
            conv = 0 if W is None else E * (W + 1)
            norms = R + 2 * N if inner_norm else 0
            return 2 * D * E + conv + E * (R + 2 * N) + norms + R * E + E + E * N + E + E * D
        case Mamba2(d_conv=W, gated_norm=gated_norm):
            E, convolved, H = mixer.projected(D)
            conv = 0 if W is None else convolved * (W + 1)
            norm = E if gated_norm else 0
            return D * (E + convolved + H) + conv + 3 * H + norm + E * D
        case _:
            assert_never(mixer)


def feed_forward_params(feed_forward: FeedForward | None, D: int) -> int:
    """Return the parameters of a feed-forward in a model of width D."""
    match feed_forward:
        case None:
            return 0
        case MLP(hidden=F):
            return 3 * D * F
        case MoE(hidden=F, n_experts=X):
            return D * X + X * 3 * D * F
        case _:
            assert_never(feed_forward)


def weight_bytes(spec: ModelSpec, weights: Weights) -> int:
    """Return the bytes of all parameters, stored as `weights`."""
    parts = param_parts(spec)
    return (parts.total - parts.experts) * ITEM_BYTES[weights] + expert_bytes(spec, weights)


def expert_bytes(spec: ModelSpec, weights: Weights) -> int:
    """Return the bytes of all experts, stored as `weights`; scales are not in it."""
    return param_parts(spec).experts * EXPERT_BYTES[weights]


def expert_scale_bytes(spec: ModelSpec) -> int:
    """Return what experts in 8 bits need besides: one fp32 scale for each row of their matrices."""
    moes = [x.feed_forward for x in spec.layers if isinstance(x.feed_forward, MoE)]
    return FP32_BYTES * sum(x.n_experts * (2 * x.hidden + spec.width) for x in moes)


@dataclass(frozen=True, kw_only=True)
class CacheBytes:
    """What a sequence leaves behind for its next token, in bytes."""

    kv: int  # keys and values; grows with the tokens seen, up to a window
    ssm: int  # Mamba's states, in fp32
    conv: int  # the last inputs of Mamba's short convolutions, in fp32

    @property
    def total(self) -> int:
        return self.kv + self.ssm + self.conv


def cache_parts(spec: ModelSpec, *, batch: int, tokens: int, itemsize: int) -> CacheBytes:
    """Return the bytes, by kind, that `batch` sequences hold after `tokens` tokens.

    `itemsize` is that of keys and values; Mamba's states and convolution tails are kept in fp32.
    """
    each = [_mixer_cache(x.mixer, spec.width, tokens, itemsize) for x in spec.layers]
    return CacheBytes(
        kv=batch * sum(x.kv for x in each),
        ssm=batch * sum(x.ssm for x in each),
        conv=batch * sum(x.conv for x in each),
    )


def cache_bytes(spec: ModelSpec, *, batch: int, tokens: int, itemsize: int) -> int:
    """Return the bytes that `batch` sequences hold after `tokens` tokens, all kinds together."""
    return cache_parts(spec, batch=batch, tokens=tokens, itemsize=itemsize).total


def mixer_cache_bytes(mixer: Mixer, D: int, tokens: int, itemsize: int) -> int:
    """Return the bytes one sequence leaves in one mixer's state after `tokens` tokens."""
    return _mixer_cache(mixer, D, tokens, itemsize).total


def _mixer_cache(mixer: Mixer, D: int, tokens: int, itemsize: int) -> CacheBytes:
    match mixer:
        case Attention(heads=H, kv_heads=K, window=window):
            kept = tokens if window is None else min(tokens, window)
            return CacheBytes(kv=itemsize * 2 * kept * K * (D // H), ssm=0, conv=0)
        case Mamba(d_state=N, d_conv=W, expand=expand):
            channel, tail = FP32_BYTES * expand * D, 0 if W is None else W - 1
            return CacheBytes(kv=0, ssm=channel * N, conv=channel * tail)
        case Mamba2(d_state=N, d_conv=W):
            E, convolved, _ = mixer.projected(D)
            tail = 0 if W is None else W - 1
            return CacheBytes(kv=0, ssm=FP32_BYTES * E * N, conv=FP32_BYTES * convolved * tail)
        case _:
            assert_never(mixer)


@dataclass(frozen=True, kw_only=True)
class TrainingBytes:
    """Where training memory goes, in bytes. Not all of it is held at once: see `total`."""

    weights: int  # fp32
    optimizer: int  # two moments of AdamW, or one of Muon, fp32
    trunk: int  # weights and optimiser that wait while a decay branch is trained
    gradients: int  # of the weights, fp32; none are held during the forward pass
    copies: int  # of the weights of matrix products, in their lower precision
    activations: int  # what layers keep for the backward pass
    head: int  # gradients of the head and of its input, made together with the loss
    loss: int  # where it is taken: one piece of the logits, and its part of the head's gradient
    passing: int  # where the backward pass is widest: gradients on their way through one layer

    @property
    def total(self) -> int:
        """The largest of three moments: the loss, the backward pass's first steps, and its end."""
        middle = self.copies + self.activations + self.head + max(self.loss, self.passing)
        return self.weights + self.optimizer + self.trunk + max(middle, self.gradients)


def training_bytes(
    spec: ModelSpec,
    *,
    batch: int,
    tokens: int,
    itemsize: int,
    device: str = "cpu",
    muon: bool = False,
    branches: bool = False,
) -> TrainingBytes:
    """Return an estimate of peak training memory: fp32 weights, no recomputation.

    AdamW holds two moments of each weight; with `muon`, matrices inside layers have one. With
    `branches`, a copy of weights and optimiser is held besides. What Muon needs for one matrix
    while it moves it, in bf16 and given back at once, is not counted.

    `itemsize` is that of matrix products (2 under bf16 autocast), `device` is cpu or cuda. Counted
    are the live tensors of the loop in `sweeps/trial/train.py`. The growth of a process on the CPU
    is larger, for small models about twice: compiled kernels, the libraries' own buffers and memory
    the allocator does not give back are in it and not in this.
    """
    weights = FP32_BYTES * params(spec)
    optimizer = 2 * weights - (FP32_BYTES * muon_params(spec) if muon else 0)
    lower = itemsize != FP32_BYTES
    V, D, n = spec.vocab, spec.width, batch * tokens
    piece = min(n, piece_tokens(V, device))
    return TrainingBytes(
        weights=weights,
        optimizer=optimizer,
        trunk=weights + optimizer if branches else 0,
        gradients=weights,
        copies=itemsize * _product_params(spec) if lower else 0,
        activations=saved_bytes(spec, batch=batch, tokens=tokens, itemsize=itemsize),
        head=itemsize * n * D + FP32_BYTES * V * D,
        loss=itemsize * (n * D + piece * V + V * D),
        passing=passing_bytes(spec, batch=batch, tokens=tokens, itemsize=itemsize),
    )


def muon_params(spec: ModelSpec) -> int:
    """Return the weights that Muon moves where it is asked for: matrices of products in layers."""
    return _product_params(spec) - spec.vocab * spec.width + param_parts(spec).router


def _product_params(spec: ModelSpec) -> int:
    """Return the weights of matrix products in low precision: not routers, they stay fp32."""
    parts = param_parts(spec)
    mamba = sum(_mamba_products(x.mixer, spec.width) for x in spec.layers)
    return parts.attention + mamba + parts.mlp + parts.experts + spec.vocab * spec.width


def _mamba_products(mixer: Mixer, D: int) -> int:
    match mixer:
        case Mamba(d_state=N, expand=expand):
            E, R = expand * D, mixer.rank(D)
            return 3 * D * E + E * (R + 2 * N) + R * E
        case Mamba2():
            return D * sum(mixer.projected(D)) + mixer.expand * D * D
        case _:
            return 0


def _idle_params(feed_forward: FeedForward | None, D: int) -> int:
    """Return the parameters of the experts that a token does not use; the router sees them all."""
    match feed_forward:
        case MoE(hidden=F, n_experts=X, top_k=top_k):
            return (X - top_k) * 3 * D * F
        case _:
            return 0
