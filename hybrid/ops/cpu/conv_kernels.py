"""The short convolution and its SiLU on lanes of sixteen channels, forward and backward.

Arguments are as in `scan_kernels.py`. A job is one row and one piece of its tokens, which it goes
through block by block of channels: what belongs to a block fits the nearest cache, and sums over
tokens stay in registers. A block's inputs are copied to float32 first, so that each is converted
once, and the tail lies before them as in `reference.conv`.
"""

# mypy: disable-error-code="call-arg, var-annotated"

from numba import njit

from hybrid.ops.cpu.lane_math import ZERO, filled, scratch, sigmoid, silu_slope
from hybrid.ops.cpu.lanes import LANES, fma, kernel, load, store
from hybrid.ops.cpu.scan_kernels import place

# Helpers with loops in them are inlined by numba itself, because of what it does with an array that
# it passes to a function: count one more reference, atomically, and one less at the end. LLVM
# removes the pair only where no loop or branch lies between.


@njit(nogil=True, inline="always")
def copy_block(rows, x, tail, row, first, stop, e):
    """Fill `rows` with one block of tokens first to stop - 1; those before 0 are in the tail."""
    L, E = tail.shape[1:]
    for t in range(first, min(stop, 0)):
        store(rows, (t - first) * LANES, load(tail, ((row + 1) * L + t) * E + e))
    for t in range(max(first, 0), stop):
        store(rows, (t - first) * LANES, load(x[0], place(x, row, t, e)))


@njit(nogil=True, inline="always")
def correlate(out, count, start, weight, e, step, values, at):
    """Fill out[k] with start + sum over j of tap j times values[at + k + j], for `count` k.

    Taps go through `weight` from its first row (step 1) or from its last (step -1). Four taps at a
    time, so that each value is loaded once for all of them.
    """
    W, E = weight.shape
    first = 0 if step > 0 else W - 1
    for k in range(count):
        store(out, k * LANES, start)
    for j in range(0, W - W % 4, 4):
        w0, w1 = (
            load(weight, (first + step * j) * E + e),
            load(weight, (first + step * (j + 1)) * E + e),
        )
        w2, w3 = (
            load(weight, (first + step * (j + 2)) * E + e),
            load(weight, (first + step * (j + 3)) * E + e),
        )
        v0, v1 = load(values, (at + j) * LANES), load(values, (at + j + 1) * LANES)
        v2 = load(values, (at + j + 2) * LANES)
        for k in range(count):
            v3 = load(values, (at + k + j + 3) * LANES)
            found = fma(w1, v1, fma(w0, v0, load(out, k * LANES)))
            store(out, k * LANES, fma(w3, v3, fma(w2, v2, found)))
            v0, v1, v2 = v1, v2, v3
    for j in range(W - W % 4, W):
        w = load(weight, (first + step * j) * E + e)
        for k in range(count):
            found = fma(w, load(values, (at + k + j) * LANES), load(out, k * LANES))
            store(out, k * LANES, found)


@njit(nogil=True, inline="always")
def sum_weight(gweight, e, gz, at, rows, count):
    """Write tap j's gradient, the sum over k of gz[at + k] rows[k + j], for every j."""
    W, E = gweight.shape
    for j in range(0, W - W % 4, 4):
        s0, s1, s2, s3 = filled(ZERO), filled(ZERO), filled(ZERO), filled(ZERO)
        v0, v1 = load(rows, j * LANES), load(rows, (j + 1) * LANES)
        v2 = load(rows, (j + 2) * LANES)
        for k in range(count):
            g, v3 = load(gz, (at + k) * LANES), load(rows, (k + j + 3) * LANES)
            s0, s1, s2, s3 = fma(g, v0, s0), fma(g, v1, s1), fma(g, v2, s2), fma(g, v3, s3)
            v0, v1, v2 = v1, v2, v3
        store(gweight, j * E + e, s0)
        store(gweight, (j + 1) * E + e, s1)
        store(gweight, (j + 2) * E + e, s2)
        store(gweight, (j + 3) * E + e, s3)
    for j in range(W - W % 4, W):
        s = filled(ZERO)
        for k in range(count):
            s = fma(load(gz, (at + k) * LANES), load(rows, (k + j) * LANES), s)
        store(gweight, j * E + e, s)


@kernel
def conv_forward(first, last, piece, T, x, weight, bias, tail, y, new_tail):
    """Convolve and activate; `weight` is (W, E)."""
    W, E = weight.shape
    L = W - 1
    pieces = (T + piece - 1) // piece
    rows, out = scratch(piece + L), scratch(piece)
    for job in range(first, last):
        row, t0 = job // pieces, job % pieces * piece
        t1 = min(t0 + piece, T)
        for e in range(0, E, LANES):
            copy_block(rows, x, tail, row, t0 - L, t1, e)
            correlate(out, t1 - t0, load(bias, e), weight, e, 1, rows, 0)
            for k in range(t1 - t0):
                z = load(out, k * LANES)
                store(y[0], place(y, row, t0 + k, e), z * sigmoid(z))
            if t1 == T:
                for i in range(L):
                    store(new_tail, (row * L + i) * E + e, load(rows, (T - t0 + i) * LANES))


@kernel
def conv_backward(
    first,
    last,
    piece,
    T,
    x,
    weight,
    bias,
    tail,
    gy,
    gnew,
    gx,
    gweight,
    gbias,
    gtail,
):
    """Go back through the convolution; `gweight` is (jobs, W, E) and `gbias` (jobs, E).

    A piece also recomputes the L tokens after it, which its own reach. `gz` holds the gradients
    before the activation, from L tokens before the piece (where they are zero to it) to L after.
    """
    W, E = weight.shape
    L = W - 1
    pieces = (T + piece - 1) // piece
    gz, rows, out = scratch(piece + 2 * L), scratch(piece + 2 * L), scratch(piece + L)
    gz[:] = 0
    for job in range(first, last):
        row, t0 = job // pieces, job % pieces * piece
        t1 = min(t0 + piece, T)
        stop = min(t1 + L, T)
        sums_w, sums_b = gweight[job], gbias[job]
        low = -L if t0 == 0 else t0  # the first token whose gradient is this job's
        for e in range(0, E, LANES):
            copy_block(rows, x, tail, row, t0 - L, stop, e)
            correlate(out, stop - t0, load(bias, e), weight, e, 1, rows, 0)
            for k in range(stop - t0):
                z = load(out, k * LANES)
                g = load(gy[0], place(gy, row, t0 + k, e)) * silu_slope(z, sigmoid(z))
                store(gz, (L + k) * LANES, g)
            for k in range(stop - t0, t1 - t0 + L):
                store(gz, (L + k) * LANES, ZERO)
            sum_b = filled(ZERO)
            for k in range(t1 - t0):
                sum_b = sum_b + load(gz, (L + k) * LANES)
            store(sums_b, e, sum_b)
            sum_weight(sums_w, e, gz, L, rows, t1 - t0)
            correlate(out, t1 - low, filled(ZERO), weight, e, -1, gz, low - t0 + L)
            for t in range(max(low, T - L), t1):  # those are in the new tail
                at = (t - low) * LANES
                store(out, at, load(out, at) + load(gnew, ((row + 1) * L + t - T) * E + e))
            for t in range(low, 0):
                store(gtail, ((row + 1) * L + t) * E + e, load(out, (t - low) * LANES))
            for t in range(max(low, 0), t1):
                store(gx[0], place(gx, row, t, e), load(out, (t - low) * LANES))
