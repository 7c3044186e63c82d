"""The short convolution and its SiLU on lanes of sixteen channels, forward and backward.

Arguments are as in `scan_kernels.py`. A job is one row and one piece of its tokens; its inputs are
copied to float32 first, so that each is converted once, and the tail lies before them as in
`reference.conv`.
"""

# mypy: disable-error-code="call-arg, var-annotated"

from numba import njit

from hybrid.ops.cpu.lane_math import ZERO, scratch, sigmoid, silu_slope
from hybrid.ops.cpu.lanes import LANES, fma, kernel, load, store
from hybrid.ops.cpu.scan_kernels import place

# Helpers with loops in them are inlined by numba itself, because of what it does with an array that
# it passes to a function: count one more reference, atomically, and one less at the end. LLVM
# removes the pair only where no loop or branch lies between.


@njit(nogil=True, inline="always")
def copy_rows(rows, x, tail, row, first, stop, E):
    """Fill `rows` with the inputs of tokens first to stop - 1; those before 0 are in the tail."""
    L = tail.shape[1]
    for t in range(first, stop):
        for e in range(0, E, LANES):
            if t < 0:
                value = load(tail, ((row + 1) * L + t) * E + e)
            else:
                value = load(x[0], place(x, row, t, e))
            store(rows, (t - first) * E + e, value)


@njit(nogil=True, inline="always")
def convolved(rows, weight, bias, k, e):
    """Return one block of the convolution whose oldest input is the k-th of `rows`."""
    W, E = weight.shape
    out = load(bias, e)
    for j in range(W):
        out = fma(load(weight, j * E + e), load(rows, (k + j) * E + e), out)
    return out


@kernel
def conv_forward(first, last, piece, T, x, weight, bias, tail, y, new_tail):
    """Convolve and activate; `weight` is (W, E)."""
    W, E = weight.shape
    L = W - 1
    pieces = (T + piece - 1) // piece
    rows = scratch((piece + L) * E // LANES)
    for job in range(first, last):
        row, t0 = job // pieces, job % pieces * piece
        t1 = min(t0 + piece, T)
        copy_rows(rows, x, tail, row, t0 - L, t1, E)
        for t in range(t0, t1):
            for e in range(0, E, LANES):
                z = convolved(rows, weight, bias, t - t0, e)
                store(y[0], place(y, row, t, e), z * sigmoid(z))
        if t1 == T:
            for i in range(L):
                for e in range(0, E, LANES):
                    store(new_tail, (row * L + i) * E + e, load(rows, (T - t0 + i) * E + e))


@njit(nogil=True, inline="always")
def activation_gradients(gz, rows, weight, bias, gy, row, first, stop, counted, gweight, gbias):
    """Fill `gz` with the gradients before the activation at tokens first to stop - 1.

    Tokens before `counted` also add to `gweight` and `gbias`, the views of this job.
    """
    W, E = weight.shape
    for t in range(first, stop):
        for e in range(0, E, LANES):
            z = convolved(rows, weight, bias, t - first, e)
            g = load(gy[0], place(gy, row, t, e)) * silu_slope(z, sigmoid(z))
            store(gz, (t - first) * E + e, g)
            if t < counted:
                store(gbias, e, load(gbias, e) + g)
                for j in range(W):
                    seen = load(rows, (t - first + j) * E + e)
                    store(gweight, j * E + e, fma(g, seen, load(gweight, j * E + e)))


@njit(nogil=True, inline="always")
def input_gradient(weight, first, t, T, e, gz, gnew, row):
    """Return the gradient of one block of token t, in the tail if t < 0.

    Token t reaches the outputs t to t + L, of which `gz` holds those from `first` on, and the new
    tail if it is among the last L.
    """
    W, E = weight.shape
    g = load(weight, e) * ZERO
    if t + W - 1 >= T:
        g = load(gnew, (row * (W - 1) + t + W - 1 - T) * E + e)
    for ahead in range(max(0, -t), min(W, T - t)):
        tap = load(weight, (W - 1 - ahead) * E + e)
        g = fma(tap, load(gz, (t + ahead - first) * E + e), g)
    return g


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

    A piece also recomputes the L tokens after it, which its own reach.
    """
    W, E = weight.shape
    L = W - 1
    pieces = (T + piece - 1) // piece
    gz, rows = scratch((piece + L) * E // LANES), scratch((piece + 2 * L) * E // LANES)
    for job in range(first, last):
        row, t0 = job // pieces, job % pieces * piece
        t1 = min(t0 + piece, T)
        stop = min(t1 + L, T)
        gweight[job] = 0
        gbias[job] = 0
        sum_w, sum_b = gweight[job], gbias[job]
        copy_rows(rows, x, tail, row, t0 - L, stop, E)
        activation_gradients(gz, rows, weight, bias, gy, row, t0, stop, t1, sum_w, sum_b)
        for t in range(t0, t1):
            for e in range(0, E, LANES):
                g = input_gradient(weight, t0, t, T, e, gz, gnew, row)
                store(gx[0], place(gx, row, t, e), g)
        if t0 == 0:
            for t in range(-L, 0):
                for e in range(0, E, LANES):
                    to = ((row + 1) * L + t) * E + e
                    store(gtail, to, input_gradient(weight, 0, t, T, e, gz, gnew, row))
