"""An account of NautilusTrader at given prices: shares, cash, and what both are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from nautilus_trader.accounting.accounts.base import Account
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.model.objects import Currency
from nautilus_trader.model.position import Position

from fastsim.agent.books import Held
from fastsim.agent.orders import trade_to
from fastsim.data.bars import FloatArray
from fastsim.errors import ConfigError, DataError
from fastsim.market.costs import CostConfig


class Holding(NamedTuple):
    """An account at some prices."""

    shares: FloatArray  # [A]
    prices: FloatArray  # [A]
    wealth: float

    @property
    def cash(self) -> float:
        """What is left beside the shares' value; the account's currency."""
        return self.wealth - float(self.shares @ self.prices)

    @property
    def weights(self) -> FloatArray:
        """Of the wealth [A + 1], cash last."""
        risky = self.shares * self.prices / self.wealth
        return np.append(risky, 1.0 - risky.sum())

    def shares_for(self, weights: FloatArray, costs: CostConfig) -> FloatArray:
        """What to hold [A] so that weights [A] are exact at these prices, after fee and spread."""
        values = self.shares * self.prices
        held = Held(values, np.zeros_like(values), self.cash)
        shares: FloatArray = (values + trade_to(weights, held, costs)) / self.prices
        return shares


def holding_at(
    prices: Mapping[InstrumentId, float],
    account: Account | None,
    positions: Sequence[Position],
    currency: Currency,
) -> Holding:
    """What an account with open positions comes to at prices of the instruments that are traded.

    A margin account's balance stays as it is until a position is closed: what that has gained so
    far is added to it. A cash account's has paid for all that is held.

    Raises
    ------
    ConfigError
        There is no such account, or none in this currency.
    DataError
        There is something in it that is not traded.
    """
    balance = None if account is None else account.balance_total(currency)
    if account is None or balance is None:
        raise ConfigError(
            f"there is no account in {currency} at {next(iter(prices)).venue}: add the venue, or "
            f"name another in the strategy's configuration"
        )
    wealth = float(balance.as_double())
    shares = dict.fromkeys(prices, 0.0)
    for position in positions:
        name = position.instrument_id
        if name not in prices:
            raise DataError(
                f"the account has a position in {name}, which the agent does not trade: keep it in "
                f"another account"
            )
        paid = position.avg_px_open if account.is_margin_account else 0.0
        wealth += position.signed_qty * (prices[name] - paid)
        shares[name] += position.signed_qty
    return Holding(np.array(list(shares.values())), np.array(list(prices.values())), wealth)
