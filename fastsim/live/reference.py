"""One bar of an account by the environment's own books: what the simulator makes of its orders.

Everything is asked of the reference step (`fastsim.env.accounting.advance`); here it is laid out
order by order. Books are kept in float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastsim.data.bars import Bars, FloatArray
from fastsim.env.accounting import Account, Outcome, Portfolio, advance
from fastsim.env.brackets import entered_now
from fastsim.env.core import meet, meet_closing
from fastsim.env.nested import flatten, transform, unflatten
from fastsim.env.orders import Wish
from fastsim.env.state import EnvParams, EnvState, begin_state, equipped, make_params
from fastsim.live.rules import MarketRules
from fastsim.market.conditions import Conditions, named
from fastsim.market.costs import Friction, Venue, make_friction, total
from fastsim.market.tape import make_tape

Books = Sequence[list[float]]
"""An account as plain numbers: its tensors' rows, in their order."""


class Wanted(NamedTuple):
    """What an order asks for."""

    weight: float  # of the wealth after costs
    stop: float = 0.0  # distance of the stop of what is opened or added to; 0 asks for none
    target: float = 0.0  # likewise


class Filled(NamedTuple):
    """What became of the order in one asset within a bar."""

    wanted: float  # shares, sized at the fill
    shares: float  # of them traded, negative sold
    price: float  # paid for one of them, half spread and impact included; NaN for none
    fee: float  # beside it, account currency
    rest: float  # shares that stay open


class Crossed(NamedTuple):
    """An account at the close of a bar, and what happened within it."""

    books: Books
    filled: Mapping[str, Filled]  # by symbol
    moved: Mapping[str, float]  # shares by symbol that came or went without an order
    forced: bool  # whether a stop, a target, a margin call or a liquidation was among it
    cash: float  # that came or went without an order, account currency


class Bar:
    """The step from one close to the next, the last of `bars`, by these rules.

    Raises
    ------
    DataError
        Bars are too few, or lack what the rules need.
    """

    def __init__(self, rules: MarketRules, bars: Bars) -> None:
        bars = bars.take(
            slice(-rules.bars_needed, None), [bars.symbols.index(s) for s in rules.symbols]
        )
        self.rules, self.bars = rules, bars
        tape = equipped(make_tape(bars, rules.tape, dtype=torch.float64), rules.env)
        friction = make_friction(rules.env.costs, 1, dtype=torch.float64)
        self._params: EnvParams = make_params(tape, friction, rules.env)
        number = torch.zeros(1, dtype=torch.int64)
        begun = begin_state(self._params, number, number)
        self._begun: EnvState = begun._replace(
            episode=begun.episode._replace(bar=number + len(tape) - 2)
        )

    @cached_property
    def met(self) -> tuple[Conditions, Friction]:
        """What the account meets."""
        return meet(self._params, self._begun)

    def begin(self, cash: float, shares: Mapping[str, float]) -> Books:
        """Books of who has so much at the last close."""
        held = np.array([[shares.get(symbol, 0.0) for symbol in self.rules.symbols]])
        holdings = torch.from_numpy(held * self.bars.close[-1])
        money = torch.tensor([cash], dtype=torch.float64)
        env, asks = self.rules.env, self._params.rules.action.brackets
        since = entered_now(holdings, env.orders, on_margin=env.perpetual.trades, asked=asks)
        began = self._begun.account._replace(portfolio=Portfolio(holdings, money), since=since)
        return _plain(began)

    def cross(self, books: Books, wanted: Mapping[str, Wanted] | None) -> Crossed:
        """Carry an account over the bar.

        Parameters
        ----------
        wanted
            By symbol: those without an order are not traded. None if nothing new is wanted of any.
        """
        before = _account(books, self._begun.account)
        market, friction = self.met
        wish = self._wish(wanted or {}, hold=wanted is None)
        ordered = torch.tensor([[s in (wanted or {}) for s in self.rules.symbols]])
        if wanted is not None:
            market = market._replace(tradable=market.tradable & ordered)
        closing = meet_closing(self._params, self._begun, market)
        terms = self._params.rules.terms
        after, outcome = advance(before, wish, market, friction, terms, closing)
        if wanted is not None and after.open_orders.numel():
            growth = self.bars.close[-1] / self.bars.close[-2]
            kept = before.open_orders * torch.from_numpy(growth)
            after = after._replace(open_orders=torch.where(ordered, after.open_orders, kept))
        return self._told(before, after, outcome, wish, market)

    def _wish(self, wanted: Mapping[str, Wanted], *, hold: bool) -> Wish:
        each = [wanted.get(symbol, Wanted(0.0)) for symbol in self.rules.symbols]
        weight, stop, target = torch.tensor(each, dtype=torch.float64).T[:, None]  # [1, A] each
        asked = (stop, target) if self._params.rules.action.brackets else ()
        return Wish(weight, torch.tensor([hold]), *asked)

    def shares(self, books: Books) -> tuple[float, dict[str, float], dict[str, float]]:
        """Cash, and shares and what is open by symbol, at the last close."""
        account, prices = _account(books, self._begun.account), self.bars.close[-1]
        held = account.portfolio.holdings[0].numpy() / prices
        rest = np.zeros_like(prices)
        if account.open_orders.numel():
            rest = account.open_orders[0].numpy() / prices
        named = [
            {s: float(n) for s, n in zip(self.rules.symbols, numbers, strict=True) if n}
            for numbers in (held, rest)
        ]
        return float(account.portfolio.cash + account.carry), named[0], named[1]

    def _told(
        self, before: Account, after: Account, outcome: Outcome, wish: Wish, market: Conditions
    ) -> Crossed:
        """What happened, order by order."""
        assert outcome.trade is not None and outcome.holdings is not None  # the reference keeps it
        trade, price = outcome.trade[0].numpy(), market.price[0].numpy()
        fees, slips = self._costs(outcome.trade, market)
        start = outcome.holdings[0].numpy() - trade  # right before the trade
        wanted = wish.weights[0].numpy() * float(outcome.wealth_traded) - start
        if bool(wish.hold):
            wanted = trade
        closes = self.bars.close
        rest = after.open_orders[0].numpy() if after.open_orders.numel() else np.zeros_like(trade)
        with np.errstate(divide="ignore", invalid="ignore"):
            paid = price * (1.0 + slips / trade)
        shares = trade / price
        columns = (wanted / price, shares, np.where(trade == 0, np.nan, paid), fees)
        rows = zip(*(each.tolist() for each in (*columns, rest / closes[-1])), strict=True)
        held_before = before.portfolio.holdings[0].numpy() / closes[-2]
        held = after.portfolio.holdings[0].numpy() / closes[-1]
        moved = held - held_before - shares
        odd = np.abs(moved) > _DUST * np.maximum(np.abs(held), np.abs(held_before))
        forced = [each.trade for each in (outcome.exits, outcome.margin_call) if each is not None]
        if outcome.settlement is not None:
            forced.append(outcome.settlement.seized)
        cash = _cash(after) - _cash(before) + float((trade + slips + fees).sum())
        return Crossed(
            books=_plain(after),
            filled={s: Filled(*row) for s, row in zip(self.rules.symbols, rows, strict=True)},
            moved={s: float(moved[n]) for n, s in enumerate(self.rules.symbols) if odd[n]},
            forced=any(bool(trade.any()) for trade in forced),
            cash=cash if abs(cash) > _DUST * float(outcome.wealth) else 0.0,
        )

    def _costs(self, trade: Tensor, market: Conditions) -> tuple[FloatArray, FloatArray]:
        """Commission [A] of each order, and what else it costs [A]; the signs of both are a cost's.

        Each order is charged as if it were an account's only one.
        """
        count = trade.shape[-1]
        each = named({n: v.expand(count, *v.shape[1:]) for n, v in market.columns.items()})
        friction = transform(lambda rate: rate.expand(count), self.met[1])
        venue = Venue(each, friction, self._params.rules.terms.costs)
        charged = venue.charge(torch.diag(trade[0]))
        fees = charged.pop("commission").numpy()
        return fees, total(charged).numpy()


_DUST = 1e-12
"""Of what is held: what rounding makes of it."""


def _cash(account: Account) -> float:
    return float(account.portfolio.cash + account.carry)


def _plain(account: Account) -> Books:
    return [leaf[0].tolist() if leaf.dim() > 1 else leaf.tolist() for leaf in flatten(account)]


def _account(books: Books, like: Account) -> Account:
    leaves = [
        torch.tensor(row, dtype=leaf.dtype).view(leaf.shape)
        for row, leaf in zip(books, flatten(like), strict=True)
    ]
    return unflatten(like, leaves)
