"""What every strategy of a history comes to: one number per strategy and metric."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from fastsim.backtest.history import History
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


class Costs(NamedTuple):
    """What each of N strategies paid, by kind. Positive is paid."""

    commission: Tensor  # [N]
    spread: Tensor  # [N]
    impact: Tensor  # [N]
    borrow: Tensor  # [N]

    @property
    def total(self) -> Tensor:
        """Everything paid [N]."""
        return self.commission + self.spread + self.impact + self.borrow


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
    costs: Costs  # account currency, over the whole history
    initial_wealth: Tensor  # [N]  account currency

    @property
    def relative_costs(self) -> Costs:
        """Costs as fractions of the initial wealth."""
        return Costs(*(paid / self.initial_wealth for paid in self.costs))


def summarize(
    history: History, *, periods_per_year: float = TRADING_DAYS, risk_free: float = 0.0
) -> Summary:
    """Judge every strategy of a history.

    Parameters
    ----------
    history
        N strategies over T steps.
    periods_per_year
        Steps a year, for everything annualised; `periods_per_year(history.timestamps)` infers it.
    risk_free
        Simple return per step that the Sharpe and Sortino ratios are measured against.

    Returns
    -------
    Summary
        Tensors [N]. Turnover is the mean of sum |traded| / wealth per step, times steps a year.
    """
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
        costs=Costs(
            commission=history.commission.sum(0),
            spread=history.spread.sum(0),
            impact=history.impact.sum(0),
            borrow=history.borrow.sum(0),
        ),
        initial_wealth=history.wealth[0],
    )
