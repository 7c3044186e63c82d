"""Functions of Lanes: exponential, sigmoid, softplus, and room to work in."""

# An intrinsic is called without its first parameter, which mypy cannot know.
# mypy: disable-error-code="call-arg, var-annotated"

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from hybrid.ops.cpu.lanes import (
    FLOATS,
    INTS,
    LANES,
    fma,
    lanes,
    spread,
)

LOG2_E = np.float32(1.4426950408889634)
LN_2 = np.float32(0.6931471805599453)
ONE = np.float32(1)
TWO = np.float32(2)
ZERO = np.float32(0)

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


@intrinsic
def filled(typing: Any, value: Any) -> Any:
    """Return a scalar in every lane."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return spread(builder, args[0])

    return lanes(types.float32), emit


@intrinsic
def larger(typing: Any, x: Any, y: Any) -> Any:
    """Return the larger of two, lane by lane; the first where either is NaN."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        x, y = args
        return builder.select(builder.fcmp_ordered("<", x, y), y, x)

    return lanes(lanes, lanes), emit


@intrinsic
def greatest(typing: Any, value: Any) -> Any:
    """Return the largest lane."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        found = builder.extract_element(args[0], ir.IntType(32)(0))
        for lane in range(1, LANES):
            other = builder.extract_element(args[0], ir.IntType(32)(lane))
            found = builder.select(builder.fcmp_ordered("<", found, other), other, found)
        return found

    return types.float32(lanes), emit


# 2^f on [-1/2, 1/2] as a polynomial whose constant is exactly 1. The others minimise the largest
# relative error (our own fit: Lawson's iteration on a Chebyshev grid, then rounded to float32);
# one degree more would gain less than float32 arithmetic loses, one less is twenty times worse.
P1 = np.float32(0.6931470036506653)
P2 = np.float32(0.24022242426872253)
P3 = np.float32(0.05550733581185341)
P4 = np.float32(0.009671512991189957)
P5 = np.float32(0.001326472731307149)


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
def silu_slope(x, s):
    """Return the derivative of x sigmoid(x), given s = sigmoid(x)."""
    return s * fma(x, ONE - s, ONE)


# atanh(s) / s - 1 on [0, 1/3] as s^2 times a polynomial in s^2, fitted as the one above.
Q1 = np.float32(0.3333320915699005)
Q2 = np.float32(0.2001076340675354)
Q3 = np.float32(0.14000901579856873)
Q4 = np.float32(0.14005997776985168)


@njit(nogil=True)
def softplus(x):
    """Return log(1 + exp(x))."""
    return _softplus(x, power_of_two(magnitude(x), -LOG2_E))


@njit(nogil=True)
def softplus_and_slope(x):
    """Return log(1 + exp(x)) and its derivative, the sigmoid, from one exponential."""
    p = power_of_two(magnitude(x), -LOG2_E)
    return _softplus(x, p), where_negative(x, p, ONE) / (ONE + p)


@njit(nogil=True)
def _softplus(x, p):
    """Return max(x, 0) + log(1 + p) for p = exp(-|x|).

    log(1 + p) = 2 atanh(p / (2 + p)) keeps its relative precision where p is small.
    """
    s = p / (TWO + p)
    w = s * s
    q = fma(fma(fma(fma(Q4, w, Q3), w, Q2), w, Q1), w, ONE)
    return fma(TWO * s, q, where_negative(x, ZERO, x))


@njit(nogil=True)
def scratch(blocks):
    """Return room for so many Lanes, aligned so that none straddles two cache lines."""
    room = np.empty((blocks + 1) * LANES, np.float32)
    skip = -room.ctypes.data // 4 % LANES
    return room[skip : skip + blocks * LANES]
