"""Stops and targets, fused for a GPU: what `fastsim.env.brackets` does, an asset to a lane.

What is kept of positions is a number 0 where the rules keep none of it.

Annotations are not deferred in this file, because the compiler reads them.
"""

import triton
import triton.language as tl

from fastsim.env.brackets import TOUCH, Levels, Reached, Since
from fastsim.env.kernels import columns as c
from fastsim.env.kernels.triton_math import divide, gross_return

_TOUCH = tl.constexpr(TOUCH / 100.0)  # of `enough`, which is 100 roundings of the table's type


@triton.jit
def find_since(kept, n, lanes, padded: tl.constexpr, further: tl.constexpr):
    """Where stands what is kept of the positions of a row."""
    rows: tl.constexpr = c.SINCE.target + 1 if further.asks else c.SINCE.stop
    return kept + n * (rows * padded) + lanes


@triton.jit
def load_since(kept, n, lanes, padded: tl.constexpr, further: tl.constexpr):
    """What is kept of positions; 0 in empty lanes."""
    at, room = find_since(kept, n, lanes, padded, further), lanes < padded
    entry, best, stop, target = 0.0, 0.0, 0.0, 0.0
    if further.entries:
        entry = tl.load(at + c.SINCE.entry * padded, mask=room, other=0.0)
    if further.trails:
        best = tl.load(at + c.SINCE.best * padded, mask=room, other=0.0)
    if further.asks:
        stop = tl.load(at + c.SINCE.stop * padded, mask=room, other=0.0)
        target = tl.load(at + c.SINCE.target * padded, mask=room, other=0.0)
    return Since(entry, best, stop, target)


@triton.jit
def store_since(since, kept, n, lanes, padded: tl.constexpr, further: tl.constexpr):
    """Keep it for the next step."""
    at, room = find_since(kept, n, lanes, padded, further), lanes < padded
    if further.entries:
        tl.store(at + c.SINCE.entry * padded, since.entry, room)
    if further.trails:
        tl.store(at + c.SINCE.best * padded, since.best, room)
    if further.asks:
        tl.store(at + c.SINCE.stop * padded, since.stop, room)
        tl.store(at + c.SINCE.target * padded, since.target, room)


@triton.jit
def either(which, one, other, further: tl.constexpr):
    """What is kept is `one` where this is so, and else the `other`."""
    return Since(
        entry=tl.where(which, one.entry, other.entry) if further.entries else 0.0,
        best=tl.where(which, one.best, other.best) if further.trails else 0.0,
        stop=tl.where(which, one.stop, other.stop) if further.asks else 0.0,
        target=tl.where(which, one.target, other.target) if further.asks else 0.0,
    )


@triton.jit
def ended(since, which, further: tl.constexpr):
    """What is kept where these positions are no more."""
    return either(which, Since(0.0, 0.0, 0.0, 0.0), since, further)


@triton.jit
def grown(since, growth, further: tl.constexpr):
    """What is kept at prices that have grown."""
    return Since(
        entry=since.entry * growth if further.entries else 0.0,
        best=since.best * growth if further.trails else 0.0,
        stop=since.stop,
        target=since.target,
    )


@triton.jit
def entered_now(held, real, further: tl.constexpr):
    """What is kept of positions that are entered at the price now."""
    now = tl.where(held != 0.0, 1.0, 0.0).to(held.dtype)
    return Since(
        entry=now if further.entries else 0.0,
        best=now if further.trails else 0.0,
        stop=now * tl.load(real + c.REAL.stop) if further.asks else 0.0,
        target=now * tl.load(real + c.REAL.target) if further.asks else 0.0,
    )


@triton.jit
def chosen(kept, own, asked, opened, bought):
    """How far a level is: as asked for with what is bought, else as before, or as the rules say."""
    before = tl.where(opened, own, kept)
    return tl.where(bought & (asked > 0.0), asked, before)


@triton.jit
def traded(since, held, order, wish, real, further: tl.constexpr):
    """What is kept after orders on top of what is `held`, at the price now."""
    entry, best, stop, target = since.entry, since.best, since.stop, since.target
    if further.entries:
        after = held + order
        kept = ((held > 0.0) & (after > 0.0)) | ((held < 0.0) & (after < 0.0))
        more, opened = kept & (tl.abs(after) > tl.abs(held)), kept == 0
        now = tl.where(after != 0.0, 1.0, 0.0).to(held.dtype)
        bought = divide(held, tl.where(entry > 0.0, entry, 1.0)) + order  # at entry prices
        mean = divide(after, tl.where(more, bought, 1.0))
        entry = tl.where(opened, now, tl.where(more, mean, entry))
        if further.trails:
            best = tl.where(opened, now, best)
        if further.asks:
            own, away = tl.load(real + c.REAL.stop), tl.load(real + c.REAL.target)
            stop = now * chosen(stop, own, wish.stop, opened, more | opened)
            target = now * chosen(target, away, wish.target, opened, more | opened)
    return Since(entry, best, stop, target)


@triton.jit
def closed(since, growth, held, further: tl.constexpr):
    """What is kept at a close, to which prices have grown, and which may be the best one so far."""
    since = grown(since, growth, further)
    best = since.best
    if further.trails:
        best = tl.where(held > 0.0, tl.minimum(best, 1.0), tl.maximum(best, 1.0))
    since = Since(since.entry, best, since.stop, since.target)
    return ended(since, held == 0.0, further)


@triton.jit
def levels(since, held, real, further: tl.constexpr):
    """The levels of positions over the price now; out of reach where there is none."""
    long, endless = held > 0.0, float("inf")
    adverse = tl.where(long, -1.0, 1.0).to(held.dtype)
    stop = tl.where(long, 0.0, endless).to(held.dtype)
    target = tl.where(long, endless, 0.0).to(held.dtype)
    if further.brackets:
        entry = tl.where(since.entry > 0.0, since.entry, 1.0)
        below, above = tl.load(real + c.REAL.stop), tl.load(real + c.REAL.target)
        if further.asks:
            below, above = since.stop, since.target
        level = tl.maximum(divide(1.0 + adverse * below, entry), 0.0)
        stop = tl.where(below > 0.0, level, stop)
        target = tl.where(above > 0.0, divide(1.0 - adverse * above, entry), target)
    if further.trails:
        away = tl.load(real + c.REAL.trailing)
        behind = divide(1.0 + adverse * away, tl.where(since.best > 0.0, since.best, 1.0))
        stop = tl.where(long, tl.maximum(stop, behind), tl.minimum(stop, behind))
    return Levels(stop, target)


@triton.jit
def distances(since, held, real, further: tl.constexpr):
    """How far the price now is from the levels of positions, of it; 0 where none is held."""
    long, there = held > 0.0, held != 0.0
    at = levels(since, held, real, further)
    stop = tl.where(long, 1.0 - at.stop, at.stop - 1.0)
    target = tl.where(long, at.target - 1.0, 1.0 - at.target)
    return Levels(tl.where(there, stop, 0.0), tl.where(there, target, 0.0))


@triton.jit
def is_below(price, level, enough: tl.constexpr):
    """Whether a price touches a level from above, or is beyond it."""
    return price <= level * (1.0 + _TOUCH * enough)


@triton.jit
def is_above(price, level, enough: tl.constexpr):
    """Whether a price touches a level from below, or is beyond it."""
    return price >= level * (1.0 - _TOUCH * enough)


@triton.jit
def reached(at, held, ranges, factor, room, padded: tl.constexpr, enough: tl.constexpr):
    """What of the levels, over the price of the fill, a bar reaches."""
    long, stop, target = held > 0.0, at.stop, at.target
    first = gross_return(ranges, room, factor, c.RANGE.r_open, padded)
    high = gross_return(ranges, room, factor, c.RANGE.r_high, padded)
    low = gross_return(ranges, room, factor, c.RANGE.r_low, padded)
    at_stop = tl.where(long, is_below(low, stop, enough), is_above(high, stop, enough))
    at_target = tl.where(long, is_above(high, target, enough), is_below(low, target, enough))
    beyond = tl.where(long, is_above(first, target, enough), is_below(first, target, enough))
    taken = (held != 0.0) & at_target & (beyond | (at_stop == 0))
    stopped = (held != 0.0) & at_stop & (taken == 0)
    nearer = tl.where(stopped, stop, target)
    below, above = tl.minimum(nearer, first), tl.maximum(nearer, first)
    growth = tl.where(long == stopped, below, above)
    return Reached(stopped, taken, tl.where(stopped | taken, growth, 1.0))
