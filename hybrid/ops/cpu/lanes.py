"""Sixteen floats as one value in numba, and the functions of them that kernels need.

`Lanes` is an LLVM vector of sixteen neighbouring channels. Memory is a flat array, of float32 or of
bfloat16 seen as int16, and a position in it a count of elements; nothing here checks a position.
`kernel` compiles a function with numba and keeps the result on disk.

Longer than other files because the type and what can be done with it are one thing to numba.
"""

# An intrinsic is called without its first parameter, which mypy cannot know.
# mypy: disable-error-code="call-arg, var-annotated"

import hashlib
import operator
import os
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils, config
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from hybrid.ops.cpu.team import on_team

LANES = 16
HERE = Path(__file__).parent

FLOATS = ir.VectorType(ir.FloatType(), LANES)
INTS = ir.VectorType(ir.IntType(32), LANES)
SHORTS = ir.VectorType(ir.IntType(16), LANES)
BYTES = ir.VectorType(ir.IntType(8), LANES)


def _share(entry, threads, jobs, pieces, *rest):
    on_team(entry, threads, jobs, pieces, alone, rest)  # type: ignore[name-defined]  # noqa: F821


class Kernel:
    """A compiled function of (first, last, *rest), or the like: called as it is by one thread.

    `shared(entry, threads, jobs, pieces, *rest)` does the jobs 0 to jobs - 1 on torch's threads
    (`hybrid/ops/cpu/team.py`).
    """

    def __init__(self, function: Callable[..., None]):
        self.alone = njit(nogil=True, cache=True)(function)
        # A function of its own for each kernel, with the kernel among its globals: a closure would
        # be another function to numba's cache in every process.
        share = FunctionType(_share.__code__, {"on_team": on_team, "alone": self.alone})
        share.__module__, share.__qualname__ = (
            function.__module__,
            f"{function.__qualname__}_shared",
        )
        self.shared = njit(nogil=True, cache=True)(share)

    def __call__(self, *arguments: Any) -> None:
        self.alone(*arguments)


def kernel(function: Callable[..., None]) -> Kernel:
    """Compile a function when first called, without Python's lock, and keep it on disk.

    Numba's cache notices a change only in a function's own file (its manual, "Caching
    limitations"), so the folder is named after the contents of all files here.
    """
    settings: Any = config
    before = settings.CACHE_DIR
    settings.CACHE_DIR = str(_cache_folder(before))
    try:
        return Kernel(function)
    finally:
        settings.CACHE_DIR = before


def _cache_folder(asked: str) -> Path:
    contents = b"".join(path.read_bytes() for path in sorted(HERE.glob("*.py")))
    name = f"kernels-{hashlib.sha256(contents).hexdigest()[:12]}"
    if asked:
        return Path(asked) / name
    if os.access(HERE, os.W_OK):
        return HERE / "__pycache__" / name
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "hybrid" / name


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
    """Return the elements start to start + 15 as float32: of float32, bfloat16 or int8."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _element(context, builder, sig.args[0], *args)
        if sig.args[0].dtype == types.float32:
            return builder.load(builder.bitcast(pointer, FLOATS.as_pointer()), align=4)
        if sig.args[0].dtype == types.int8:
            whole = builder.load(builder.bitcast(pointer, BYTES.as_pointer()), align=1)
            return builder.sitofp(builder.sext(whole, INTS), FLOATS)
        shorts = builder.load(builder.bitcast(pointer, SHORTS.as_pointer()), align=2)
        bits = builder.shl(builder.zext(shorts, INTS), INTS([16] * LANES))
        return builder.bitcast(bits, FLOATS)

    return lanes(array, types.intp), emit


@intrinsic
def store(typing: Any, array: Any, start: Any, value: Any) -> Any:
    """Write `value`, Lanes or a scalar, to the elements start to start + 15."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _element(context, builder, sig.args[0], args[0], args[1])
        vector = spread(builder, args[2])
        if sig.args[0].dtype == types.float32:
            builder.store(vector, builder.bitcast(pointer, FLOATS.as_pointer()), align=4)
        else:
            shorts = _rounded(builder, vector)
            builder.store(shorts, builder.bitcast(pointer, SHORTS.as_pointer()), align=2)
        return context.get_dummy_value()

    return types.none(array, types.intp, value), emit


def _masked(builder: Any, action: str, kind: Any, count: Any, given: list[Any]) -> Any:
    """Call LLVM's masked load or store of `kind` for the first `count` lanes."""
    places = ir.Constant(INTS, list(range(LANES)))
    limit = builder.insert_element(
        ir.Constant(INTS, ir.Undefined), builder.trunc(count, ir.IntType(32)), ir.IntType(32)(0)
    )
    limit = builder.shuffle_vector(limit, limit, ir.Constant(INTS, None))
    mask = builder.icmp_signed("<", places, limit)
    size = f"{'f' if kind == FLOATS else 'i'}{32 if kind == FLOATS else 16}"
    name = f"llvm.masked.{action}.v{LANES}{size}.p0v{LANES}{size}"
    align = ir.IntType(32)(4 if kind == FLOATS else 2)
    pointer = kind.as_pointer()
    if action == "load":
        wanted = ir.FunctionType(kind, [pointer, align.type, mask.type, kind])
        values = [*given, align, mask, ir.Constant(kind, None)]
    else:
        wanted = ir.FunctionType(ir.VoidType(), [kind, pointer, align.type, mask.type])
        values = [*given, align, mask]
    return builder.call(cgutils.get_or_insert_function(builder.module, wanted, name), values)


@intrinsic
def load_first(typing: Any, array: Any, start: Any, count: Any) -> Any:
    """Return `count` elements from `start` on, bfloat16 or not, then zeros, as float32."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _element(context, builder, sig.args[0], *args[:2])
        kind = FLOATS if sig.args[0].dtype == types.float32 else SHORTS
        found = _masked(
            builder, "load", kind, args[2], [builder.bitcast(pointer, kind.as_pointer())]
        )
        if kind == FLOATS:
            return found
        bits = builder.shl(builder.zext(found, INTS), INTS([16] * LANES))
        return builder.bitcast(bits, FLOATS)

    return lanes(array, types.intp, types.intp), emit


@intrinsic
def store_first(typing: Any, array: Any, start: Any, count: Any, value: Any) -> Any:
    """Write the first `count` lanes."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _element(context, builder, sig.args[0], *args[:2])
        kind = FLOATS if sig.args[0].dtype == types.float32 else SHORTS
        vector = args[3] if kind == FLOATS else _rounded(builder, args[3])
        given = [vector, builder.bitcast(pointer, kind.as_pointer())]
        _masked(builder, "store", kind, args[2], given)
        return context.get_dummy_value()

    return types.none(array, types.intp, types.intp, lanes), emit


class BFloat16(ir.Type):
    """The type that llvmlite has no name for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat16)

    def __hash__(self) -> int:
        return hash(BFloat16)


# Whether one instruction rounds a vector to bfloat16 (it takes numbers under 2^-126 for zero).
# Elsewhere LLVM would call a library that is not there.
ROUNDS = bool(
    binding.get_host_cpu_features().get("avx512bf16")
    and not (config.CPU_NAME or config.CPU_FEATURES)  # type: ignore[attr-defined]
)


def _rounded(builder: Any, vector: Any) -> Any:
    """Return the upper halves of float32 bits, rounded to nearest, ties to even; NaN stays NaN."""
    if ROUNDS:
        return builder.bitcast(builder.fptrunc(vector, ir.VectorType(BFloat16(), LANES)), SHORTS)
    bits = builder.bitcast(vector, INTS)
    odd = builder.and_(builder.lshr(bits, INTS([16] * LANES)), INTS([1] * LANES))
    up = builder.add(bits, builder.add(odd, INTS([0x7FFF] * LANES)))
    nan = builder.or_(bits, INTS([0x400000] * LANES))
    kept = builder.select(builder.fcmp_unordered("uno", vector, vector), nan, up)
    return builder.trunc(builder.lshr(kept, INTS([16] * LANES)), SHORTS)


@intrinsic
def element(typing: Any, array: Any, index: Any) -> Any:
    """Return one element as float32, without numba's care for negative indices."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = builder.load(_element(context, builder, sig.args[0], *args))
        if sig.args[0].dtype == types.float32:
            return value
        bits = builder.shl(builder.zext(value, ir.IntType(32)), ir.IntType(32)(16))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(array, types.intp), emit


@intrinsic
def set_element(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Write one float32 to one element."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer, value = _element(context, builder, sig.args[0], *args[:2]), args[2]
        if sig.args[0].dtype != types.float32:
            shorts = _rounded(builder, spread(builder, value))
            value = builder.extract_element(shorts, ir.IntType(32)(0))
        builder.store(value, pointer)
        return context.get_dummy_value()

    return types.none(array, types.intp, types.float32), emit


def _ask(context: Any, builder: Any, sig: Any, args: Any, locality: int) -> Any:
    number, byte = ir.IntType(32), ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    pointer = builder.bitcast(_element(context, builder, sig.args[0], *args), byte)
    builder.call(function, [pointer, number(0), number(locality), number(1)])
    return context.get_dummy_value()


@intrinsic
def prefetch(typing: Any, array: Any, index: Any) -> Any:
    """Ask for a cache line early; an index outside the array does no harm."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _ask(context, builder, sig, args, 3)

    return types.none(array, types.intp), emit


@intrinsic
def prefetch_second(typing: Any, array: Any, index: Any) -> Any:
    """Ask for a cache line in the second cache, which has many more requests under way at once."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _ask(context, builder, sig, args, 2)

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


@intrinsic
def folded(typing: Any, x: Any, y: Any) -> Any:
    """Return the sums of neighbouring lanes, those of x and then those of y.

    Folding sixteen values in pairs, then the results, leaves the total of each in its lane.
    """

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        even, odd = (
            builder.shuffle_vector(*args, INTS(list(range(first, 2 * LANES, 2))))
            for first in (0, 1)
        )
        return builder.fadd(even, odd)

    return lanes(lanes, lanes), emit
