"""The books: what a trade may and may not do to wealth, holdings and cash."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from worlds import (
    FREE,
    SHORT_FEATURES,
    Moment,
    moments,
    random_bars,
    still_market,
    tensors,
    weekdays,
)

from fastsim.data.bars import Bars
from fastsim.env.accounting import Portfolio, advance, lone
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.orders import Bounds, Wish, placed, post_cost_wealth
from fastsim.market.conditions import conditions_at
from fastsim.market.costs import CostConfig, Friction, Venue, make_friction, total
from fastsim.market.tape import TapeConfig, make_tape

FROM_THE_START = EpisodeConfig(horizon=None, random_start=False, staggered=False)


def close(actual, expected, scale, tolerance=1e-12):
    """Equal up to `tolerance` of a scale [N] of money, e.g. wealth before the trade."""
    error = (actual - expected).abs() / (scale if actual.dim() == 1 else scale[:, None])
    assert error.max() <= tolerance, f"off by {float(error.max()):.2e} of the scale"


def cash_after_trading(after, outcome):
    return after.cash - outcome.interest + outcome.borrow


@given(moments())
def test_wealth_after_trading_is_wealth_before_less_the_cost(moment):
    after, outcome = moment.advance()
    left = outcome.holdings.sum(-1) + cash_after_trading(after, outcome)
    close(left, outcome.wealth_at_fill - total(outcome.cost), outcome.wealth_at_fill)
    close(outcome.wealth_traded, left, outcome.wealth_at_fill)


@given(moments())
def test_wealth_changes_by_gain_less_cost_plus_interest_less_borrow(moment):
    after, outcome = moment.advance()
    before, market = moment.portfolio, moment.market
    gain = (before.holdings * market.r_before + outcome.holdings * market.r_after).sum(-1)
    change = gain - total(outcome.cost) + outcome.interest - outcome.borrow
    close(after.wealth - before.wealth, change, outcome.wealth_at_fill)
    close(outcome.wealth_before, before.wealth, before.wealth)
    close(outcome.wealth, after.wealth, before.wealth)


@pytest.mark.parametrize("signed", [False, True])
@given(data=st.data())
def test_weights_are_exact_after_costs(signed, data):
    moment = data.draw(moments(signed=signed))
    _, outcome = moment.advance()
    held = outcome.holdings / outcome.wealth_traded[:, None]
    torch.testing.assert_close(held, moment.weights, rtol=0, atol=1e-12)


@given(moments())
def test_holding_is_free_and_changes_nothing_but_prices(moment):
    moment = moment.with_friction(borrow=torch.zeros_like(moment.friction.borrow))
    moment = moment.with_market(interest=torch.zeros_like(moment.market.interest))
    after, outcome = moment.advance(hold=True)
    market, before = moment.market, moment.portfolio
    moved = before.holdings * (1.0 + market.r_before) * (1.0 + market.r_after)
    assert torch.equal(after.holdings, moved) and torch.equal(after.cash, before.cash)
    assert not outcome.trade.any() and not total(outcome.cost).any()
    assert not outcome.turnover.any()


@given(moments())
def test_a_target_equal_to_the_weights_held_costs_nothing(moment):
    held = moment.portfolio.holdings * (1.0 + moment.market.r_before)
    wealth = held.sum(-1) + moment.portfolio.cash
    _, outcome = moment._replace(weights=held / wealth[:, None]).advance()
    close(total(outcome.cost), torch.zeros_like(wealth), wealth)


@pytest.mark.parametrize("name", ["fee", "half_spread", "impact"])
@given(moment=moments())
def test_doubling_a_cost_never_raises_wealth(name, moment):
    dearer = moment.with_friction(**{name: 2.0 * getattr(moment.friction, name)})
    (_, cheap), (_, dear) = moment.advance(), dearer.advance()
    assert (dear.wealth_traded <= cheap.wealth_traded * (1 + 1e-15)).all()
    pays = (getattr(moment.friction, name) > 0) & (cheap.turnover > 1e-3)
    if name == "impact":
        pays &= (moment.market.impact_scale > 0).all(-1)
    assert (dear.wealth_traded[pays] < cheap.wealth_traded[pays]).all()


@given(moments(impact=0.0), st.sampled_from([1e-3, 7.0, 1e4]))
def test_without_impact_an_account_is_its_scale_times_another(moment, scale):
    large = moment._replace(portfolio=Portfolio(*(part * scale for part in moment.portfolio)))
    (small_after, small), (large_after, outcome) = moment.advance(), large.advance()
    close(large_after.holdings / scale, small_after.holdings, small.wealth_at_fill)
    close(large_after.cash / scale, small_after.cash, small.wealth_at_fill)
    close(total(outcome.cost) / scale, total(small.cost), small.wealth_at_fill)


def test_with_impact_a_larger_account_pays_a_larger_share():
    market = still_market(2, 1, impact_scale=torch.full((2, 1), 1e-5).double())
    wealth = torch.tensor([1e4, 4e4]).double()
    friction = make_friction(replace(FREE, impact=1.0), 2, dtype=torch.float64)
    moment = Moment(
        Portfolio(torch.zeros(2, 1).double(), wealth), torch.ones(2, 1).double(), market, friction
    )
    share = total(moment.advance()[1].cost) / wealth
    # Four times the order costs twice the share: Y sigma sqrt(size / volume).
    assert share[1] / share[0] == pytest.approx(2.0, rel=2e-3)


def bisected_wealth(moment, outcome):
    """The root of x + C(w x - h) = V-, by halving an interval that holds it."""
    held = moment.portfolio.holdings * (1.0 + moment.market.r_before)
    before = outcome.wealth_at_fill
    low, high = torch.zeros_like(before), before.clone()
    for _ in range(100):
        middle = (low + high) / 2
        trade = moment.weights * middle[:, None] - held
        cost = moment.cost_of(trade)
        above = middle + cost > before
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return (low + high) / 2


@given(moments())
def test_newton_finds_the_root_that_bisection_finds(moment):
    _, outcome = moment.advance()
    close(outcome.wealth_traded, bisected_wealth(moment, outcome), outcome.wealth_at_fill, 1e-13)


def test_weights_are_exact_at_crushing_costs_and_leverage():
    rows, assets = 20_000, 5
    generator = torch.Generator().manual_seed(0)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    def levered():
        raw = 2 * uniform(rows, assets) - 1
        return raw / torch.maximum(raw.abs().sum(-1) / 4, raw.sum(-1)).clamp_min(1.0)[:, None]

    held, weights, ones = levered(), levered(), torch.ones(rows).double()
    friction = Friction(0.01 * uniform(rows), 0.01 * uniform(rows), ones, ones, 0 * ones)
    market = still_market(rows, assets, impact_scale=0.1 * uniform(rows, assets))
    _, outcome = Moment(Portfolio(held, 1 - held.sum(-1)), weights, market, friction).advance()
    assert total(outcome.cost).max() > 0.4  # of wealth
    reached = outcome.holdings / outcome.wealth_traded[:, None]
    torch.testing.assert_close(reached, weights, rtol=0, atol=1e-12)


@given(moments())
def test_interest_is_on_the_cash_after_the_trade_and_borrow_on_the_shorts_after_it(moment):
    _, outcome = moment.advance()
    market, friction = moment.market, moment.friction
    cash = outcome.wealth_traded - outcome.holdings.sum(-1)
    shorts = torch.where(outcome.holdings < 0, -outcome.holdings, 0.0).sum(-1)
    close(outcome.interest, market.interest * cash, outcome.wealth_at_fill)
    close(outcome.borrow, friction.borrow * market.years * shorts, outcome.wealth_at_fill)


@given(moments())
def test_costs_by_cause_sum_to_the_total_and_to_their_closed_form(moment):
    _, outcome = moment.advance()
    fee, spread = moment.friction.fee[:, None], moment.friction.half_spread[:, None]
    buy, sell = (1 + spread) * (1 + fee) - 1, 1 - (1 - spread) * (1 - fee)
    bought, sold = outcome.trade.clamp_min(0.0), (-outcome.trade).clamp_min(0.0)
    linear = (buy * bought + sell * sold).sum(-1)
    size = bought + sold
    impact = (moment.friction.impact[:, None] * moment.market.impact_scale * size**1.5).sum(-1)
    cost = outcome.cost
    close(cost["commission"] + cost["spread"], linear, outcome.wealth_at_fill)
    close(cost["spread"], (spread * size).sum(-1), outcome.wealth_at_fill)
    close(cost["impact"], impact, outcome.wealth_at_fill)
    assert torch.equal(total(cost), cost["commission"] + cost["spread"] + cost["impact"])
    assert all((part >= 0).all() for part in cost.values())


@given(moments(), st.data())
def test_an_asset_that_cannot_be_traded_keeps_its_position_to_the_bit(moment, data):
    halted = data.draw(tensors(moment.weights.shape, 0, 1, ticks=1)).bool()
    still = torch.where(halted, 0.0, moment.market.r_before)
    moment = moment.with_market(tradable=~halted, r_before=still)
    _, outcome = moment.advance()
    assert torch.equal(outcome.holdings[halted], moment.portfolio.holdings[halted])
    assert not outcome.trade[halted].any()
    held = outcome.holdings / outcome.wealth_traded[:, None]
    torch.testing.assert_close(held[~halted], moment.weights[~halted], rtol=0, atol=1e-12)


@given(moments(), st.data())
def test_no_more_than_a_share_of_the_traded_value_trades_and_the_rest_is_dropped(moment, data):
    shape = moment.weights.shape
    share = data.draw(tensors(shape[:1], 0.1, 1))
    dollars = data.draw(tensors(shape, 0, 2)) * moment.portfolio.wealth[:, None]
    moment = moment.with_market(dollars=dollars).with_friction(participation=share)
    after, outcome = moment.advance()
    limit = share[:, None] * dollars
    assert (outcome.trade.abs() <= limit).all()
    wanted = moment.weights * outcome.wealth_traded[:, None] - (
        moment.portfolio.holdings * (1.0 + moment.market.r_before)
    )
    # A full order that fits is carried out; one that does not is carried out up to the limit.
    close(outcome.trade, wanted.clamp(-limit, limit), outcome.wealth_at_fill, 1e-11)
    left = outcome.holdings.sum(-1) + cash_after_trading(after, outcome)
    close(left, outcome.wealth_at_fill - total(outcome.cost), outcome.wealth_at_fill)


def test_zero_cost_compounds_the_weighted_returns():
    tape = make_tape(
        random_bars(80, 5, seed=3),
        TapeConfig(fill="close", features=SHORT_FEATURES),
        dtype=torch.float64,
    )
    config = EnvConfig(action="signed", max_gross=2.0, costs=FREE, episode=FROM_THE_START)
    env = PortfolioEnv(tape, 3, config)
    rng = np.random.default_rng(4)
    env.reset()
    growth = np.ones(3)
    for bar in range(tape.first, tape.last):
        weights = rng.uniform(-0.4, 0.4, (3, 5))
        weights /= np.maximum(weights.sum(-1, keepdims=True), 1.0)
        wealth = env.step(torch.from_numpy(weights)).outcome.wealth
        growth *= 1.0 + weights @ tape.next["r_after"][bar].numpy()
        np.testing.assert_allclose(wealth / config.initial_cash, growth, rtol=1e-12)


def smooth_inputs():
    """Two accounts of three assets whose trades are well away from zero and from their limits."""
    generator = torch.Generator().manual_seed(0)
    holdings = 1.0 + torch.rand(2, 3, generator=generator, dtype=torch.float64)
    weights = torch.tensor([[0.9, 0.02, 0.01], [0.05, -0.4, 0.5]]).double()
    cash = torch.tensor([3.0, 5.0]).double()
    market = still_market(
        2,
        3,
        r_before=torch.full((2, 3), 0.01).double(),
        r_after=torch.full((2, 3), -0.02).double(),
        dollars=torch.full((2, 3), 1e6).double(),
        impact_scale=torch.full((2, 3), 0.02).double(),
        years=torch.full((2,), 0.01).double(),
        interest=torch.full((2,), 0.001).double(),
    )
    costs = CostConfig(fee_bps=50, half_spread_bps=100, impact=1.0, borrow_bps_per_year=300)
    inputs = [value.requires_grad_() for value in (weights, holdings, cash)]
    return inputs, market, make_friction(costs, 2, dtype=torch.float64)


def test_wealth_after_costs_is_differentiable():
    (weights, holdings, cash), market, friction = smooth_inputs()
    limit = torch.full_like(weights, 1e6).detach()

    def solve(weights, holdings, cash):
        before = holdings.sum(-1) + cash
        return post_cost_wealth(
            before, holdings, weights, Bounds(-limit, limit), Venue(market, friction)
        )

    assert torch.autograd.gradcheck(solve, (weights, holdings, cash))


def test_the_step_is_differentiable():
    inputs, market, friction = smooth_inputs()

    def carry(weights, holdings, cash):
        hold = torch.zeros(2, dtype=torch.bool)
        account = lone(Portfolio(holdings, cash))
        after, outcome = advance(account, Wish(weights, hold), market, friction)
        return *after.portfolio, total(outcome.cost)

    assert torch.autograd.gradcheck(carry, inputs)


@pytest.mark.parametrize("case", ["nothing held or wanted", "already there", "halted", "hold"])
def test_gradients_are_finite_where_nothing_trades(case):
    inputs, market, friction = smooth_inputs()
    weights, holdings, cash = (value.detach().clone() for value in inputs)
    market = market._replace(r_before=torch.zeros_like(market.r_before))
    if case == "nothing held or wanted":
        weights[:, 0], holdings[:, 0] = 0.0, 0.0
    if case == "already there":
        weights = holdings / (holdings.sum(-1) + cash)[:, None]
    if case == "halted":
        market = market._replace(tradable=torch.zeros_like(market.tradable))
    hold = torch.full((2,), case == "hold")
    for value in (weights, holdings, cash):
        value.requires_grad_()
    after, _ = advance(lone(Portfolio(holdings, cash)), Wish(weights, hold), market, friction)
    gradients = torch.autograd.grad(after.portfolio.wealth.log().sum(), (weights, holdings, cash))
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert gradients[2].abs().min() > 0


def test_after_500_rebalances_float32_is_within_1e_5_of_float64():
    bars = random_bars(506, 20, seed=5)
    generator = torch.Generator().manual_seed(6)
    schedule = torch.rand(500, 8, 20, generator=generator, dtype=torch.float64) / 10
    wealth = {}
    for dtype in (torch.float32, torch.float64):
        tape = make_tape(bars, TapeConfig(features=SHORT_FEATURES), dtype=dtype)
        env = PortfolioEnv(tape, 8, EnvConfig(episode=FROM_THE_START))
        for weights in schedule:
            env.step(weights)
        assert not env.state.episode.number.any()
        wealth[dtype] = env.state.portfolio.wealth.double()
    assert ((wealth[torch.float32] / wealth[torch.float64]) - 1).abs().max() < 1e-5


@pytest.mark.parametrize("fill", ["next_open", "close"])
def test_an_asset_without_a_price_keeps_its_position_and_the_others_are_exact(fill):
    bars = random_bars(20, 3, seed=7)
    for prices in (bars.open, bars.high, bars.low, bars.close, bars.volume):
        prices[8:11, 1] = np.nan
    config = TapeConfig(fill=fill, features=SHORT_FEATURES)
    tape = make_tape(bars, config, dtype=torch.float64)
    env = PortfolioEnv(tape, 1, EnvConfig(costs=CostConfig(), episode=FROM_THE_START))
    env.reset()
    held = {}
    for bar in range(tape.first, 13):
        target = torch.tensor([[0.2, 0.1 + 0.05 * (bar % 2), 0.3]]).double()
        outcome = env.step(target).outcome
        weights = outcome.holdings / outcome.wealth_traded[:, None]
        held[bar] = float(env.state.portfolio.holdings[0, 1])
        halted = bar in ((7, 8, 9) if fill == "next_open" else (8, 9, 10))
        assert bool(tape.next["tradable"][bar, 1]) is not halted
        if halted:
            assert float(outcome.trade[0, 1]) == 0.0
            assert not np.isclose(float(weights[0, 1]), float(target[0, 1]), rtol=1e-3)
            weights[0, 1] = target[0, 1]
        torch.testing.assert_close(weights, target, rtol=0, atol=1e-12)
    # While bars 8, 9 and 10 are missing the position is not marked either.
    still = (7, 8, 9)
    frozen = [held[bar] for bar in still]
    assert frozen[1] == frozen[2] and (fill == "close" or frozen[0] == frozen[1])


def test_a_bar_without_a_close_did_not_trade_even_if_it_has_an_open():
    bars = random_bars(20, 1, seed=7)
    bars.open[10], bars.close[10] = 0.8 * bars.close[9], np.nan
    config = TapeConfig(fill="next_open", features=SHORT_FEATURES)
    following = make_tape(bars, config, dtype=torch.float64).next
    # Else one could buy at that open and be marked at the dearer close of the bar before.
    assert not following["tradable"][9] and following["tradable"][8]
    assert following["r_before"][9] == 0 and following["r_after"][9] == 0


def two_bar_market(fill):
    """Five flat bars at 100, then one that opens at 105 and closes at 110, then 99 and 121."""
    opens = np.array([100, 100, 100, 100, 100, 100, 105, 99], dtype=float)[:, None]
    closes = np.array([100, 100, 100, 100, 100, 100, 110, 121], dtype=float)[:, None]
    bars = Bars(
        symbols=("X",), timestamps=weekdays(8), open=opens, close=closes, high=closes, low=opens
    )
    config = TapeConfig(fill=fill, features=SHORT_FEATURES)
    costs = CostConfig(fee_bps=100, half_spread_bps=50, impact=0, borrow_bps_per_year=0)
    tape = make_tape(bars, config, dtype=torch.float64)
    assert tape.first == 5
    env = PortfolioEnv(tape, 1, EnvConfig(costs=costs, initial_cash=1000, episode=FROM_THE_START))
    env.reset()
    return env


def test_two_bars_by_hand_filled_at_the_next_open():
    env = two_bar_market("next_open")
    # Buying costs kb = 1.005 * 1.01 - 1 = 0.01505. Half of the wealth that is left, V:
    # V = 1000 - 0.01505 * 0.5 V, so V = 1000 / 1.007525; half of it rides from 105 to 110.
    left = 1000 / 1.007525
    first = env.step(torch.tensor([[0.5]]).double()).outcome
    assert float(first.wealth_traded) == pytest.approx(left, rel=1e-13)
    assert float(first.wealth) == pytest.approx(left / 2 + left / 2 * 110 / 105, rel=1e-13)
    # Everything is sold at 99, which costs ks = 1 - 0.995 * 0.99 = 0.01495 of what is sold.
    second = env.step(torch.tensor([[0.0]]).double())
    sold = left / 2 * 99 / 105
    assert float(second.outcome.wealth) == pytest.approx(left / 2 + sold * 0.98505, rel=1e-13)
    assert bool(second.truncated)


def test_two_bars_by_hand_filled_at_the_close():
    env = two_bar_market("close")
    left = 1000 / 1.007525  # as above; half of it rides from 100 to 110
    first = env.step(torch.tensor([[0.5]]).double()).outcome
    assert float(first.wealth_traded) == pytest.approx(left, rel=1e-13)
    assert float(first.wealth) == pytest.approx(left / 2 + left / 2 * 1.1, rel=1e-13)
    # All in at 110: V = V- - 0.01505 (V - 0.55 left), with V- = 1.05 left; it rides to 121.
    second = env.step(torch.tensor([[1.0]]).double()).outcome
    all_in = (1.05 + 0.01505 * 0.55) * left / 1.01505
    assert float(second.wealth) == pytest.approx(all_in * 1.1, rel=1e-13)


def test_borrow_and_interest_accrue_over_calendar_days():
    bars = random_bars(30, 1, seed=8)
    config = TapeConfig(fill="close", features=SHORT_FEATURES, risk_free_rate=0.05)
    tape = make_tape(bars, config, dtype=torch.float64)
    friction = make_friction(CostConfig(borrow_bps_per_year=300), 1, dtype=torch.float64)
    portfolio = Portfolio(torch.tensor([[-500.0]]).double(), torch.tensor([2000.0]).double())
    paid = {}
    for bar in range(tape.first, tape.last):
        market = conditions_at(tape, torch.tensor([bar]))
        weights = torch.zeros(1, 1).double()
        _, outcome = advance(lone(portfolio), Wish(weights, torch.tensor([True])), market, friction)
        days = int((tape.timestamps[bar + 1] - tape.timestamps[bar]) / np.timedelta64(1, "D"))
        paid[days] = float(outcome.borrow), float(outcome.interest)
    assert set(paid) == {1, 3}
    assert paid[1] == pytest.approx((500 * 0.03 / 365, 2000 * 0.05 / 365), rel=1e-12)
    assert paid[3] == pytest.approx([3 * charge for charge in paid[1]], rel=1e-12)


@pytest.mark.parametrize("fill", ["next_open", "close"])
def test_wealth_below_zero_ends_the_episode_and_nothing_trades_after(fill):
    bars = random_bars(12, 1, seed=9, volume=False)
    for prices in (bars.open, bars.high, bars.low, bars.close):
        prices[:7], prices[7:] = 100.0, 180.0
    config = TapeConfig(fill=fill, features=SHORT_FEATURES)
    rules = EnvConfig(action="signed", max_gross=4.0, episode=FROM_THE_START, costs=CostConfig())
    env = PortfolioEnv(make_tape(bars, config, dtype=torch.float64), 1, rules)
    env.reset()
    short = torch.tensor([[-2.0]]).double()
    first, second = env.step(short), env.step(short)
    assert not first.terminated and second.terminated and not second.truncated
    outcome = second.outcome
    assert outcome.ruined and outcome.wealth <= 0
    if fill == "next_open":
        assert outcome.wealth_at_fill <= 0
        assert not outcome.trade.any() and not total(outcome.cost).any()
    assert env.step(short).restarted
    assert float(env.state.portfolio.cash) == rules.initial_cash


def test_an_account_without_wealth_at_the_fill_cannot_trade():
    (weights, holdings, cash), market, friction = smooth_inputs()
    poor = Portfolio(holdings.detach(), cash.detach() - 100.0)
    after, outcome = Moment(poor, weights.detach(), market, friction).advance()
    assert outcome.ruined.all() and not outcome.trade.any() and not total(outcome.cost).any()
    assert after.wealth.isfinite().all()


def test_orders_stop_at_their_limit_on_both_sides():
    limit = torch.tensor([[10.0, 10.0, 0.0]])
    friction = make_friction(FREE, 1)
    trade = placed(torch.tensor([[50.0, -50.0, 100.0]]), Bounds(-limit, limit), friction)
    assert trade.tolist() == [[10.0, -10.0, 0.0]]
