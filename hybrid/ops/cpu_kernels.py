"""The CPU kernels of the selective scan and the short convolution, compiled by numba when first used.

Each kernel works on sixteen neighbouring channels at once, one `Lanes` value: states are kept as
(N, lanes), so nothing in the recurrence crosses lanes. A job is one batch row times some blocks of
lanes; a kernel does the jobs `first` to `last - 1`, and never looks at another job's results, so it
does not matter which thread does which. Arrays are float32 and C-contiguous, their channels padded
to whole blocks; positions are flat element counts. Nothing here checks that: `cpu.py` does.

Kept in one file because numba's cache notices a change only in the file of the kernel itself.
"""

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = 16
LOG2_E = np.float32(1.4426950408889634)
AHEAD = 8
LN_2 = np.float32(0.6931471805599453)

FLOATS = ir.VectorType(ir.FloatType(), LANES)
INTS = ir.VectorType(ir.IntType(32), LANES)


class LanesType(types.Type):
    """Sixteen float32 in one LLVM vector: one AVX-512 register, or two, or four, of lesser CPUs."""


lanes = LanesType(name="Lanes")


@register_model(LanesType)
class LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, FLOATS)


def spread(builder: Any, value: Any) -> Any:
    """Return `value` as a vector: a scalar goes to every lane."""
    if value.type == FLOATS:
        return value
    one = builder.insert_element(ir.Constant(FLOATS, ir.Undefined), value, ir.IntType(32)(0))
    return builder.shuffle_vector(one, one, ir.Constant(INTS, None))


def _define(function: Any, instruction: str) -> None:
    """Give `function` of Python's operator module a meaning for Lanes, mixed with scalars or not."""
    pairs = [(lanes, lanes), (lanes, types.float32), (types.float32, lanes)]

    @infer_global(function)
    class Template(ConcreteTemplate):
        cases = [signature(lanes, *pair) for pair in pairs]  # noqa: RUF012

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        left, right = (spread(builder, arg) for arg in args)
        return getattr(builder, instruction)(left, right)

    for pair in pairs:
        lower_builtin(function, *pair)(emit)


for _function, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _define(_function, _instruction)


def _element(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


@intrinsic
def load(typing: Any, array: Any, start: Any) -> Any:
    """Return the elements start to start + 15."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _element(context, builder, sig.args[0], *args)
        return builder.load(builder.bitcast(pointer, FLOATS.as_pointer()), align=4)

    return lanes(array, types.intp), emit


@intrinsic
def store(typing: Any, array: Any, start: Any, value: Any) -> Any:
    """Write `value`, Lanes or a scalar, to the elements start to start + 15."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _element(context, builder, sig.args[0], args[0], args[1])
        vector = spread(builder, args[2])
        builder.store(vector, builder.bitcast(pointer, FLOATS.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.none(array, types.intp, value), emit


@intrinsic
def element(typing: Any, array: Any, index: Any) -> Any:
    """Return one element, without numba's care for negative indices."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(_element(context, builder, sig.args[0], *args))

    return types.float32(array, types.intp), emit


@intrinsic
def prefetch(typing: Any, array: Any, index: Any) -> Any:
    """Ask for a cache line early; an index outside the array does no harm."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        number, byte = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        pointer = builder.bitcast(_element(context, builder, sig.args[0], *args), byte)
        builder.call(function, [pointer, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.none(array, types.intp), emit


@intrinsic
def gather(typing: Any, array: Any, start: Any, stride: Any) -> Any:
    """Return the sixteen elements that lie `stride` apart."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array, start, stride = args
        pointer = _element(context, builder, sig.args[0], array, start)
        vector = ir.Constant(FLOATS, ir.Undefined)
        for lane in range(LANES):
            value = builder.load(pointer)
            vector = builder.insert_element(vector, value, ir.IntType(32)(lane))
            pointer = builder.gep(pointer, [stride])
        return vector

    return lanes(array, types.intp, types.intp), emit


@intrinsic
def scatter(typing: Any, array: Any, start: Any, stride: Any, value: Any) -> Any:
    """Write `value` to sixteen elements that lie `stride` apart."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array, start, stride, vector = args
        pointer = _element(context, builder, sig.args[0], array, start)
        for lane in range(LANES):
            builder.store(builder.extract_element(vector, ir.IntType(32)(lane)), pointer)
            pointer = builder.gep(pointer, [stride])
        return context.get_dummy_value()

    return types.none(array, types.intp, types.intp, value), emit


@intrinsic
def fma(typing: Any, x: Any, y: Any, z: Any) -> Any:
    """Return x * y + z, rounded once where the CPU can; each may be Lanes or a scalar."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(FLOATS, [FLOATS] * 3)
        function = cgutils.get_or_insert_function(
            builder.module, kind, f"llvm.fmuladd.v{LANES}f32"
        )
        return builder.call(function, [spread(builder, arg) for arg in args])

    wanted = [kind if kind == lanes else types.float32 for kind in (x, y, z)]
    return lanes(*wanted), emit


@intrinsic
def total(typing: Any, value: Any) -> Any:
    """Return the sum of the lanes, added as a tree of halves."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        (vector,) = args
        width = LANES
        while width > 1:
            width //= 2
            index = ir.VectorType(ir.IntType(32), width)
            low, high = (
                builder.shuffle_vector(vector, vector, index(list(range(at, at + width))))
                for at in (0, width)
            )
            vector = builder.fadd(low, high)
        return builder.extract_element(vector, ir.IntType(32)(0))

    return types.float32(lanes), emit


# Adding this to a float of magnitude under 2^22 rounds it to a whole number, found in the low bits.
ROUND = np.float32(1.5 * 2**23)
SMALLEST = np.float32(1.5 * 2**23 - 125)


@intrinsic
def times_power(typing: Any, value: Any, rounded: Any) -> Any:
    """Return value * 2^i for rounded = ROUND + i, with `value` near 1; zero where i < -125."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value, rounded = args
        shift = INTS([23] * LANES)
        exponent = builder.shl(builder.bitcast(rounded, INTS), shift)
        bits = builder.add(builder.bitcast(value, INTS), exponent)
        tiny = builder.fcmp_ordered("<", rounded, FLOATS([float(SMALLEST)] * LANES))
        return builder.select(tiny, FLOATS(None), builder.bitcast(bits, FLOATS))

    return lanes(lanes, lanes), emit


# 2^f on [-1/2, 1/2] as a polynomial whose constant is exactly 1: the other coefficients minimise the
# largest relative error (Lawson's iteration on a Chebyshev grid, then rounded to float32), 1.1e-7.
P1 = np.float32(0.6931470036506653)
P2 = np.float32(0.24022242426872253)
P3 = np.float32(0.05550733581185341)
P4 = np.float32(0.009671512991189957)
P5 = np.float32(0.001326472731307149)
ONE = np.float32(1)


@njit(nogil=True)
def power_of_two(x, y):
    """Return 2^(x y) for Lanes x and y whose product is not above 0; exactly 1 at 0; NaN stays NaN.

    Relative error: 2e-7 plus the rounding of the factors, so exp(x a) is power_of_two(x, a LOG2_E).
    """
    rounded = fma(x, y, ROUND)
    f = fma(x, y, ROUND - rounded)
    p = fma(fma(fma(fma(fma(P5, f, P4), f, P3), f, P2), f, P1), f, ONE)
    return times_power(p, rounded)


@njit(nogil=True)
def scratch(blocks):
    """Return room for so many Lanes, aligned to cache lines: an unaligned Lanes would straddle two."""
    room = np.empty((blocks + 1) * LANES, np.float32)
    skip = -room.ctypes.data // 4 % LANES
    return room[skip : skip + blocks * LANES]


@njit(nogil=True, cache=True)
def scan_forward(first, last, chunk, u, dt, a, b, c, d, h, y, h_last, saved):
    """Run the recurrence; a job is one row and one block. Long because a loop nest cannot be cut.

    `saved` (rows, chunks, blocks, N, lanes) receives the state before every `chunk`-th token; where
    its second extent is 0, nothing is saved.
    """
    T, E, N = u.shape[1], u.shape[2], a.shape[1]
    blocks = E // LANES
    size = N * LANES
    rate, state = scratch(N), scratch(N)
    for job in range(first, last):
        row, block = job // blocks, job % blocks
        e = block * LANES
        for n in range(N):
            store(rate, n * LANES, gather(a, e * N + n, N) * LOG2_E)
            store(state, n * LANES, gather(h, (row * E + e) * N + n, N))
        skip = load(d, e)
        for t in range(T):
            if t % chunk == 0 and saved.shape[1] > 0:
                to = ((row * saved.shape[1] + t // chunk) * blocks + block) * size
                for n in range(N):
                    store(saved, to + n * LANES, load(state, n * LANES))
            at, bc = (row * T + t) * E + e, (row * T + t) * N
            prefetch(dt, at + AHEAD * E)
            prefetch(u, at + AHEAD * E)
            step, x = load(dt, at), load(u, at)
            drive, out = step * x, skip * x
            for n in range(N):
                decay = power_of_two(step, load(rate, n * LANES))
                new = fma(decay, load(state, n * LANES), drive * element(b, bc + n))
                store(state, n * LANES, new)
                out = fma(new, element(c, bc + n), out)
            store(y, at, out)
        for n in range(N):
            scatter(h_last, (row * E + e) * N + n, N, load(state, n * LANES))


@njit(nogil=True, cache=True)
def scan_backward(
    first, last, chunk, u, dt, a, b, c, d, saved, gy, gh_last, gu, gdt, ga, gb, gc, gd, gh
):
    """Go back through the recurrence; a job is one row and one group of blocks.

    From the last chunk to the first: recompute its states from the saved one, then unwind it. The
    gradients of b and c are summed over lanes once per chunk, so that their per-lane sums stay in
    the nearest cache; `gb` and `gc` are (rows, groups, T, N), `ga` (rows, E, N), `gd` (rows, E).
    """
    T, E, N = u.shape[1], u.shape[2], a.shape[1]
    blocks, groups, chunks = E // LANES, gb.shape[1], saved.shape[1]
    width = (blocks + groups - 1) // groups
    size = N * LANES
    rates, sum_a, back = scratch(width * N), scratch(width * N), scratch(width * N)
    sum_b, sum_c = scratch(N * chunk), scratch(N * chunk)
    states, decays, drives = scratch(chunk), scratch(chunk), scratch(chunk)
    sum_drive, sum_dt = scratch(chunk), scratch(chunk)
    sum_d = scratch(width)
    for job in range(first, last):
        row, group = job // groups, job % groups
        start = group * width
        stop = min(start + width, blocks)
        for block in range(start, stop):
            e = block * LANES
            store(sum_d, (block - start) * LANES, np.float32(0))
            for n in range(N):
                i = ((block - start) * N + n) * LANES
                store(rates, i, gather(a, e * N + n, N) * LOG2_E)
                store(back, i, gather(gh_last, (row * E + e) * N + n, N))
                store(sum_a, i, np.float32(0))
        for part in range(chunks - 1, -1, -1):
            t0 = part * chunk
            steps = min(chunk, T - t0)
            bc = (row * T + t0) * N
            sum_b[:] = 0
            sum_c[:] = 0
            for block in range(start, stop):
                at0 = (row * T + t0) * E + block * LANES
                for k in range(steps):
                    at = at0 + k * E
                    store(drives, k * LANES, load(dt, at) * load(u, at))
                    store(sum_drive, k * LANES, np.float32(0))
                    store(sum_dt, k * LANES, np.float32(0))
                from_saved = ((row * chunks + part) * blocks + block) * size
                for n in range(N):
                    i = ((block - start) * N + n) * LANES
                    state, rate = load(saved, from_saved + n * LANES), load(rates, i)
                    for k in range(steps):
                        at = at0 + k * E
                        kn = (n * chunk + k) * LANES
                        decay = power_of_two(load(dt, at), rate)
                        store(states, k * LANES, state)
                        store(decays, k * LANES, decay)
                        state = fma(decay, state, load(drives, k * LANES) * element(b, bc + k * N + n))
                        store(sum_c, kn, fma(state, load(gy, at), load(sum_c, kn)))
                    g, s = load(back, i), load(sum_a, i)
                    for k in range(steps - 1, -1, -1):
                        at = at0 + k * E
                        kn = (n * chunk + k) * LANES
                        k16 = k * LANES
                        g = fma(load(gy, at), element(c, bc + k * N + n), g)
                        store(sum_drive, k16, fma(g, element(b, bc + k * N + n), load(sum_drive, k16)))
                        store(sum_b, kn, fma(g, load(drives, k16), load(sum_b, kn)))
                        g = g * load(decays, k16)
                        q = g * load(states, k16)
                        store(sum_dt, k16, fma(q, rate, load(sum_dt, k16)))
                        s = fma(q, load(dt, at), s)
                    store(back, i, g)
                    store(sum_a, i, s)
                skip = load(d, block * LANES)
                s = load(sum_d, (block - start) * LANES)
                for k in range(steps):
                    at = at0 + k * E
                    k16 = k * LANES
                    x, g, g_drive = load(u, at), load(gy, at), load(sum_drive, k16)
                    store(gu, at, fma(g_drive, load(dt, at), skip * g))
                    store(gdt, at, fma(load(sum_dt, k16), LN_2, g_drive * x))
                    s = fma(g, x, s)
                store(sum_d, (block - start) * LANES, s)
            for k in range(steps):
                for n in range(N):
                    kn = (n * chunk + k) * LANES
                    gb[row, group, t0 + k, n] = total(load(sum_b, kn))
                    gc[row, group, t0 + k, n] = total(load(sum_c, kn))
        for block in range(start, stop):
            e = block * LANES
            store(gd, row * E + e, load(sum_d, (block - start) * LANES))
            for n in range(N):
                i = ((block - start) * N + n) * LANES
                to = (row * E + e) * N + n
                scatter(ga, to, N, load(sum_a, i))
                scatter(gh, to, N, load(back, i))


@intrinsic
def magnitude(typing: Any, value: Any) -> Any:
    """Return |value|."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.and_(builder.bitcast(args[0], INTS), INTS([0x7FFFFFFF] * LANES))
        return builder.bitcast(bits, FLOATS)

    return lanes(lanes), emit


@intrinsic
def where_negative(typing: Any, value: Any, yes: Any, no: Any) -> Any:
    """Return `yes` in the lanes where value < 0, `no` in the others."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value, yes, no = (spread(builder, arg) for arg in args)
        return builder.select(builder.fcmp_ordered("<", value, FLOATS(None)), yes, no)

    return lanes(lanes, yes, no), emit


@njit(nogil=True)
def sigmoid(x):
    """Return 1 / (1 + exp(-x)), through exp(-|x|), which cannot overflow."""
    power = power_of_two(magnitude(x), -LOG2_E)
    return where_negative(x, power, ONE) / (ONE + power)


@njit(nogil=True)
def token(x, tail, row, t, e):
    """Return one block of token t of `x`, or of `tail`, which ends where t = 0 begins, if t < 0."""
    if t >= 0:
        return load(x, (row * x.shape[1] + t) * x.shape[2] + e)
    return load(tail, ((row + 1) * tail.shape[1] + t) * x.shape[2] + e)


@njit(nogil=True)
def weighted(x, tail, taps, offset, row, t, e):
    """Return the convolution at token t, before its activation."""
    W = len(taps) // LANES
    out = offset
    for j in range(W):
        out = fma(load(taps, j * LANES), token(x, tail, row, t + 1 - W + j, e), out)
    return out


@njit(nogil=True, cache=True)
def conv_forward(first, last, x, weight, bias, tail, y, new_tail):
    """Convolve and activate; a job is one row and one block."""
    T, E, W = x.shape[1], x.shape[2], weight.shape[1]
    blocks = E // LANES
    taps = scratch(W)
    for job in range(first, last):
        row, e = job // blocks, job % blocks * LANES
        for j in range(W):
            store(taps, j * LANES, gather(weight, e * W + j, W))
        offset = load(bias, e)
        for t in range(T):
            z = weighted(x, tail, taps, offset, row, t, e)
            store(y, (row * T + t) * E + e, z * sigmoid(z))
        for i in range(W - 1):
            kept = token(x, tail, row, T + 1 - W + i, e)
            store(new_tail, (row * (W - 1) + i) * E + e, kept)


@njit(nogil=True, cache=True)
def conv_backward(first, last, x, weight, bias, tail, gy, gnew, gx, gweight, gbias, gtail):
    """Go back through the convolution; a job is one row and one block.

    `gx` first holds the gradients before the activation. Position r counts from the start of the
    tail: the gradient at r needs those of the tokens r - L to r, and replaces that of r - L.
    """
    T, E, W = x.shape[1], x.shape[2], weight.shape[1]
    L = W - 1
    blocks = E // LANES
    taps, sums = scratch(W), scratch(W)
    for job in range(first, last):
        row, e = job // blocks, job % blocks * LANES
        for j in range(W):
            store(taps, j * LANES, gather(weight, e * W + j, W))
            store(sums, j * LANES, np.float32(0))
        offset = load(bias, e)
        sum_bias = offset * np.float32(0)
        for t in range(T):
            z = weighted(x, tail, taps, offset, row, t, e)
            s = sigmoid(z)
            at = (row * T + t) * E + e
            g = load(gy, at) * s * fma(z, ONE - s, ONE)
            store(gx, at, g)
            sum_bias = sum_bias + g
            for j in range(W):
                seen = token(x, tail, row, t - L + j, e)
                store(sums, j * LANES, fma(g, seen, load(sums, j * LANES)))
        store(gbias, row * E + e, sum_bias)
        for j in range(W):
            scatter(gweight, (row * E + e) * W + j, W, load(sums, j * LANES))
        for r in range(T + L):
            g = offset * np.float32(0)
            if r >= T:
                g = load(gnew, (row * L + r - T) * E + e)
            for j in range(max(0, r - T + 1), min(W, r + 1)):
                g = fma(load(taps, j * LANES), load(gx, (row * T + r - j) * E + e), g)
            if r < L:
                store(gtail, (row * L + r) * E + e, g)
            else:
                store(gx, (row * T + r - L) * E + e, g)
