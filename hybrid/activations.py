"""Bytes of what this workbench's layers hold while they run. Free of torch; an estimate.

Two questions: what autograd keeps of a forward pass for the backward pass (`saved_bytes`), and what
a pass without gradients holds at its widest moment (`working_bytes`). Both follow
`hybrid/layers/*.py` line by line, with the kernels of `hybrid/ops/cpu.py`, so a change there is a
change here; the tests hold them against the tensors that are really alive. A kernel that keeps less
(torch's fused RMSNorm on CUDA, say) makes these too high, never too low.

Letters are those of `hybrid/__init__.py`; `itemsize` is that of matrix products. The residual
stream, norms, routers, scans and convolutions are in fp32.
"""

from typing import assert_never

from hybrid.spec import MLP, Attention, FeedForward, Mamba, Mixer, ModelSpec, MoE

FP32_BYTES = 4
INDEX_BYTES = 8
SCAN_CHUNK = 32  # tokens between two states that the scan keeps: CHUNK of hybrid/ops/cpu.py


def saved_bytes(spec: ModelSpec, *, batch: int, tokens: int, itemsize: int) -> int:
    """Return the bytes that all layers and the final norm keep for the backward pass."""
    D, n = spec.width, batch * tokens
    total = n * (_norm(D) + itemsize * D)  # the final norm, and the input of the unembedding
    for layer in spec.layers:
        total += n * _norm(D) + _saved_by_mixer(layer.mixer, D, batch, tokens, itemsize)
        if layer.feed_forward is not None:
            total += n * (_norm(D) + _saved_by_feed_forward(layer.feed_forward, D, itemsize))
    return total


def working_bytes(spec: ModelSpec, *, batch: int, tokens: int, itemsize: int) -> int:
    """Return the most that a pass over `tokens` new tokens holds besides weights and cache.

    Without gradients, and with logits for the last token alone, as `generate.prefill` does. Experts
    are taken as evenly chosen.
    """
    D = spec.width
    widest = 0
    for layer in spec.layers:
        mixing = 2 * FP32_BYTES * D + _held_by_mixer(layer.mixer, D, itemsize)
        feeding = 3 * FP32_BYTES * D + _held_by_feed_forward(layer.feed_forward, D, itemsize)
        widest = max(widest, mixing, feeding)
    return batch * (tokens * widest + spec.vocab * itemsize)


def _norm(D: int) -> int:
    """An RMSNorm keeps its input, that input normalised, and one scale."""
    return FP32_BYTES * (2 * D + 1)


def _saved_by_mixer(mixer: Mixer, D: int, B: int, T: int, itemsize: int) -> int:
    match mixer:
        case Attention():
            return _saved_by_attention(mixer, D, B, T, itemsize)
        case Mamba():
            return _saved_by_mamba(mixer, D, B, T, itemsize)
        case _:
            assert_never(mixer)


def _saved_by_attention(mixer: Attention, D: int, B: int, T: int, itemsize: int) -> int:
    H, K, P = mixer.heads, mixer.kv_heads, D // mixer.heads
    per_token = itemsize * (D + (H + 2 * K) * P + H * P) + FP32_BYTES * H  # x; q, k, v; y; log-sums
    once = 0
    if mixer.positions is not None:
        per_token += itemsize * (H + K) * P  # q and k, turned
        once += 2 * FP32_BYTES * T * P  # cosines and sines, for q and for k
    if mixer.window is not None:
        once += itemsize * T * T  # the mask
    return B * T * per_token + once


def _saved_by_mamba(mixer: Mamba, D: int, B: int, T: int, itemsize: int) -> int:
    E, N, R = mixer.expand * D, mixer.d_state, mixer.rank(D)
    start = 0 if mixer.d_conv is None else N + mixer.d_conv - 1  # the convolution keeps its start
    # fp32: input and output of the convolution, dt before and after softplus, output of the scan,
    # gate, and its SiLU. A product in lower precision also keeps a copy of its input.
    wide = 7 * FP32_BYTES * E + itemsize * E
    copies = 0 if itemsize == FP32_BYTES else itemsize * E
    if mixer.inner_norm:  # b and c: in, normalised, out; dt: the same, out in `itemsize`
        narrow = FP32_BYTES * (3 * 2 * N + 2 * R + 3) + itemsize * R
    else:
        narrow = FP32_BYTES * 2 * N + itemsize * R
    states = FP32_BYTES * E * (-(-T // SCAN_CHUNK) * N + start)
    return B * (T * (itemsize * D + wide + copies + narrow) + states) + 2 * FP32_BYTES * E * N


def _saved_by_feed_forward(feed_forward: FeedForward, D: int, itemsize: int) -> int:
    """Return bytes for each token."""
    match feed_forward:
        case MLP(hidden=F):
            return itemsize * (D + 4 * F)  # x; gate, its SiLU, up, and their product
        case MoE(hidden=F, n_experts=X, top_k=top_k):
            router = FP32_BYTES * (D + X) + (3 * INDEX_BYTES + FP32_BYTES) * top_k
            return router + top_k * (itemsize * (D + 4 * F) + FP32_BYTES * D)
        case _:
            assert_never(feed_forward)


def _held_by_mixer(mixer: Mixer, D: int, itemsize: int) -> int:
    """Return bytes for each token."""
    match mixer:
        case Attention(heads=H, kv_heads=K, positions=positions):
            P = D // H
            turning = 0 if positions is None else 3 * FP32_BYTES * H * P
            return itemsize * (H + 2 * K) * P + max(turning, itemsize * (H * P + D))
        case Mamba(d_state=N, expand=expand):
            # Where the gate is applied: u, dt, y, the gate's SiLU and the result, and in_proj's
            # output, which the gate is a part of.
            E, R = expand * D, mixer.rank(D)
            return E * (5 * FP32_BYTES + 2 * itemsize) + itemsize * (R + 2 * N) + FP32_BYTES * 2 * N
        case _:
            assert_never(mixer)


def _held_by_feed_forward(feed_forward: FeedForward | None, D: int, itemsize: int) -> int:
    """Return bytes for each token."""
    match feed_forward:
        case None:
            return 0
        case MLP(hidden=F):
            return itemsize * 4 * F
        case MoE(hidden=F, n_experts=X, top_k=top_k):
            running = itemsize * (top_k * D + 4 * F * top_k // X)  # results so far, and one expert
            joining = itemsize * 3 * top_k * D
            return FP32_BYTES * (top_k * D + 2 * X) + max(running, joining)
        case _:
            assert_never(feed_forward)
