"""Perpetual futures, fused for a GPU: what `fastsim.env.perpetual` does, an asset to a lane.

Annotations are not deferred in this file, because the compiler reads them.
"""

import triton
import triton.language as tl

from fastsim.env.brackets import Levels
from fastsim.env.kernels import columns as c
from fastsim.env.kernels.triton_brackets import is_above, is_below, reached
from fastsim.env.kernels.triton_math import cut, divide, total
from fastsim.env.perpetual import Found, Liquidation


@triton.jit
def within_leverage(weights, wealth, tiers, room, padded: tl.constexpr):
    """Weights of no more than the value up to which the leverage is offered."""
    most = tl.load(tiers + c.TIER.largest * padded, mask=room, other=0.0)
    most = divide(most, tl.where(wealth > 0.0, wealth, 1.0))
    return tl.where(wealth > 0.0, cut(weights, most), weights)


@triton.jit
def at_entry(held, entry):
    """Value of positions at the prices of their entry, which the price now is `entry` times."""
    return divide(held, tl.where(entry > 0.0, entry, 1.0))


@triton.jit
def liquidation_levels(held, entry, tiers, real, room, padded: tl.constexpr, further: tl.constexpr):
    """Prices over that of now at which positions are liquidated, by the tier that is met first."""
    size, long = tl.abs(held), held > 0.0
    value, there = at_entry(size, entry), size > 0.0
    backing = divide(value, tl.load(real + c.REAL.leverage))
    level = tl.where(long, -float("inf"), float("inf")).to(held.dtype)
    for tier in range(further.tiers):
        at = tiers + tier * (c.NUM_TIERS * padded)
        rate = tl.load(at + c.TIER.rate * padded, mask=room, other=0.0)
        amount = tl.load(at + c.TIER.amount * padded, mask=room, other=0.0)
        falls = divide(value - backing - amount, 1.0 - rate)
        rises = divide(value + backing + amount, 1.0 + rate)
        level = tl.where(long, tl.maximum(level, falls), tl.minimum(level, rises))
    return tl.where(there, divide(level, tl.where(there, size, 1.0)), float("inf"))


@triton.jit
def is_beyond(price, line, long, enough: tl.constexpr):
    """Whether a price touches the line at which a position is liquidated, or is beyond it."""
    return tl.where(long, is_below(price, line, enough), is_above(price, line, enough))


@triton.jit
def beyond_open(
    held, entry, tiers, real, room, padded: tl.constexpr, enough: tl.constexpr,
    further: tl.constexpr,
):  # fmt: skip
    """Which positions are to be liquidated at the price now."""
    line = liquidation_levels(held, entry, tiers, real, room, padded, further)
    return (held != 0.0) & is_beyond(held * 0.0 + 1.0, line, held > 0.0, enough)


@triton.jit
def found_within(
    at, held, entry, within, factor, real, room, padded: tl.constexpr, enough: tl.constexpr,
    further: tl.constexpr,
):  # fmt: skip
    """What closes positions within a bar: stops, targets, and where it comes first, the line."""
    stop, long = at.stop, held > 0.0
    liquidated = long & (held == 0.0)
    if further.perpetual:
        line = liquidation_levels(held, entry, within.tiers, real, room, padded, further)
        stop = tl.where(long, tl.maximum(stop, line), tl.minimum(stop, line))
    met = reached(Levels(stop, at.target), held, within.ranges, factor, room, padded, enough)
    if further.perpetual:
        liquidated = met.stopped & is_beyond(met.growth, line, long, enough)
    return Found(met.stopped & (liquidated == 0), met.taken, liquidated, met.growth)


@triton.jit
def liquidation_of(which, growth, held, entry, real):
    """Close positions at `growth` times the price now; also what an account receives.

    A position's loss, its fee included, is never more than its margin.
    """
    held = tl.where(which, held, 0.0)
    value, bought = growth * held, at_entry(held, entry)
    margin = divide(tl.abs(bought), tl.load(real + c.REAL.leverage))
    left = margin + value - bought
    fee = tl.load(real + c.REAL.liquidation_fee) * tl.abs(value)
    fee, insured = tl.minimum(fee, tl.maximum(left, 0.0)), tl.maximum(-left, 0.0)
    told = Liquidation(-value, total(tl.abs(value)), total(fee), total(insured))
    return told, total(value - fee + insured)
