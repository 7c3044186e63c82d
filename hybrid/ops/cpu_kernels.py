"""The CPU kernels of selective scan and short convolution, compiled by numba when first called.

Each works on sixteen neighbouring channels at once, one `Lanes` value: states are kept as (N,
lanes), so nothing in the recurrence crosses lanes. A kernel does the jobs `first` to `last - 1` of
a partition its docstring gives; no job reads what another writes, so it does not matter which
thread does which. Arrays are float32 and C-contiguous, channels padded to whole blocks of lanes;
positions are flat element counts. Nothing here checks that: `cpu.py` and `cpu_run.py` see to it.

Longer than other files because numba's cache notices a change only in a kernel's own file (numba
manual, "Caching limitations"): with the lanes in another file, an edit there would go on running
the old kernels.
"""

# An intrinsic is called without its first parameter, which mypy cannot know.
# mypy: disable-error-code="call-arg, var-annotated"

import operator
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = 16
AHEAD = 8  # tokens from asking for a cache line to using it; rows lie too far apart for guesses
LOG2_E = np.float32(1.4426950408889634)
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
    """Give a function of Python's operator module a meaning for Lanes, beside scalars or not."""
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
def load_either(typing: Any, first: Any, x: Any, at_x: Any, z: Any, at_z: Any) -> Any:
    """Return Lanes of `x` at `at_x` if `first`, else of `z` at `at_z`, without a branch."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        first, x, at_x, z, at_z = args
        in_x = _element(context, builder, sig.args[1], x, at_x)
        in_z = _element(context, builder, sig.args[3], z, at_z)
        pointer = builder.select(first, in_x, in_z)
        return builder.load(builder.bitcast(pointer, FLOATS.as_pointer()), align=4)

    return lanes(types.boolean, x, types.intp, z, types.intp), emit


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
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f32")
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


# 2^f on [-1/2, 1/2] as a polynomial whose constant is exactly 1. The others minimise the largest
# relative error (our own fit: Lawson's iteration on a Chebyshev grid, then rounded to float32);
# one degree more would gain less than float32 arithmetic loses, one less is twenty times worse.
P1 = np.float32(0.6931470036506653)
P2 = np.float32(0.24022242426872253)
P3 = np.float32(0.05550733581185341)
P4 = np.float32(0.009671512991189957)
P5 = np.float32(0.001326472731307149)
ONE = np.float32(1)
ZERO = np.float32(0)


@njit(nogil=True)
def power_of_two(x, y):
    """Return 2^(x y) where x y is not above 0: exactly 1 at 0, 0 far below; NaN stays NaN.

    The product is not rounded, so exp(x a) as power_of_two(x, a LOG2_E) rounds once, as x a would.
    """
    rounded = fma(x, y, ROUND)
    f = fma(x, y, ROUND - rounded)
    p = fma(fma(fma(fma(fma(P5, f, P4), f, P3), f, P2), f, P1), f, ONE)
    return times_power(p, rounded)


@njit(nogil=True)
def sigmoid(x):
    """Return 1 / (1 + exp(-x)), through exp(-|x|), which cannot overflow."""
    power = power_of_two(magnitude(x), -LOG2_E)
    return where_negative(x, power, ONE) / (ONE + power)


@njit(nogil=True)
def scratch(blocks):
    """Return room for so many Lanes, aligned so that none straddles two cache lines."""
    room = np.empty((blocks + 1) * LANES, np.float32)
    skip = -room.ctypes.data // 4 % LANES
    return room[skip : skip + blocks * LANES]


# ---- scan ----------------------------------------------------------------------------------------


@njit(nogil=True, cache=True)
def scan_forward(first, last, chunk, u, dt, a, b, c, d, h, y, h_last, saved):
    """Run the recurrence; a job is one row and one block. Long because a loop nest cannot be cut.

    `saved` (rows, chunks, blocks, N, lanes) receives the state before every `chunk`-th token; where
    its second extent is 0, nothing is saved.
    """
    T, E, N = u.shape[1], u.shape[2], a.shape[1]
    blocks, chunks = E // LANES, saved.shape[1]
    rate, state = scratch(N), scratch(N)
    for job in range(first, last):
        row, block = job // blocks, job % blocks
        e = block * LANES
        for n in range(N):
            store(rate, n * LANES, gather(a, e * N + n, N) * LOG2_E)
            store(state, n * LANES, gather(h, (row * E + e) * N + n, N))
        skip = load(d, e)
        for t in range(T):
            if t % chunk == 0 and chunks > 0:
                to = ((row * chunks + t // chunk) * blocks + block) * N * LANES
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


class Room(NamedTuple):
    """Where one thread works in the backward scan; all are Lanes, in the extents named."""

    rates: Any  # a LOG2_E; (blocks of the group, N), as are the next two
    back: Any  # the gradient of the state, on its way back in time
    sum_a: Any
    sum_d: Any  # (blocks of the group)
    sum_b: Any  # (N, chunk), as is the next: per lane, over the blocks of the group so far
    sum_c: Any
    drives: Any  # dt u; (chunk), as are the next two
    sum_drive: Any
    sum_dt: Any
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
        scratch(N * chunk),
        scratch(N * chunk),
        scratch(chunk),
        scratch(chunk),
        scratch(chunk),
        scratch(2 * chunk),
        scratch(2 * chunk),
    )


@njit(nogil=True)
def replay(room, slot, nk, state, rate, token, b):
    """Return one state after a token of a chunk, noting in `slot` what `unwind` will need."""
    step, drive, g_y = token
    decay = power_of_two(step, rate)
    store(room.states, slot * LANES, state)
    store(room.decays, slot * LANES, decay)
    state = fma(decay, state, drive * b)
    store(room.sum_c, nk * LANES, fma(state, g_y, load(room.sum_c, nk * LANES)))
    return state


@njit(nogil=True)
def unwind(room, slot, nk, g, sum_a, sums, rate, token, b, c):
    """Return (gradient of one state before a token, sum for a, sums for drive and dt).

    The sums go in and out by value: through memory, the compiler could not join two calls.
    """
    step, drive, g_y = token
    g = fma(g_y, c, g)
    sum_drive = fma(g, b, sums[0])
    store(room.sum_b, nk * LANES, fma(g, drive, load(room.sum_b, nk * LANES)))
    g = g * load(room.decays, slot * LANES)
    q = g * load(room.states, slot * LANES)
    return g, fma(q, step, sum_a), (sum_drive, fma(q, rate, sums[1]))


@njit(nogil=True)
def retrace(room, n, m, chunk, steps, slot, at0, bc0, from_saved, saved, dt, gy, b, c):
    """Recompute states n and m of one block over one chunk, then go back through them.

    Two states share the loads and stores of what belongs to the token alone, which takes an eighth
    less time than one by one. `m` is None where n is the last of an odd N: numba compiles that case
    by itself, without the lines that ask for `m`.
    """
    E, N = dt.shape[2], b.shape[2]
    i, state = (slot * N + n) * LANES, load(saved, from_saved + n * LANES)
    rate, g, s = load(room.rates, i), load(room.back, i), load(room.sum_a, i)
    if m is not None:
        j, state_m = (slot * N + m) * LANES, load(saved, from_saved + m * LANES)
        rate_m, g_m, s_m = load(room.rates, j), load(room.back, j), load(room.sum_a, j)
    for k in range(steps):
        at, bc = at0 + k * E, bc0 + k * N
        token = load(dt, at), load(room.drives, k * LANES), load(gy, at)
        state = replay(room, 2 * k, n * chunk + k, state, rate, token, element(b, bc + n))
        if m is not None:
            b_m = element(b, bc + m)
            state_m = replay(room, 2 * k + 1, m * chunk + k, state_m, rate_m, token, b_m)
    for k in range(steps - 1, -1, -1):
        at, bc = at0 + k * E, bc0 + k * N
        token = load(dt, at), load(room.drives, k * LANES), load(gy, at)
        sums = load(room.sum_drive, k * LANES), load(room.sum_dt, k * LANES)
        b_n, c_n = element(b, bc + n), element(c, bc + n)
        g, s, sums = unwind(room, 2 * k, n * chunk + k, g, s, sums, rate, token, b_n, c_n)
        if m is not None:
            at_m, b_m, c_m = m * chunk + k, element(b, bc + m), element(c, bc + m)
            g_m, s_m, sums = unwind(room, 2 * k + 1, at_m, g_m, s_m, sums, rate_m, token, b_m, c_m)
        store(room.sum_drive, k * LANES, sums[0])
        store(room.sum_dt, k * LANES, sums[1])
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
        for n in range(N):
            i = (slot * N + n) * LANES
            store(room.rates, i, gather(a, e * N + n, N) * LOG2_E)
            store(room.back, i, gather(gh_last, (row * E + e) * N + n, N))
            store(room.sum_a, i, ZERO)


@njit(nogil=True)
def close_group(room, row, start, stop, ga, gd, gh):
    """Write what a group has summed over its row."""
    E, N = gh.shape[1:]
    for block in range(start, stop):
        slot, e = block - start, block * LANES
        store(gd, row * E + e, load(room.sum_d, slot * LANES))
        for n in range(N):
            i, to = (slot * N + n) * LANES, (row * E + e) * N + n
            scatter(ga, to, N, load(room.sum_a, i))
            scatter(gh, to, N, load(room.back, i))


@njit(nogil=True)
def open_block(room, steps, E, at0, u, dt):
    """Start the sums of one block over one chunk."""
    for k in range(steps):
        store(room.drives, k * LANES, load(dt, at0 + k * E) * load(u, at0 + k * E))
        store(room.sum_drive, k * LANES, ZERO)
        store(room.sum_dt, k * LANES, ZERO)


@njit(nogil=True)
def close_block(room, steps, slot, E, at0, skip, u, dt, gy, gu, gdt):
    """Write the gradients of u and dt of one block over one chunk."""
    sum_d = load(room.sum_d, slot * LANES)
    for k in range(steps):
        at = at0 + k * E
        x, g_y, g_drive = load(u, at), load(gy, at), load(room.sum_drive, k * LANES)
        store(gu, at, fma(g_drive, load(dt, at), skip * g_y))
        store(gdt, at, fma(load(room.sum_dt, k * LANES), LN_2, g_drive * x))
        sum_d = fma(g_y, x, sum_d)
    store(room.sum_d, slot * LANES, sum_d)


@njit(nogil=True, cache=True)
def scan_backward(
    first, last, chunk, u, dt, a, b, c, d, saved, gy, gh_last, gu, gdt, ga, gb, gc, gd, gh
):
    """Go back through the recurrence; a job is one row and one group of blocks.

    From the last chunk to the first: recompute its states from the saved one, then unwind it. The
    gradients of b and c are summed over lanes once per chunk, so that their per-lane sums stay in
    the nearest caches; `gb` and `gc` are (rows, groups, T, N), `ga` (rows, E, N), `gd` (rows, E).
    """
    T, E, N = u.shape[1], u.shape[2], a.shape[1]
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
                slot, at = block - start, (row * T + t0) * E + block * LANES
                from_saved = ((row * chunks + part) * blocks + block) * N * LANES
                skip = load(d, block * LANES)
                open_block(room, steps, E, at, u, dt)
                rest = (chunk, steps, slot, at, bc, from_saved, saved, dt, gy, b, c)
                for n in range(0, N - 1, 2):
                    retrace(room, n, n + 1, *rest)
                if N % 2:
                    retrace(room, N - 1, None, *rest)
                close_block(room, steps, slot, E, at, skip, u, dt, gy, gu, gdt)
            for k in range(steps):
                for n in range(N):
                    gb[row, group, t0 + k, n] = total(load(room.sum_b, (n * chunk + k) * LANES))
                    gc[row, group, t0 + k, n] = total(load(room.sum_c, (n * chunk + k) * LANES))
        close_group(room, row, start, stop, ga, gd, gh)


# ---- convolution ---------------------------------------------------------------------------------


# Helpers with loops in them are inlined by numba itself, because of what it does with an array that
# it passes to a function: count one more reference, atomically, and one less at the end. LLVM
# removes the pair only where no loop or branch lies between.


@njit(nogil=True)
def input_block(x, tail, row, t, e):
    """Return one block of token t of `x`, or of `tail`, which ends where t = 0 begins, if t < 0."""
    at_x = (row * x.shape[1] + t) * x.shape[2] + e
    at_tail = ((row + 1) * tail.shape[1] + t) * x.shape[2] + e
    return load_either(t >= 0, x, at_x, tail, at_tail)


@njit(nogil=True, inline="always")
def convolved(x, weight, bias, tail, row, t, e):
    """Return one block of the convolution at token t, before its activation."""
    W, E = weight.shape
    out = load(bias, e)
    for j in range(W):
        out = fma(load(weight, j * E + e), input_block(x, tail, row, t + 1 - W + j, e), out)
    return out


@njit(nogil=True, cache=True)
def conv_forward(first, last, piece, x, weight, bias, tail, y, new_tail):
    """Convolve and activate; a job is one row and one piece of its tokens; `weight` is (W, E)."""
    T, E = x.shape[1:]
    L = tail.shape[1]
    pieces = (T + piece - 1) // piece
    for job in range(first, last):
        row, t0 = job // pieces, job % pieces * piece
        for t in range(t0, min(t0 + piece, T)):
            for e in range(0, E, LANES):
                z = convolved(x, weight, bias, tail, row, t, e)
                store(y, (row * T + t) * E + e, z * sigmoid(z))
        if t0 == 0:
            for i in range(L):
                for e in range(0, E, LANES):
                    store(new_tail, (row * L + i) * E + e, input_block(x, tail, row, T - L + i, e))


@njit(nogil=True)
def activation_gradients(first, stop, counted, x, weight, bias, tail, row, gy, gz, gweight, gbias):
    """Fill `gz` with the gradients before the activation at tokens first to stop - 1.

    Tokens before `counted` also add to `gweight` and `gbias`, the views of this job.
    """
    T, E = x.shape[1:]
    W = len(weight)
    for t in range(first, stop):
        for e in range(0, E, LANES):
            z = convolved(x, weight, bias, tail, row, t, e)
            s = sigmoid(z)
            g = load(gy, (row * T + t) * E + e) * s * fma(z, ONE - s, ONE)
            store(gz, (t - first) * E + e, g)
            if t < counted:
                store(gbias, e, load(gbias, e) + g)
                for j in range(W):
                    seen = input_block(x, tail, row, t + 1 - W + j, e)
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


@njit(nogil=True, cache=True)
def conv_backward(first, last, piece, x, weight, bias, tail, gy, gnew, gx, gweight, gbias, gtail):
    """Go back through the convolution; a job is one row and one piece of its tokens.

    A piece also recomputes the L tokens after it, which its own reach. `gweight` is (jobs, W, E)
    and `gbias` (jobs, E).
    """
    T, E = x.shape[1:]
    L = tail.shape[1]
    pieces = (T + piece - 1) // piece
    gz = scratch((piece + L) * E // LANES)
    for job in range(first, last):
        row, t0 = job // pieces, job % pieces * piece
        t1 = min(t0 + piece, T)
        gweight[job] = 0
        gbias[job] = 0
        activation_gradients(
            t0, min(t1 + L, T), t1, x, weight, bias, tail, row, gy, gz, gweight[job], gbias[job]
        )
        for t in range(t0, t1):
            for e in range(0, E, LANES):
                store(gx, (row * T + t) * E + e, input_gradient(weight, t0, t, T, e, gz, gnew, row))
        if t0 == 0:
            for t in range(-L, 0):
                for e in range(0, E, LANES):
                    to = ((row + 1) * L + t) * E + e
                    store(gtail, to, input_gradient(weight, 0, t, T, e, gz, gnew, row))
