"""The short causal convolution's Triton kernels, SiLU included. `triton.py` runs them.

Letters are those of `hybrid/__init__.py`. A program has a tile of (tokens, channels) of one batch
row. The row is the tail with the T tokens after it, so token t sees the row's places t to t + W-1.
"""

import triton
import triton.language as tl


@triton.jit
def places(x_ptr, tail_ptr, b, s, e, T, E, x_b, x_t, L: tl.constexpr, HAS_TAIL: tl.constexpr):
    """Places s of row b, 0 outside it."""
    inside = (s >= L) & (s < T + L)
    at = x_ptr + b * x_b + (s - L)[:, None] * x_t + e[None, :]
    x = tl.load(at, mask=inside[:, None] & (e < E)[None, :], other=0.0).to(tl.float32)
    if HAS_TAIL:
        before = (s >= 0) & (s < L)
        at = tail_ptr + (b * L + s)[:, None] * E + e[None, :]
        x += tl.load(at, mask=before[:, None] & (e < E)[None, :], other=0.0)
    return x


@triton.jit
def conv_forward(
    x_ptr, weight_ptr, bias_ptr, tail_ptr, y_ptr, new_ptr, T, E, x_b, x_t,
    W: tl.constexpr, HAS_TAIL: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """y, and by the programs of the last tokens the new tail."""
    e = tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    t = tl.program_id(1).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    b = tl.program_id(2).to(tl.int64)
    e_ok = e < E
    y = tl.zeros([BLOCK_T, BLOCK_E], tl.float32)
    y += tl.load(bias_ptr + e, mask=e_ok, other=0.0)[None, :]
    for w in tl.static_range(W):
        weight = tl.load(weight_ptr + e * W + w, mask=e_ok, other=0.0)[None, :]
        y += weight * places(x_ptr, tail_ptr, b, t + w, e, T, E, x_b, x_t, W - 1, HAS_TAIL)
    y *= tl.sigmoid(y)
    ok = (t < T)[:, None] & e_ok[None, :]
    to = y_ptr + (b * T + t)[:, None] * E + e[None, :]
    tl.store(to, y.to(y_ptr.dtype.element_ty), mask=ok)
    if tl.program_id(1) == tl.num_programs(1) - 1:
        for w in tl.static_range(W - 1):
            s = tl.zeros([1], tl.int64) + T + w
            x = places(x_ptr, tail_ptr, b, s, e, T, E, x_b, x_t, W - 1, HAS_TAIL)
            tl.store(new_ptr + (b * (W - 1) + w) * E + e[None, :], x, mask=e_ok[None, :])


@triton.jit
def conv_backward(
    x_ptr, weight_ptr, bias_ptr, tail_ptr, gy_ptr, gnew_ptr,
    gx_ptr, gweight_ptr, gbias_ptr, gtail_ptr, T, E, x_b, x_t, gy_b, gy_t,
    W: tl.constexpr, HAS_TAIL: tl.constexpr, HAS_GNEW: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """The gradients of a tile of places, and this tile's share in those of weight and bias."""
    e = tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    s = tl.program_id(1).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    b = tl.program_id(2).to(tl.int64)
    e_ok = e < E
    bias = tl.load(bias_ptr + e, mask=e_ok, other=0.0)[None, :]
    own = places(x_ptr, tail_ptr, b, s, e, T, E, x_b, x_t, W - 1, HAS_TAIL)
    gplace = tl.zeros([BLOCK_T, BLOCK_E], tl.float32)
    part = b * tl.num_programs(1) + tl.program_id(1)
    for w in tl.static_range(W):
        t = s - w
        pre = tl.zeros([BLOCK_T, BLOCK_E], tl.float32) + bias
        for v in tl.static_range(W):
            weight = tl.load(weight_ptr + e * W + v, mask=e_ok, other=0.0)[None, :]
            pre += weight * places(x_ptr, tail_ptr, b, t + v, e, T, E, x_b, x_t, W - 1, HAS_TAIL)
        ok = ((t >= 0) & (t < T))[:, None] & e_ok[None, :]
        at = gy_ptr + b * gy_b + t[:, None] * gy_t + e[None, :]
        gy = tl.load(at, mask=ok, other=0.0).to(tl.float32)
        sigmoid = tl.sigmoid(pre)
        gpre = gy * sigmoid * (1.0 + pre * (1.0 - sigmoid))
        gplace += tl.load(weight_ptr + e * W + w, mask=e_ok, other=0.0)[None, :] * gpre
        tl.store(gweight_ptr + (part * E + e) * W + w, tl.sum(gpre * own, 0), mask=e_ok)
        if w == 0:
            tl.store(gbias_ptr + part * E + e, tl.sum(gpre, 0), mask=e_ok)
    if HAS_GNEW:
        kept = ((s >= T) & (s < T + W - 1))[:, None] & e_ok[None, :]
        at = gnew_ptr + (b * (W - 1) + s - T)[:, None] * E + e[None, :]
        gplace += tl.load(at, mask=kept, other=0.0)
    new = ((s >= W - 1) & (s < T + W - 1))[:, None] & e_ok[None, :]
    to = gx_ptr + (b * T + s - (W - 1))[:, None] * E + e[None, :]
    tl.store(to, gplace.to(gx_ptr.dtype.element_ty), mask=new)
    if HAS_TAIL:
        old = (s < W - 1)[:, None] & e_ok[None, :]
        tl.store(gtail_ptr + (b * (W - 1) + s)[:, None] * E + e[None, :], gplace, mask=old)
