"""Rows copied into memory past the caches, where the copies would only push one another out.

A store of a whole line that is told to be read later goes straight to memory: the line is not
fetched first, and nothing else leaves the cache for it.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from fastsim.env.kernels.numba_jit import jit
from fastsim.env.kernels.numba_prefetch import LINE

VECTOR = 32
"""Bytes of a store; all processors with registers of that width have such stores."""
_LATER = ir.Constant(ir.IntType(32), 1)


@intrinsic
def _address(_context, array, _place):
    """Where a number of a contiguous array lies in memory."""

    def generate(context, builder, signature, arguments):
        made = make_array(signature.args[0])(context, builder, arguments[0])
        return builder.ptrtoint(builder.gep(made.data, [arguments[1]]), ir.IntType(64))

    return types.int64(array, types.int64), generate


@intrinsic
def _stream_line(_context, target, _to, source, _start):
    """Copy a line of numbers to where one begins, past the caches."""

    def generate(context, builder, signature, arguments):
        ends = [make_array(signature.args[n])(context, builder, arguments[n]) for n in (0, 2)]
        to, start = (
            builder.gep(each.data, [place])
            for each, place in zip(ends, arguments[1::2], strict=True)
        )
        size = signature.args[0].dtype.bitwidth // 8
        vector = ir.VectorType(context.get_data_type(signature.args[0].dtype), VECTOR // size)
        to, start = (builder.bitcast(each, vector.as_pointer()) for each in (to, start))
        for part in range(LINE // VECTOR):
            place = [ir.Constant(ir.IntType(64), part)]
            numbers = builder.load(builder.gep(start, place), align=size)
            store = builder.store(numbers, builder.gep(to, place), align=VECTOR)
            store.set_metadata("nontemporal", builder.module.add_metadata([_LATER]))
        return context.get_dummy_value()

    return types.void(target, types.int64, source, types.int64), generate


@intrinsic
def fence(_context):
    """Let others see what was written past the caches before they see what is written next."""

    def generate(context, builder, _signature, _arguments):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


@jit
def stream_row(source, at, target, row):
    """Copy row `at` of a contiguous table to the beginning of a row of another, past the caches.

    Lines that it shares with other rows are written as usual. `fence` follows, some time later.
    """
    width, to, start = source.shape[1], row * target.shape[1], at * source.shape[1]
    line = LINE // target.itemsize
    head = min(width, -(_address(target, to) // target.itemsize) % line)
    rest = head + (width - head) // line * line
    for place in range(head):
        target[row, place] = source[at, place]
    for place in range(head, rest, line):
        _stream_line(target, to + place, source, start + place)
    for place in range(rest, width):
        target[row, place] = source[at, place]
