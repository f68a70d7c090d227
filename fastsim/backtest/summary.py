"""What every strategy of a history comes to: one number per strategy and metric."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastsim.backtest.history import History, check_history
from fastsim.config import require_positive
from fastsim.env.nested import transform
from fastsim.errors import ConfigError
from fastsim.stats.metrics import (
    annual_return,
    annual_volatility,
    calmar_ratio,
    max_drawdown,
    sharpe_ratio,
    sortino_ratio,
    total_return,
)
from fastsim.stats.years import TRADING_DAYS


class Summary(NamedTuple):
    """One number per strategy and metric. Returns, volatility and drawdown are fractions."""

    total_return: Tensor  # [N]
    annual_return: Tensor  # [N]
    annual_volatility: Tensor  # [N]
    sharpe_ratio: Tensor  # [N]
    sortino_ratio: Tensor  # [N]
    max_drawdown: Tensor  # [N]  <= 0
    calmar_ratio: Tensor  # [N]
    turnover: Tensor  # [N]  traded value per year, in multiples of wealth
    costs: Mapping[str, Tensor]  # [N] each, by the name of the cost part; account currency
    initial_wealth: Tensor  # [N]  account currency

    @property
    def cost(self) -> Tensor:
        """Everything paid over the whole history [N]."""
        return sum(self.costs.values(), torch.zeros_like(self.turnover))

    @property
    def relative_cost(self) -> Tensor:
        """Everything paid, as a fraction of the initial wealth [N]."""
        return self.cost / self.initial_wealth


class YearOfReturns(NamedTuple):
    """Simple returns of one calendar year; None where the history has no step in a month."""

    year: int
    months: tuple[float | None, ...]  # 12
    total: float


def summarize(
    history: History, *, periods_per_year: float = TRADING_DAYS, risk_free: float = 0.0
) -> Summary:
    """Judge every strategy of a history.

    Parameters
    ----------
    history
        N strategies over T steps.
    periods_per_year
        Steps a year, for everything annualised; such as `history.steps_per_year`.
    risk_free
        Simple return per step that the Sharpe and Sortino ratios are measured against.

    Returns
    -------
    Summary
        Tensors [N]. Turnover is the mean of sum |traded| / wealth per step, times steps a year.

    Raises
    ------
    ConfigError, DataError
        The history cannot be judged (see `check_history`), or a setting is out of range.
    """
    check_history(history)
    require_positive("periods_per_year", periods_per_year)
    if not (isfinite(risk_free) and risk_free > -1.0):
        raise ConfigError(f"risk_free is a simple return per step, > -1, got {risk_free!r}")
    returns = history.simple_returns  # [T, N]
    scale = {"periods_per_year": periods_per_year}
    return Summary(
        total_return=total_return(returns),
        annual_return=annual_return(returns, **scale),
        annual_volatility=annual_volatility(returns, **scale),
        sharpe_ratio=sharpe_ratio(returns, risk_free=risk_free, **scale),
        sortino_ratio=sortino_ratio(returns, required_return=risk_free, **scale),
        max_drawdown=max_drawdown(returns),
        calmar_ratio=calmar_ratio(returns, **scale),
        turnover=history.turnover.mean(0) * periods_per_year,
        costs={name: paid.sum(0) for name, paid in history.costs.items()},
        initial_wealth=history.wealth[0].to(history.turnover),
    )


def mean_of_rest(summary: Summary, count: int) -> Summary:
    """The first `count` strategies as they are, and the mean of every figure over the others.

    A strategy of which a figure is no finite number, such as the Sharpe ratio of an asset that
    never traded, is left out of its mean, unless it is so of all.
    """

    def shorten(figure: Tensor) -> Tensor:
        rest, told = figure[count:], figure[count:].isfinite()
        mean = rest[told].mean(0, keepdim=True) if told.any() else rest.nanmean(0, keepdim=True)
        return torch.cat([figure[:count], mean])

    return transform(shorten, summary)


def monthly_returns(history: History, focus: str) -> list[YearOfReturns]:
    """Compound the simple returns of one strategy within each calendar month and year.

    A step belongs to the month of the close it is marked at.

    Raises
    ------
    ConfigError
        If no strategy is called `focus`.
    """
    returns = history.simple_returns[:, history.column(focus, "focus")]
    growth = 1.0 + np.nan_to_num(returns.detach().cpu().double().numpy())  # [T]
    month_numbers = history.timestamps[1:].astype("datetime64[M]").astype(int)  # since 1970-01
    table = []
    for year in np.unique(month_numbers // 12):
        months = [
            float(growth[rows].prod()) - 1.0 if (rows := month_numbers == month).any() else None
            for month in range(12 * year, 12 * year + 12)
        ]
        total = float(growth[month_numbers // 12 == year].prod()) - 1.0
        table.append(YearOfReturns(1970 + int(year), tuple(months), total))
    return table
