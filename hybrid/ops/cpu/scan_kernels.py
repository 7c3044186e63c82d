"""The selective scan on lanes of sixteen channels, forward and backward.

States are kept as (N, lanes), so nothing in the recurrence crosses lanes. A kernel does the jobs
`first` to `last - 1` of a partition its docstring gives; no job reads what another writes, so it
does not matter which thread does which. An activation is a tuple (flat memory, elements from row to
row, elements from token to token), float32 or bfloat16. Everything else is a C-contiguous float32
array. Channels come in whole blocks of lanes. Nothing here checks that: `scan.py` sees to it.

One file: forward and backward share how they walk through tokens.
"""

# An intrinsic is called without its first parameter, which mypy cannot know.
# mypy: disable-error-code="call-arg, var-annotated"

from typing import Any, NamedTuple

from numba import njit

from hybrid.ops.cpu.lane_math import (
    LN_2,
    LOG2_E,
    ZERO,
    power_of_two,
    scratch,
    sigmoid,
    silu_slope,
    softplus,
    softplus_and_slope,
)
from hybrid.ops.cpu.lanes import (
    LANES,
    element,
    fma,
    gather,
    kernel,
    load,
    prefetch,
    scatter,
    store,
    total,
)

AHEAD = 8  # tokens from asking for a cache line to using it; rows lie too far apart for guesses


@njit(nogil=True)
def place(x, row, t, e):
    """Return where an activation has channel `e` of token `t`."""
    return row * x[1] + t * x[2] + e


@kernel
def scan_forward(
    first,
    last,
    chunk,
    u,
    raw,
    bias,
    a,
    b,
    c,
    d,
    gate,
    h,
    y,
    h_last,
    saved,
):
    """Run the recurrence, `chunk` tokens at a time; a job is one row and one block.

    `saved` (rows, chunks, blocks, N, lanes) receives the state before every `chunk`-th token; where
    its second extent is 0, nothing is saved.
    """
    T, (E, N) = b.shape[1], a.shape
    blocks, chunks = E // LANES, saved.shape[1]
    rate, state = scratch(N), scratch(N)
    tokens = scratch(chunk), scratch(chunk), scratch(chunk)
    for job in range(first, last):
        row, block = job // blocks, job % blocks
        e = block * LANES
        for n in range(N):
            store(rate, n * LANES, gather(a, e * N + n, N) * LOG2_E)
            store(state, n * LANES, gather(h, (row * E + e) * N + n, N))
        skip, shift = load(d, e), load(bias, e)
        for t0 in range(0, T, chunk):
            steps = min(chunk, T - t0)
            if chunks > 0:
                to = ((row * chunks + t0 // chunk) * blocks + block) * N * LANES
                for n in range(N):
                    store(saved, to + n * LANES, load(state, n * LANES))
            enter(tokens, steps, row, t0, e, u, raw, shift, skip)
            for n in range(N):
                at = (row * T + t0) * N + n
                advance(tokens, steps, at, N, n, state, load(rate, n * LANES), b, c)
            leave(tokens, steps, row, t0, e, gate, y)
        for n in range(N):
            scatter(h_last, (row * E + e) * N + n, N, load(state, n * LANES))


@njit(nogil=True)
def enter(tokens, steps, row, t0, e, u, raw, shift, skip):
    """Note dt, dt u and d u of each token of one block over one chunk."""
    dts, drives, outs = tokens
    for k in range(steps):
        at, t = k * LANES, t0 + k
        prefetch(raw[0], place(raw, row, t + AHEAD, e))
        prefetch(u[0], place(u, row, t + AHEAD, e))
        step = softplus(load(raw[0], place(raw, row, t, e)) + shift)
        x = load(u[0], place(u, row, t, e))
        store(dts, at, step)
        store(drives, at, step * x)
        store(outs, at, skip * x)


@njit(nogil=True)
def advance(tokens, steps, bc, N, n, state, rate, b, c):
    """Take state n of one block through one chunk, in a register, and add it to what comes out.

    All states of a token one after the other would wait for that token's softplus each time.
    """
    dts, drives, outs = tokens
    now = load(state, n * LANES)
    for k in range(steps):
        at = k * LANES
        decay = power_of_two(load(dts, at), rate)
        now = fma(decay, now, load(drives, at) * element(b, bc + k * N))
        store(outs, at, fma(now, element(c, bc + k * N), load(outs, at)))
    store(state, n * LANES, now)


@njit(nogil=True)
def leave(tokens, steps, row, t0, e, gate, y):
    """Write what comes out of one block over one chunk, gated."""
    for k in range(steps):
        t = t0 + k
        prefetch(gate[0], place(gate, row, t + AHEAD, e))
        z = load(gate[0], place(gate, row, t, e))
        store(y[0], place(y, row, t, e), load(tokens[2], k * LANES) * z * sigmoid(z))


class Room(NamedTuple):
    """Where one thread works in the backward scan; all are Lanes, in the extents named."""

    rates: Any  # a LOG2_E; (blocks of the group, N), as are the next two
    back: Any  # the gradient of the state, on its way back in time
    sum_a: Any
    sum_d: Any  # (blocks of the group), as is the next
    sum_bias: Any
    sum_b: Any  # (N, chunk), as is the next: per lane, over the blocks of the group so far
    sum_c: Any
    steps: Any  # dt; (chunk), as are the next seven
    slopes: Any  # of softplus, where dt comes from
    drives: Any  # dt u
    gates: Any  # sigmoid of the gate
    pulls: Any  # the gradient of y before its gate
    outs: Any  # c . h
    sum_drive: Any
    sum_step: Any
    states: Any  # before each token; (2, chunk), as is the next
    decays: Any


@njit(nogil=True)
def make_room(width, N, chunk):
    """Return a Room for groups of `width` blocks."""
    return Room(
        scratch(width * N),
        scratch(width * N),
        scratch(width * N),
        scratch(width),
        scratch(width),
        scratch(N * chunk),
        scratch(N * chunk),
        scratch(chunk),
        scratch(chunk),
        scratch(chunk),
        scratch(chunk),
        scratch(chunk),
        scratch(chunk),
        scratch(chunk),
        scratch(chunk),
        scratch(2 * chunk),
        scratch(2 * chunk),
    )


@njit(nogil=True)
def replay(room, slot, nk, state, out, rate, token, b, c):
    """Return (one state after a token of a chunk, c . h so far), and note what `unwind` needs."""
    step, drive, pull = token
    decay = power_of_two(step, rate)
    store(room.states, slot * LANES, state)
    store(room.decays, slot * LANES, decay)
    state = fma(decay, state, drive * b)
    store(room.sum_c, nk * LANES, fma(state, pull, load(room.sum_c, nk * LANES)))
    return state, fma(state, c, out)


@njit(nogil=True)
def unwind(room, slot, nk, g, sum_a, sums, rate, token, b, c):
    """Return (gradient of one state before a token, sum for a, sums for drive and dt).

    The sums go in and out by value: through memory, the compiler could not join two calls.
    """
    step, drive, pull = token
    g = fma(pull, c, g)
    sum_drive = fma(g, b, sums[0])
    store(room.sum_b, nk * LANES, fma(g, drive, load(room.sum_b, nk * LANES)))
    g = g * load(room.decays, slot * LANES)
    q = g * load(room.states, slot * LANES)
    return g, fma(q, step, sum_a), (sum_drive, fma(q, rate, sums[1]))


@njit(nogil=True)
def retrace(room, n, m, chunk, steps, slot, bc0, from_saved, saved, b, c):
    """Recompute states n and m of one block over one chunk, then go back through them.

    Two states share the loads and stores of what belongs to the token alone, which takes an eighth
    less time than one by one. `m` is None where n is the last of an odd N: numba compiles that case
    by itself, without the lines that ask for `m`.
    """
    N = b.shape[2]
    i, state = (slot * N + n) * LANES, load(saved, from_saved + n * LANES)
    rate, g, s = load(room.rates, i), load(room.back, i), load(room.sum_a, i)
    if m is not None:
        j, state_m = (slot * N + m) * LANES, load(saved, from_saved + m * LANES)
        rate_m, g_m, s_m = load(room.rates, j), load(room.back, j), load(room.sum_a, j)
    for k in range(steps):
        bc, at = bc0 + k * N, k * LANES
        token = load(room.steps, at), load(room.drives, at), load(room.pulls, at)
        out, b_n, c_n = load(room.outs, at), element(b, bc + n), element(c, bc + n)
        state, out = replay(room, 2 * k, n * chunk + k, state, out, rate, token, b_n, c_n)
        if m is not None:
            at_m, b_m, c_m = m * chunk + k, element(b, bc + m), element(c, bc + m)
            state_m, out = replay(room, 2 * k + 1, at_m, state_m, out, rate_m, token, b_m, c_m)
        store(room.outs, at, out)
    for k in range(steps - 1, -1, -1):
        bc, at = bc0 + k * N, k * LANES
        token = load(room.steps, at), load(room.drives, at), load(room.pulls, at)
        sums = load(room.sum_drive, at), load(room.sum_step, at)
        b_n, c_n = element(b, bc + n), element(c, bc + n)
        g, s, sums = unwind(room, 2 * k, n * chunk + k, g, s, sums, rate, token, b_n, c_n)
        if m is not None:
            at_m, b_m, c_m = m * chunk + k, element(b, bc + m), element(c, bc + m)
            g_m, s_m, sums = unwind(room, 2 * k + 1, at_m, g_m, s_m, sums, rate_m, token, b_m, c_m)
        store(room.sum_drive, at, sums[0])
        store(room.sum_step, at, sums[1])
    store(room.back, i, g)
    store(room.sum_a, i, s)
    if m is not None:
        store(room.back, j, g_m)
        store(room.sum_a, j, s_m)


@njit(nogil=True)
def open_group(room, row, start, stop, a, gh_last):
    """Start the sums of a group of blocks; N and E come from the shape of `gh_last`."""
    E, N = gh_last.shape[1:]
    for block in range(start, stop):
        slot, e = block - start, block * LANES
        store(room.sum_d, slot * LANES, ZERO)
        store(room.sum_bias, slot * LANES, ZERO)
        for n in range(N):
            i = (slot * N + n) * LANES
            store(room.rates, i, gather(a, e * N + n, N) * LOG2_E)
            store(room.back, i, gather(gh_last, (row * E + e) * N + n, N))
            store(room.sum_a, i, ZERO)


@njit(nogil=True)
def close_group(room, row, start, stop, ga, gd, gbias, gh):
    """Write what a group has summed over its row."""
    E, N = gh.shape[1:]
    for block in range(start, stop):
        slot, e = block - start, block * LANES
        store(gd, row * E + e, load(room.sum_d, slot * LANES))
        store(gbias, row * E + e, load(room.sum_bias, slot * LANES))
        for n in range(N):
            i, to = (slot * N + n) * LANES, (row * E + e) * N + n
            scatter(ga, to, N, load(room.sum_a, i))
            scatter(gh, to, N, load(room.back, i))


@njit(nogil=True)
def open_block(room, steps, row, t0, e, u, raw, bias, gate, gy):
    """Note what belongs to each token of one block over one chunk, and start its sums."""
    shift = load(bias, e)
    for k in range(steps):
        at, t = k * LANES, t0 + k
        step, slope = softplus_and_slope(load(raw[0], place(raw, row, t, e)) + shift)
        z = load(gate[0], place(gate, row, t, e))
        s = sigmoid(z)
        store(room.steps, at, step)
        store(room.slopes, at, slope)
        store(room.gates, at, s)
        store(room.drives, at, step * load(u[0], place(u, row, t, e)))
        store(room.pulls, at, load(gy[0], place(gy, row, t, e)) * z * s)
        store(room.outs, at, ZERO)
        store(room.sum_drive, at, ZERO)
        store(room.sum_step, at, ZERO)


@njit(nogil=True)
def close_block(room, steps, row, t0, e, slot, skip, u, gate, gy, gu, graw, ggate):
    """Write the gradients of u, raw and gate of one block over one chunk."""
    sum_d, sum_bias = load(room.sum_d, slot * LANES), load(room.sum_bias, slot * LANES)
    for k in range(steps):
        at, t = k * LANES, t0 + k
        x, z = load(u[0], place(u, row, t, e)), load(gate[0], place(gate, row, t, e))
        pull, g_drive = load(room.pulls, at), load(room.sum_drive, at)
        out = fma(skip, x, load(room.outs, at))
        slope = silu_slope(z, load(room.gates, at))
        store(ggate[0], place(ggate, row, t, e), load(gy[0], place(gy, row, t, e)) * out * slope)
        store(gu[0], place(gu, row, t, e), fma(g_drive, load(room.steps, at), skip * pull))
        g_step = fma(load(room.sum_step, at), LN_2, g_drive * x)
        g_raw = g_step * load(room.slopes, at)
        store(graw[0], place(graw, row, t, e), g_raw)
        sum_d, sum_bias = fma(pull, x, sum_d), sum_bias + g_raw
    store(room.sum_d, slot * LANES, sum_d)
    store(room.sum_bias, slot * LANES, sum_bias)


@kernel
def scan_backward(
    first,
    last,
    chunk,
    u,
    raw,
    bias,
    a,
    b,
    c,
    d,
    gate,
    saved,
    gy,
    gh_last,
    gu,
    graw,
    gbias,
    ga,
    gb,
    gc,
    gd,
    ggate,
    gh,
):
    """Go back through the recurrence; a job is one row and one group of blocks.

    From the last chunk to the first: recompute its states from the saved one, then unwind it. The
    gradients of b and c are summed over lanes once per chunk, so that their per-lane sums stay in
    the nearest caches; `gb` and `gc` are (rows, groups, T, N), `ga` (rows, E, N), `gd` and `gbias`
    (rows, E).
    """
    T, (E, N) = b.shape[1], a.shape
    blocks, groups, chunks = E // LANES, gb.shape[1], saved.shape[1]
    width = (blocks + groups - 1) // groups
    room = make_room(width, N, chunk)
    for job in range(first, last):
        row, group = job // groups, job % groups
        start, stop = min(group * width, blocks), min((group + 1) * width, blocks)
        open_group(room, row, start, stop, a, gh_last)
        for part in range(chunks - 1, -1, -1):
            t0 = part * chunk
            steps, bc = min(chunk, T - t0), (row * T + t0) * N
            room.sum_b[:] = 0
            room.sum_c[:] = 0
            for block in range(start, stop):
                slot, e = block - start, block * LANES
                from_saved = ((row * chunks + part) * blocks + block) * N * LANES
                open_block(room, steps, row, t0, e, u, raw, bias, gate, gy)
                rest = (chunk, steps, slot, bc, from_saved, saved, b, c)
                for n in range(0, N - 1, 2):
                    retrace(room, n, n + 1, *rest)
                if N % 2:
                    retrace(room, N - 1, None, *rest)
                skip, given = load(d, e), (u, gate, gy, gu, graw, ggate)
                close_block(room, steps, row, t0, e, slot, skip, *given)
            for k in range(steps):
                for n in range(N):
                    gb[row, group, t0 + k, n] = total(load(room.sum_b, (n * chunk + k) * LANES))
                    gc[row, group, t0 + k, n] = total(load(room.sum_c, (n * chunk + k) * LANES))
        close_group(room, row, start, stop, ga, gd, gbias, gh)
