"""Causal attention of a whole sequence to itself, forward and backward, for training.

An activation is a tuple (flat memory, elements from row to row, from token to token, from head to
head), float32 or bfloat16. A job is one row and one head of the keys, with all query heads that
share it: its keys and values are copied to float32 first, P filled up to whole lanes with zeros and
tokens to whole lanes of them, also turned over, so that sixteen keys lie side by side. Four queries
are taken at a time, up to the last key that the last of them sees; what is computed beyond a
query's own is set to zero. Scores are in units of log 2, the scale of the products included.
Source: FlashAttention-2 (arXiv 2307.08691), section 2.3, for what the backward pass keeps.
"""

# mypy: disable-error-code="call-arg, var-annotated"

import numpy as np
from numba import njit

from hybrid.ops.cpu.lane_math import (
    LN_2,
    LOG2_E,
    ONE,
    ZERO,
    filled,
    greatest,
    larger,
    power_of_two,
    scratch,
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

NEVER = np.float32(-np.inf)  # the score of what may not be looked at
QUERIES = 4

# Helpers are inlined by numba itself, as in `conv_kernels.py`.


@njit(nogil=True)
def spot(x, b, t, head):
    """Return where an activation has one head of one token."""
    return b * x[1] + t * x[2] + head * x[3]


@njit(nogil=True, inline="always")
def copy_head(rows, at, memory, start, P, factor):
    """Fill one of `rows`, from `at` on, with P elements times a factor, then zeros."""
    left = P % LANES
    for i in range(0, P - left, LANES):
        store(rows, at + i, load(memory, start + i) * factor)
    if left:
        store(rows, at + P - left, load_first(memory, start + P - left, left) * factor)


@njit(nogil=True, inline="always")
def write_head(memory, start, rows, at, P, factor):
    """Write P elements of `rows`, from `at` on, times a factor."""
    left = P % LANES
    for i in range(0, P - left, LANES):
        store(memory, start + i, load(rows, at + i) * factor)
    if left:
        store_first(memory, start + P - left, left, load(rows, at + P - left) * factor)


@njit(nogil=True, inline="always")
def copy_queries(rows, x, b, t, T, head, P, width, factor):
    """Fill four rows with one head of tokens t to t + 3, with zeros from token T on."""
    for r in range(QUERIES):
        if t + r < T:
            copy_head(rows, r * width, x[0], spot(x, b, t + r, head), P, factor)
        else:
            for i in range(0, width, LANES):
                store(rows, r * width + i, ZERO)


@njit(nogil=True, inline="always")
def turn_over(turned, rows, T, P, width, room):
    """Fill `turned` (P, room) with the rows' columns."""
    for t in range(T):
        for p in range(P):
            turned[p * room + t] = rows[t * width + p]


@njit(nogil=True, inline="always")
def four_products(out, s, room, x, width, turned, P):
    """Fill sixteen products of each of four rows of x, with columns s to s + 15 of `turned`."""
    s0, s1, s2, s3 = filled(ZERO), filled(ZERO), filled(ZERO), filled(ZERO)
    for p in range(P):
        value = load(turned, p * room + s)
        s0 = fma(value, element(x, p), s0)
        s1 = fma(value, element(x, width + p), s1)
        s2 = fma(value, element(x, 2 * width + p), s2)
        s3 = fma(value, element(x, 3 * width + p), s3)
    store(out, s, s0)
    store(out, room + s, s1)
    store(out, 2 * room + s, s2)
    store(out, 3 * room + s, s3)


@njit(nogil=True, inline="always")
def four_sums(out, width, weight, room, rows, count):
    """Fill four rows of `out` with the rows' sums, weighted by four rows of `weight`."""
    for i in range(0, width, LANES):
        s0, s1, s2, s3 = filled(ZERO), filled(ZERO), filled(ZERO), filled(ZERO)
        for s in range(count):
            value = load(rows, s * width + i)
            s0 = fma(value, element(weight, s), s0)
            s1 = fma(value, element(weight, room + s), s1)
            s2 = fma(value, element(weight, 2 * room + s), s2)
            s3 = fma(value, element(weight, 3 * room + s), s3)
        store(out, i, s0)
        store(out, width + i, s1)
        store(out, 2 * width + i, s2)
        store(out, 3 * width + i, s3)


@njit(nogil=True, inline="always")
def add_four(rows, width, weight, room, x, count):
    """Add to each of so many rows the four rows of x, weighted by its column of `weight`."""
    for i in range(0, width, LANES):
        x0, x1 = load(x, i), load(x, width + i)
        x2, x3 = load(x, 2 * width + i), load(x, 3 * width + i)
        for s in range(count):
            found = fma(x0, element(weight, s), load(rows, s * width + i))
            found = fma(x1, element(weight, room + s), found)
            found = fma(x2, element(weight, 2 * room + s), found)
            store(rows, s * width + i, fma(x3, element(weight, 3 * room + s), found))


@njit(nogil=True, inline="always")
def hide(weight, room, t, stop, value):
    """Set what the four queries from token t on may not see, up to column `stop`, to `value`."""
    for r in range(QUERIES):
        for s in range(t + r + 1, stop):
            set_element(weight, r * room + s, value)


@kernel
def attend_forward(first, last, P, q, k, v, y, log_sum):
    """Attend; `log_sum` (B, T, H) receives the logarithms of the sums of exponentials, base 2."""
    T, H = log_sum.shape[1:]
    K = k[4]
    G, width, room = H // K, (P + LANES - 1) // LANES * LANES, (T + LANES - 1) // LANES * LANES
    keys, values = scratch(T * width // LANES), scratch(T * width // LANES)
    turned, score = scratch(P * room // LANES), scratch(QUERIES * room // LANES)
    query, out = scratch(QUERIES * width // LANES), scratch(QUERIES * width // LANES)
    scale = LOG2_E / np.sqrt(np.float32(P))
    turned[:] = 0
    for job in range(first, last):
        b, group = job // K, job % K
        for t in range(T):
            copy_head(keys, t * width, k[0], spot(k, b, t, group), P, ONE)
            copy_head(values, t * width, v[0], spot(v, b, t, group), P, ONE)
        turn_over(turned, keys, T, P, width, room)
        for head in range(group * G, (group + 1) * G):
            for t in range(0, T, QUERIES):
                count = min(t + QUERIES, T)
                stop = (count + LANES - 1) // LANES * LANES
                copy_queries(query, q, b, t, T, head, P, width, scale)
                for s in range(0, stop, LANES):
                    four_products(score, s, room, query, width, turned, P)
                hide(score, room, t, stop, NEVER)
                for r in range(min(QUERIES, T - t)):
                    at = r * room
                    tops, sums = filled(NEVER), filled(ZERO)
                    for s in range(at, at + stop, LANES):
                        tops = larger(tops, load(score, s))
                    top = greatest(tops)
                    for s in range(at, at + stop, LANES):
                        weight = power_of_two(load(score, s) - top, ONE)
                        store(score, s, weight)
                        sums = sums + weight
                    sum_ = total(sums)
                    log_sum[b, t + r, head] = top + np.log2(sum_)
                    for s in range(at, at + stop, LANES):
                        store(score, s, load(score, s) * (ONE / sum_))
                four_sums(out, width, score, room, values, count)
                for r in range(min(QUERIES, T - t)):
                    write_head(y[0], spot(y, b, t + r, head), out, r * width, P, ONE)


@kernel
def attend_backward(first, last, P, q, k, v, y, log_sum, gy, gq, gk, gv):
    """Go back through `attend_forward`.

    With w the weights: gv = sum of w gy, and scores pull with w (gy . v - gy . y).
    """
    T, H = log_sum.shape[1:]
    K = k[4]
    G, width, room = H // K, (P + LANES - 1) // LANES * LANES, (T + LANES - 1) // LANES * LANES
    keys, turned = scratch(T * width // LANES), scratch(P * room // LANES)
    turned_values = scratch(P * room // LANES)
    key_pull, value_pull = scratch(T * width // LANES), scratch(T * width // LANES)
    weight, pull = scratch(QUERIES * room // LANES), scratch(QUERIES * room // LANES)
    query, given = scratch(QUERIES * width // LANES), scratch(QUERIES * width // LANES)
    out = scratch(QUERIES * width // LANES)
    root = np.sqrt(np.float32(P))
    turned[:] = 0
    turned_values[:] = 0
    for job in range(first, last):
        b, group = job // K, job % K
        for t in range(T):
            copy_head(keys, t * width, v[0], spot(v, b, t, group), P, ONE)
        turn_over(turned_values, keys, T, P, width, room)
        for t in range(T):
            copy_head(keys, t * width, k[0], spot(k, b, t, group), P, ONE)
        turn_over(turned, keys, T, P, width, room)
        key_pull[:] = 0
        value_pull[:] = 0
        for head in range(group * G, (group + 1) * G):
            for t in range(0, T, QUERIES):
                count = min(t + QUERIES, T)
                stop = (count + LANES - 1) // LANES * LANES
                copy_queries(out, y, b, t, T, head, P, width, ONE)
                copy_queries(given, gy, b, t, T, head, P, width, ONE)
                copy_queries(query, q, b, t, T, head, P, width, LOG2_E / root)
                for s in range(0, stop, LANES):
                    four_products(weight, s, room, query, width, turned, P)
                    four_products(pull, s, room, given, width, turned_values, P)
                for r in range(QUERIES):
                    at, dots = r * room, filled(ZERO)
                    for i in range(r * width, (r + 1) * width, LANES):
                        dots = fma(load(out, i), load(given, i), dots)
                    dot = total(dots)
                    log = log_sum[b, t + r, head] if t + r < T else ZERO
                    for s in range(at, at + stop, LANES):
                        w = power_of_two(load(weight, s) - log, ONE)
                        store(weight, s, w)
                        store(pull, s, w * (load(pull, s) - dot))
                hide(weight, room, t, stop, ZERO)
                hide(pull, room, t, stop, ZERO)
                four_sums(out, width, pull, room, keys, count)
                for r in range(min(QUERIES, T - t)):
                    write_head(gq[0], spot(gq, b, t + r, head), out, r * width, P, ONE / root)
                add_four(key_pull, width, pull, room, query, count)
                add_four(value_pull, width, weight, room, given, count)
        for t in range(T):
            write_head(gk[0], spot(gk, b, t, group), key_pull, t * width, P, LN_2)
            write_head(gv[0], spot(gv, b, t, group), value_pull, t * width, P, ONE)
