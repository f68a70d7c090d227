"""Orders: what is filled, what stays open, what they cost one by one, and when brokers step in."""

from __future__ import annotations

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from worlds import (
    FREE,
    SHORT_FEATURES,
    Moment,
    grid,
    moments,
    random_bars,
    still_market,
    tensors,
    weekdays,
)

from fastsim.config import from_mapping
from fastsim.data.bars import Bars
from fastsim.env.accounting import Portfolio, Terms, advance, lone
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.impact import ImpactConfig, undisturbed
from fastsim.env.orders import OrderConfig, Wish
from fastsim.env.randomize import RandomizeConfig
from fastsim.errors import ActionError, ConfigError, DataError
from fastsim.market.costs import CostConfig, Venue, make_friction, total
from fastsim.market.tape import TapeConfig, make_tape

FROM_THE_START = EpisodeConfig(horizon=None, random_start=False)
CARRY, WHOLE = OrderConfig(unfilled="carry"), OrderConfig(whole_shares=True)


def row(*values):
    return torch.tensor([values], dtype=torch.float64)


def friction(rows=1, **costs):
    return make_friction(replace(FREE, **costs), rows, dtype=torch.float64)


def flat_bars(length=12, price=100.0, volume=1000.0, assets=1):
    prices = np.full((length, assets), price)
    return Bars(
        symbols=tuple("XYZ"[:assets]),
        timestamps=weekdays(length),
        close=prices,
        open=prices.copy(),
        high=prices.copy(),
        low=prices.copy(),
        volume=np.full((length, assets), volume),
    )


def make_env(bars, orders, costs=FREE, *, tape=None, **rules):
    settings = TapeConfig(features=SHORT_FEATURES, **tape or {})
    market = make_tape(bars, settings, dtype=torch.float64)
    config = EnvConfig(orders=orders, costs=costs, episode=FROM_THE_START, **rules)
    env = PortfolioEnv(market, 1, config)
    env.reset(0)
    return env


HOLD = torch.full((1, 1), torch.nan).double()


@pytest.mark.parametrize(
    ("orders", "expected"), [(CARRY, [300, 600, 900, 1000, 1000]), (OrderConfig(), [300] * 5)]
)
def test_the_rest_of_an_order_is_filled_in_the_bars_that_follow_or_dropped(orders, expected):
    # 1,000 shares trade in a bar and 30 % of them may be ours; 1,000 are wanted.
    env = make_env(flat_bars(), orders, replace(FREE, participation=0.3), initial_cash=1e5)
    shares = []
    for action in (row(1.0), HOLD, HOLD, HOLD, HOLD):
        env.step(action)
        shares.append(float(env.state.portfolio.holdings) / 100)
    assert shares == pytest.approx(expected)


def test_new_weights_replace_what_is_still_open():
    env = make_env(flat_bars(), CARRY, replace(FREE, participation=0.3), initial_cash=1e5)
    env.step(row(1.0))
    env.step(row(0.1))
    assert float(env.state.portfolio.holdings) == pytest.approx(1e4)
    assert not env.state.open_orders.any()


def test_an_order_waits_out_a_halt_and_is_worth_so_many_shares_meanwhile():
    bars = flat_bars(length=12)
    for prices in (bars.open, bars.high, bars.low, bars.close):
        prices[7:] = 120.0
    for prices in (bars.open, bars.high, bars.low, bars.close, bars.volume):
        prices[6] = np.nan
    env = make_env(bars, CARRY, initial_cash=1e5)
    env.step(row(0.5))  # nothing trades in bar 6
    assert float(env.state.portfolio.holdings) == 0.0
    env.step(HOLD)
    assert float(env.state.portfolio.holdings) == pytest.approx(500 * 120)


def test_a_row_of_nan_is_no_mistake_where_it_leaves_orders_open():
    action = torch.tensor([[torch.nan, torch.nan], [torch.nan, 0.5], [0.5, 0.5]]).double()
    tape = make_tape(flat_bars(assets=2), TapeConfig(features=SHORT_FEATURES), dtype=torch.float64)
    for orders, mistakes in ((CARRY, [0, 1, 0]), (OrderConfig(), [1, 1, 0])):
        env = PortfolioEnv(tape, 3, EnvConfig(orders=orders, episode=FROM_THE_START))
        env.reset(0)
        env.step(action)
        assert env.state.invalid_actions.tolist() == mistakes


@pytest.mark.long
def test_one_person_leaves_orders_open_with_nan_alone():
    env = gymnasium.make(
        "fastsim/Portfolio-v0",
        market=flat_bars(length=200),
        orders={"unfilled": "carry"},
        costs={"participation": 0.3},
        episode={"horizon": 20},
        initial_cash=1e5,
        disable_env_checker=True,
    )
    env.reset(seed=0)
    env.step(np.array([1.0], dtype=np.float32))
    env.step(np.array([np.nan], dtype=np.float32))
    assert float(env.unwrapped.env.state.portfolio.holdings) == pytest.approx(6e4, rel=1e-5)
    with pytest.raises(ActionError, match="finite"):
        env.step(np.array([np.inf], dtype=np.float32))


def test_agents_see_what_is_open():
    env = make_env(flat_bars(), CARRY, replace(FREE, participation=0.3), initial_cash=1e5)
    seen = env.step(row(1.0)).observation.portfolio[0]
    names = env.observation_names[-len(seen) :]
    assert names[-2:] == ("displacement.X", "order.X")
    assert float(seen[names.index("weight.X")]) == pytest.approx(0.3)
    assert float(seen[names.index("order.X")]) == pytest.approx(0.7)


@given(moments(), st.data())
def test_what_is_filled_and_what_stays_open_make_the_order(moment, data):
    shape = moment.weights.shape
    dollars = data.draw(tensors(shape, 0, 2)) * moment.portfolio.wealth[:, None]
    market = moment.market._replace(dollars=dollars)
    wish = Wish(moment.weights, torch.zeros(shape[0], dtype=torch.bool))
    account = lone(moment.portfolio)._replace(open_orders=torch.zeros(shape).double())
    after, outcome = advance(account, wish, market, moment.friction, Terms(orders=CARRY))
    still = 1.0 + market.r_after
    wanted = moment.weights * outcome.wealth_traded[:, None]
    scale = outcome.wealth_at_fill[:, None]
    error = (outcome.holdings + after.open_orders / still - wanted) / scale
    assert error.abs().max() < 1e-11
    assert (outcome.trade * after.open_orders >= 0).all()  # the rest is of the same side


def test_open_orders_move_with_a_price_that_others_push():
    impact = ImpactConfig(transient=1.0)
    state = undisturbed(impact, row(0.02), row(1e5))
    portfolio = Portfolio(torch.zeros(2, 1).double(), torch.tensor([1e5, 1e5]).double())
    account = lone(portfolio)._replace(
        displacement=state, open_orders=torch.tensor([[0.0], [5e3]]).double()
    )
    wish = Wish(torch.tensor([[0.5], [0.0]]).double(), torch.tensor([False, True]))
    halted = still_market(2, 1, dollars=torch.tensor([[torch.inf], [0.0]]).double())
    after, _ = advance(account, wish, halted, friction(2, participation=1.0), Terms(impact, CARRY))
    pushed = state.rate / after.displacement.rate  # growth of the price
    assert float(pushed) > 1.0
    torch.testing.assert_close(after.open_orders[1:], 5e3 * pushed)


@given(moments(signed=False), st.data())
def test_whole_shares_stay_within_a_share_of_the_weights_and_leave_no_debt(moment, data):
    price = data.draw(tensors(moment.weights.shape, 0.5, 50.0, ticks=2))
    market = moment.market._replace(price=price, r_before=torch.zeros_like(moment.market.r_before))
    cash = Portfolio(torch.zeros_like(moment.weights), moment.portfolio.wealth)
    moment = moment._replace(portfolio=cash, market=market)
    _, exact = moment.advance()
    _, outcome = moment.advance(orders=WHOLE)
    shares = outcome.trade / price
    torch.testing.assert_close(shares, shares.round(), rtol=1e-12, atol=1e-9)
    short_of = (exact.holdings - outcome.holdings) / price
    assert (short_of > -1e-3).all() and (short_of < 1.001).all()
    spent = outcome.holdings.sum(-1) + total(outcome.cost)
    assert (spent <= outcome.wealth_at_fill * (1 + 1e-12)).all()


def test_whole_shares_sell_up_and_buy_down_and_close_to_the_last_fraction():
    held, price = row(1050.0, 1000.0, 255.0, 0.0), row(100.0, 100.0, 100.0, 30.0)
    portfolio = Portfolio(held, row(7695.0)[0])  # worth 10,000
    moment = Moment(
        portfolio, row(0.0820, 0.1234, 0.0, 0.1), still_market(1, 4, price=price), friction()
    )
    _, outcome = moment.advance(orders=WHOLE)
    # 10.5 shares become 8.2: 3 are sold. 10 become 12.34: 2 are bought. 2.55 are all sold.
    assert outcome.trade[0].tolist() == pytest.approx([-300.0, 200.0, -255.0, 990.0])


@pytest.mark.long
def test_accounts_of_whole_shares_do_not_trade_when_they_repeat_their_weights():
    tape = make_tape(random_bars(60, 5), TapeConfig(fill="close", features=SHORT_FEATURES))
    config = EnvConfig(orders=WHOLE, costs=FREE, episode=FROM_THE_START, initial_cash=1e6)
    env = PortfolioEnv(tape, 1, config, single_orders=True)
    env.reset(0)
    env.step(torch.full((1, 5), 0.19))
    for _ in range(30):
        held = env.state.portfolio
        outcome = env.step(held.holdings / held.wealth[:, None]).outcome
        assert not outcome.trade.any()


def test_a_share_is_counted_at_its_price_as_traded():
    bars = replace(flat_bars(price=7.0), adj_close=np.full((12, 1), 3.5))
    env = make_env(bars, WHOLE, initial_cash=100.0)
    env.step(row(1.0))
    assert float(env.state.portfolio.holdings) == pytest.approx(98.0)  # 14 shares of 7


@pytest.mark.parametrize(
    ("shares", "price", "commission"),
    # Interactive Brokers' examples of fixed pricing: 0.005 a share, at least 1 an order.
    [(100, 25.0, 1.0), (1000, 25.0, 5.0), (1000, 0.5, 5.0)],
)
@pytest.mark.parametrize("side", [1, -1])
def test_commission_is_by_the_share_and_at_least_its_minimum(shares, price, commission, side):
    costs = friction(fee_per_share=0.005, minimum_fee=1.0)
    trade = row(side * shares * price, 0.0)
    cost = Venue(still_market(1, 2, price=row(price, price)), costs).charge(trade)
    assert float(cost["commission"]) == pytest.approx(commission)
    assert float(total(cost)) == pytest.approx(commission)


def test_an_order_worth_less_than_its_minimum_commission_is_not_placed():
    costs = friction(minimum_fee=1.0)
    moment = Moment(
        Portfolio(row(500.0, 300.0), row(200.0)[0]), row(0.5005, 0.35), still_market(1, 2), costs
    )
    _, outcome = moment.advance()
    assert outcome.trade[0, 0] == 0.0
    assert float(outcome.trade[0, 1]) == pytest.approx(0.35 * 999 - 300)
    assert float(outcome.cost["commission"]) == 1.0


@pytest.mark.long
def test_large_accounts_in_float32_trade_no_shares_without_an_order():
    tape = make_tape(flat_bars(price=50.0, volume=1e9), TapeConfig(features=SHORT_FEATURES))
    config = EnvConfig(
        orders=WHOLE, costs=replace(FREE, minimum_fee=1.0), episode=FROM_THE_START, initial_cash=1e8
    )
    env = PortfolioEnv(tape, 1, config, single_orders=True)
    env.reset(0)
    env.step(torch.tensor([[0.99]]))
    held = env.state.portfolio
    for _ in range(5):
        outcome = env.step(torch.tensor([[torch.nan]])).outcome
        assert not outcome.trade.any() and not total(outcome.cost).any()
    torch.testing.assert_close(env.state.portfolio, held, rtol=0, atol=0)


def test_whole_shares_never_cost_more_than_there_is():
    market = still_market(1, 1, price=row(10_000.0))
    moment = Moment(Portfolio(row(0.0), row(9999.5)[0]), row(1.0), market, friction())
    _, outcome = moment.advance(orders=WHOLE)
    assert not outcome.trade.any()


@given(moments(signed=False, borrow=0.0), grid(0.0, 0.3))
def test_least_commissions_leave_no_debt_but_for_what_is_too_little_to_sell(moment, share):
    moment = moment.with_market(r_before=torch.zeros_like(moment.market.r_before))
    wealth = moment.portfolio.wealth
    moment = moment.with_friction(
        minimum=share * wealth / moment.weights.shape[1], per_share=torch.zeros_like(wealth)
    )
    _, outcome = moment.advance()
    cash = outcome.wealth_traded - outcome.holdings.sum(-1)
    kept = ((outcome.trade == 0) & (outcome.holdings > 0)).sum(-1)  # too little of each to sell
    assert (cash >= -1e-9 * wealth - kept * moment.friction.minimum).all()


def test_open_orders_are_filled_as_far_as_cash_goes():
    bars = flat_bars(length=12)
    for prices in (bars.open, bars.high, bars.low, bars.close):
        prices[7:] = 200.0
    for prices in (bars.open, bars.high, bars.low, bars.close, bars.volume):
        prices[6] = np.nan
    costs = replace(FREE, fee_bps=100.0)
    env = make_env(bars, CARRY, costs, initial_cash=1e4)
    env.step(row(1.0))
    env.step(HOLD)
    portfolio = env.state.portfolio
    assert 0.0 <= float(portfolio.cash) < 200.0  # the fee of the whole order was kept for it
    assert float(portfolio.wealth) == pytest.approx(1e4 - 0.01 * float(portfolio.holdings))


@given(moments(borrow=0.0), grid(0.0, 0.05), grid(0.0, 0.01))
def test_weights_are_exact_after_commissions_by_order(moment, per_share, minimum):
    rows = len(moment.weights)
    wealth = moment.portfolio.wealth
    moment = moment.with_friction(
        per_share=torch.full((rows,), per_share).double(), minimum=minimum * wealth * 1e-2
    )
    moment = moment.with_market(price=2.0 + moment.weights.abs())
    _, outcome = moment.advance()
    reached = outcome.holdings / outcome.wealth_traded[:, None]
    placed = outcome.trade != 0
    torch.testing.assert_close(reached[placed], moment.weights[placed], rtol=0, atol=1e-9)
    error = outcome.wealth_traded - (outcome.wealth_at_fill - total(outcome.cost))
    assert (error.abs() / wealth).max() < 1e-12


def fallen(weight=2.0, drop=-0.2, margin=0.4, **costs):
    """An account of 1,000 in one asset that falls, with a margin to maintain."""
    market = still_market(1, 1, r_after=row(drop))
    wish = Wish(row(weight), torch.zeros(1, dtype=torch.bool))
    account = lone(Portfolio(row(0.0), row(1000.0)[0]))
    terms = Terms(orders=OrderConfig(maintenance_margin=margin))
    return advance(account, wish, market, friction(**costs), terms, still_market(1, 1))


def test_a_margin_call_cuts_positions_to_what_wealth_covers():
    # 2,000 in stock become 1,600 and wealth 600, which covers 600 / 0.4 = 1,500.
    after, outcome = fallen()
    assert float(after.portfolio.holdings) == pytest.approx(1500.0)
    assert float(after.portfolio.cash) == pytest.approx(-900.0)
    assert float(outcome.wealth) == pytest.approx(600.0)


@pytest.mark.parametrize(
    "costs", [{"minimum_fee": 20.0}, {"fee_per_share": 0.01}, {"impact": 1.0, "fee_bps": 50.0}]
)
def test_a_margin_is_covered_after_its_call_whatever_it_costs(costs):
    closing = still_market(1, 1, impact_scale=row(0.002), price=row(0.8))
    account = lone(Portfolio(row(1600.0), row(-1000.0)[0]))
    wish = Wish(row(0.0), torch.ones(1, dtype=torch.bool))
    terms = Terms(orders=OrderConfig(maintenance_margin=0.4))
    after, outcome = advance(account, wish, still_market(1, 1), friction(**costs), terms, closing)
    paid = float(total(outcome.margin_call.cost))
    assert paid > 0 and float(outcome.wealth) == pytest.approx(600.0 - paid)
    left = float(outcome.wealth) - 0.4 * float(after.portfolio.holdings)
    assert -1e-9 < left < 1e-9 + costs.get("minimum_fee", 0.0)


def test_a_margin_call_has_its_price():
    # Selling a share x of G = 1,600 costs k x G, and V - k x G = m (1 - x) G is to hold after it.
    free, _ = fallen()
    wealth, gross, rate, margin = 600.0, 1600.0, 0.01, 0.4
    sold = (margin * gross - wealth) / ((margin - rate) * gross)
    market = still_market(1, 1, r_after=row(-0.2))
    account = lone(Portfolio(row(2000.0), row(-1000.0)[0]))
    terms = Terms(orders=OrderConfig(maintenance_margin=margin))
    wish = Wish(row(0.0), torch.ones(1, dtype=torch.bool))
    after, outcome = advance(
        account, wish, market, friction(fee_bps=100.0), terms, still_market(1, 1)
    )
    assert float(after.portfolio.holdings) == pytest.approx((1 - sold) * gross)
    paid = float(total(outcome.margin_call.cost))
    assert paid == pytest.approx(rate * sold * gross)
    assert float(outcome.wealth) == pytest.approx(wealth - paid)
    assert float(outcome.total_cost) == pytest.approx(paid)
    assert float(free.portfolio.holdings) > float(after.portfolio.holdings)


def test_whole_shares_and_margins_bear_an_asset_that_comes_to_nothing():
    bars = flat_bars(assets=2)
    for prices in (bars.open, bars.high, bars.low, bars.close, bars.volume):
        prices[9:, 1] = np.nan  # its last bar is bar 8
    orders = OrderConfig(whole_shares=True, maintenance_margin=0.45)
    rules = {"action": "signed", "max_gross": 2.0, "initial_cash": 1e5}
    env = make_env(bars, orders, tape={"delisting_haircut": 1.0}, **rules)
    for _ in range(4):
        env.step(row(1.0, 0.5) / 1.5)
    # 666 shares of one asset and 333 of the other, of which nothing is left.
    portfolio = env.state.portfolio
    assert float(portfolio.wealth) == pytest.approx(1e5 - 333 * 100)
    assert portfolio.holdings[0].tolist() == pytest.approx([666 * 100, 0.0])


@pytest.mark.parametrize("rate", [0.05, 0.3, 2.0])
def test_a_margin_call_sells_all_where_selling_costs_more_than_it_frees(rate):
    # Costs of 1,000 bp and impact eat what a margin of 10 % would free.
    market = still_market(1, 1, impact_scale=row(rate / 1000**0.5))
    account = lone(Portfolio(row(9000.0), row(-8300.0)[0]))
    terms = Terms(orders=OrderConfig(maintenance_margin=0.1))
    wish = Wish(row(0.0), torch.ones(1, dtype=torch.bool))
    costs = friction(fee_bps=1000.0, impact=1.0)
    after, outcome = advance(account, wish, still_market(1, 1), costs, terms, market)
    assert float(after.portfolio.holdings) == pytest.approx(0.0, abs=1e-6)
    assert outcome.wealth.isfinite().all() and (outcome.margin_call.trade <= 0).all()


def test_a_price_pushed_up_before_a_delisting_pays_nobody():
    impact = ImpactConfig(permanent=5.0)
    state = undisturbed(impact, row(0.02), row(1e6))
    account = lone(Portfolio(row(0.0), row(1e6)[0]))._replace(displacement=state)
    gone = still_market(1, 1, delisted=torch.tensor([[True]]))
    wish = Wish(row(0.9), torch.zeros(1, dtype=torch.bool))
    after, outcome = advance(account, wish, gone, friction(), Terms(impact))
    assert float(outcome.trade) > 1e5
    assert float(after.portfolio.cash) == pytest.approx(1e6)


def test_a_halt_at_the_end_of_the_data_is_no_delisting():
    bars = flat_bars(assets=2)
    for prices in (bars.open, bars.high, bars.low, bars.close, bars.volume):
        prices[-2:, 1] = np.nan
    config = TapeConfig(features=SHORT_FEATURES, delisting_haircut=0.5)
    assert "delisted" not in make_tape(bars, config).next


def test_a_short_is_bought_back_when_its_margin_is_called():
    after, outcome = fallen(weight=-1.0, drop=0.3, margin=0.6)
    # Short of 1,300 with wealth 700, which covers 1,166.67.
    assert float(after.portfolio.holdings) == pytest.approx(-700 / 0.6)
    assert float(outcome.margin_call.trade) > 0


@given(moments(signed=False))
def test_who_owes_nothing_is_never_called(moment):
    wish = Wish(moment.weights, torch.zeros(len(moment.weights), dtype=torch.bool))
    terms = Terms(orders=OrderConfig(maintenance_margin=0.9))
    free = make_friction(FREE, len(moment.weights), dtype=torch.float64)
    _, outcome = advance(
        lone(moment.portfolio), wish, moment.market._replace(interest=0 * moment.market.interest),
        free, terms, moment.market,
    )  # fmt: skip
    assert not outcome.margin_call.trade.any()


def test_what_cannot_be_sold_stays_when_margin_is_called_and_the_rest_goes_in_its_place():
    market = still_market(1, 2, r_after=row(-0.2, -0.2))
    wish = Wish(row(1.0, 1.0), torch.zeros(1, dtype=torch.bool))
    account = lone(Portfolio(row(0.0, 0.0), row(1000.0)[0]))
    terms = Terms(orders=OrderConfig(maintenance_margin=0.4))
    closing = still_market(1, 2, tradable=torch.tensor([[True, False]]))
    after, _ = advance(account, wish, market, friction(), terms, closing)
    assert after.portfolio.holdings[0].tolist() == pytest.approx([700.0, 800.0])


def test_players_who_are_called_sell_into_the_market_they_share():
    impact = ImpactConfig(permanent=1.0)
    state = undisturbed(impact, row(0.02), row(1e6))
    portfolio = Portfolio(
        torch.tensor([[2000.0], [500.0]]).double(), torch.tensor([-1000.0, 500.0]).double()
    )
    account = lone(portfolio)._replace(displacement=state)
    wish = Wish(torch.zeros(2, 1).double(), torch.ones(2, dtype=torch.bool))
    fall = still_market(2, 1, r_after=torch.full((2, 1), -0.2).double())
    terms = Terms(impact, OrderConfig(maintenance_margin=0.4))
    after, outcome = advance(account, wish, fall, friction(2), terms, still_market(2, 1))
    sold = -outcome.margin_call.trade[:, 0]
    assert sold[0] > 0 and sold[1] == 0
    # The other's shares are worth less by what the forced sale moved: rate per unit sold.
    moved = float(state.rate) / 0.8 * float(sold[0])
    assert float(after.portfolio.holdings[1]) == pytest.approx(400 * np.exp(-moved))


def test_each_short_pays_the_fee_of_its_asset():
    market = still_market(
        1, 3, years=torch.tensor([0.5]).double(), borrow=row(0.03, torch.nan, 0.10)
    )
    wish = Wish(row(-0.2, -0.1, 0.3), torch.zeros(1, dtype=torch.bool))
    account = lone(Portfolio(row(0.0, 0.0, 0.0), row(1000.0)[0]))
    _, outcome = advance(account, wish, market, friction(borrow_bps_per_year=50.0))
    assert float(outcome.borrow) == pytest.approx(0.5 * (200 * 0.03 + 100 * 0.005))


@given(moments(), st.data())
def test_no_short_grows_that_cannot_be_borrowed(moment, data):
    shape = moment.weights.shape
    shortable = data.draw(tensors(shape, 0, 1, ticks=1)).bool()
    moment = moment.with_market(shortable=shortable)
    held = moment.portfolio.holdings * (1.0 + moment.market.r_before)
    _, outcome = moment.advance()
    least = held.clamp_max(0.0)
    assert (outcome.holdings >= least - 1e-9 * moment.portfolio.wealth[:, None])[~shortable].all()
    reached = outcome.holdings / outcome.wealth_traded[:, None]
    free = shortable | (moment.weights >= 0)
    torch.testing.assert_close(reached[free], moment.weights[free], rtol=0, atol=1e-11)


def test_an_order_to_sell_short_what_cannot_be_borrowed_does_not_stay_open():
    market = still_market(1, 1, shortable=torch.tensor([[False]]))
    account = lone(Portfolio(row(100.0), row(900.0)[0]))._replace(open_orders=row(0.0))
    wish = Wish(row(-0.5), torch.zeros(1, dtype=torch.bool))
    after, outcome = advance(account, wish, market, friction(), Terms(orders=CARRY))
    assert float(outcome.holdings) == 0.0
    assert not after.open_orders.any()


def test_lending_is_set_by_symbol_or_by_table():
    bars = flat_bars(assets=3)
    rates = np.full(bars.close.shape, np.nan)
    rates[5:, 0] = 0.2
    config = TapeConfig(
        features=SHORT_FEATURES, borrow_bps_per_year={"X": 300.0, "Y": 100.0}, hard_to_borrow=("Z",)
    )
    shortable = np.ones(bars.close.shape, dtype=bool)
    shortable[7, 1] = False
    following = make_tape(bars, config, borrow_rates=rates, shortable=shortable).next
    assert following["borrow"][0, :2].tolist() == pytest.approx([0.03, 0.01])
    assert float(following["borrow"][6, 0]) == pytest.approx(0.2)
    assert following["borrow"][:, 2].isnan().all()
    assert not following["shortable"][:, 2].any()
    assert following["shortable"][:, :2].sum() == 2 * len(bars) - 1


@pytest.mark.parametrize(
    ("haircut", "cash", "held"), [(0.3, 500 + 0.7 * 500, 0.0), (0.0, 1000.0, 0.0), (None, 500, 500)]
)
def test_a_delisted_asset_is_paid_out_with_its_haircut(haircut, cash, held):
    bars = flat_bars(assets=2)
    for prices in (bars.open, bars.high, bars.low, bars.close, bars.volume):
        prices[9:, 1] = np.nan  # its last bar is bar 8
    env = make_env(bars, OrderConfig(), tape={"delisting_haircut": haircut}, initial_cash=1000.0)
    assert env.tape.first == 5
    for bar in range(5, 10):
        env.step(row(0.0, 0.5))
        if bar == 7:
            assert float(env.state.portfolio.holdings[0, 1]) == 500.0
    assert float(env.state.portfolio.cash) == pytest.approx(cash)
    assert float(env.state.portfolio.holdings[0, 1]) == pytest.approx(held)


@pytest.mark.parametrize(
    ("make", "error", "part"),
    [
        (lambda: OrderConfig(unfilled="keep"), ConfigError, "unfilled"),
        (lambda: OrderConfig(maintenance_margin=1.5), ConfigError, "maintenance_margin"),
        (
            lambda: EnvConfig(
                action="signed", max_gross=4.0, orders=OrderConfig(maintenance_margin=0.25)
            ),
            ConfigError,
            "max_gross",
        ),
        (
            lambda: EnvConfig(orders=WHOLE, impact=ImpactConfig(permanent=1.0)),
            ConfigError,
            "whole_shares",
        ),
        (lambda: OrderConfig(whole_shares="no"), ConfigError, "whole_shares"),
        (
            lambda: EnvConfig(orders=WHOLE, randomize=RandomizeConfig(volatility=(1.0, 2.0))),
            ConfigError,
            "volatility",
        ),
        (lambda: TapeConfig(hard_to_borrow="XY"), ConfigError, "hard_to_borrow"),
        (lambda: TapeConfig(borrow_bps_per_year={"X": "300"}), ConfigError, "X"),
        (lambda: TapeConfig(borrow_bps_per_year=["X"]), ConfigError, "map symbols"),
        (lambda: from_mapping(TapeConfig, {"delisting_haircut": True}), ConfigError, "True"),
        (lambda: CostConfig(minimum_fee=-1.0), ConfigError, "minimum_fee"),
        (lambda: CostConfig(fee_per_share=float("nan")), ConfigError, "fee_per_share"),
        (lambda: TapeConfig(delisting_haircut=1.2), ConfigError, "delisting_haircut"),
        (lambda: TapeConfig(borrow_bps_per_year={"X": -1.0}), ConfigError, "X"),
    ],
)
def test_settings_that_make_no_sense_are_named(make, error, part):
    with pytest.raises(error, match=part):
        make()


@pytest.mark.parametrize(
    ("settings", "arrays", "part"),
    [
        ({"hard_to_borrow": ("GME",)}, {}, "GME"),
        ({"borrow_bps_per_year": {"GME": 1.0}}, {}, "GME"),
        ({}, {"borrow_rates": np.zeros((3, 1))}, "borrow_rates"),
        ({}, {"borrow_rates": np.full((12, 1), -0.1)}, "borrow_rates"),
        ({}, {"borrow_rates": np.full((12, 1), 300.0)}, "0.03"),
        ({}, {"shortable": np.ones((12, 1))}, "truth"),
    ],
)
def test_lending_that_does_not_fit_the_data_is_named(settings, arrays, part):
    with pytest.raises(DataError, match=part):
        make_tape(flat_bars(), TapeConfig(features=SHORT_FEATURES, **settings), **arrays)
