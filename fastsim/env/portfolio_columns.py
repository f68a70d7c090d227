"""What an agent sees of its own: the columns of its portfolio, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from fastsim.config import configuration
from fastsim.env.accounting import Account
from fastsim.env.brackets import Levels, distances
from fastsim.env.episode import Episode
from fastsim.env.slots import to_slots
from fastsim.errors import ConfigError
from fastsim.extensions import Registry, checked
from fastsim.market.features import FEATURE_LIMIT
from fastsim.market.tape import MarketTape

if TYPE_CHECKING:
    from fastsim.env.config import EnvConfig


class Standing(NamedTuple):
    """Where N accounts stand at a close."""

    account: Account
    wealth: Tensor  # [N]
    peak: Tensor  # [N]  highest wealth of the episode
    episode: Episode
    tape: MarketTape
    config: EnvConfig

    @property
    def positive_wealth(self) -> Tensor:
        """Wealth [N], or the least number above zero."""
        return self.wealth.clamp_min(torch.finfo(self.wealth.dtype).tiny)


@configuration
class PortfolioColumn:
    """One thing that an agent sees of its own account; nothing after the bar."""

    name: str
    values: Callable[[Standing], Tensor]
    """Numbers of order one; what is beyond +-FEATURE_LIMIT is cut to it."""
    of: Literal["account", "asset", "holding"] = "account"
    """Numbers [N]; [N, A] in the order of the assets, shown by slot; [N, A + 1], with cash."""
    shown: Callable[[Any], bool] = lambda config: True
    """Whether rules, an `EnvConfig`, show it."""

    def names(self, symbols: tuple[str, ...]) -> tuple[str, ...]:
        """Names of its numbers."""
        if self.of == "account":
            return (self.name,)
        labels = symbols if self.of == "asset" else (*symbols, "cash")
        return tuple(f"{self.name}.{label}" for label in labels)

    def look(self, standing: Standing, slots: Tensor) -> Tensor:
        """Its numbers [N, ...], by slot."""
        values, assets = self.values(standing), standing.tape.num_assets
        rows = len(standing.wealth)
        if self.of == "account":
            return checked("portfolio column", self, values, (rows,))[:, None]  # type: ignore[no-any-return]
        checked("portfolio column", self, values, (rows, assets + (self.of == "holding")))
        if not slots.shape[-1]:
            return values
        return torch.cat([to_slots(values[:, :assets], slots), values[:, assets:]], dim=-1)


def _weights(standing: Standing) -> Tensor:
    holdings, cash = standing.account.portfolio
    return torch.cat([holdings, cash[:, None]], dim=-1) / standing.positive_wealth[:, None]


def _displacement(standing: Standing) -> Tensor:
    """Transient displacement of prices in hundredths; 0 where trades leave prices alone."""
    displacement = standing.account.displacement
    if not displacement.exists:
        return torch.zeros_like(standing.account.portfolio.holdings)
    return (100.0 * displacement.transient).repeat_interleave(standing.config.players, 0)


def _distances(standing: Standing) -> Levels:
    account, orders = standing.account, standing.config.orders
    return distances(account.since, account.portfolio.holdings, orders)


PORTFOLIO_COLUMNS: Registry[PortfolioColumn] = Registry(
    "portfolio column",
    PortfolioColumn,
    (
        PortfolioColumn(name="weight", of="holding", values=_weights),
        PortfolioColumn(name="drawdown", values=lambda now: 1.0 - now.wealth / now.peak),
        PortfolioColumn(
            name="log_growth",
            values=lambda now: (now.positive_wealth / now.config.initial_cash).log(),
        ),
        PortfolioColumn(
            name="displacement",
            of="asset",
            values=_displacement,
            shown=lambda config: config.impact.moves_prices or config.orders.carries,
        ),
        PortfolioColumn(
            name="order",
            of="asset",
            values=lambda now: now.account.open_orders / now.positive_wealth[:, None],
            shown=lambda config: config.orders.carries,
        ),
        PortfolioColumn(
            name="stop",
            of="asset",
            values=lambda now: _distances(now).stop,
            shown=lambda config: max(config.orders.stop, config.orders.trailing) > 0,
        ),
        PortfolioColumn(
            name="target",
            of="asset",
            values=lambda now: _distances(now).target,
            shown=lambda config: config.orders.target > 0,
        ),
    ),
)
"""Weights at the close; drawdown from the highest wealth, and growth since the start; transient
displacement of prices in hundredths, where trades move them or orders stay open, which have the
same place in either case; open orders in units of wealth; how far the price is from the stop and
from the target of each position, as a part of itself, 0 where nothing is held. What is added to
these is shown where `EnvConfig.columns` names it."""
ALWAYS = tuple(PORTFOLIO_COLUMNS.values())


def portfolio_columns(config: EnvConfig) -> tuple[PortfolioColumn, ...]:
    """The columns that these rules show, in order.

    Raises
    ------
    ConfigError
        A name that is no column, or a column twice.
    """
    asked = tuple(PORTFOLIO_COLUMNS.find(name) for name in config.columns)
    names = [column.name for column in (*ALWAYS, *asked)]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"EnvConfig.columns shows {name!r} twice; leave one of them out")
    return (*(column for column in ALWAYS if column.shown(config)), *asked)


def as_shown(tape: MarketTape, config: EnvConfig) -> MarketTape:
    """The tape with names for what is shown: assets, or slots where some are drawn."""
    if not config.randomize.assets:
        return tape
    return replace(tape, symbols=tuple(f"slot{number}" for number in range(tape.num_assets)))


def portfolio_names(tape: MarketTape, config: EnvConfig) -> tuple[str, ...]:
    """Names of the P numbers that these rules show of a portfolio on this market."""
    symbols = as_shown(tape, config).symbols
    return tuple(name for column in portfolio_columns(config) for name in column.names(symbols))


def look(columns: tuple[PortfolioColumn, ...], standing: Standing, slots: Tensor) -> Tensor:
    """What the columns show [N, P], by slot and within bounds."""
    shown = torch.cat([column.look(standing, slots) for column in columns], dim=-1)
    return shown.clamp(-FEATURE_LIMIT, FEATURE_LIMIT)
