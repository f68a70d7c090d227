"""Whatever the rules and the world, over thousands of steps: nothing breaks, and the books balance.

What happened is added up again from prices and trades, in NumPy.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from parity import actions, configs
from worlds import SHORT_FEATURES, leaves, random_bars

from fastsim.env.core import meet
from fastsim.env.environment import PortfolioEnv
from fastsim.env.impact import ImpactConfig
from fastsim.env.orders import OrderConfig
from fastsim.env.randomize import RandomizeConfig
from fastsim.errors import ConfigError, DataError
from fastsim.market.costs import total
from fastsim.market.tape import TapeConfig, make_tape

ROWS, STEPS, EXAMPLES = 6, 80, 60  # 28,800 steps of accounts


class Plan(NamedTuple):
    """A market yet to be made: a small thing to print where a test fails."""

    assets: int
    seed: int
    kinds: dict[str, bool]  # of `random_bars`
    leaves_early: bool  # the first asset
    config: TapeConfig

    def make(self):
        bars = random_bars(40, self.assets, self.seed, **self.kinds)
        for array in (bars.open, bars.high, bars.low, bars.close, bars.volume, bars.adj_close):
            if array is not None and self.leaves_early:
                array[25:, 0] = np.nan
        return make_tape(bars, self.config, dtype=torch.float64)


@st.composite
def plans(draw):
    """Halts, late listings and delistings; assets that are dear or impossible to borrow."""
    config = TapeConfig(
        features=SHORT_FEATURES,
        fill=draw(st.sampled_from(["auto", "close"])),
        risk_free_rate=draw(st.sampled_from([0.0, 0.05])),
        delisting_haircut=draw(st.sampled_from([None, 0.0, 0.4, 1.0])),
        borrow_bps_per_year=draw(st.sampled_from([{}, {"S1": 5000.0}])),
        hard_to_borrow=draw(st.sampled_from([(), ("S2",)])),
    )
    kinds = {name: draw(st.booleans()) for name in ("opens", "volume", "holes", "adjusted")}
    return Plan(
        draw(st.integers(3, 6)), draw(st.integers(0, 99)), kinds, draw(st.booleans()), config
    )


@st.composite
def rules(draw):
    """Any combination of the rules, orders, impact, players and draws included."""
    config = draw(configs())
    impact = ImpactConfig(
        transient=draw(st.sampled_from([0.0, 1.0])), permanent=draw(st.sampled_from([0.0, 0.2]))
    )
    by_share = draw(st.booleans())
    drawn = RandomizeConfig(
        fee_bps=(0, 50),
        volatility=() if by_share else (0.5, 3.0),
        price_impact=(0.1, 4.0) if impact.moves_prices else (),
        assets=draw(st.sampled_from([(), (1, 3)])),
    )
    levels = {
        name: 0.0 if impact.moves_prices else draw(st.sampled_from([0.0, 0.01, 0.04]))
        for name in ("stop", "target", "trailing")
    }
    try:
        return replace(
            config,
            orders=OrderConfig(
                unfilled=draw(st.sampled_from(["drop", "carry"])),
                whole_shares=by_share and not impact.moves_prices,
                maintenance_margin=draw(st.sampled_from([0.0, 0.2, 0.9])),
                **levels,
            ),
            impact=impact,
            players=draw(st.sampled_from([1, 3])),
            costs=replace(
                config.costs,
                fee_per_share=0.01 if by_share else 0.0,
                minimum_fee=draw(st.sampled_from([0.0, 1.0])),
            ),
            randomize=draw(st.sampled_from([RandomizeConfig(), drawn])),
            initial_invested=draw(st.sampled_from([0.0, 0.8])),
            episode=replace(
                config.episode,
                liquidate_at_end=draw(st.booleans()),
                at_end=draw(st.sampled_from(["truncate", "terminate"])),
            ),
        )
    except ConfigError:
        assume(False)


@pytest.mark.long
@given(plans(), rules(), st.integers(0, 99))
@settings(max_examples=EXAMPLES, deadline=None, phases=[Phase.explicit, Phase.generate])
def test_random_rules_on_random_worlds_keep_sound_books(plan, config, seed):
    tape = plan.make()
    try:
        env = PortfolioEnv(tape, ROWS, config, seed=seed, backend="torch")
    except (ConfigError, DataError):
        assume(False)
    env.reset(seed)
    for action in actions(tape, config, seed, ROWS, STEPS):
        state = env.state
        market, friction = meet(env.params, state)
        transition = env.step(action)
        outcome, lives = transition.outcome, ~transition.ignored
        assert all(leaf.isfinite().all() for leaf in leaves(env.state) + leaves(transition))
        assert not outcome.trade[~market.tradable].any()
        most = friction.participation[:, None] * market.dollars
        assert (outcome.trade.abs() <= most * (1 + 1e-12)).all()
        if market.shortable is not None:
            grown = outcome.trade + (state.portfolio.holdings * (1 + market.r_before)).clamp_min(0)
            assert config.impact.moves_prices or (grown >= -1e-6)[~market.shortable].all()
        wealth, scale = added_up(state, market, outcome, config.impact)
        error = np.abs(wealth - outcome.wealth.numpy())
        assert (error <= 1e-9 * scale)[lives.numpy()].all()


def added_up(state, market, outcome, impact):
    """Wealth [N] at the next close, and the size [N] of what was added up."""
    players = len(state.key) // max(len(state.displacement.rate), 1)
    holdings, cash = (part.numpy().copy() for part in state.portfolio)
    rate, displaced = np.zeros_like(holdings), np.zeros_like(holdings)
    if impact.moves_prices:
        rate, displaced = (
            table.numpy().repeat(players, 0)
            for table in (state.displacement.rate, state.displacement.transient)
        )
    growth = (1 + market.r_before.numpy()) * np.exp((impact.retention - 1) * displaced)
    holdings, rate = holdings * growth, rate / growth
    holdings, cash, rate = exchanged(holdings, cash, rate, outcome.trade, outcome.cost, players)
    cash = cash + outcome.interest.numpy() - outcome.borrow.numpy()
    if outcome.exits is not None:
        sold = outcome.exits.trade.numpy()
        cash = cash - sold.sum(1) - total(outcome.exits.cost).numpy()
        holdings = np.where(sold != 0, 0.0, holdings)
    growth = 1 + market.r_after.numpy()
    if market.delisted is not None:
        gone = market.delisted.numpy()
        cash = cash + (gone * growth * holdings * mean_price(-rate * holdings)).sum(1)
        holdings, growth = holdings * ~gone, np.where(gone, 1.0, growth)
    holdings, rate = holdings * growth, rate / growth
    if outcome.margin_call is not None:
        trade, cost = outcome.margin_call.trade, outcome.margin_call.cost
        holdings, cash, rate = exchanged(holdings, cash, rate, trade, cost, players)
    wealth = (holdings * mean_price(-rate * holdings)).sum(1) + cash
    return wealth, np.abs(holdings).sum(1) + np.abs(cash) + outcome.wealth_before.abs().numpy()


def exchanged(holdings, cash, rate, trade, cost, players):
    """Positions, cash and rate after orders have met, and moved the price if it moves."""
    trade = trade.numpy()
    net = trade.reshape(-1, players, trade.shape[1]).sum(1).repeat(players, 0)
    moved = rate * net
    cash = cash - (trade * mean_price(moved)).sum(1) - total(cost).numpy()
    return (holdings + trade) * np.exp(moved), cash, rate * np.exp(-moved)


def mean_price(moved):
    """(exp(x) - 1) / x."""
    safe = np.where(moved == 0, 1.0, moved)
    return np.where(moved == 0, 1.0, np.expm1(safe) / safe)
