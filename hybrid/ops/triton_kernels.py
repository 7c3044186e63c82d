"""The selective scan in Triton: forward, backward, one decode step. `triton_scan.py` runs these.

Letters are those of `hybrid/__init__.py`; C counts chunks of tokens, G segments of chunks.

A program has one batch row, one block of channels and one segment, and goes through its segment a
few tokens (a tile) at a time. It reads what these need at once, then takes one n of the N after
another and steps that state through the tile. So a thread holds few states, whatever N is, waits
for memory once per tile, and exchanges nothing with others but for sums over channels. States are
carried from tile to tile in memory that stays in the near cache: a tile reads one of two slots and
writes the other, for barriers stand between tiles only.

`a_NE` comes multiplied by log2(e), for exp2. Tokens after the last have dt = 0, which keeps a
state, and an input and a gradient of 0. Offsets of channels are 32 bits wide, those of rows 64. A
little longer than other files, so that the backward pass stands beside the forward pass.
"""

# Values in a kernel are Triton's, not Python's.
# mypy: disable-error-code="assignment"

# ruff: noqa: RUF005  Triton's compiler takes sums of tuples, and no starred ones.

import triton
import triton.language as tl

LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def softplus(x):
    """log(1 + exp(x)), to the last digits also where exp(x) is far below 1."""
    z = tl.exp(-tl.abs(x))
    rounded = (1.0 + z) - 1.0
    # What 1 + z loses of z, its logarithm loses in proportion: Goldberg, What Every Computer
    # Scientist Should Know About Floating-Point Arithmetic (1991), theorem 4
    log1p = tl.where(
        rounded == 0.0, z, tl.log(1.0 + z) * z / tl.where(rounded == 0.0, 1.0, rounded)
    )
    return tl.maximum(x, 0.0) + log1p


@triton.jit
def only(ok, e, E):
    """Mask of the channels there are, or of none where `ok` is false."""
    return e < tl.where(ok, E, 0)


@triton.jit
def read(ptr, b, t, stride_b, stride_t, e, ok):
    """The channels e of token t of row b, 0 where not `ok`."""
    at = ptr + b * stride_b + t.to(tl.int64) * stride_t
    return tl.load(at + e, mask=ok, other=0.0).to(tl.float32)


@triton.jit
def key(ptr, b, t, stride_b, stride_t, n, T):
    """Number n of token t of row b, of a token there is: beside another, it is multiplied by 0."""
    at = ptr + b * stride_b + tl.minimum(t, T - 1).to(tl.int64) * stride_t
    return tl.load(at + n).to(tl.float32)


@triton.jit
def step_size(raw_ptr, b, t, raw_b, raw_t, e, bias, ok):
    """dt of token t."""
    return tl.where(ok, softplus(read(raw_ptr, b, t, raw_b, raw_t, e, ok) + bias), 0.0)


@triton.jit
def scan_forward(
    u_ptr, raw_ptr, gate_ptr, bias_ptr, a_ptr, b_ptr, c_ptr, d_ptr,
    y_ptr, state_ptr, last_ptr, start_ptr,
    T, E, N, C, per_segment, G,
    u_b, u_t, raw_b, raw_t, gate_b, gate_t, b_b, b_t, c_b, c_t,
    CHUNK: tl.constexpr, TILE: tl.constexpr, BLOCK_E: tl.constexpr, SAVE: tl.constexpr,
):  # fmt: skip
    """y, the last state, and with SAVE in `state` those before each chunk but the first.

    `start` has three slots per segment: in the last must be the state it starts from.
    """
    e = tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    g, b = tl.program_id(1), tl.program_id(2).to(tl.int64)
    ok = e < E
    bias = tl.load(bias_ptr + e, mask=ok, other=0.0)
    d = tl.load(d_ptr + e, mask=ok, other=0.0)
    start_ptr += (b * G + g) * 3 * N * E + e
    first = g * per_segment
    count = tl.minimum(per_segment, C - first) * (CHUNK // TILE)
    for k in range(count):
        t = first * CHUNK + k * TILE
        dts, drives, ys = (), (), ()
        for w in tl.static_range(TILE):
            there = only(t + w < T, e, E)
            dt = step_size(raw_ptr, b, t + w, raw_b, raw_t, e, bias, there)
            u = read(u_ptr, b, t + w, u_b, u_t, e, there)
            dts, drives, ys = dts + (dt,), drives + (dt * u,), ys + (d * u,)
        slot, next_slot = tl.where(k == 0, 2, k % 2) * N, (k + 1) % 2 * N
        after = t + TILE
        at_chunk = only((after % CHUNK == 0) & (after < C * CHUNK), e, E)
        at_end = only(after == C * CHUNK, e, E)
        for n in range(N):
            a = tl.load(a_ptr + n * E + e, mask=ok, other=0.0)
            h = tl.load(start_ptr + (slot + n) * E, mask=ok, other=0.0)
            sums = ()
            for w in tl.static_range(TILE):
                fresh = drives[w] * key(b_ptr, b, t + w, b_b, b_t, n, T)
                h = tl.exp2(dts[w] * a) * h + fresh
                sums = sums + (ys[w] + h * key(c_ptr, b, t + w, c_b, c_t, n, T),)
            ys = sums
            tl.store(start_ptr + (next_slot + n) * E, h, mask=ok)
            if SAVE:
                tl.store(state_ptr + ((b * C + after // CHUNK) * N + n) * E + e, h, mask=at_chunk)
            tl.store(last_ptr + (b * E + e) * N + n, h, mask=at_end)
        for w in tl.static_range(TILE):
            there = only(t + w < T, e, E)
            gate = read(gate_ptr, b, t + w, gate_b, gate_t, e, there)
            y = ys[w] * gate * tl.sigmoid(gate)
            tl.store(y_ptr + (b * T + t + w) * E + e, y.to(y_ptr.dtype.element_ty), mask=there)
        tl.debug_barrier()


@triton.jit
def scan_segment(
    value_ptr, raw_ptr, gate_ptr, bias_ptr, a_ptr, key_ptr, local_ptr, total_ptr,
    T, E, N, C, per_segment, G,
    value_b, value_t, raw_b, raw_t, gate_b, gate_t, key_b, key_t,
    CHUNK: tl.constexpr, TILE: tl.constexpr, BLOCK_E: tl.constexpr, BACKWARD: tl.constexpr,
):  # fmt: skip
    """What each segment makes of nothing, and the sum of its dt: `local`, `total`.

    Forward that is the state after it, from u and b; backward the gradient of the state before it,
    from gy and c. `local` has two slots per segment, zeros before; the result is in the first.
    """
    FIRST: tl.constexpr = TILE - 1 if BACKWARD else 0
    STEP: tl.constexpr = -1 if BACKWARD else 1
    e = tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    g, b = tl.program_id(1), tl.program_id(2).to(tl.int64)
    ok = e < E
    bias = tl.load(bias_ptr + e, mask=ok, other=0.0)
    local_ptr += (b * G + g) * 2 * N * E + e
    first = g * per_segment
    count = tl.minimum(per_segment, C - first) * (CHUNK // TILE)
    total = tl.zeros([BLOCK_E], tl.float32)
    for k in range(count):
        left = count - k
        t = first * CHUNK + (left - 1 if BACKWARD else k) * TILE
        dts, values = (), ()
        for w in tl.static_range(TILE):
            there = only(t + w < T, e, E)
            dt = step_size(raw_ptr, b, t + w, raw_b, raw_t, e, bias, there)
            value = read(value_ptr, b, t + w, value_b, value_t, e, there)
            if BACKWARD:
                gate = read(gate_ptr, b, t + w, gate_b, gate_t, e, there)
                value *= gate * tl.sigmoid(gate)
            else:
                value *= dt
            dts, values = dts + (dt,), values + (value,)
            total += dt
        for n in range(N):
            a = tl.load(a_ptr + n * E + e, mask=ok, other=0.0)
            x = tl.load(local_ptr + (left % 2 * N + n) * E, mask=ok, other=0.0)
            for w in tl.static_range(FIRST, FIRST + STEP * TILE, STEP):
                own = values[w] * key(key_ptr, b, t + w, key_b, key_t, n, T)
                decay = tl.exp2(dts[w] * a)
                x = decay * (x + own) if BACKWARD else decay * x + own
            tl.store(local_ptr + ((left - 1) % 2 * N + n) * E, x, mask=ok)
        tl.debug_barrier()
    tl.store(total_ptr + (b * G + g) * E + e, total, mask=ok)


@triton.jit
def scan_carry(
    local_ptr, total_ptr, a_ptr, out_ptr, E, N, G, BLOCK_E: tl.constexpr, BACKWARD: tl.constexpr,
):  # fmt: skip
    """What enters each segment, from what enters the first one (the last one, backward).

    It stands in the last of a segment's three slots in `out`.
    """
    e = tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    n, b = tl.program_id(1), tl.program_id(2).to(tl.int64)
    ok = e < E
    a = tl.load(a_ptr + n * E + e, mask=ok, other=0.0)
    out_ptr += ((b * G * 3 + 2) * N + n) * E + e
    passing = tl.load(out_ptr + (G - 1 if BACKWARD else 0) * 3 * N * E, mask=ok, other=0.0)
    for k in range(G - 1):
        g = G - 1 - k if BACKWARD else k
        local = tl.load(local_ptr + ((b * G + g) * 2 * N + n) * E + e, mask=ok, other=0.0)
        total = tl.load(total_ptr + (b * G + g) * E + e, mask=ok, other=0.0)
        passing = tl.exp2(a * total) * passing + local
        tl.store(out_ptr + (g - 1 if BACKWARD else g + 1) * 3 * N * E, passing, mask=ok)


@triton.jit
def scan_backward(
    u_ptr, raw_ptr, gate_ptr, gy_ptr, bias_ptr, a_ptr, b_ptr, c_ptr, d_ptr, state_ptr,
    gu_ptr, graw_ptr, ggate_ptr, gbias_ptr, ga_ptr, gb_ptr, gc_ptr, gd_ptr, gstate_ptr, start_ptr,
    B, T, E, N, C, per_segment, G,
    u_b, u_t, raw_b, raw_t, gate_b, gate_t, gy_b, gy_t, b_b, b_t, c_b, c_t,
    CHUNK: tl.constexpr, TILE: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """All gradients: those of parameters per row and segment, of b and c per block of channels.

    From the state saved before a chunk come those before its tiles, in `start`, and from these all
    others, and the y that was gated. `gstate` has three slots per segment: in the last must be what
    comes from behind it, in the first will be what goes before it. `ga` has two, zeros before; the
    result is in the first. `gb` and `gc` have room for whole chunks.
    """
    TILES: tl.constexpr = CHUNK // TILE
    e = tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    g, b = tl.program_id(1), tl.program_id(2).to(tl.int64)
    ok = e < E
    bias = tl.load(bias_ptr + e, mask=ok, other=0.0)
    d = tl.load(d_ptr + e, mask=ok, other=0.0)
    gstate_ptr += (b * G + g) * 3 * N * E + e
    ga_ptr += (b * G + g) * 2 * N * E + e
    start_ptr += (b * G + g) * TILES * N * E + e
    part = (tl.program_id(0).to(tl.int64) * B + b) * C * CHUNK
    zero = tl.zeros([BLOCK_E], tl.float32)
    gbias, gd = zero, zero
    first = g * per_segment
    count = tl.minimum(per_segment, C - first)
    for k in range(count):
        chunk = first + count - 1 - k
        saved = state_ptr + (b * C + chunk) * N * E + e
        for j in range(TILES - 1):
            t = chunk * CHUNK + j * TILE
            dts, drives = (), ()
            for w in tl.static_range(TILE):
                there = only(t + w < T, e, E)
                dt = step_size(raw_ptr, b, t + w, raw_b, raw_t, e, bias, there)
                u = read(u_ptr, b, t + w, u_b, u_t, e, there)
                dts, drives = dts + (dt,), drives + (dt * u,)
            before = tl.where(j == 0, saved, start_ptr + j * N * E)
            for n in range(N):
                a = tl.load(a_ptr + n * E + e, mask=ok, other=0.0)
                h = tl.load(before + n * E, mask=ok, other=0.0)
                for w in tl.static_range(TILE):
                    fresh = drives[w] * key(b_ptr, b, t + w, b_b, b_t, n, T)
                    h = tl.exp2(dts[w] * a) * h + fresh
                tl.store(start_ptr + ((j + 1) * N + n) * E, h, mask=ok)
            tl.debug_barrier()
        for done in range(TILES):
            j = TILES - 1 - done
            t = chunk * CHUNK + j * TILE
            left = (count - k) * TILES - done
            slot, next_slot = tl.where(left == count * TILES, 2, left % 2) * N, (left - 1) % 2 * N
            dts, drives, gvs, ys, gdrives, gexponents = (), (), (), (), (), ()
            for w in tl.static_range(TILE):
                there = only(t + w < T, e, E)
                dt = step_size(raw_ptr, b, t + w, raw_b, raw_t, e, bias, there)
                u = read(u_ptr, b, t + w, u_b, u_t, e, there)
                gate = read(gate_ptr, b, t + w, gate_b, gate_t, e, there)
                gy = read(gy_ptr, b, t + w, gy_b, gy_t, e, there)
                dts, drives, ys = dts + (dt,), drives + (dt * u,), ys + (d * u,)
                gvs = gvs + (gy * gate * tl.sigmoid(gate),)
                gdrives, gexponents = gdrives + (zero,), gexponents + (zero,)
            before = tl.where(j == 0, saved, start_ptr + j * N * E)
            for n in range(N):
                a = tl.load(a_ptr + n * E + e, mask=ok, other=0.0)
                h = tl.load(before + n * E, mask=ok, other=0.0)
                gh = tl.load(gstate_ptr + (slot + n) * E, mask=ok, other=0.0)
                ga = tl.load(ga_ptr + (left % 2 * N + n) * E, mask=ok, other=0.0)
                decays, kepts, sums = (), (), ()
                for w in tl.static_range(TILE):
                    decay = tl.exp2(dts[w] * a)
                    kept = decay * h
                    h = kept + drives[w] * key(b_ptr, b, t + w, b_b, b_t, n, T)
                    decays, kepts = decays + (decay,), kepts + (kept,)
                    sums = sums + (ys[w] + h * key(c_ptr, b, t + w, c_b, c_t, n, T),)
                    tl.store(gc_ptr + (part + t + w) * N + n, tl.sum(h * gvs[w], 0))
                ys = sums
                drive_sums, exponent_sums = (), ()
                for w in tl.static_range(TILE - 1, -1, -1):
                    gh += gvs[w] * key(c_ptr, b, t + w, c_b, c_t, n, T)
                    tl.store(gb_ptr + (part + t + w) * N + n, tl.sum(gh * drives[w], 0))
                    gkept = gh * kepts[w]
                    ga += gkept * dts[w]
                    own = gdrives[w] + gh * key(b_ptr, b, t + w, b_b, b_t, n, T)
                    drive_sums = (own,) + drive_sums
                    exponent_sums = (gexponents[w] + gkept * a,) + exponent_sums
                    gh *= decays[w]
                gdrives, gexponents = drive_sums, exponent_sums
                tl.store(gstate_ptr + (next_slot + n) * E, gh, mask=ok)
                tl.store(ga_ptr + (next_slot + n) * E, ga, mask=ok)
            for w in tl.static_range(TILE):
                # Read once more: kept through the loop above, these would fill the registers
                there = only(t + w < T, e, E)
                u = read(u_ptr, b, t + w, u_b, u_t, e, there)
                raw = read(raw_ptr, b, t + w, raw_b, raw_t, e, there) + bias
                gate = read(gate_ptr, b, t + w, gate_b, gate_t, e, there)
                gy = read(gy_ptr, b, t + w, gy_b, gy_t, e, there)
                sigmoid = tl.sigmoid(gate)
                graw = (gdrives[w] * u + gexponents[w] * LN2) * tl.sigmoid(raw)
                graw = tl.where(there, graw, 0.0)
                gu = gdrives[w] * dts[w] + gvs[w] * d
                ggate = gy * ys[w] * sigmoid * (1.0 + gate * (1.0 - sigmoid))
                gd += gvs[w] * u
                gbias += graw
                at = (b * T + t + w) * E + e
                tl.store(gu_ptr + at, gu.to(gu_ptr.dtype.element_ty), mask=there)
                tl.store(graw_ptr + at, graw.to(graw_ptr.dtype.element_ty), mask=there)
                tl.store(ggate_ptr + at, ggate.to(ggate_ptr.dtype.element_ty), mask=there)
            tl.debug_barrier()
    tl.store(gbias_ptr + (b * G + g) * E + e, gbias, mask=ok)
    tl.store(gd_ptr + (b * G + g) * E + e, gd, mask=ok)


@triton.jit
def scan_step(
    u_ptr, raw_ptr, gate_ptr, bias_ptr, a_ptr, b_ptr, c_ptr, d_ptr, h_ptr, y_ptr, last_ptr,
    E, N, u_b, raw_b, gate_b, b_b, c_b,
    BLOCK_E: tl.constexpr, BLOCK_N: tl.constexpr, HAS_H: tl.constexpr,
):  # fmt: skip
    """One token. Here `a_EN` is as given, and b and c are (B, 1, N)."""
    e, n = tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E), tl.arange(0, BLOCK_N)
    b = tl.program_id(1).to(tl.int64)
    e_ok, n_ok = e < E, n < N
    ok = e_ok[:, None] & n_ok[None, :]
    u = tl.load(u_ptr + b * u_b + e, mask=e_ok, other=0.0).to(tl.float32)
    raw = tl.load(raw_ptr + b * raw_b + e, mask=e_ok, other=0.0).to(tl.float32)
    gate = tl.load(gate_ptr + b * gate_b + e, mask=e_ok, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + e, mask=e_ok, other=0.0)
    d = tl.load(d_ptr + e, mask=e_ok, other=0.0)
    b_t = tl.load(b_ptr + b * b_b + n, mask=n_ok, other=0.0).to(tl.float32)
    c_t = tl.load(c_ptr + b * c_b + n, mask=n_ok, other=0.0).to(tl.float32)
    at = e[:, None] * N + n[None, :]
    dt = softplus(raw + bias)
    h = (dt * u)[:, None] * b_t[None, :]
    if HAS_H:
        a = tl.load(a_ptr + at, mask=ok, other=0.0)
        h += tl.exp(dt[:, None] * a) * tl.load(h_ptr + b * E * N + at, mask=ok, other=0.0)
    y = (tl.sum(h * c_t[None, :], 1) + d * u) * gate * tl.sigmoid(gate)
    tl.store(last_ptr + b * E * N + at, h, mask=ok)
    tl.store(y_ptr + b * E + e, y.to(y_ptr.dtype.element_ty), mask=e_ok)
