"""The books: how a portfolio goes from one close to the next. The reference for every backend.

    h' = h (1 + r_before)          from close t to the fill
    V- = sum h' + c                wealth before trading
    V+ = V- - C(w V+ - h')         wealth after trading: weights w are exact after costs
    h+ = w V+,  c+ = V+ - sum h+
    c' = c+ (1 + interest) - borrow fee on shorts, over calendar days
    h  = h+ (1 + r_after)          from the fill to close t + 1

The third line is the self-financing equation (Jiang, Xu and Liang 2017, section 2.3, with a cost
function in place of a constant rate). Everything is a function of tensors, of any device and
floating-point type, and differentiable.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastsim.env.impact import (
    Displacement,
    ImpactConfig,
    drift,
    liquidation_value,
    mean_price,
    push,
)
from fastsim.market.costs import Friction, TradeCost, marginal_cost, trade_cost
from fastsim.market.tape import MarketTape

NEWTON_STEPS = 4


class Portfolio(NamedTuple):
    """All there is to know of N accounts; wealth and weights follow."""

    holdings: Tensor  # [N, A]  market value of each position, signed, account currency
    cash: Tensor  # [N]

    @property
    def wealth(self) -> Tensor:
        """Value of everything held [N]."""
        return self.holdings.sum(-1) + self.cash


class Conditions(NamedTuple):
    """What N accounts meet between two closes."""

    r_before: Tensor  # [N, A]  simple return from the close to the fill
    r_after: Tensor  # [N, A]  simple return from the fill to the next close
    tradable: Tensor  # [N, A]  bool
    dollars: Tensor  # [N, A]  traded value of the bar of the fill
    impact_scale: Tensor  # [N, A]  sigma / sqrt(average traded value)
    years: Tensor  # [N]
    interest: Tensor  # [N]  earned by a unit of cash
    market_return: Tensor  # [N]  simple return of the equal-weighted market


class Outcome(NamedTuple):
    """What happened between two closes, in account currency.

    Single orders are kept by the reference alone: fused backends leave `trade` and `holdings` None.
    """

    wealth_before: Tensor  # [N]  at the close of the decision
    wealth_at_fill: Tensor  # [N]  before trading
    wealth_traded: Tensor  # [N]  after trading and its costs
    wealth: Tensor  # [N]  at the next close
    turnover: Tensor  # [N]  traded value over the wealth before the trade, sum |dw|, both sides
    cost: TradeCost
    borrow: Tensor  # [N]
    interest: Tensor  # [N]
    ruined: Tensor  # [N]  bool: wealth was not positive at the fill or at the next close
    trade: Tensor | None = None  # [N, A]  bought (positive) and sold
    holdings: Tensor | None = None  # [N, A]  right after the trade


def conditions_at(tape: MarketTape, bar: Tensor) -> Conditions:
    """Look up what environments deciding at `bar` [N] will meet."""
    known, following = tape.known, tape.next
    return Conditions(
        r_before=following.r_before[bar],
        r_after=following.r_after[bar],
        tradable=following.tradable[bar],
        dollars=following.dollars[bar],
        impact_scale=known.sigma[bar] * known.dollar_volume[bar].rsqrt(),
        years=following.years[bar],
        interest=following.interest[bar],
        market_return=following.market_return[bar],
    )


def advance(
    portfolio: Portfolio, weights: Tensor, hold: Tensor, market: Conditions, friction: Friction
) -> tuple[Portfolio, Outcome]:
    """Trade to `weights` [N, A] of the wealth left after costs, then let the market move.

    An asset that cannot be traded keeps its position, cash pays for the rest, and the weights of
    the others are still exact. Where `hold` [N] or where wealth is not positive nothing trades.
    """
    holdings = portfolio.holdings * (1.0 + market.r_before)  # [N, A]
    before = holdings.sum(-1) + portfolio.cash  # [N]
    trade, cost = rebalance(before, holdings, weights, hold, market, friction)
    held = holdings + trade
    cash = portfolio.cash - trade.sum(-1) - cost.total
    cash, interest, borrow = accrue(cash, held, market, friction)
    moved = Portfolio(held * (1.0 + market.r_after), cash)
    return moved, Outcome(
        wealth_before=portfolio.wealth,
        wealth_at_fill=before,
        wealth_traded=before - cost.total,
        wealth=moved.wealth,
        turnover=turnover(trade, before),
        cost=cost,
        borrow=borrow,
        interest=interest,
        ruined=(before <= 0) | (moved.wealth <= 0),
        trade=trade,
        holdings=held,
    )


def advance_with_impact(
    portfolio: Portfolio,
    displacement: Displacement,
    weights: Tensor,
    hold: Tensor,
    market: Conditions,
    friction: Friction,
    config: ImpactConfig,
) -> tuple[Portfolio, Displacement, Outcome]:
    """`advance` where trades move prices: N = M P players, P of them in each of M markets.

    Orders of a market meet at once, net, and fill at one price. Wealth is liquidation value; an
    order does not change its player's own, so the self-financing equation is that of `advance`.
    """
    players = len(weights) // len(displacement.rate)

    def each(values: Tensor) -> Tensor:  # [M, A] to [N, A]
        return values.repeat_interleave(players, 0)

    start = worth(portfolio, each(displacement.rate))
    gross_return = (1.0 + market.r_before)[::players]
    displacement, growth = drift(displacement, gross_return, config)
    holdings = portfolio.holdings * each(growth)
    before = worth(Portfolio(holdings, portfolio.cash), each(displacement.rate))
    trade, cost = rebalance(before, holdings, weights, hold, market, friction)
    net = trade.view(-1, players, trade.shape[-1]).sum(1)  # [M, A]
    displacement, moved = push(displacement, net, config)
    cash = portfolio.cash - (trade * each(mean_price(moved))).sum(-1) - cost.total
    held = (holdings + trade) * each(moved.exp())
    traded = worth(Portfolio(held, cash), each(displacement.rate))
    cash, interest, borrow = accrue(cash, held, market, friction)
    after = Portfolio(held * (1.0 + market.r_after), cash)
    displacement = displacement._replace(rate=displacement.rate / (1.0 + market.r_after)[::players])
    wealth = worth(after, each(displacement.rate))
    return (
        after,
        displacement,
        Outcome(
            wealth_before=start,
            wealth_at_fill=before,
            wealth_traded=traded,
            wealth=wealth,
            turnover=turnover(trade, before),
            cost=cost,
            borrow=borrow,
            interest=interest,
            ruined=(before <= 0) | (wealth <= 0),
            trade=trade,
            holdings=held,
        ),
    )


def worth(portfolio: Portfolio, rate: Tensor) -> Tensor:
    """Wealth [N] with positions at what selling them now would bring; see `impact`."""
    return liquidation_value(portfolio.holdings, rate).sum(-1) + portfolio.cash


def rebalance(
    before: Tensor,
    holdings: Tensor,
    weights: Tensor,
    hold: Tensor,
    market: Conditions,
    friction: Friction,
) -> tuple[Tensor, TradeCost]:
    """Trades [N, A] to `weights` of what their cost leaves of `before` [N], and that cost."""
    frozen = ~market.tradable | (hold | (before <= 0))[:, None]
    limit = friction.participation[:, None] * market.dollars
    limit = torch.where(frozen, 0.0, limit)  # [N, A]
    after = post_cost_wealth(before, holdings, weights, limit, market.impact_scale, friction)
    trade = orders(after, holdings, weights, limit)
    return trade, trade_cost(trade, market.impact_scale, friction)


def accrue(
    cash: Tensor, held: Tensor, market: Conditions, friction: Friction
) -> tuple[Tensor, Tensor, Tensor]:
    """Cash after interest and the borrow fee on shorts, and both of them [N]."""
    interest = cash * market.interest
    borrow = friction.borrow * market.years * (-held).clamp_min(0.0).sum(-1)
    return cash + interest - borrow, interest, borrow


def turnover(trade: Tensor, before: Tensor) -> Tensor:
    """Traded value over wealth before the trade [N]; 0 where there is none."""
    return torch.where(before > 0, trade.abs().sum(-1) / before, 0.0)


def orders(after: Tensor, holdings: Tensor, weights: Tensor, limit: Tensor) -> Tensor:
    """Trades [N, A] that bring holdings to `weights` of `after` [N], within +-`limit` [N, A]."""
    return (weights * after[:, None] - holdings).clamp(-limit, limit)


def post_cost_wealth(
    before: Tensor,
    holdings: Tensor,
    weights: Tensor,
    limit: Tensor,
    impact_scale: Tensor,
    friction: Friction,
) -> Tensor:
    """Solve V+ = V- - C(w V+ - h) for V+ [N] by Newton's method from V-.

    Without limits g(x) = x + C(w x - h) - V- is convex and increasing while marginal cost times
    gross leverage is below one, so the iterates fall monotonically to the root. Only the last step
    is differentiated, at a root that the others have found: by the implicit function theorem its
    gradient is that of the root.
    """

    def excess(x: Tensor) -> Tensor:
        trade = orders(x, holdings, weights, limit)
        return x + trade_cost(trade, impact_scale, friction).total - before

    def slope(x: Tensor) -> Tensor:
        trade = orders(x, holdings, weights, limit)
        moving = trade.abs() < limit
        marginal = marginal_cost(trade, impact_scale, friction)
        return 1.0 + torch.where(moving, marginal * weights, 0.0).sum(-1)

    with torch.no_grad():
        x = before
        for _ in range(NEWTON_STEPS - 1):
            x = x - excess(x) / slope(x)
        steepness = slope(x)
    return x - excess(x) / steepness
