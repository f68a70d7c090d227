"""Arithmetic of the step on a GPU, on the lanes of one account or on rows of them.

Annotations are not deferred in this file, because the compiler reads them.
"""

import triton
import triton.language as tl

_STEEPEST = tl.constexpr(87.0)  # float32 holds e to the power of this


@triton.jit
def divide(one, other):
    """Quotient to the last bit: what has not changed has a ratio of exactly one."""
    return tl.div_rn(one, other) if one.dtype == tl.float32 else one / other


@triton.jit
def log1p(x):
    """Logarithm of 1 + x for small x (Goldberg 1991, theorem 4)."""
    raised = 1.0 + x
    lost = raised - 1.0
    exact = lost == 0.0
    return tl.where(exact, x, tl.log(raised) * divide(x, tl.where(exact, 1.0, lost)))


@triton.jit
def total(x):
    """Sum over assets."""
    return tl.sum(x, len(x.shape) - 1, keep_dims=len(x.shape) > 1)


@triton.jit
def largest(x):
    """Maximum over assets."""
    return tl.max(x, len(x.shape) - 1, keep_dims=len(x.shape) > 1)


@triton.jit
def anyone(is_so):
    """Whether it is so for any account of the program."""
    return is_so if len(is_so.shape) == 0 else tl.max(is_so.to(tl.int32)) > 0


@triton.jit
def common(x):
    """What is the same for all accounts of the program."""
    return x if len(x.shape) == 0 else tl.max(x)


@triton.jit
def mean_price(x):
    """(exp(x) - 1) / x: rounding e^x moves both alike (Higham 2002, 1.14.1)."""
    raised = tl.exp(tl.minimum(x, _STEEPEST))
    still = raised == 1.0
    return tl.where(still, 1.0, (raised - 1.0) / tl.where(still, 1.0, tl.log(raised)))


@triton.jit
def cut(x, limit):
    """The nearest number within +-limit."""
    return tl.minimum(tl.maximum(x, -limit), limit)


@triton.jit
def not_finite(x):
    """1 for NaN and infinities, else 0."""
    return tl.where(tl.abs(x) < float("inf"), 0, 1)


@triton.jit
def is_number(x):
    """Whether it is one, be it infinite."""
    return tl.abs(x) <= float("inf")


@triton.jit
def gross_return(moves, room, factor, row: tl.constexpr, padded: tl.constexpr):
    """What a row of returns makes of a price; log returns are multiplied by the factor, if any."""
    told = tl.load(moves + row * padded, mask=room, other=0.0)
    return 1.0 + told if factor is None else tl.exp(factor * told)
