"""What a spec costs, by arithmetic alone: no torch, no model, no device.

Letters are those of `hybrid/__init__.py`. Counts of parameters and cache bytes are exact (the tests
hold them against allocated tensors). Activation bytes count what this workbench's own layers keep
for the backward pass and are an estimate; the clock's side is `sweeps/trial/measure.py`.
"""

from dataclasses import dataclass, replace
from typing import assert_never

from hybrid.spec import MLP, Attention, FeedForward, Layer, Mamba, Mixer, ModelSpec, MoE

FP32_BYTES = 4


def params(spec: ModelSpec) -> int:
    """Return the number of parameters; a tied embedding counts once."""
    embeddings = (1 if spec.tied else 2) * spec.vocab * spec.width
    return embeddings + sum(layer_params(x, spec.width) for x in spec.layers) + spec.width


def active_params(spec: ModelSpec) -> int:
    """Return the parameters one token uses: `top_k` of `n_experts` experts, all of the rest."""
    return params(replace(spec, layers=tuple(_only_active(layer) for layer in spec.layers))) + sum(
        _idle_router_params(layer.feed_forward, spec.width) for layer in spec.layers
    )


def layer_params(layer: Layer, D: int) -> int:
    """Return the parameters of one layer, its one or two RMSNorms included."""
    norms = D if layer.feed_forward is None else 2 * D
    return norms + mixer_params(layer.mixer, D) + feed_forward_params(layer.feed_forward, D)


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


def cache_bytes(spec: ModelSpec, *, batch: int, tokens: int, itemsize: int) -> int:
    """Return the bytes that `batch` sequences hold after `tokens` tokens.

    `itemsize` is that of keys and values; Mamba's states and convolution tails are kept in fp32.
    """
    one = sum(mixer_cache_bytes(x.mixer, spec.width, tokens, itemsize) for x in spec.layers)
    return batch * one


def mixer_cache_bytes(mixer: Mixer, D: int, tokens: int, itemsize: int) -> int:
    """Return the bytes one sequence leaves in one mixer's state after `tokens` tokens."""
    match mixer:
        case Attention(heads=H, kv_heads=K, window=window):
            kept = tokens if window is None else min(tokens, window)
            return itemsize * 2 * kept * K * (D // H)
        case Mamba(d_state=N, d_conv=W, expand=expand):
            tail = 0 if W is None else W - 1
            return FP32_BYTES * expand * D * (N + tail)
        case _:
            assert_never(mixer)


@dataclass(frozen=True, kw_only=True)
class TrainingBytes:
    """Where training memory goes, in bytes."""

    weights: int
    gradients: int
    optimizer: int  # AdamW's two moments
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits


def training_bytes(spec: ModelSpec, *, batch: int, tokens: int, itemsize: int) -> TrainingBytes:
    """Return an estimate of peak training memory: fp32 weights, AdamW, no recomputation.

    `itemsize` is that of matrix products (2 under bf16 autocast). Counted are the tensors that
    autograd keeps for the backward pass, not allocator slack or the libraries' own memory.
    """
    weights = FP32_BYTES * params(spec)
    per_token = sum(_saved_per_token(layer, spec.width, itemsize) for layer in spec.layers)
    # Held together where the backward pass begins: the logits as computed, their fp32
    # log-softmax, and the gradients of both.
    logits_per_token = spec.vocab * (2 * itemsize + 2 * FP32_BYTES)
    return TrainingBytes(
        weights=weights,
        gradients=weights,
        optimizer=2 * weights,
        activations=batch * tokens * per_token,
        logits=batch * tokens * logits_per_token,
    )


def _only_active(layer: Layer) -> Layer:
    match layer.feed_forward:
        case MoE(top_k=top_k) as moe:
            return replace(layer, feed_forward=replace(moe, n_experts=top_k))
        case _:
            return layer


def _idle_router_params(feed_forward: FeedForward | None, D: int) -> int:
    """The router looks at every expert, also those it does not choose."""
    match feed_forward:
        case MoE(n_experts=X, top_k=top_k):
            return D * (X - top_k)
        case _:
            return 0


def _saved_per_token(layer: Layer, D: int, itemsize: int) -> int:
    norm = D * (FP32_BYTES + itemsize)  # the residual stream, and the input of what follows
    feed_forward = 0 if layer.feed_forward is None else norm
    return (
        norm
        + _saved_by_mixer(layer.mixer, D, itemsize)
        + feed_forward
        + _saved_by_feed_forward(layer.feed_forward, D, itemsize)
    )


def _saved_by_mixer(mixer: Mixer, D: int, itemsize: int) -> int:
    match mixer:
        case Attention(heads=H, kv_heads=K):
            P = D // H
            return itemsize * (2 * H * P + 2 * K * P) + FP32_BYTES * H  # q, k, v, output, log-sums
        case Mamba(d_state=N, expand=expand):
            E, R = expand * D, mixer.rank(D)
            # fp32: conv input and output, dt before and after softplus, scan output, gate and its
            # silu; in `itemsize`: the inputs of the x and output projections.
            wide = E * (7 * FP32_BYTES + 2 * itemsize)
            return wide + 2 * FP32_BYTES * (R + 2 * N)
        case _:
            assert_never(mixer)


def _saved_by_feed_forward(feed_forward: FeedForward | None, D: int, itemsize: int) -> int:
    match feed_forward:
        case None:
            return 0
        case MLP(hidden=F):
            return itemsize * 4 * F  # gate, its silu, up, and their product
        case MoE(hidden=F, n_experts=X, top_k=top_k):
            return itemsize * top_k * (4 * F + 2 * D) + FP32_BYTES * 2 * X
        case _:
            assert_never(feed_forward)
