"""Torch's own team of OpenMP threads, for numba's kernels.

Numba would bring a second team: each team's threads spin at its barriers while the other computes.
So a kernel enters the library that torch's products use, as code that a C compiler makes of
`#pragma omp parallel` does: `GOMP_parallel(function, its data, threads, flags)`.
"""

# An intrinsic is called without its first parameter, which mypy cannot know.
# mypy: disable-error-code="call-arg, var-annotated"

import ctypes
import os
from typing import Any

import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

WORD, BYTE = ir.IntType(64), ir.IntType(8).as_pointer()

_entries: list[int] = []  # the address of torch's GOMP_parallel, 0 where none can be used


def _forget() -> None:
    """A child has none of its parent's threads, and OpenMP refuses to start some again."""
    _entries[:] = [0] if _entries else []  # never entered: there are no threads to miss


os.register_at_fork(after_in_child=_forget)


def entry() -> int:
    """Return the address of torch's `GOMP_parallel`; 0 where torch has no such threads."""
    if not _entries:
        library = ctypes.CDLL(torch._C.__file__)  # a name is also looked up in what it is linked to
        found = getattr(library, "GOMP_parallel", None)
        _entries.append(ctypes.cast(found, ctypes.c_void_p).value or 0 if found else 0)
    return _entries[0]


@intrinsic
def on_team(
    typing: Any, entry: Any, threads: Any, jobs: Any, pieces: Any, function: Any, rest: Any
) -> Any:
    """Call function(first, last, *rest) for all pieces of the jobs, on `threads` threads.

    Each takes the next piece as soon as it is free. What `function` raises is lost.
    """
    kinds = (types.intp, types.intp, *rest.types)
    call = function.get_call_type(typing, kinds, {})

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        entry, threads, jobs, pieces, _, rest = args
        shared = cgutils.pack_struct(builder, [WORD(0), jobs, pieces, rest])
        data = cgutils.alloca_once_value(builder, shared)
        work = _work(context, builder.module, data.type, (sig.args[4], call), sig.args[5])
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [work.type, BYTE, number, number])
        parallel = builder.inttoptr(entry, kind.as_pointer())
        given = [work, builder.bitcast(data, BYTE), builder.trunc(threads, number), number(0)]
        builder.call(parallel, given)
        return context.get_dummy_value()

    return types.none(types.intp, types.intp, types.intp, types.intp, function, rest), emit


def _work(context: Any, module: Any, pointer: Any, callee: Any, rest_type: Any) -> Any:
    """Return what each thread runs: take the next piece and do its jobs, until there is none."""
    function_type, call = callee
    name = context.mangler("hybrid_work", call.args)
    work = ir.Function(module, ir.FunctionType(ir.VoidType(), [BYTE]), name)
    work.linkage = "internal"
    builder = ir.IRBuilder(work.append_basic_block("entry"))
    data = builder.bitcast(work.args[0], pointer)
    count = builder.gep(data, [ir.IntType(32)(0), ir.IntType(32)(0)])
    _, jobs, pieces, rest = cgutils.unpack_tuple(builder, builder.load(data), 4)
    head, body, done = (work.append_basic_block(x) for x in ("head", "body", "done"))
    builder.branch(head)
    builder.position_at_end(head)
    piece = builder.atomic_rmw("add", count, WORD(1), "monotonic")
    builder.cbranch(builder.icmp_signed("<", piece, pieces), body, done)
    builder.position_at_end(body)
    bounds = [
        builder.sdiv(builder.mul(jobs, at), pieces) for at in (piece, builder.add(piece, WORD(1)))
    ]
    values = cgutils.unpack_tuple(builder, rest, len(rest_type))
    compiled = function_type.dispatcher.overloads[call.args]
    context.add_linking_libs([compiled.library])
    context.call_internal_no_propagate(builder, compiled.fndesc, call, [*bounds, *values])
    builder.branch(head)
    builder.position_at_end(done)
    builder.ret_void()
    return work
