"""Stops, targets and trailing stops: which bar closes a position, at what price and cost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import TOLERANCE, assert_same_run, run, soaring_tape
from worlds import FREE, SHORT_FEATURES, assert_same_bits, random_bars, weekdays

from fastsim.backtest.benchmarks import Benchmarks, benchmark_names
from fastsim.backtest.replay import replay
from fastsim.data.bars import Bars
from fastsim.env.accounting import Portfolio, Terms, advance, close_accounts, lone
from fastsim.env.brackets import Since
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.impact import ImpactConfig
from fastsim.env.orders import OrderConfig, Wish
from fastsim.env.randomize import RandomizeConfig
from fastsim.errors import ConfigError, DataError
from fastsim.market.conditions import named
from fastsim.market.costs import make_friction, total
from fastsim.market.extremes import EXTREMES, extremes_of
from fastsim.market.features import FEATURE_LIMIT
from fastsim.market.tape import TapeConfig, make_tape
from fastsim.synthetic.fresh import FreshWorlds
from fastsim.synthetic.garch import Garch

FROM_THE_START = EpisodeConfig(horizon=None, random_start=False, staggered=False)
STILL = (100.0, 100.0, 100.0, 100.0)
QUIET = (100.0, 101.0, 99.0, 100.0)
BOTH = OrderConfig(stop=0.05, target=0.10)
HOLD = float("nan")
FIRST = 5  # bars of warm-up


def bars_of(*prices, **changes):
    """Six still bars at 100, these (open, high, low, close), and three more at the last close."""
    rest = (prices[-1][3],) * 4
    table = np.array([STILL] * (FIRST + 1) + list(prices) + [rest] * 3)[:, :, None]
    fields = dict(zip(("open", "high", "low", "close"), table.transpose(1, 0, 2), strict=True))
    stamps = weekdays(len(table))
    return Bars(**{"symbols": ("X",), "timestamps": stamps, **fields, **changes})


def make_env(
    bars, orders, *, fill="next_open", rows=1, costs=FREE, backend="torch", **rules
):  # fmt: skip
    if backend == "triton":
        pytest.importorskip("triton", reason="triton is for Linux")
    tape = make_tape(bars, TapeConfig(features=SHORT_FEATURES, fill=fill), dtype=torch.float64)
    rules = {"initial_cash": 1000.0, "action": "signed", "episode": FROM_THE_START, **rules}
    config = EnvConfig(orders=orders, costs=costs, **rules)
    env = PortfolioEnv(tape, rows, config, backend=backend, single_orders=True)
    env.reset(0)
    return env


TRITON = pytest.param("triton", marks=pytest.mark.long)
each_backend = pytest.mark.parametrize("backend", ["torch", "numba", TRITON])
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")


def play(env, *weights):
    """Outcomes of steps to these weights of the only asset."""
    return [env.step(torch.tensor([[weight]]).double()).outcome for weight in weights]


def exit_price(env, *weights):
    """The price at which the last of these steps closes five shares, or None."""
    *_, last = play(env, *weights)
    if not last.exits.trade.any():
        assert env.state.portfolio.holdings.any()
        assert not last.exits.stopped.any() and not last.exits.taken.any()
        return None
    assert not env.state.portfolio.holdings.any()
    sold = float(last.exits.trade)
    assert float(last.exits.stopped + last.exits.taken) == abs(sold)
    return abs(sold) / 5


LONG = {
    "between both": ((100, 104, 96, 101), None, None),
    "the stop is touched": ((100, 101, 95, 97), 95, "stopped"),
    "through the stop": ((100, 101, 90, 93), 95, "stopped"),
    "a gap beyond the stop": ((92, 94, 90, 93), 92, "stopped"),
    "a gap to the stop": ((95, 96, 94, 96), 95, "stopped"),
    "a gap beyond the stop, and up to the target": ((92, 112, 91, 111), 92, "stopped"),
    "the target is touched": ((100, 110, 99, 105), 110, "taken"),
    "through the target": ((100, 115, 99, 112), 110, "taken"),
    "a gap beyond the target": ((113, 115, 112, 114), 113, "taken"),
    "both in one bar: the stop first": ((100, 112, 94, 105), 95, "stopped"),
    "both, and the close beyond the target": ((100, 116, 94, 115), 95, "stopped"),
    "a gap beyond the target, and down to the stop": ((113, 114, 94, 96), 113, "taken"),
}
SHORT = {
    "between both": ((100, 104, 96, 99), None, None),
    "the stop is touched": ((100, 105, 99, 103), 105, "stopped"),
    "through the stop": ((100, 110, 99, 107), 105, "stopped"),
    "a gap beyond the stop": ((108, 110, 106, 107), 108, "stopped"),
    "a gap to the stop": ((105, 106, 104, 104), 105, "stopped"),
    "a gap beyond the stop, and down to the target": ((108, 109, 88, 89), 108, "stopped"),
    "the target is touched": ((100, 101, 90, 95), 90, "taken"),
    "through the target": ((100, 101, 85, 88), 90, "taken"),
    "a gap beyond the target": ((87, 88, 85, 86), 87, "taken"),
    "both in one bar: the stop first": ((100, 106, 88, 95), 105, "stopped"),
    "both, and the close beyond the target": ((100, 106, 84, 85), 105, "stopped"),
    "a gap beyond the target, and up to the stop": ((87, 106, 86, 104), 87, "taken"),
}
TABLE = [(0.5, *case) for case in LONG.values()] + [(-0.5, *case) for case in SHORT.values()]
IDS = [f"long: {name}" for name in LONG] + [f"short: {name}" for name in SHORT]


@each_backend
@pytest.mark.parametrize("fill", ["next_open", "close"])
@pytest.mark.parametrize(("weight", "bar", "price", "cause"), TABLE, ids=IDS)
def test_what_a_bar_does_to_a_position_held(backend, fill, weight, bar, price, cause):
    # Five shares entered at 100 in a quiet bar, or at the close before it; then this bar.
    env = make_env(bars_of(QUIET, bar), BOTH, fill=fill, backend=backend)
    found = exit_price(env, weight, HOLD)
    assert found == (None if price is None else pytest.approx(price, rel=1e-13))
    signed = 5 if weight > 0 else -5
    paid = bar[3] if price is None else price
    assert float(env.state.wealth) == pytest.approx(1000 + signed * (paid - 100), rel=1e-13)
    env = make_env(bars_of(QUIET, bar), BOTH, fill=fill, backend=backend)
    exits = play(env, weight, HOLD)[-1].exits
    told = [name for name in ("stopped", "taken") if float(getattr(exits, name)) > 0]
    assert told == [cause] * (cause is not None)


@pytest.mark.parametrize("backend", ["torch", "numba", "triton"])
@pytest.mark.parametrize("fill", ["next_open", "close"])
def test_what_bars_do_to_positions_held_side_by_side(backend, fill):
    bars = [bars_of(QUIET, bar) for _, bar, _, _ in TABLE]
    columns = {
        name: np.concatenate([getattr(each, name) for each in bars], axis=1)
        for name in ("open", "high", "low", "close")
    }
    names = tuple(f"X{number}" for number in range(len(TABLE)))
    side_by_side = Bars(symbols=names, timestamps=bars[0].timestamps, **columns)
    env = make_env(side_by_side, BOTH, fill=fill, backend=backend, initial_cash=24_000.0)
    weights = torch.tensor([[weight / len(TABLE) for weight, *_ in TABLE]], dtype=torch.float64)
    env.step(weights)
    exits = env.step(weights * HOLD).outcome.exits
    wanted = [0.0 if price is None else -10 * weight * price for weight, _, price, _ in TABLE]
    wanted = torch.tensor([wanted], dtype=torch.float64)
    torch.testing.assert_close(exits.trade, wanted, rtol=1e-13, atol=0)
    for name in ("stopped", "taken"):
        closed = [10 * abs(weight) * price for weight, _, price, cause in TABLE if cause == name]
        assert float(getattr(exits, name)) == pytest.approx(sum(closed), rel=1e-13)
    left = [price is None for *_, price, _ in TABLE]
    assert (env.state.portfolio.holdings != 0)[0].tolist() == left


@pytest.mark.parametrize(
    ("weight", "bar", "price"),
    [
        (0.5, (100, 101, 94, 97), 95),
        (-0.5, (100, 106, 99, 103), 105),
        (0.5, (100, 111, 99, 105), 110),
        (-0.5, (100, 101, 89, 95), 90),
    ],
)
@pytest.mark.parametrize("fill", ["next_open", "close"])
def test_a_position_has_its_levels_in_the_bar_in_which_it_is_entered(fill, weight, bar, price):
    assert exit_price(make_env(bars_of(bar), BOTH, fill=fill), weight) == pytest.approx(price)


def test_a_gap_before_the_fill_moves_the_entry_and_one_after_it_is_met():
    gap = (92, 94, 90, 93)
    assert exit_price(make_env(bars_of(gap), BOTH, fill="close"), 0.5) == pytest.approx(92)
    assert exit_price(make_env(bars_of(gap), BOTH, fill="next_open"), 0.5) is None
    env = make_env(bars_of((92, 94, 87, 93)), BOTH)
    play(env, 0.5)  # the stop is at 95 % of 92, which is 87.4
    assert float(env.state.wealth) == pytest.approx(500 + 500 * 0.95)


TRAIL = OrderConfig(trailing=0.05)
RISE, FALL = (100, 130, 96, 120), (100, 104, 70, 80)


@pytest.mark.parametrize(
    ("weight", "bars", "price"),
    [
        (0.5, [RISE], None),  # its own high of 130 would have stopped it at 123.5
        (0.5, [RISE, (118, 119, 114.1, 115)], None),  # and the high before it, too
        (0.5, [RISE, (118, 119, 114, 115)], 114),  # 95 % of the close of 120
        (0.5, [RISE, (110, 119, 109, 115)], 110),
        (0.5, [RISE, (118, 119, 115, 116), (116, 117, 113, 115)], 114),  # it does not follow down
        (0.5, [RISE, (120, 126, 119, 125), (125, 126, 118, 125)], 118.75),  # but up
        (0.5, [(100, 101, 94, 97)], 95),  # the entry is the best until a close is better
        (-0.5, [FALL], None),
        (-0.5, [FALL, (82, 83.9, 81, 83)], None),
        (-0.5, [FALL, (82, 84, 81, 83)], 84),
        (-0.5, [FALL, (90, 91, 81, 83)], 90),
        (-0.5, [FALL, (82, 83, 81, 83), (83, 85, 82, 82)], 84),
        (-0.5, [FALL, (80, 81, 74, 75), (75, 79, 74, 75)], 78.75),
        (-0.5, [(100, 106, 99, 103)], 105),
    ],
)
@each_backend
def test_a_trailing_stop_follows_the_closes_known_before_the_bar(backend, weight, bars, price):
    env = make_env(bars_of(*bars), TRAIL, backend=backend)
    found = exit_price(env, weight, *[HOLD] * (len(bars) - 1))
    assert found == (None if price is None else pytest.approx(price, rel=1e-13))


@pytest.mark.parametrize(
    ("trailing", "weight", "bars", "price"),
    [
        (0.05, 0.5, [(100, 121, 99, 120), (118, 119, 90, 91)], 114),  # 95 % of 120, not of 100
        (0.50, 0.5, [(100, 121, 99, 120), (118, 119, 90, 91)], 95),
        (0.05, -0.5, [(100, 101, 79, 80), (82, 110, 81, 109)], 84),
        (0.50, -0.5, [(100, 101, 79, 80), (82, 110, 81, 109)], 105),
    ],
)
def test_of_two_stops_the_nearer_one_holds(trailing, weight, bars, price):
    env = make_env(bars_of(*bars), OrderConfig(stop=0.05, trailing=trailing))
    assert exit_price(env, weight, HOLD) == pytest.approx(price)


def entry_of(env):
    """The mean price of entry of the only position."""
    at = int(env.state.episode.bar)
    price = float(env.tape.known.bars[at, 0, 3])
    return price / float(env.state.since.entry)


@each_backend
def test_the_entry_is_the_mean_price_of_what_is_held(backend):
    still = [(price,) * 4 for price in (100, 80, 90, 90, 50)]
    env = make_env(bars_of(*still), OrderConfig(stop=0.9), backend=backend)
    play(env, 0.5)
    assert entry_of(env) == pytest.approx(100)
    play(env, 0.75)  # of 900: 675, which are 8.4375 shares; 5 at 100 and 3.4375 at 80
    mean = (500 + 275) / 8.4375
    assert entry_of(env) == pytest.approx(mean, rel=1e-13)
    play(env, 0.2)  # what is sold leaves the mean as it is
    assert entry_of(env) == pytest.approx(mean, rel=1e-13)
    play(env, -0.2)  # what is turned around is entered anew
    assert entry_of(env) == pytest.approx(90, rel=1e-13)
    play(env, 0.0)
    assert not env.state.since.entry.any()


@each_backend
def test_an_episode_that_begins_invested_has_entered_at_its_first_close(backend):
    env = make_env(bars_of((100, 101, 94, 97)), BOTH, initial_invested=0.5, backend=backend)
    assert exit_price(env, HOLD) == pytest.approx(95)


@each_backend
def test_an_exit_is_charged_like_a_trade_at_its_price(backend):
    costs = replace(FREE, fee_bps=30, half_spread_bps=20)
    env = make_env(bars_of(QUIET, (100, 101, 90, 93)), BOTH, costs=costs, backend=backend)
    bought, held = play(env, 0.5, HOLD)
    shares = float(bought.trade) / 100
    spread = 0.002 * 95 * shares
    fee = 0.003 * 0.998 * 95 * shares  # on the price that is lowered by the half spread
    assert float(held.exits.cost["spread"]) == pytest.approx(spread, rel=1e-12)
    assert float(held.exits.cost["commission"]) == pytest.approx(fee, rel=1e-12)
    assert float(total(held.cost)) == 0.0 and float(held.total_cost) == pytest.approx(fee + spread)
    wealth = float(bought.wealth) - shares * 5 - fee - spread
    assert float(held.wealth) == pytest.approx(wealth, rel=1e-13)


def test_an_exit_pays_for_its_size_and_ignores_the_limit_of_participation():
    bars = random_bars(30, 1, seed=5)
    bars.low[FIRST + 1] *= 0.8
    costs = replace(FREE, impact=1.0, participation=0.001)
    env = make_env(bars, BOTH, costs=costs, initial_cash=1e9)
    bar = int(env.state.episode.bar)
    outcome = play(env, 1.0)[0]
    limit = 0.001 * float(env.tape.next["dollars"][bar])
    assert float(outcome.trade) == pytest.approx(limit)  # the purchase was cut, the exit is not
    sold = 0.95 * limit
    assert float(outcome.exits.stopped) == pytest.approx(sold)
    paid = float(env.tape.next["impact_scale"][bar]) * sold**1.5
    assert paid > 0 and float(outcome.exits.cost["impact"]) == pytest.approx(paid)


@each_backend
@pytest.mark.parametrize("fill", ["next_open", "close"])
def test_a_commission_by_the_share_counts_the_shares_of_the_bar(backend, fill):
    bars = bars_of(QUIET, (100, 101, 90, 93))
    halved = {name: getattr(bars, name).copy() for name in ("open", "high", "low", "close")}
    for prices in halved.values():
        prices[FIRST + 2 :] /= 2  # each share becomes two
    bars = replace(bars, **halved, adj_close=bars.close)
    costs = replace(FREE, fee_per_share=0.5)
    env = make_env(bars, BOTH, costs=costs, fill=fill, backend=backend)
    bought, held = play(env, 0.5, HOLD)
    shares = 2 * float(bought.trade) / 100
    assert float(held.exits.cost["commission"]) == pytest.approx(0.5 * shares, rel=1e-12)


def test_a_bar_without_all_of_its_prices_closes_nothing_and_the_next_one_is_a_gap():
    bars = bars_of(QUIET, (80, 81, 79, 80), (82, 83, 81, 82))
    for prices in (bars.open, bars.high, bars.low, bars.close):
        prices[FIRST + 2] = np.nan
    env = make_env(bars, BOTH)
    assert exit_price(env, 0.5, HOLD) is None
    assert exit_price(env, HOLD) == pytest.approx(82)
    lows = bars_of(QUIET, (80, 81, 79, 80), (82, 83, 81, 82))
    lows.low[FIRST + 2] = np.nan
    env = make_env(lows, BOTH)
    assert env.tape.next["r_low"][FIRST + 1] == torch.inf
    assert env.tape.next["r_high"][FIRST + 1] == -1 and not env.tape.next["r_open"].any()
    assert exit_price(env, 0.5, HOLD) is None
    assert exit_price(env, HOLD) == pytest.approx(82)


@each_backend
def test_an_exit_ends_what_is_open_of_its_asset(backend):
    bars = bars_of(QUIET, (100, 101, 90, 93))
    bars = replace(bars, volume=np.full(bars.close.shape, 10.0))
    orders = replace(BOTH, unfilled="carry")
    env = make_env(bars, orders, costs=replace(FREE, participation=0.2), backend=backend)
    play(env, 0.5)
    assert env.state.open_orders.any()
    play(env, HOLD)
    assert not env.state.open_orders.any() and not env.state.portfolio.holdings.any()
    assert float(play(env, HOLD)[0].turnover) == 0.0


def test_each_asset_and_account_has_its_own():
    bars = random_bars(30, 3, seed=1)
    for name, scale in (("high", 1.5), ("low", 0.5)):
        getattr(bars, name)[FIRST + 1, 1] *= scale
    env = make_env(bars, OrderConfig(stop=0.2), rows=3)
    action = torch.tensor([[0.3, 0.3, 0.3], [0.3, 0.0, -0.3], [0.3, -0.3, 0.0]]).double()
    exits = env.step(action).outcome.exits
    assert (exits.trade != 0).tolist() == [[False, True, False], [False] * 3, [False, True, False]]
    assert (exits.stopped > 0).tolist() == [True, False, True]


@each_backend
def test_what_is_told_names_exits(backend):
    costs = replace(FREE, fee_bps=10)
    env = make_env(bars_of(QUIET, (100, 101, 90, 93)), BOTH, costs=costs, backend=backend)
    play(env, 0.5)
    source = env.tell(env.step(torch.tensor([[HOLD]]).double()))
    told = {name: source.tell(name) for name in source.names}
    assert float(told["stopped"]) == pytest.approx(0.95 * 500, rel=1e-2)
    assert float(told["taken"]) == 0.0
    assert float(told["cost"]) == pytest.approx(1e-3 * float(told["stopped"]))
    plain = make_env(bars_of(QUIET), OrderConfig())
    assert "stopped" not in plain.tell(plain.step(torch.tensor([[0.5]]).double())).names


@each_backend
def test_agents_see_how_far_their_levels_are(backend):
    orders = OrderConfig(stop=0.05, target=0.1, trailing=0.04)
    env = make_env(bars_of((100, 105, 97, 104), QUIET), orders, backend=backend)

    def shown(weight):
        seen = env.columns(env.step(torch.tensor([[weight]]).double()).observation)[0]
        return dict(zip(env.observation_names, seen.tolist(), strict=True))

    # The stops are at 95 and 0.96 * 104, the target is at 110, and the price at 104.
    first, second = shown(0.5), shown(HOLD)
    assert first["stop.X"] == pytest.approx(0.04)
    assert first["target.X"] == pytest.approx(110 / 104 - 1)
    assert second["stop.X"] == second["target.X"] == 0.0  # it fell below 99.84
    env = make_env(bars_of((100, 101, 95, 96)), orders, backend=backend)
    first = shown(-0.5)  # 1.04 * 96 is nearer than 105; the target is at 90
    assert first["stop.X"] == pytest.approx(0.04) and first["target.X"] == pytest.approx(
        1 - 90 / 96
    )


def script(rows, assets, steps=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    actions = torch.rand(steps, rows, assets, generator=generator, dtype=torch.float64)
    return (2 * actions - 1) / assets


PLAIN = OrderConfig(maintenance_margin=1e-9)  # never called, but worked out as further rules are
FAR = replace(PLAIN, stop=1.0, target=100.0, trailing=1.0)


@each_backend
@pytest.mark.parametrize("fill", ["next_open", "close"])
def test_levels_that_are_not_reached_change_no_bit(backend, fill):
    bars = random_bars(40, 4, seed=2, holes=True)
    costs = replace(FREE, fee_bps=5, impact=1.0, participation=0.05)
    plain, far = (
        make_env(bars, orders, rows=4, costs=costs, fill=fill, backend=backend)
        for orders in (PLAIN, FAR)
    )
    for action in script(4, 4):
        one, other = plain.step(action), far.step(action)
        assert not other.outcome.exits.trade.any()
        assert_same_bits(
            other.outcome._replace(exits=None),
            one.outcome,
        )
        assert_same_bits(far.state.portfolio, plain.state.portfolio)
        assert torch.equal(other.reward, one.reward)


def test_accounts_without_levels_keep_nothing_of_them():
    env = make_env(random_bars(40, 3), OrderConfig(), rows=2)
    env.step(script(2, 3)[0])
    assert all(part.shape == (2, 0) for part in env.state.since)
    assert not set(EXTREMES) & set(env.tape.next)
    env = make_env(random_bars(40, 3), OrderConfig(stop=0.1), rows=2)
    assert env.state.since.entry.shape == (2, 3) and env.state.since.best.shape == (2, 0)


@pytest.mark.parametrize("fill", ["next_open", "close"])
def test_an_account_is_its_scale_times_another_to_the_bit(fill):
    bars = random_bars(40, 3, seed=3)
    small, large = (
        make_env(bars, OrderConfig(stop=0.01, target=0.02, trailing=0.015), rows=4, fill=fill,
                 costs=replace(FREE, fee_bps=5), initial_cash=cash)
        for cash in (1024.0, 1024.0 * 2**20)
    )  # fmt: skip
    hits = 0
    for action in script(4, 3):
        one, other = small.step(action).outcome, large.step(action).outcome
        hits += int((one.exits.trade != 0).sum())
        assert torch.equal(other.exits.trade, one.exits.trade * 2**20)
        assert torch.equal(other.wealth, one.wealth * 2**20)
        assert_same_bits(large.state.since, small.state.since)
    assert hits > 20


@pytest.mark.parametrize("fill", ["next_open", "close"])
def test_bars_after_the_one_that_a_step_leads_to_change_nothing(fill):
    bars, orders = random_bars(40, 3, seed=4), OrderConfig(stop=0.01, target=0.02, trailing=0.015)
    changed = replace(bars, **{
        name: np.where(np.arange(40)[:, None] > 15, 3.0 * getattr(bars, name), getattr(bars, name))
        for name in ("open", "high", "low", "close")
    })  # fmt: skip
    one, other = (make_env(each, orders, rows=4, fill=fill) for each in (bars, changed))
    hits = 0
    for action in script(4, 3):
        now = int(one.state.episode.bar[0])
        steps = one.step(action), other.step(action)
        if now + 1 > 15:
            break
        hits += int((steps[0].outcome.exits.trade != 0).sum())
        assert_same_bits(*(step.outcome for step in steps))
        assert_same_bits(one.state, other.state)
    assert now == 15 and hits > 10


class ByHand:
    """One position in one asset, in shares and prices, followed as a person would."""

    def __init__(self, stop, target, trailing):
        self.stop, self.target, self.trailing = stop, target, trailing
        self.side, self.entry, self.best = 0, 0.0, 0.0

    def enter(self, side, price):
        if side != self.side:
            self.side, self.entry, self.best = side, price, price

    def follow(self, first, high, low, close):
        """The price at which the bar closes the position, or None."""
        stops = []
        if self.stop:
            stops.append(self.entry * (1 - self.side * self.stop))
        if self.trailing:
            stops.append(self.best * (1 - self.side * self.trailing))
        stop = (max if self.side > 0 else min)(stops) if stops else None
        target = self.entry * (1 + self.side * self.target) if self.target else None
        worst, best = (low, high) if self.side > 0 else (high, low)

        def is_worse(price, level):
            return price <= level if self.side > 0 else price >= level

        if stop is not None and is_worse(first, stop):
            return first
        if target is not None and is_worse(target, first):
            return first
        if stop is not None and is_worse(worst, stop):
            return stop
        if target is not None and is_worse(target, best):
            return target
        self.best = (max if self.side > 0 else min)(self.best, close)
        return None


@pytest.mark.long
@given(
    st.integers(0, 99),
    st.sampled_from([0.0, 0.01, 0.03]),
    st.sampled_from([0.0, 0.01, 0.03]),
    st.sampled_from([0.0, 0.015]),
    st.sampled_from(["next_open", "close"]),
    st.booleans(),
)
@settings(max_examples=60)
def test_random_bars_do_what_they_do_by_hand(seed, stop, target, trailing, fill, adjusted):
    bars = random_bars(60, 1, seed=seed, adjusted=adjusted)
    env = make_env(bars, OrderConfig(stop=stop, target=target, trailing=trailing), fill=fill)
    open_, high, low, close = (
        bars.adjusted(name)[:, 0] for name in ("open", "high", "low", "close")
    )
    hand, wealth, shares = ByHand(stop, target, trailing), 1000.0, 0.0
    rng = np.random.default_rng(seed)
    for bar in range(FIRST, 58):
        price = open_[bar + 1] if fill == "next_open" else close[bar]
        cash = wealth - shares * close[bar]
        asked = rng.choice([0.4, -0.4, HOLD, HOLD])
        held = shares * price
        if np.isfinite(asked):
            if (asked > 0) == (shares > 0) and shares != 0:
                asked = held / (cash + held)  # nothing is added: the entry stays that of the start
            target_value = asked * (cash + held)
            cash, shares = cash + held - target_value, target_value / price
        outcome = env.step(torch.tensor([[asked]]).double()).outcome
        if shares:
            hand.enter(int(np.sign(shares)), price)
            left = hand.follow(open_[bar + 1], high[bar + 1], low[bar + 1], close[bar + 1])
            if left is not None:
                cash, shares, hand.side = cash + shares * left, 0.0, 0
        wealth = cash + shares * close[bar + 1]
        assert float(outcome.wealth) == pytest.approx(wealth, rel=1e-11)
        assert (shares == 0.0) == (not env.state.portfolio.holdings.any())


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("fill", ["next_open", "close"])
def test_many_episodes_of_fused_steps_are_those_of_the_reference(dtype, fill):
    bars = random_bars(60, 5, seed=6, holes=True)
    tape = make_tape(bars, TapeConfig(features=SHORT_FEATURES, fill=fill), dtype=dtype)
    config = EnvConfig(
        orders=OrderConfig(stop=0.012, target=0.02, trailing=0.015, unfilled="carry"),
        action="signed",
        max_gross=2.0,
        randomize=RandomizeConfig(volatility=(0.5, 2.0), assets=(2, 5)),
        episode=EpisodeConfig(horizon=9, staggered=True),
        initial_invested=0.5,
    )
    runs = [run(tape, config, 3, backend, envs=20) for backend in ("torch", "numba")]
    assert_same_run(*runs, config.initial_cash, TOLERANCE[dtype])
    for name in ("stopped", "taken"):
        told = torch.stack([state[f"info.{name}"] for _, _, state in runs[1][1:]])
        assert (told > 0).sum() > 50, name


@pytest.mark.parametrize("seed", range(3))
def test_a_fused_replay_is_that_of_the_reference(seed):
    tape = make_tape(random_bars(80, 4, seed), TapeConfig(features=SHORT_FEATURES))
    rules = EnvConfig(orders=OrderConfig(stop=0.02, target=0.03, trailing=0.02), action="weights")
    names = benchmark_names(tape.symbols)
    fused, wanted = (
        replay(tape, Benchmarks(), names, rules, backend=way) for way in ("auto", "torch")
    )
    torch.testing.assert_close(fused.wealth, wanted.wealth, rtol=1e-9, atol=0)
    for name, paid in fused.costs.items():
        torch.testing.assert_close(paid, wanted.costs[name], rtol=1e-6, atol=1e-6)
    plain = replay(tape, Benchmarks(), names, replace(rules, orders=OrderConfig()))
    assert (plain.wealth != fused.wealth).any()


def test_who_is_ruined_is_so_with_the_same_books_in_fused_steps():
    config = EnvConfig(
        orders=OrderConfig(stop=0.05, trailing=0.03),
        action="signed",
        max_gross=4.0,
        episode=EpisodeConfig(horizon=30),
    )
    runs = [run(soaring_tape(), config, 5, backend) for backend in ("torch", "numba")]
    assert any(transition.terminated.any() for _, transition, _ in runs[0][1:])
    assert_same_run(*runs, config.initial_cash, TOLERANCE[torch.float64])


@pytest.mark.long
@pytest.mark.parametrize("players", [1, 2])
def test_levels_are_in_the_fused_step_of_one_player_and_of_several(players):
    tape = make_tape(random_bars(40, 3), TapeConfig(features=SHORT_FEATURES))
    config = EnvConfig(orders=BOTH, episode=FROM_THE_START, players=players)
    assert PortfolioEnv(tape, 4, config).stepper.name == "numba"


def test_gradients_are_finite_whatever_a_bar_reaches():
    bars = bars_of(QUIET)
    tape = make_tape(bars, TapeConfig(features=SHORT_FEATURES), dtype=torch.float64)
    market = tape.with_extremes().next.at(torch.tensor([FIRST] * 4))
    market["r_high"] = torch.tensor([[0.01], [0.2], [0.0], [-1.0]]).double()
    market["r_low"] = torch.tensor([[-0.01], [0.0], [-0.2], [torch.inf]]).double()
    holdings = torch.tensor(
        [[0.0], [500.0], [500.0], [-500.0]], dtype=torch.float64, requires_grad=True
    )
    cash = torch.tensor([500.0, 500.0, 500.0, 1500.0], dtype=torch.float64, requires_grad=True)
    since = Since(
        *(torch.where(holdings.detach() != 0, 1.02, 0.0).double() for _ in range(2)),
        *[torch.ones(4, 0).double()] * 2,
    )
    weights = torch.tensor([[0.4]] * 4, dtype=torch.float64, requires_grad=True)
    account = lone(Portfolio(holdings, cash))._replace(since=since)
    terms = Terms(orders=OrderConfig(stop=0.05, target=0.1, trailing=0.04))
    friction = make_friction(FREE, 4, dtype=torch.float64)
    wish = Wish(weights, torch.zeros(4, dtype=torch.bool))
    after, outcome = advance(account, wish, named(market), friction, terms)
    assert (outcome.exits.trade != 0)[:, 0].tolist() == [False, True, True, False]
    leaves = torch.autograd.grad(after.portfolio.wealth.sum(), (weights, holdings, cash))
    assert all(gradient.isfinite().all() for gradient in leaves)


def test_of_who_has_nothing_at_the_fill_nothing_is_closed():
    tape = make_tape(bars_of((120, 121, 90, 119)), TapeConfig(features=SHORT_FEATURES))
    market = named(tape.to("cpu", torch.float64).with_extremes().next.at(torch.tensor([FIRST] * 2)))
    holdings, cash = torch.tensor([[-500.0], [-500.0]]).double(), torch.tensor([590.0, 700.0])
    since = Since(torch.ones(2, 1).double(), *[torch.ones(2, 0).double()] * 3)
    account = lone(Portfolio(holdings, cash.double()))._replace(since=since)
    wish = Wish(torch.zeros(2, 1).double(), torch.ones(2, dtype=torch.bool))
    friction, terms = make_friction(FREE, 2, dtype=torch.float64), Terms(orders=BOTH)
    _, outcome = advance(account, wish, market, friction, terms)
    assert outcome.ruined.tolist() == [True, False]
    assert (outcome.exits.trade > 0)[:, 0].tolist() == [False, True]


def test_worlds_drawn_anew_bring_how_far_they_go():
    worlds = FreshWorlds(
        model=Garch(assets=2), bars=40, config=TapeConfig(features=SHORT_FEATURES), batch=4
    )
    config = EnvConfig(orders=OrderConfig(stop=0.01), episode=EpisodeConfig(horizon=5))
    env = PortfolioEnv(worlds, 3, config, backend="torch")
    env.reset(0)
    stopped = 0.0
    for _ in range(30):
        stopped += float(env.step(torch.full((3, 2), 0.5)).outcome.exits.stopped.sum())
        env.renew()
    tape = env.tape
    fresh = extremes_of(
        tape.known.bars, tape.next["r_after"], bars_per_world=40, filled_at_open=True
    )
    assert stopped > 0
    for name in EXTREMES:
        torch.testing.assert_close(tape.next[name], fresh[name])


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: OrderConfig(stop=-0.1), "OrderConfig.stop"),
        (lambda: OrderConfig(stop=5), "OrderConfig.stop"),
        (lambda: OrderConfig(trailing=float("nan")), "OrderConfig.trailing"),
        (lambda: OrderConfig(target=True), "OrderConfig.target"),
        (
            lambda: EnvConfig(orders=BOTH, impact=ImpactConfig(transient=1.0)),
            "OrderConfig.stop.*EnvConfig.impact",
        ),
    ],
)
def test_settings_that_make_no_sense_are_named(make, part):
    with pytest.raises(ConfigError, match=part):
        make()


def test_data_without_highs_and_lows_is_refused_by_what_it_lacks():
    bars = random_bars(40, 3, opens=False)
    with pytest.raises(DataError, match=r"no open, high, low: use bars with .* OrderConfig\.stop"):
        make_env(bars, BOTH, fill="close")
    with pytest.raises(DataError, match=r"this data has no low: "):
        make_env(replace(random_bars(40, 3), low=None), BOTH)


ASKED = {"action": "bracketed"}
AWAY = (100, 101, 90, 93)  # a bar that falls to 90


def ask(env, *rows):
    """Outcomes of steps to these weights, stops and targets of the only asset."""
    return [env.step(torch.tensor([row], dtype=torch.float64)).outcome for row in rows]


STAYS = (HOLD,) * 3
WISHES = {
    "a stop nearer than the settings'": ([(0.5, 0.02, 0.0)], [(100, 101, 97.9, 98.5)], 98),
    "a stop farther than the settings'": ([(0.5, 0.08, 0.0)], [AWAY], 92),
    "so far that nothing reaches it": ([(0.5, 0.2, 0.0)], [AWAY], None),
    "a target nearer": ([(0.5, 0.0, 0.03)], [(100, 104, 99, 102)], 103),
    "a target farther": ([(0.5, 0.0, 0.2)], [(100, 115, 99, 112)], None),
    "both, of which the stop comes first": ([(0.5, 0.01, 0.01)], [(100, 102, 98, 100)], 99),
    "nothing: the settings' stop": ([(0.5, 0.0, 0.0)], [AWAY], 95),
    "NaN: the settings' stop": ([(0.5, HOLD, HOLD)], [AWAY], 95),
    "less than nothing: the settings' stop": ([(0.5, -1.0, -1.0)], [AWAY], 95),
    "infinity: out of reach": ([(0.5, float("inf"), 0.0)], [(100, 101, 1, 2)], None),
    "a short's stop": ([(-0.5, 0.02, 0.0)], [(100, 103, 99, 101)], 102),
    "a short's target": ([(-0.5, 0.0, 0.03)], [(100, 101, 96, 98)], 97),
    "kept while the position is held": ([(0.5, 0.08, 0.0), STAYS], [QUIET, AWAY], 92),
    "asked for of what is not traded": ([(0.5, 0.08, 0.0), (HOLD, 0.02, 0.0)], [QUIET, AWAY], 92),
}


@each_backend
@pytest.mark.parametrize(("rows", "bars", "price"), WISHES.values(), ids=WISHES)
def test_an_action_says_how_far_levels_are_from_what_it_opens(backend, rows, bars, price):
    env = make_env(bars_of(*bars), BOTH, backend=backend, **ASKED)
    last = ask(env, *rows)[-1]
    if price is None:
        assert not last.exits.trade.any() and env.state.portfolio.holdings.any()
        return
    assert abs(float(last.exits.trade)) == pytest.approx(5 * price, rel=1e-13)
    signed = 5 if rows[0][0] > 0 else -5
    assert float(last.wealth) == pytest.approx(1000 + signed * (price - 100), rel=1e-13)


def kept_of(env):
    """Distances of the stop and of the target of the only position."""
    since = env.state.since
    return float(since.stop), float(since.target)


@each_backend
def test_distances_are_those_of_the_action_that_added_last(backend):
    still = [(100.0,) * 4] * 7
    env = make_env(bars_of(*still), BOTH, backend=backend, **ASKED)
    ask(env, (0.5, 0.03, 0.0))
    assert kept_of(env) == (0.03, 0.10)  # what is not asked for is the settings' own
    ask(env, (0.6, 0.0, 0.2))
    assert kept_of(env) == (0.03, 0.2)  # or what the position has
    ask(env, (0.4, 0.01, 0.01))
    assert kept_of(env) == (0.03, 0.2)  # what is sold keeps them
    ask(env, (-0.4, 0.0, 0.04))
    assert kept_of(env) == (0.05, 0.04)  # what is turned around is opened anew
    ask(env, (0.0, 0.07, 0.07))
    assert kept_of(env) == (0.0, 0.0)
    ask(env, (0.2, 0.0, 0.0))
    assert kept_of(env) == (0.05, 0.10)  # of what was held before, nothing is left


@each_backend
def test_what_is_added_moves_the_level_with_the_mean_entry(backend):
    env = make_env(bars_of((100, 100, 98, 100), (104, 104, 104, 104), (104, 104, 90, 95)), BOTH,
                   backend=backend, **ASKED)  # fmt: skip
    ask(env, (0.25, 0.03, 1.0), (0.5, 0.0, 0.0))  # 2.5 shares at 100, then more at 104
    held = float(env.state.portfolio.holdings) / 104
    mean = (2.5 * 100 + (held - 2.5) * 104) / held
    last = ask(env, STAYS)[0]
    assert float(last.exits.stopped) == pytest.approx(held * 0.97 * mean, rel=1e-13)


@each_backend
def test_agents_see_the_levels_that_they_asked_for(backend):
    env = make_env(bars_of((100, 105, 99, 104)), BOTH, backend=backend, **ASKED)
    seen = env.columns(env.step(torch.tensor([[0.5, 0.02, 0.3]], dtype=torch.float64)).observation)[
        0
    ]
    shown = dict(zip(env.observation_names, seen.tolist(), strict=True))
    assert shown["stop.X"] == pytest.approx(1 - 98 / 104)
    assert shown["target.X"] == pytest.approx(130 / 104 - 1)


@each_backend
def test_a_stop_is_never_farther_than_all_of_the_price(backend):
    env = make_env(bars_of(QUIET), BOTH, backend=backend, **ASKED)
    action = torch.tensor([[0.5, float("inf"), float("inf")]], dtype=torch.float64)
    seen = env.columns(env.step(action).observation)[0]
    shown = dict(zip(env.observation_names, seen.tolist(), strict=True))
    assert shown["stop.X"] == 1.0 and shown["target.X"] == FEATURE_LIMIT


@each_backend
def test_an_invested_beginning_has_the_distances_of_the_settings(backend):
    env = make_env(bars_of(QUIET), BOTH, initial_invested=0.5, backend=backend, **ASKED)
    assert kept_of(env) == (0.05, 0.10)


@pytest.mark.long
@each_backend
def test_distances_follow_the_slots_that_weights_do(backend):
    bars = random_bars(40, 4, seed=3)
    env = make_env(bars, OrderConfig(stop=0.9, target=9.0), rows=6, backend=backend,
                   randomize=RandomizeConfig(assets=(2, 4)), **ASKED)  # fmt: skip
    stops = torch.tensor([0.4, 0.5, 0.6, 0.7]).double().expand(6, 4)
    env.step(torch.cat([torch.full((6, 4), 0.1).double(), stops, torch.zeros(6, 4)], -1))
    slots, since = env.state.slots, env.state.since
    assert (slots < 0).any() and (slots[:, 0] != 0).any()
    for row in range(6):
        for slot, asset in enumerate(slots[row].tolist()):
            if asset >= 0:
                assert float(since.stop[row, asset]) == float(stops[row, slot])
    held = env.state.portfolio.holdings != 0
    assert torch.equal(since.stop != 0, held) and torch.equal(since.target == 9.0, held)


def test_what_players_lose_in_ruin_leaves_no_distances():
    env = make_env(random_bars(40, 2), BOTH, rows=2, players=2, **ASKED)
    env.step(torch.tensor([[0.2, 0.2, 0.3, 0.3, 0.5, 0.5]] * 2).double())
    assert env.state.since.stop.all()
    gone = close_accounts(env.state.account, torch.tensor([True, False]))
    assert not gone.since.stop[0].any() and gone.since.stop[1].all()


@pytest.mark.parametrize(
    ("orders", "part"),
    [
        (OrderConfig(), "needs OrderConfig.stop"),
        (OrderConfig(stop=0.1), "needs OrderConfig.target"),
        (replace(BOTH, unfilled="carry"), 'use unfilled="drop"'),
    ],
)
def test_what_actions_may_not_ask_for_has_to_be_set(orders, part):
    with pytest.raises(ConfigError, match=part):
        EnvConfig(action="bracketed", orders=orders)
