"""What a program draws for an episode, on a GPU: costs, factors and slots.

Draws are functions of key and episode, made anew at every step: a graph that is replayed has
nothing to keep of them. Slots alone are part of the state, and drawn when an episode begins.

Annotations are not deferred in this file, because the compiler reads them.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from fastsim.env.kernels import columns as c
from fastsim.env.random import GOLDEN
from fastsim.env.randomize import RANDOMIZE_STREAM
from fastsim.env.slots import COUNT_STREAM, ORDER_STREAM, RESOLUTION

_GOLDEN = tl.constexpr(GOLDEN)
_RANDOMIZE_STREAM = tl.constexpr(RANDOMIZE_STREAM)
_COUNT_STREAM = tl.constexpr(COUNT_STREAM)
_ORDER_STREAM = tl.constexpr(ORDER_STREAM)
_RESOLUTION = tl.constexpr(RESOLUTION)
_STEPS = tl.constexpr(1 << 24)


class Friction(NamedTuple):
    """What trading costs, as `columns.FRICTION` names it."""

    fee: tl.tensor
    half_spread: tl.tensor
    impact: tl.tensor
    participation: tl.tensor
    borrow: tl.tensor


assert Friction._fields == c.FRICTION._fields


class Shown(NamedTuple):
    """Where the assets of a program are shown, asset by asset."""

    slot: tl.tensor  # meaningless where it is in none
    inside: tl.tensor  # whether it is in one


@triton.jit
def mix(bits):
    """Finalise the low 32 bits of an int64, as `fastsim.env.random` does."""
    bits = bits & 0xFFFFFFFF
    bits = bits ^ (bits >> 16)
    bits = (bits * 0x85EBCA6B) & 0xFFFFFFFF
    bits = bits ^ (bits >> 13)
    bits = (bits * 0xC2B2AE35) & 0xFFFFFFFF
    return bits ^ (bits >> 16)


@triton.jit
def draw_integer(key, number, stream, bound):
    """An integer in [0, bound)."""
    bits = mix(mix(key + number * _GOLDEN) + stream)
    return (bits * bound) >> 32


@triton.jit
def draw_number(
    own, key, number, ranges, name: tl.constexpr, drawn: tl.constexpr, log: tl.constexpr
):
    """A number of this name, of the type of `own`; its `own` value where it is not drawn."""
    told = own
    if (drawn >> name) & 1:
        low = tl.load(ranges + 3 * name)
        high = tl.load(ranges + 3 * name + 1)
        steps = draw_integer(key, number, _RANDOMIZE_STREAM + name, _STEPS)
        share = (steps.to(tl.float64) + 0.5) / _STEPS
        number = low * tl.exp(tl.log(high / low) * share) if log else low + (high - low) * share
        told = (tl.load(ranges + 3 * name + 2) * number).to(own.dtype)
    return told


@triton.jit
def draw_factor(like, key, number, ranges, drawn: tl.constexpr, log: tl.constexpr):
    """Factor on log returns, of the type of `like`; None where it is not drawn."""
    factor = None
    if (drawn >> c.DRAWN.volatility) & 1:
        factor = draw_number(like, key, number, ranges, c.DRAWN.volatility, drawn, log)
    return factor


@triton.jit
def draw_rate(like, key, number, ranges, drawn: tl.constexpr, log: tl.constexpr):
    """Factor on the displacement of prices, of the type of `like`."""
    rate = draw_number(like * 0.0 + 1.0, key, number, ranges, c.DRAWN.price_impact, drawn, log)
    factor = draw_factor(like, key, number, ranges, drawn, log)
    return rate if factor is None else rate * factor


@triton.jit
def draw_friction(own, key, number, ranges, drawn: tl.constexpr, log: tl.constexpr):
    """What trading costs in an episode."""
    return Friction(
        fee=draw_number(own.fee, key, number, ranges, c.DRAWN.fee_bps, drawn, log),
        half_spread=draw_number(
            own.half_spread, key, number, ranges, c.DRAWN.half_spread_bps, drawn, log
        ),
        impact=draw_number(own.impact, key, number, ranges, c.DRAWN.impact, drawn, log),
        participation=draw_number(
            own.participation, key, number, ranges, c.DRAWN.participation, drawn, log
        ),
        borrow=draw_number(
            own.borrow, key, number, ranges, c.DRAWN.borrow_bps_per_year, drawn, log
        ),
    )


@triton.jit
def draw_slots(key, number, lanes, assets: tl.constexpr, fewest: tl.constexpr, most: tl.constexpr):
    """Where an episode shows each asset: its place among their hashes, if that is low enough."""
    shown = fewest + draw_integer(key, number, _COUNT_STREAM, most - fewest + 1)
    mine = draw_integer(key, number, _ORDER_STREAM + lanes, _RESOLUTION)
    place = mine * 0
    for other in range(assets):
        theirs = draw_integer(key, number, _ORDER_STREAM + other, _RESOLUTION)
        ahead = (theirs < mine) | ((theirs == mine) & (other < lanes))
        place += ahead.to(tl.int64)
    return Shown(slot=place, inside=(place < shown) & (lanes < assets))


@triton.jit
def hidden(shown, lanes, assets: tl.constexpr):
    """Which lanes, as slots, show nothing: those after the first."""
    axis: tl.constexpr = len(lanes.shape) - 1
    count = tl.sum(shown.inside.to(tl.int32), axis, keep_dims=axis > 0)
    return (lanes >= count) & (lanes < assets)


@triton.jit
def store_slots(slots, row, shown, lanes, assets: tl.constexpr):
    """Write the asset in each slot, -1 where there is none."""
    at = slots + row * assets
    tl.store(at + shown.slot, lanes.to(tl.int64), shown.inside)
    tl.store(at + lanes, (lanes * 0 - 1).to(tl.int64), hidden(shown, lanes, assets))


@triton.jit
def find_slots(
    slots, desk, program, lanes, assets: tl.constexpr, padded: tl.constexpr, most: tl.constexpr
):
    """Where each asset is shown: in its own slot, or by the slots [A] that show it.

    These are turned around in the program's own row of `desk`.
    """
    slot, inside = lanes, lanes < assets
    if most > 0:
        room = desk + program * padded
        asset = tl.load(slots + lanes, mask=lanes < assets, other=-1)
        tl.store(room + lanes, lanes * 0 - 1, lanes < padded)
        tl.debug_barrier()
        tl.store(room + asset, lanes, asset >= 0)
        tl.debug_barrier()
        slot = tl.load(room + lanes, mask=lanes < padded, other=-1)
        inside = slot >= 0
    return Shown(slot=slot, inside=inside)


@triton.jit
def renew_slots(
    over, slots, row, shown, key, number, lanes, assets: tl.constexpr, fewest: tl.constexpr,
    most: tl.constexpr,
):  # fmt: skip
    """Where an episode shows each asset: where the last one did, or if that is over, drawn anew."""
    slot, inside = shown.slot, shown.inside
    if most > 0:
        if over:
            fresh = draw_slots(key, number, lanes, assets, fewest, most)
            store_slots(slots, row, fresh, lanes, assets)
            slot, inside = fresh.slot.to(tl.int32), fresh.inside
        tl.debug_barrier()
    return Shown(slot=slot, inside=inside)


@triton.jit
def show_view(
    slots, volatility, row, like, factor, shown, lanes, assets: tl.constexpr, most: tl.constexpr
):
    """Write in what the market of an episode differs from the tape; of the type of `like`."""
    tl.store(volatility + row, like * 0.0 + (1.0 if factor is None else factor))
    if most > 0:
        store_slots(slots, row, shown, lanes, assets)
