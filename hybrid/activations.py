"""Bytes of what this workbench's layers hold while they run. Free of torch; an estimate.

Two questions: what autograd keeps of a forward pass for the backward pass (`saved_bytes`), and what
a pass without gradients holds at its widest moment (`working_bytes`). Both follow
`hybrid/layers/*.py` line by line, with the kernels of `hybrid/ops/cpu/`, so a change there is a
change here; the tests hold them against the tensors that are really alive. A kernel that keeps less
(torch's fused RMSNorm on CUDA, say) makes these too high, never too low.

Letters are those of `hybrid/__init__.py`; `itemsize` is that of matrix products. The residual
stream, norms, routers, scans and convolutions are in fp32.
"""

from typing import assert_never

from hybrid.spec import MLP, Attention, FeedForward, Mamba, Mamba2, Mixer, ModelSpec, MoE

FP32_BYTES = 4
INDEX_BYTES = 8
# Logits held at once where the loss is taken, by kind of device: few enough to stay near the
# processor on a CPU, enough to keep a GPU busy.
PIECE_LOGITS = {"cpu": 1 << 19, "cuda": 1 << 26}
SCAN_CHUNK = 32  # tokens between two states that the scan keeps: CHUNK of hybrid/ops/cpu/scan.py
SSD_CHUNK = 64  # the same of Mamba-2 on a CPU: CHUNK of hybrid/ops/ssd.py


def piece_tokens(vocab: int, device: str) -> int:
    """Return how many tokens' logits the loss holds at once on a kind of device."""
    return max(1, PIECE_LOGITS[device] // vocab)


def saved_bytes(spec: ModelSpec, *, batch: int, tokens: int, itemsize: int) -> int:
    """Return the bytes that all layers and the final norm keep for the backward pass.

    What the loss keeps is in `cost.training_bytes`.
    """
    D, n = spec.width, batch * tokens
    stream = FP32_BYTES * D  # the residual stream, kept by every norm
    total = n * stream
    for layer in spec.layers:
        total += n * stream + _saved_by_mixer(layer.mixer, D, batch, tokens, itemsize)
        if layer.feed_forward is not None:
            total += n * (stream + _saved_by_feed_forward(layer.feed_forward, D, itemsize))
    return total


def passing_bytes(spec: ModelSpec, *, batch: int, tokens: int, itemsize: int) -> int:
    """Return about the most that gradients take on their way back through one layer.

    Less what that layer has already given up; the roughest of the counts here.
    """
    D = spec.width
    each = [
        max(
            _passing_mixer(x.mixer, D, tokens, itemsize),
            itemsize * tokens * _passing_feed_forward(x.feed_forward, D),
        )
        for x in spec.layers
    ]
    return batch * max(each)


def _passing_mixer(mixer: Mixer, D: int, T: int, itemsize: int) -> int:
    """Return bytes for each sequence."""
    match mixer:
        case Mamba2(d_state=N, groups=G):
            E, convolved, H = mixer.projected(D)
            # In the recurrence, a norm and a gate have given up more than has come back so far.
            inside = 2 * G * N - (E if mixer.gated_norm else 0)
            chunk = _backward_by_chunk(mixer, D, T, itemsize)
            return max(itemsize * T * (2 * E + convolved + H), itemsize * T * inside + chunk)
        case _:
            return itemsize * T * _passing_width(mixer, D)


def _passing_width(mixer: Attention | Mamba, D: int) -> int:
    match mixer:
        case Attention(positions=positions):
            return 2 * D if positions is None else 3 * D
        case Mamba(d_state=N, expand=expand):
            return 3 * expand * D + mixer.rank(D) + 2 * N
        case _:
            assert_never(mixer)


def _passing_feed_forward(feed_forward: FeedForward | None, D: int) -> int:
    match feed_forward:
        case None:
            return 0
        case MLP(hidden=F):
            return F + 2 * D
        case MoE(hidden=F, top_k=top_k):
            return top_k * F + 4 * D
        case _:
            assert_never(feed_forward)


def working_bytes(spec: ModelSpec, *, batch: int, tokens: int, itemsize: int) -> int:
    """Return the most that a pass over `tokens` new tokens holds besides weights and cache.

    Without gradients, and with logits for the last token alone, as `generate.prefill` does. Experts
    are taken as evenly chosen.
    """
    D = spec.width
    widest = 0
    for layer in spec.layers:
        # The stream, normalised, and the mixer's result; the feed-forward's caller holds what came
        # before the mixer, too.
        held = _held_by_mixer(layer.mixer, D, tokens, itemsize)
        mixing = (FP32_BYTES + 2 * itemsize) * D + held
        fed = _held_by_feed_forward(layer.feed_forward, D, itemsize)
        feeding = (2 * FP32_BYTES + itemsize) * D + fed
        widest = max(widest, mixing, feeding)
    return batch * (tokens * widest + spec.vocab * itemsize)


def _saved_by_mixer(mixer: Mixer, D: int, B: int, T: int, itemsize: int) -> int:
    match mixer:
        case Attention():
            return _saved_by_attention(mixer, D, B, T, itemsize)
        case Mamba():
            return _saved_by_mamba(mixer, D, B, T, itemsize)
        case Mamba2():
            return _saved_by_mamba2(mixer, D, B, T, itemsize)
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
    # Its input; u and the gate, u convolved, dt before softplus, and the gated output.
    per_token = D + 5 * E + R + 2 * N
    if mixer.inner_norm:
        per_token += R + 2 * N
    states = FP32_BYTES * E * -(-T // SCAN_CHUNK) * N
    return B * (T * itemsize * per_token + states) + 2 * FP32_BYTES * E * N


def _saved_by_mamba2(mixer: Mamba2, D: int, B: int, T: int, itemsize: int) -> int:
    E, convolved, H = mixer.projected(D)
    # Its input; what is projected; x, B and C convolved; y, SiLU of the gate, and their product.
    per_token = D + (E + convolved + H) + convolved + 3 * E
    if mixer.gated_norm:
        per_token += E
    steps = FP32_BYTES * 3 * H  # dt before softplus and after, and the logarithm of the decay
    states = FP32_BYTES * E * -(-T // SSD_CHUNK) * mixer.d_state
    return B * (T * (itemsize * per_token + steps) + states)


def _saved_by_feed_forward(feed_forward: FeedForward, D: int, itemsize: int) -> int:
    """Return bytes for each token."""
    match feed_forward:
        case MLP(hidden=F):
            return itemsize * (D + 3 * F)  # x; gate and up, and their product
        case MoE(hidden=F, n_experts=X, top_k=top_k):
            router = FP32_BYTES * (D + X) + (3 * INDEX_BYTES + FP32_BYTES) * top_k
            return router + top_k * (itemsize * (D + 3 * F) + FP32_BYTES * D)
        case _:
            assert_never(feed_forward)


def _held_by_mixer(mixer: Mixer, D: int, T: int, itemsize: int) -> int:
    """Return bytes for each token."""
    match mixer:
        case Attention(heads=H, kv_heads=K, positions=positions):
            P = D // H
            turning = 0 if positions is None else 3 * FP32_BYTES * H * P
            return itemsize * (H + 2 * K) * P + max(turning, itemsize * (H * P + D))
        case Mamba(d_state=N, expand=expand):
            # In the scan: u and the gate, u convolved, dt, and y; dt, b and c, normalised or not.
            E, R = expand * D, mixer.rank(D)
            return itemsize * (5 * E + R + 2 * N)
        case Mamba2():
            # What is projected; x, B and C convolved; y and dt; and a chunk's own in the
            # recurrence, or after it two more of y's size on the way through the gate. The mixer's
            # result, which the caller counts, is not there yet.
            E, convolved, H = mixer.projected(D)
            chunk = _forward_by_chunk(mixer, D, T, itemsize) // T
            always = itemsize * (2 * E + 2 * convolved + H) + FP32_BYTES * 2 * H
            return always + max(chunk, 2 * itemsize * E) - itemsize * D
        case _:
            assert_never(mixer)


def _forward_by_chunk(mixer: Mamba2, D: int, T: int, itemsize: int) -> int:
    """Return bytes for each sequence, those of one chunk of Mamba-2's recurrence."""
    E, _, H = mixer.projected(D)
    Q, cast = min(T, SSD_CHUNK), itemsize if itemsize < FP32_BYTES else 0
    wider = FP32_BYTES if cast else 0
    state = FP32_BYTES * E * mixer.d_state
    before = state + cast * E * mixer.d_state
    weights = Q * max(H * Q * (FP32_BYTES + cast), (H * Q + E) * itemsize)
    reading = Q * E * (FP32_BYTES + itemsize + wider)  # y, and what the state before adds to it
    writing = Q * E * FP32_BYTES + before + state
    made = Q * _made_by_chunk(mixer, D, Q, itemsize)
    return made + before + max(weights, reading, writing)


def _backward_by_chunk(mixer: Mamba2, D: int, T: int, itemsize: int) -> int:
    """Return bytes for each sequence, those of one chunk of the recurrence's backward pass."""
    E, _, H = mixer.projected(D)
    Q, wider = min(T, SSD_CHUNK), FP32_BYTES if itemsize < FP32_BYTES else 0
    pulled = E * (itemsize + wider)
    decays = 3 * FP32_BYTES * H * Q  # in float32 and in float64
    products = E * (2 * itemsize + 5 * FP32_BYTES)
    states = 4 * FP32_BYTES * E * mixer.d_state
    made = _made_by_chunk(mixer, D, Q, itemsize)
    return Q * (made + pulled) + max(Q * decays, Q * products + states)


def _made_by_chunk(mixer: Mamba2, D: int, Q: int, itemsize: int) -> int:
    """Return bytes for each token of a chunk: u and two drives, decays and scores."""
    E, _, H = mixer.projected(D)
    wider = FP32_BYTES if itemsize < FP32_BYTES else 0
    return E * (2 * itemsize + wider) + H * Q * FP32_BYTES + mixer.groups * Q * itemsize


def _held_by_feed_forward(feed_forward: FeedForward | None, D: int, itemsize: int) -> int:
    """Return bytes for each token."""
    match feed_forward:
        case None:
            return 0
        case MLP(hidden=F):
            return itemsize * 3 * F
        case MoE(hidden=F, n_experts=X, top_k=top_k):
            routing = FP32_BYTES * (X + top_k) + 2 * INDEX_BYTES * top_k
            running = itemsize * top_k * (D + 3 * F)  # tokens by expert; gate and up; their product
            joining = top_k * D * (itemsize + 2 * FP32_BYTES)
            return routing + max(running, joining)
        case _:
            assert_never(feed_forward)
