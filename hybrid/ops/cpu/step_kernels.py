"""One token through one sub-layer, for each of a few sequences: norm, products, recurrence, sum.

Where a sequence advances by one token, every product is a matrix times a vector, bound by reading
the matrix, and most time of the ordinary path goes into calling its many operations. Here each
sub-layer is one call. Vectors are float32 and end in whole lanes, filled with zeros; matrices are
(rows, whole lanes), float32, bfloat16 as int16, or int8 with a scale for each row; activations are
rounded to bfloat16 nowhere, so that this path is at least as exact as the ordinary one. `x` (B, D)
is the residual stream, added to in place. Nothing here checks its arguments: `hybrid/steps.py`
makes them.
"""

# mypy: disable-error-code="call-arg, var-annotated"

import numpy as np
from numba import njit

from hybrid.ops.cpu.lane_math import (
    ONE,
    ZERO,
    filled,
    power_of_two,
    scratch,
    sigmoid,
    softplus,
)
from hybrid.ops.cpu.lanes import LANES, element, fma, kernel, load, store, total
from hybrid.ops.cpu.row_kernels import scale_of


@njit(nogil=True)
def times(matrix, first, count, x, at, y):
    """Write rows first to first + count - 1 of a matrix times x[at:] to y; four rows at a time."""
    width = matrix.shape[1]
    done = count - count % 4
    for row in range(0, done, 4):
        m = (first + row) * width
        s0, s1, s2, s3 = filled(ZERO), filled(ZERO), filled(ZERO), filled(ZERO)
        for i in range(0, width, LANES):
            v = load(x, at + i)
            s0 = fma(load(matrix, m + i), v, s0)
            s1 = fma(load(matrix, m + width + i), v, s1)
            s2 = fma(load(matrix, m + 2 * width + i), v, s2)
            s3 = fma(load(matrix, m + 3 * width + i), v, s3)
        y[row], y[row + 1], y[row + 2], y[row + 3] = total(s0), total(s1), total(s2), total(s3)
    for row in range(done, count):
        s = filled(ZERO)
        for i in range(0, width, LANES):
            s = fma(load(matrix, (first + row) * width + i), load(x, at + i), s)
        y[row] = total(s)


@njit(nogil=True)
def normalised(x, at, D, weight, eps, y):
    """Write the RMSNorm of D elements of x from `at` on, and zeros up to whole lanes."""
    squares = ZERO
    for i in range(D):
        squares += x[at + i] * x[at + i]
    r = scale_of(squares, D, eps)
    for i in range(D):
        y[i] = x[at + i] * r * weight[i]


@njit(nogil=True)
def room_for(count):
    """Return zeros for `count` floats, in whole lanes."""
    room = scratch((count + LANES - 1) // LANES)
    room[:] = 0
    return room


@njit(nogil=True)
def add_times(matrix, v, x, b, D):
    """Add a matrix times `v` to row b of the residual stream."""
    y = room_for(D)
    times(matrix, 0, D, v, 0, y)
    for i in range(D):
        x[b, i] += y[i]


@njit(nogil=True)
def gated(z_up, F):
    """Return silu(first F) * (second F), then zeros up to whole lanes."""
    y = room_for(F)
    for i in range(F):
        y[i] = z_up[i] / (ONE + np.exp(-z_up[i])) * z_up[F + i]
    return y


@kernel
def mlp_step(x, norm, eps, gate_up, down):
    """Add the SwiGLU of the normalised stream to it."""
    B, D = x.shape
    F = gate_up.shape[0] // 2
    v, z_up = room_for(D), room_for(2 * F)
    for b in range(B):
        normalised(x[b], 0, D, norm, eps, v)
        times(gate_up, 0, 2 * F, v, 0, z_up)
        add_times(down, gated(z_up, F), x, b, D)


@njit(nogil=True)
def scale_rows(y, count, scales, first):
    """Multiply `count` elements of y by those of `scales` from `first` on, where there are any."""
    if len(scales):
        for i in range(count):
            y[i] *= scales[first + i]


@kernel
def moe_step(x, norm, eps, router, gate_up, gate_up_scales, down, down_scales, top_k, renormalise):
    """Add the chosen experts; matrices are those of all experts, one below the other.

    Matrices of whole numbers in int8 have a scale for each row, others none.
    """
    B, D = x.shape
    X = router.shape[0]
    F = gate_up.shape[0] // X // 2
    v, score, z_up, out = room_for(D), room_for(X), room_for(2 * F), room_for(D)
    for b in range(B):
        normalised(x[b], 0, D, norm, eps, v)
        times(router, 0, X, v, 0, score)
        score[:X] = np.exp(score[:X] - score[:X].max())
        score[:X] /= score[:X].sum()
        chosen = np.argsort(-score[:X])[:top_k]
        whole = score[chosen].sum() if renormalise else ONE
        for expert in chosen:
            times(gate_up, expert * 2 * F, 2 * F, v, 0, z_up)
            scale_rows(z_up, 2 * F, gate_up_scales, expert * 2 * F)
            times(down, expert * D, D, gated(z_up, F), 0, out)
            scale_rows(out, D, down_scales, expert * D)
            for i in range(D):
                x[b, i] += score[expert] / whole * out[i]


@njit(nogil=True)
def convolve(tail, weight, bias, u):
    """Convolve and activate one token in place, and move the tail on; all (., whole lanes)."""
    L, E = tail.shape
    for e in range(0, E, LANES):
        new = load(u, e)
        z = fma(load(weight, L * E + e), new, load(bias, e))
        for j in range(L):
            old = load(tail, j * E + e)
            z = fma(load(weight, j * E + e), old, z)
            if j > 0:
                store(tail, (j - 1) * E + e, old)
        if L > 0:
            store(tail, (L - 1) * E + e, new)
        store(u, e, z * sigmoid(z))


@kernel
def mamba_step(
    x,
    norm,
    eps,
    in_proj,
    conv,
    conv_bias,
    x_proj,
    inner,
    dt_proj,
    dt_bias,
    rate,
    d,
    out_proj,
    tail,
    h,
):
    """Add one token's Mamba mixer; `tail` (B, L, E) and `h` (B, blocks, N, lanes) move on in place.

    `rate` is a LOG2_E in the layout of `h`; `inner` holds the weights of the norms of dt, B and C,
    one after the other, or nothing.
    """
    B, D = x.shape
    E, N = in_proj.shape[0] // 2, h.shape[2]
    R = x_proj.shape[0] - 2 * N
    v, u, z, raw = room_for(D), room_for(E), room_for(E), room_for(E)
    dbc, dt, y = room_for(R + 2 * N), room_for(R), room_for(E)
    for b in range(B):
        normalised(x[b], 0, D, norm, eps, v)
        times(in_proj, 0, E, v, 0, u)
        times(in_proj, E, E, v, 0, z)
        convolve(tail[b], conv, conv_bias, u)
        times(x_proj, 0, R + 2 * N, u, 0, dbc)
        if len(inner):
            normalised(dbc, 0, R, inner, eps, dbc)
            normalised(dbc, R, N, inner[R:], eps, dbc[R:])
            normalised(dbc, R + N, N, inner[R + N :], eps, dbc[R + N :])
        dt[:R] = dbc[:R]
        times(dt_proj, 0, E, dt, 0, raw)
        for block in range(h.shape[1]):
            e = block * LANES
            step, value, gate = softplus(load(raw, e) + load(dt_bias, e)), load(u, e), load(z, e)
            drive, out = step * value, load(d, e) * value
            for n in range(N):
                at = (block * N + n) * LANES
                decay = power_of_two(step, load(rate, at))
                state = fma(decay, load(h[b], at), drive * element(dbc, R + n))
                store(h[b], at, state)
                out = fma(state, element(dbc, R + N + n), out)
            store(y, e, out * gate * sigmoid(gate))
        add_times(out_proj, y, x, b, D)


@kernel
def head_step(x, norm, eps, head, logits):
    """Fill the logits (B, V) from the stream."""
    B, D = x.shape
    v = room_for(D)
    for b in range(B):
        normalised(x[b], 0, D, norm, eps, v)
        times(head, 0, head.shape[0], v, 0, logits[b])
