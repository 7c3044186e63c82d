"""One token through attention: its query against the keys and values kept, read once, in order.

Conventions are those of `step_kernels.py`. Keys and values are (B, C, K, P), float32 or bfloat16 as
int16, and P, the width of a head, is filled up to whole lanes with zeros. The tokens to look at are
cut into pieces; a job is one piece of one row, all heads, so that the memory of a piece is read
from one end to the other, by one thread. How many threads there are changes no result.

A piece leaves its part of the softmax in `parts` (B, pieces, H, P + LANES): the sum of its values,
weighted with 2^(score - top), then `top`, its largest score, and the sum of its weights. Scores
are in units of log 2, the scale of the products included. See FlashAttention (arXiv:2205.14135),
section 3.1, for sums of parts.
"""

# mypy: disable-error-code="call-arg, var-annotated"

import numpy as np
from numba import njit

from hybrid.ops.cpu.lane_math import LOG2_E, ONE, ZERO, filled, greatest, larger, power_of_two
from hybrid.ops.cpu.lanes import (
    LANES,
    element,
    fma,
    folded,
    kernel,
    load,
    prefetch_second,
    set_element,
    store,
    total,
)
from hybrid.ops.cpu.step_kernels import add_times, normalised, room_for, times

NEVER = np.float32(-np.inf)  # the score of what may not be looked at
LINE = 64  # bytes of a cache line
AHEAD = 1 << 14  # bytes; what memory takes to answer, in bytes that a thread reads, and some more


@njit(nogil=True)
def turned(x, at, P, position, theta):
    """Turn one head in place: pair (i, i + P/2) by position theta^(-2i/P)."""
    for i in range(P // 2):
        angle = np.float32(position) * np.float32(theta ** (-2.0 * i / P))
        cos, sin = np.cos(angle), np.sin(angle)
        first, second = x[at + i], x[at + i + P // 2]
        x[at + i] = first * cos - second * sin
        x[at + i + P // 2] = second * cos + first * sin


@njit(nogil=True)
def keep(memory, at, heads, x, x_at, P):
    """Write so many heads of x, P wide, to memory from `at` on, with zeros up to whole lanes."""
    width = memory.shape[3]
    for head in range(heads):
        for i in range(width):
            value = x[x_at + head * P + i] if i < P else ZERO
            set_element(memory, at + head * width + i, value)


@kernel
def attention_begin(x, norm, eps, qkv, P, position, theta, keys, values, kept, q):
    """Fill q (B, H, P), turned where theta > 0, and append to keys and values as token `kept`."""
    B, D = x.shape
    C, K, width = keys.shape[1:]
    H = q.shape[1]
    v, out = room_for(D), room_for((H + 2 * K) * P)
    scale = LOG2_E / np.sqrt(np.float32(P))
    for b in range(B):
        normalised(x[b], 0, D, norm, eps, v)
        times(qkv, 0, (H + 2 * K) * P, v, 0, out)
        if theta > 0:
            for head in range(H + K):
                turned(out, head * P, P, position, theta)
        for head in range(H):
            for i in range(P):
                q[b, head, i] = out[head * P + i] * scale
        at = (b * C + kept) * K * width
        keep(keys, at, K, out, H * P, P)
        keep(values, at, K, out, (H + K) * P, P)


# Inlined by numba itself, as in `conv_kernels.py`: a call would count references to its arrays,
# atomically, for every few keys.
@njit(nogil=True, inline="always")
def four_dots(q, at_q, keys, at, step, width):
    """Return the products of a query and four keys, each product as four lanes to be summed."""
    s0, s1, s2, s3 = filled(ZERO), filled(ZERO), filled(ZERO), filled(ZERO)
    for i in range(0, width, LANES):
        v = load(q, at_q + i)
        s0 = fma(load(keys, at + i), v, s0)
        s1 = fma(load(keys, at + step + i), v, s1)
        s2 = fma(load(keys, at + 2 * step + i), v, s2)
        s3 = fma(load(keys, at + 3 * step + i), v, s3)
    return folded(folded(s0, s1), folded(s2, s3))


@njit(nogil=True, inline="always")
def dot(q, at_q, keys, at, width):
    """Return the product of a query and one key."""
    sums = filled(ZERO)
    for i in range(0, width, LANES):
        sums = fma(load(q, at_q + i), load(keys, at + i), sums)
    return total(sums)


@njit(nogil=True, inline="always")
def ask(memory, at, count):
    """Ask for what lies AHEAD of so many elements.

    Between so many products the processor's own guess at what is read next falls behind.
    """
    size = memory.itemsize
    for i in range(at + AHEAD // size, at + AHEAD // size + count, LINE // size):
        prefetch_second(memory, i)


@njit(nogil=True, inline="always")
def score_lanes(q, b, keys, at, fours):
    """Fill `fours` (H, 4, LANES) with the products with sixteen keys, each as four lanes to add.

    Keys are read four tokens at a time, nearly as they lie: going through all sixteen head by head
    is slow once they no longer fit a cache.
    """
    H, (K, width) = q.shape[1], keys.shape[2:]
    G, step = H // K, K * width
    for s in range(0, LANES, 4):
        ask(keys, at + s * step, 4 * step)
        for group in range(K):
            key = at + s * step + group * width
            for head in range(group * G, (group + 1) * G):
                products = four_dots(q, (b * H + head) * width, keys, key, step, width)
                store(fours, (head * LANES + s) * 4, products)


@njit(nogil=True)
def folded_four(fours, at):
    """Return the sums of four times four neighbouring lanes."""
    first = folded(load(fours, at), load(fours, at + LANES))
    return folded(first, folded(load(fours, at + 2 * LANES), load(fours, at + 3 * LANES)))


@njit(nogil=True, inline="always")
def score_piece(q, b, keys, at, tokens, score, piece, fours):
    """Fill the scores (H, piece) of so many tokens, and what is left of the last lanes."""
    H, (K, width) = q.shape[1], keys.shape[2:]
    step, last = K * width, tokens - tokens % LANES
    for s in range(0, last, LANES):
        score_lanes(q, b, keys, at + s * step, fours)
        for head in range(H):
            store(score, head * piece + s, folded_four(fours, head * 4 * LANES))
    if last < tokens:
        for head in range(H):
            key = at + head // (H // K) * width
            store(score, head * piece + last, NEVER)
            for s in range(last, tokens):
                found = dot(q, (b * H + head) * width, keys, key + s * step, width)
                set_element(score, head * piece + s, found)


@njit(nogil=True, inline="always")
def weigh_piece(score, at, tokens):
    """Turn the scores of one head into weights; return (largest score, sum of weights)."""
    tops, sums = filled(NEVER), filled(ZERO)
    for s in range(at, at + tokens, LANES):
        tops = larger(tops, load(score, s))
    top = greatest(tops)
    for s in range(at, at + tokens, LANES):
        weight = power_of_two(load(score, s) - top, ONE)
        store(score, s, weight)
        sums = sums + weight
    return top, total(sums)


@njit(nogil=True, inline="always")
def add_values(score, piece, values, at, tokens, parts, to, H):
    """Add the weighted values of so many tokens to the parts (H, P + LANES) from `to` on.

    Four tokens at a time; heads that share a value load it once.
    """
    K, width = values.shape[2:]
    G, step, done = H // K, K * width, tokens - tokens % 4
    for s in range(0, done, 4):
        ask(values, at + s * step, 4 * step)
        for group in range(K):
            for i in range(0, width, LANES):
                value = at + s * step + group * width + i
                v0, v1 = load(values, value), load(values, value + step)
                v2, v3 = load(values, value + 2 * step), load(values, value + 3 * step)
                for head in range(group * G, (group + 1) * G):
                    part, w = to + head * (width + LANES) + i, head * piece + s
                    out = fma(v0, element(score, w), load(parts, part))
                    out = fma(v1, element(score, w + 1), out)
                    out = fma(v2, element(score, w + 2), out)
                    store(parts, part, fma(v3, element(score, w + 3), out))
    for s in range(done, tokens):
        for head in range(H):
            value, part = at + s * step + head // G * width, to + head * (width + LANES)
            for i in range(0, width, LANES):
                out = fma(
                    load(values, value + i), element(score, head * piece + s), load(parts, part + i)
                )
                store(parts, part + i, out)


@kernel
def attend_pieces(first, last, q, keys, values, low, high, piece, parts):
    """Attend from one token to tokens low to high - 1; a job is a row and a piece of the tokens.

    `piece` is in tokens, whole lanes of them.
    """
    C, K, width = keys.shape[1:]
    pieces, H = parts.shape[1:3]
    score, fours = room_for(H * piece), room_for(H * 4 * LANES)
    for job in range(first, last):
        b, start = job // pieces, low + job % pieces * piece
        tokens, at = min(piece, high - start), (b * C + start) * K * width
        score_piece(q, b, keys, at, tokens, score, piece, fours)
        to = job * H * (width + LANES)
        for head in range(H):
            top, sum_ = weigh_piece(score, head * piece, tokens)
            end = to + head * (width + LANES) + width
            for i in range(end - width, end, LANES):
                store(parts, i, ZERO)
            set_element(parts, end, top)
            set_element(parts, end + 1, sum_)
        add_values(score, piece, values, at, tokens, parts, to, H)


@njit(nogil=True)
def joined(parts, b, head, y):
    """Fill y with the weighted values of one head of one row; return the sum of the weights."""
    pieces, H, width = parts.shape[1], parts.shape[2], parts.shape[3] - LANES
    top, sum_ = NEVER, ZERO
    for part in range(pieces):
        top = max(top, parts[b, part, head, width])
    y[:] = 0
    for part in range(pieces):
        at = ((b * pieces + part) * H + head) * (width + LANES)
        share = power_of_two(filled(element(parts, at + width) - top), ONE)
        sum_ += total(share) * element(parts, at + width + 1)
        for i in range(0, width, LANES):
            store(y, i, fma(share, load(parts, at + i), load(y, i)))
    return sum_ / LANES


@kernel
def attention_end(x, out_proj, P, parts):
    """Add the output projection of the heads' results."""
    B, D = x.shape
    H, width = parts.shape[2], parts.shape[3] - LANES
    y, one = room_for(H * P), room_for(width)
    for b in range(B):
        for head in range(H):
            sum_ = joined(parts, b, head, one)
            for i in range(P):
                y[head * P + i] = one[i] / sum_
        add_times(out_proj, y, x, b, D)
