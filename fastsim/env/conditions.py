"""What accounts meet between two closes: rows of the market's tables."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.market.tape import MarketTape


class Conditions(NamedTuple):
    """What N accounts meet between two closes; None is what does not happen in this market."""

    r_before: Tensor  # [N, A]  simple return from the close to the fill
    r_after: Tensor  # [N, A]  simple return from the fill to the next close
    tradable: Tensor  # [N, A]  bool
    dollars: Tensor  # [N, A]  traded value of the bar of the fill
    impact_scale: Tensor  # [N, A]  sigma / sqrt(average traded value)
    price: Tensor  # [N, A]  of one share at the fill, as traded
    years: Tensor  # [N]
    interest: Tensor  # [N]  earned by a unit of cash
    market_return: Tensor  # [N]  simple return of the equal-weighted market
    borrow: Tensor | None = None  # [N, A]  fee per year; NaN where the account's own applies
    shortable: Tensor | None = None  # [N, A]  bool: shorts may be opened and grow
    delisted: Tensor | None = None  # [N, A]  bool: paid out at the next close


def conditions_at(tape: MarketTape, bar: Tensor) -> Conditions:
    """Look up what environments deciding at `bar` [N] will meet."""
    known, following = tape.known, tape.next

    def optional(table: Tensor | None) -> Tensor | None:
        return None if table is None else table[bar]

    return Conditions(
        r_before=following.r_before[bar],
        r_after=following.r_after[bar],
        tradable=following.tradable[bar],
        dollars=following.dollars[bar],
        impact_scale=known.sigma[bar] * known.dollar_volume[bar].rsqrt(),
        price=following.price[bar],
        years=following.years[bar],
        interest=following.interest[bar],
        market_return=following.market_return[bar],
        borrow=optional(following.borrow),
        shortable=optional(following.shortable),
        delisted=optional(following.delisted),
    )


def conditions_on_close(tape: MarketTape, market: Conditions, bar: Tensor) -> Conditions:
    """`market` at its end, the close of `bar` [N], for who must trade there at once.

    Nothing is left to happen before the close, and no limit of participation holds.
    """
    known, zero = tape.known, torch.zeros_like(market.r_before)
    listed = known.listed[bar]
    price = market.price * (1.0 + market.r_after)  # of the same bar, so nothing was split
    if tape.fill == "close":
        price = tape.next.price[bar]
    return market._replace(
        r_before=zero,
        r_after=zero,
        tradable=listed,
        dollars=torch.full_like(zero, torch.inf),
        impact_scale=known.sigma[bar] * known.dollar_volume[bar].rsqrt(),
        price=torch.where(listed, price, 1.0),
    )
