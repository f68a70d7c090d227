"""Stops and targets: positions that are closed within a bar, at the level or at a gap beyond it.

    long    stop = max((1 - stop) entry, (1 - trailing) best)    target = (1 + target) entry
    short   stop = min((1 + stop) entry, (1 + trailing) best)    target = (1 - target) entry

Distances are those of `OrderConfig`, or those that the action asked for which opened the position
or last added to it: parts of its mean entry, which what is added moves.
The entry is the mean price of what is held; best is the best of the price at which the position was
opened and of the closes since. Levels are those that are known when the bar begins, and of a bar
the open, the high and the low are, but not which of the last two came first:

    the open is beyond a level              filled at the open
    stop and target both lie in the bar     the stop is filled: the worse of what may have happened
    a level is touched                      filled at the level

A trailing stop follows closes and not highs (of a short position: lows), behind which it would lie
nearer to the price and sell what falls for more. None follows the high of its own bar, whose low
may have come first.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.env.orders import OrderConfig, Wish
from fastsim.market.conditions import Conditions

TOUCH = 32.0
"""Roundings by which a price may miss a level and still touch it."""
LARGEST_TOUCH = 1e-5


class Since(NamedTuple):
    """What is kept of each position since it was opened; without columns where it is not.

    The price now over what it was grows with the price, as shares do. All are 0 where nothing is
    held.
    """

    entry: Tensor  # [N, A]  over the mean price at which the position was entered
    best: Tensor  # [N, A]  over the best close since then; without columns where nothing trails
    stop: Tensor  # [N, A]  distance of the stop; without columns where actions ask for none
    target: Tensor  # [N, A]  distance of the target; likewise


class Exits(NamedTuple):
    """What stops and targets closed between a fill and the next close, in account currency."""

    trade: Tensor  # [N, A]  bought back (positive) and sold, at the prices of the exits
    cost: dict[str, Tensor]  # [N] each, by cause
    stopped: Tensor  # [N]  value of the positions that a stop closed, trailing or not
    taken: Tensor  # [N]  value of those that were closed at their target


class Levels(NamedTuple):
    """Prices at which positions are closed, over the price now; out of reach where there is none.

    A long position's stop is below its target, and a short one's above.
    """

    stop: Tensor  # [N, A]
    target: Tensor  # [N, A]


class Reached(NamedTuple):
    """Which positions are closed within a bar, and at what price over that of the fill."""

    stopped: Tensor  # [N, A]  bool
    taken: Tensor  # [N, A]  bool
    growth: Tensor  # [N, A]  1 where neither is so


def entered_now(
    holdings: Tensor, config: OrderConfig, *, on_margin: bool = False, asked: bool = False
) -> Since:
    """What is kept of positions [N, A] that are entered at the price now.

    Those `on_margin` are liquidated by the price of their entry, whether they have a stop or not.
    Where distances can be `asked` for, each position has its own, those of `config` to begin with.
    """
    none = holdings[:, :0]
    now = (holdings != 0).to(holdings.dtype) if config.brackets or on_margin else none
    return Since(
        entry=now,
        best=now.clone() if config.trailing else none,
        stop=now * config.stop if asked else none,
        target=now * config.target if asked else none,
    )


def traded(
    since: Since,
    holdings: Tensor,
    trade: Tensor,
    config: OrderConfig,
    wish: Wish | None = None,
) -> Since:
    """What is kept after `holdings` [N, A] have been traded, at the price now.

    What a position grows by has its part in the mean price of its entry; what it shrinks by has
    none. One that is opened, or turned around, is entered now. Where each position has distances of
    its own, `wish` says which ones those that are opened or grow are to have.
    """
    if not since.entry.shape[-1]:
        return since
    after = holdings + trade
    opened = after * holdings.sign() <= 0
    grown = ~opened & (after.abs() > holdings.abs())
    bought = holdings / torch.where(since.entry > 0, since.entry, 1.0) + trade  # at entry prices
    mean = after / torch.where(grown, bought, 1.0)
    now = (after != 0).to(after.dtype)
    entry = torch.where(opened, now, torch.where(grown, mean, since.entry))
    best = torch.where(opened, now, since.best) if since.best.shape[-1] else since.best
    since = since._replace(entry=entry, best=best)
    if not since.stop.shape[-1]:
        return since
    bought = opened | grown

    def chosen(kept: Tensor, own: float, asked: Tensor | None) -> Tensor:
        before = torch.where(opened, own, kept)
        if asked is not None:
            before = torch.where(bought & (asked > 0), asked, before)
        return now * before

    stop, target = (None, None) if wish is None else (wish.stop, wish.target)
    return since._replace(
        stop=chosen(since.stop, config.stop, stop),
        target=chosen(since.target, config.target, target),
    )


def closed(since: Since, holdings: Tensor) -> Since:
    """What is kept at a close, which may be the best one of a position so far."""
    if not since.best.shape[-1]:
        return since
    best = torch.where(holdings > 0, since.best.clamp_max(1.0), since.best.clamp_min(1.0))
    return since._replace(best=torch.where(holdings == 0, 0.0, best))


def levels(since: Since, holdings: Tensor, config: OrderConfig) -> Levels:
    """The levels of positions [N, A] over the price now."""
    long = holdings > 0
    adverse = torch.where(long, -1.0, 1.0).to(holdings.dtype)
    stop = torch.where(long, 0.0, torch.inf).to(holdings.dtype)
    target = torch.where(long, torch.inf, 0.0).to(holdings.dtype)
    own = bool(since.stop.shape[-1])
    away = since.stop if own else config.stop
    for given, distance, ratio in (
        (config.stop, away, since.entry),
        (config.trailing, config.trailing, since.best),
    ):
        if given > 0:
            level = (1.0 + adverse * distance) / torch.where(ratio > 0, ratio, 1.0)
            stop = torch.where(long, torch.maximum(stop, level), torch.minimum(stop, level))
    if config.target > 0:
        away = since.target if own else config.target
        target = (1.0 - adverse * away) / torch.where(since.entry > 0, since.entry, 1.0)
    return Levels(stop, target)


def distances(since: Since, holdings: Tensor, config: OrderConfig) -> Levels:
    """How far the price now is from the levels of positions [N, A], of it; 0 where none is held."""
    side = holdings.sign()
    stop, target = levels(since, holdings, config)
    held = side != 0
    return Levels(
        torch.where(held, side * (1.0 - stop), 0.0), torch.where(held, side * (target - 1.0), 0.0)
    )


def reached(levels: Levels, holdings: Tensor, market: Conditions) -> Reached:
    """What of the levels, over the price of the fill, the bar reaches that the step leads to."""
    assert market.r_open is not None and market.r_high is not None and market.r_low is not None
    long, held = holdings > 0, holdings != 0
    first, high, low = 1.0 + market.r_open, 1.0 + market.r_high, 1.0 + market.r_low
    slack = min(TOUCH * torch.finfo(holdings.dtype).eps, LARGEST_TOUCH)

    def is_below(price: Tensor, level: Tensor) -> Tensor:
        return price <= level * (1.0 + slack)

    def is_above(price: Tensor, level: Tensor) -> Tensor:
        return price >= level * (1.0 - slack)

    stop, target = levels
    at_stop = torch.where(long, is_below(low, stop), is_above(high, stop))
    at_target = torch.where(long, is_above(high, target), is_below(low, target))
    beyond = torch.where(long, is_above(first, target), is_below(first, target))  # at the open
    taken = held & at_target & (beyond | ~at_stop)
    stopped = held & at_stop & ~taken
    lower = torch.where(long, torch.minimum(stop, first), torch.minimum(target, first))
    higher = torch.where(long, torch.maximum(target, first), torch.maximum(stop, first))
    growth = torch.where(long == stopped, lower, higher)
    return Reached(stopped, taken, torch.where(stopped | taken, growth, 1.0))
