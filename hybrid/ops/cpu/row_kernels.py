"""RMSNorm, SiLU-and-multiply and cross entropy: each row of numbers by itself, in one pass or two.

Rows have any length: whole blocks of lanes first, then what is left over in the first lanes of one
more. `x` and the like are flat, float32 or bfloat16, and row i begins at i times a stride.
"""

# mypy: disable-error-code="call-arg, var-annotated"

import numpy as np
from numba import njit

from hybrid.ops.cpu.lane_math import (
    LOG2_E,
    ONE,
    ZERO,
    filled,
    greatest,
    larger,
    power_of_two,
    sigmoid,
    silu_slope,
)
from hybrid.ops.cpu.lanes import (
    LANES,
    element,
    fma,
    kernel,
    load,
    load_first,
    set_element,
    store,
    store_first,
    total,
)
from hybrid.ops.reference import IGNORED


@njit(nogil=True)
def scale_of(square, D, eps):
    """Return 1 / sqrt(mean square + eps) from a sum of squares."""
    return ONE / np.sqrt(square / np.float32(D) + np.float32(eps))


@njit(nogil=True, inline="always")
def squares(x, at, whole, left):
    """Return the sum of squares of one row."""
    acc = load_first(x, at + whole, left)
    acc = acc * acc
    for e in range(0, whole, LANES):
        value = load(x, at + e)
        acc = fma(value, value, acc)
    return total(acc)


@kernel
def norm_forward(first, last, eps, edges, x, x_row, weight, y):
    """Normalise rows, each part of them by itself; a job is one row.

    Part i is columns edges[i] to edges[i + 1] - 1; `weight` is longer than a row by one block.
    """
    parts = len(edges) - 1
    for job in range(first, last):
        for part in range(parts):
            low, D = edges[part], edges[part + 1] - edges[part]
            left = D % LANES
            whole = D - left
            at, to = job * x_row + low, job * edges[parts] + low
            r = scale_of(squares(x, at, whole, left), D, eps)
            for e in range(0, whole, LANES):
                store(y, to + e, load(x, at + e) * r * load(weight, low + e))
            if left:
                value = load_first(x, at + whole, left) * r * load(weight, low + whole)
                store_first(y, to + whole, left, value)


@kernel
def norm_backward(first, last, per_job, n, eps, edges, x, x_row, weight, gy, gy_row, gx, gweight):
    """Go back through the norm; a job is `per_job` rows, which sum their `gweight`.

    That is (jobs, longer than a row by one block): behind a part's last whole block, zeros are
    added to what follows. With r = 1 / rms: gx = r w gy - x r^3 mean(w gy x), and gw = sum of
    gy x r.
    """
    parts = len(edges) - 1
    for job in range(first, last):
        gweight[job] = 0
        sums = gweight[job]
        for row in range(job * per_job, min((job + 1) * per_job, n)):
            for part in range(parts):
                low, D = edges[part], edges[part + 1] - edges[part]
                left = D % LANES
                whole = D - left
                at, g_at, to = row * x_row + low, row * gy_row + low, row * edges[parts] + low
                r = scale_of(squares(x, at, whole, left), D, eps)
                x_left = load_first(x, at + whole, left)
                g_left = load_first(gy, g_at + whole, left)
                dot = x_left * g_left * load(weight, low + whole) if left else x_left
                for e in range(0, whole, LANES):
                    dot = fma(load(x, at + e) * load(weight, low + e), load(gy, g_at + e), dot)
                pull = total(dot) * r * r * r / np.float32(D)
                for e in range(0, whole, LANES):
                    value, g = load(x, at + e), load(gy, g_at + e)
                    store(sums, low + e, fma(value * r, g, load(sums, low + e)))
                    store(gx, to + e, fma(g * load(weight, low + e), r, value * -pull))
                if left:
                    seen = load(sums, low + whole)
                    store(sums, low + whole, fma(x_left * r, g_left, seen))
                    value = fma(g_left * load(weight, low + whole), r, x_left * -pull)
                    store_first(gx, to + whole, left, value)


@kernel
def silu_forward(first, last, width, x, x_row, y):
    """Multiply the SiLU of the first half of each row with the second; a job is one row."""
    left = width % LANES
    whole = width - left
    for job in range(first, last):
        at, to = job * x_row, job * width
        for e in range(0, whole, LANES):
            z = load(x, at + e)
            store(y, to + e, z * sigmoid(z) * load(x, at + width + e))
        if left:
            z = load_first(x, at + whole, left)
            up = load_first(x, at + width + whole, left)
            store_first(y, to + whole, left, z * sigmoid(z) * up)


@kernel
def silu_backward(first, last, width, x, x_row, gy, gy_row, gx):
    """Go back through `silu_forward`; a job is one row."""
    left = width % LANES
    whole = width - left
    for job in range(first, last):
        at, g_at, to = job * x_row, job * gy_row, job * 2 * width
        for e in range(0, whole, LANES):
            z, up, g = load(x, at + e), load(x, at + width + e), load(gy, g_at + e)
            s = sigmoid(z)
            store(gx, to + e, g * up * silu_slope(z, s))
            store(gx, to + width + e, g * z * s)
        if left:
            z = load_first(x, at + whole, left)
            up = load_first(x, at + width + whole, left)
            g = load_first(gy, g_at + whole, left)
            s = sigmoid(z)
            store_first(gx, to + whole, left, g * up * silu_slope(z, s))
            store_first(gx, to + width + whole, left, g * z * s)


@kernel
def cross_entropy(first, last, V, logits, target, nats):
    """Write -log softmax at each row's target, and its gradient over `logits`; a job is one row."""
    left = V % LANES
    whole = V - left
    for job in range(first, last):
        at = job * V
        if target[job] == IGNORED:
            logits[at : at + V] = 0  # also the bits of bfloat16's zero
            nats[job] = 0
            continue
        hit = at + target[job]
        tops = filled(element(logits, at))
        for v in range(0, whole, LANES):
            tops = larger(tops, load(logits, at + v))
        top = greatest(tops)
        for v in range(whole, V):
            top = max(top, element(logits, at + v))
        sums = filled(ZERO)
        for v in range(0, whole, LANES):
            sums = sums + power_of_two(load(logits, at + v) - top, LOG2_E)
        sum_ = total(sums)
        for v in range(whole, V):
            sum_ += np.exp(element(logits, at + v) - top)
        share, surplus = ONE / sum_, element(logits, hit) - top
        for v in range(0, whole, LANES):
            store(logits, at + v, power_of_two(load(logits, at + v) - top, LOG2_E) * share)
        for v in range(whole, V):
            set_element(logits, at + v, np.exp(element(logits, at + v) - top) * share)
        nats[job] = np.log(sum_) - surplus
        set_element(logits, hit, np.exp(surplus) * share - ONE)  # not from what was rounded above
