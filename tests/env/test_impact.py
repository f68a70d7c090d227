"""Trades that move prices: what they cost, and that nobody earns from moving them."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from worlds import grid, still_market

from fastsim.env.accounting import Portfolio, Terms, advance, lone, worth
from fastsim.env.impact import (
    Displacement,
    ImpactConfig,
    drift,
    liquidation_value,
    mean_price,
    push,
    undisturbed,
)
from fastsim.env.orders import Wish
from fastsim.market.costs import CostConfig, make_friction, total

FREE = make_friction(
    CostConfig(fee_bps=0, half_spread_bps=0, impact=0, participation=1e12, borrow_bps_per_year=0),
    1,
    dtype=torch.float64,
)


def column(*values):
    return torch.tensor(values, dtype=torch.float64).reshape(1, -1)


def trade_schedule(orders, config, returns=None):
    """Cash left after trading `orders`, in shares of an asset that starts at 1 and 1e-3 a share."""
    rate = column(1e-3 * (config.transient + config.permanent))
    state, price, cash = Displacement(torch.zeros_like(rate), rate), column(1.0), 0.0
    for number, shares in enumerate(orders):
        gross = column(1.0 if returns is None else 1.0 + returns[number])
        state, growth = drift(state, gross, config)
        price = price * growth
        state, moved = push(state, shares * price, config)
        cash = cash - float(shares * price * mean_price(moved))
        price = price * moved.exp()
    return cash


@given(st.lists(grid(-100, 100, ticks=1), min_size=1, max_size=8), grid(0.0, 2.0), grid(0.0, 2.0))
def test_no_round_trip_earns_anything(orders, transient, permanent):
    if transient + permanent == 0:
        return
    config = ImpactConfig(transient=transient, permanent=permanent, half_life=2.0)
    closed = [*orders, -sum(orders)]
    assert trade_schedule(closed, config) <= 1e-9 * sum(order**2 for order in closed) + 1e-9


def test_no_round_trip_of_an_exhaustive_grid_earns_anything():
    config = ImpactConfig(transient=1.0, permanent=0.3, half_life=1.5)
    sizes = (-60, -20, 0, 20, 60)
    for orders in itertools.product(sizes, repeat=4):
        assert trade_schedule([*orders, -sum(orders)], config) <= 1e-9


def test_a_permanent_round_trip_costs_nothing_however_it_is_cut():
    config = ImpactConfig(permanent=1.0)
    for orders in ([50, -50], [10, 40, -30, -20], [-25, 75, -50]):
        assert trade_schedule(orders, config) == pytest.approx(0.0, abs=1e-9)


def test_a_transient_round_trip_costs_what_has_decayed():
    config = ImpactConfig(transient=1.0, half_life=1.0)
    shares, rate = 100.0, 1e-3
    x = shares * rate  # displacement of the order
    bought = shares * (torch.tensor(x).expm1() / x)
    start = torch.tensor(0.5 * x).exp()  # half of it has decayed
    sold = shares * start * (1 - torch.exp(torch.tensor(-x * 1.0))) / x
    assert trade_schedule([100, -100], config) == pytest.approx(float(sold - bought), rel=1e-5)


def account(portfolio, displacement):
    return lone(portfolio)._replace(displacement=displacement)


@given(grid(-1, 1), grid(-0.5, 0.5), grid(0.0, 2.0), grid(0.0, 2.0))
def test_an_order_leaves_its_players_own_wealth_alone(held, order, transient, permanent):
    """Buying up one's own price is worth nothing: positions are worth what selling them brings."""
    if transient + permanent == 0:
        return
    config = ImpactConfig(transient=transient, permanent=permanent)
    state = undisturbed(config, column(0.3), column(2.0))
    before = worth(account(Portfolio(column(held), torch.zeros(1).double()), state))
    after_push, moved = push(state, column(order), config)
    paid = order * mean_price(moved)
    holdings = (held + order) * moved.exp()
    after = worth(account(Portfolio(holdings, -paid.squeeze(1)), after_push))
    torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-12)


def test_liquidation_brings_the_mean_price_on_the_way_down():
    holdings, rate = column(1000.0), column(1e-4)
    config = ImpactConfig(permanent=1.0)
    _, moved = push(Displacement(torch.zeros_like(rate), rate), -holdings, config)
    brought = holdings * mean_price(moved)
    torch.testing.assert_close(liquidation_value(holdings, rate), brought)
    assert float(brought) == pytest.approx((1 - 2.718281828 ** (-0.1)) / 1e-4, rel=1e-9)


def test_half_of_the_transient_displacement_is_left_after_a_half_life():
    config = ImpactConfig(transient=1.0, half_life=4.0)
    state, mid = Displacement(column(0.2), column(1e-6)), 1.0
    for _ in range(4):
        state, growth = drift(state, column(1.0), config)
        mid *= float(growth)
    assert float(state.transient) == pytest.approx(0.1)
    assert mid == pytest.approx(2.718281828 ** (-0.1), rel=1e-8)


def market(assets=2, **changes):
    return still_market(1, assets, **changes)


def advance_with(portfolio, displacement, weights, market, friction, config):
    """One step of accounts that move prices: portfolio, displacement and outcome."""
    wish = Wish(weights, torch.zeros(len(weights), dtype=torch.bool))
    start, terms = account(portfolio, displacement), Terms(impact=config)
    after, outcome = advance(start, wish, market, friction, terms)
    return after.portfolio, after.displacement, outcome


def test_without_impact_the_books_are_those_of_the_plain_step():
    generator = torch.Generator().manual_seed(0)
    returns = 0.02 * torch.randn(2, 1, 2, generator=generator, dtype=torch.float64)
    moving = market(r_before=returns[0], r_after=returns[1])
    portfolio = Portfolio(column(300.0, 500.0), torch.full((1,), 200.0).double())
    weights = column(0.5, 0.2)
    none, tiny = ImpactConfig(), ImpactConfig(transient=1e-9)
    nothing = undisturbed(none, column(0.01, 0.02), column(1e9, 1e9))
    plain, _, outcome = advance_with(portfolio, nothing, weights, moving, FREE, none)
    state = undisturbed(tiny, column(0.01, 0.02), column(1e9, 1e9))
    moved, _, same = advance_with(portfolio, state, weights, moving, FREE, tiny)
    torch.testing.assert_close(moved.holdings, plain.holdings, rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(same.wealth, outcome.wealth, rtol=1e-12, atol=1e-9)


def test_trading_costs_no_liquidation_wealth_and_reaches_the_weights():
    config = ImpactConfig(transient=0.5, permanent=0.5)
    state = undisturbed(config, column(0.02, 0.02), column(1e5, 1e5))
    portfolio = Portfolio(column(0.0, 0.0), torch.full((1,), 1e5).double())
    after, moved, outcome = advance_with(portfolio, state, column(0.6, 0.4), market(), FREE, config)
    torch.testing.assert_close(outcome.wealth, outcome.wealth_before, rtol=1e-12, atol=1e-6)
    assert (after.holdings > column(6e4, 4e4)).all()  # marked at the price it pushed up
    torch.testing.assert_close(outcome.trade, column(6e4, 4e4))
    assert (moved.transient > 0).all()


def test_players_meet_in_one_market_at_one_price_whatever_their_order():
    config = ImpactConfig(transient=0.4, permanent=0.2)
    state = undisturbed(config, column(0.02, 0.03), column(1e5, 2e5))
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(3, 2, generator=generator, dtype=torch.float64) / 2
    cash = torch.tensor([1e5, 2e5, 5e4]).double()
    friction = make_friction(CostConfig(), 3, dtype=torch.float64)
    still = still_market(3, 2)
    start = Portfolio(torch.zeros(3, 2).double(), cash)
    one, moved, outcome = advance_with(start, state, weights, still, friction, config)
    order = torch.tensor([2, 0, 1])
    shuffled = Portfolio(start.holdings[order], cash[order])
    other, same, _ = advance_with(shuffled, state, weights[order], still, friction, config)
    torch.testing.assert_close(other.holdings, one.holdings[order], rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(other.cash, one.cash[order], rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(same.rate, moved.rate)
    fill = (cash - one.cash - total(outcome.cost)) / outcome.trade.sum(-1)
    single = outcome.trade[:, :1] > 0
    assert single.all() and (fill > 1).all()


def test_two_players_who_trade_against_each_other_move_nothing():
    config = ImpactConfig(transient=1.0)
    state = undisturbed(config, column(0.02), column(1e5))
    start = Portfolio(torch.tensor([[1e4], [0.0]]).double(), torch.tensor([0.0, 1e4]).double())
    friction = make_friction(
        CostConfig(fee_bps=0, half_spread_bps=0, impact=0, participation=1e12),
        2,
        dtype=torch.float64,
    )
    weights = torch.tensor([[0.0], [0.0]]).double()
    before = worth(account(start, state))
    weights[1, 0] = 1e4 / before[1]
    weights[0, 0] = 0.0
    _, moved, outcome = advance_with(start, state, weights, still_market(2, 1), friction, config)
    torch.testing.assert_close(outcome.trade, torch.tensor([[-1e4], [1e4]]).double())
    assert float(moved.transient) == 0.0
