"""What accounts meet between two closes: rows of the market's block, each column by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.market.benchmark import market_return_of
from fastsim.market.block import COLUMNS, Column
from fastsim.market.tape import MarketTape

NOTHING: Mapping[str, Tensor] = {}


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
    r_open: Tensor | None = None  # [N, A]  simple return from the fill to the bar's first price
    r_high: Tensor | None = None  # [N, A]  to its highest; -1 where it is not known
    r_low: Tensor | None = None  # [N, A]  to its lowest; infinite where it is not known
    funding: Tensor | None = (
        None  # [N, A]  paid by a long until the close, over its value at the fill
    )
    more: Mapping[str, Tensor] = NOTHING  # [N, A] or [N], what was added to the block

    @property
    def columns(self) -> dict[str, Tensor]:
        """Everything by name."""
        own = {name: getattr(self, name) for name in _OWN}
        return {name: each for name, each in own.items() if each is not None} | dict(self.more)


_OWN = frozenset(Conditions._fields) - {"more"}
assert set(COLUMNS) >= _OWN, "what is met says what becomes of it"


def named(columns: Mapping[str, Tensor]) -> Conditions:
    """Conditions of these columns."""
    more = {name: columns[name] for name in columns.keys() - _OWN}
    own = {name: columns[name] for name in columns if name not in more} if more else columns
    return Conditions(**own, more=more or NOTHING)


def conditions_at(tape: MarketTape, bar: Tensor) -> Conditions:
    """Look up what environments deciding at `bar` [N] will meet."""
    return named(tape.next.at(bar))


def conditions_on_close(
    tape: MarketTape, market: Conditions, bar: Tensor, factor: Tensor | None = None
) -> Conditions:
    """`market` at its end, the close of `bar` [N], for who must trade there at once.

    Nothing is left to happen before the close, and no limit of participation holds. Log returns
    and volatility are `factor` [N] times those of the tape, in `market` already.
    """
    columns = tape.next.columns
    then = named(tape.next.at(bar))
    then_met = (then if factor is None else scaled(then, columns, factor)).columns
    closing = named(
        {
            name: _on_close(columns[name], column, then_met[name])
            for name, column in market.columns.items()
        }
    )
    listed = tape.known.listed[bar]
    price = market.price * (1.0 + market.r_after)  # of the same bar, so nothing was split
    if tape.fill == "close":
        price = closing.price
    return closing._replace(tradable=listed, price=torch.where(listed, price, 1.0))


def _on_close(column: Column, met: Tensor, then: Tensor) -> Tensor:
    """What `closing` says of a column met now, of which the next bar says `then`."""
    if column.closing == "next":
        return then
    if column.closing == "stays":
        return met
    return torch.full_like(met, torch.inf if column.closing == "endless" else 0.0)


def scaled(market: Conditions, columns: Mapping[str, Column], factor: Tensor) -> Conditions:
    """What is met where log returns and volatility are `factor` [N] times those of the tape.

    The haircut of what is delisted stays as it is.
    """
    met = {
        name: _at_volatility(columns[name], column, factor)
        for name, column in market.columns.items()
    }
    if market.delisted is not None:
        met["r_after"] = torch.where(market.delisted, market.r_after, met["r_after"])
    return with_market_return(named(met))


def _at_volatility(column: Column, met: Tensor, factor: Tensor) -> Tensor:
    """What `volatility` says of a column; the market's own return follows from the others."""
    if column.volatility in ("stays", "averages"):
        return met
    factor = factor[:, None] if met.dim() == 2 else factor
    if column.volatility == "scales":
        return factor * met
    return torch.expm1(factor * torch.log1p(met))


def with_market_return(market: Conditions) -> Conditions:
    """The same with the mean return of what is tradable as that of the market."""
    mean = market_return_of(market.r_before, market.r_after, market.tradable)
    return market._replace(market_return=mean)
