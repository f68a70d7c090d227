"""Asking for memory before it is needed: rows of tables that no processor can foresee."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from fastsim.env.kernels.numba_jit import jit

LINE = 64
"""Bytes that come at once."""
_READ, _KEEP, _DATA = 0, 3, 1


@intrinsic
def _prefetch(_context, array, _place):
    """Ask for the line that holds this byte of a contiguous array; it need not be there."""

    def generate(context, builder, signature, arguments):
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        made = make_array(signature.args[0])(context, builder, arguments[0])
        at = builder.gep(builder.bitcast(made.data, byte), [arguments[1]])
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        hint = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(hint, [at, number(_READ), number(_KEEP), number(_DATA)])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@jit
def prefetch_row(table, row):
    """Ask for a row of a contiguous table [R, ...]."""
    width = table.itemsize
    for axis in range(1, table.ndim):
        width *= table.shape[axis]
    for place in range(0, width, LINE):
        _prefetch(table, row * width + place)
