"""Perpetual futures: funding, liquidation prices and what they cost, held to closed forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import TOLERANCE, assert_same_run, of_futures, run
from worlds import FREE, SHORT_FEATURES, random_bars

from fastsim.backtest.benchmarks import Benchmarks, benchmark_names
from fastsim.backtest.replay import replay
from fastsim.data.bars import Bars
from fastsim.env.config import EnvConfig
from fastsim.env.environment import PortfolioEnv
from fastsim.env.episode import EpisodeConfig
from fastsim.env.impact import ImpactConfig
from fastsim.env.orders import OrderConfig
from fastsim.env.perpetual import PerpetualConfig
from fastsim.errors import ConfigError
from fastsim.market.tape import TapeConfig, make_tape

FROM_THE_START = EpisodeConfig(horizon=None, random_start=False, staggered=False)
STILL = (100.0, 100.0, 100.0, 100.0)
HOLD = float("nan")
FIRST = 5  # bars of warm-up
START = np.datetime64("2024-01-01T00:00", "ns")
HOUR = np.timedelta64(1, "h")
FEE = 0.0125
TIERS = [
    {"minNotional": 0, "maxNotional": 50_000, "maintenanceMarginRate": 0.004, "maxLeverage": 125,
     "info": {"cum": "0.0"}},
    {"minNotional": 50_000, "maxNotional": 600_000, "maintenanceMarginRate": 0.01,
     "maxLeverage": 20, "info": {"cum": "300.0"}},
    {"minNotional": 600_000, "maxNotional": 3_000_000, "maintenanceMarginRate": 0.025,
     "maxLeverage": 10, "info": {"cum": "9300.0"}},
]  # fmt: skip
LEVERAGED = {"action": "leveraged", "max_gross": 5.0}

TRITON = pytest.param("triton", marks=pytest.mark.long)
each_backend = pytest.mark.parametrize("backend", ["torch", "numba", TRITON])
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")
each_fill = pytest.mark.parametrize("fill", ["next_open", "close"])


def bars_of(*prices, symbols=("BTC/USDT",)):
    """Six still days at 100, these (open, high, low, close), and three more at the last close."""
    rest = (prices[-1][3],) * 4
    table = np.array([STILL] * (FIRST + 1) + list(prices) + [rest] * 3)[:, :, None]
    table = np.broadcast_to(table, (len(table), 4, len(symbols))).copy()
    fields = dict(zip(("open", "high", "low", "close"), table.transpose(1, 0, 2), strict=True))
    return Bars(symbols=symbols, timestamps=START + 24 * HOUR * np.arange(len(table)), **fields)


def series(bars, rate=0.0, hours=8, changes=None):
    """ccxt's records of funding every so many hours, at one rate, and at these of other hours."""
    count = int((bars.timestamps[-1] - START) / (hours * HOUR)) + 24 // hours
    changes = {} if changes is None else changes
    return [
        {
            "symbol": f"{symbol}:USDT",
            "timestamp": int((START + at * HOUR).astype("datetime64[ms]").astype(int)) + 7,
            "fundingRate": changes.get(at, rate),
            "info": {},
        }
        for symbol in bars.symbols
        for at in range(0, (count + 1) * hours, hours)
    ]


def make_env(
    bars, perpetual, *, funding=None, tiers=TIERS, fill="next_open", backend="torch", **rules
):  # fmt: skip
    if backend == "triton":
        pytest.importorskip("triton", reason="triton is for Linux")
    tape = make_tape(
        bars,
        TapeConfig(features=SHORT_FEATURES, fill=fill),
        funding=series(bars) if funding is None else funding,
        tiers=dict.fromkeys(bars.symbols, tiers),
        dtype=torch.float64,
    )
    rules = {"initial_cash": 10_000.0, "costs": FREE, **LEVERAGED, **rules}
    config = EnvConfig(perpetual=perpetual, episode=FROM_THE_START, **rules)
    env = PortfolioEnv(tape, 1, config, backend=backend, single_orders=True)
    env.reset(0)
    return env


def play(env, *weights):
    """Outcomes of steps to these weights of the only asset."""
    return [env.step(torch.tensor([[weight]]).double()).outcome for weight in weights]


def price_of(side, size, entry, leverage, rate, cum):
    """Binance's formula of an isolated position, one-way: what the books are held to."""
    balance = size * entry / leverage
    return (balance + cum - side * size * entry) / (size * (rate - side))


CASES = {
    "long, first tier": (500, 20, 0.004, 0.0),
    "short, first tier": (-450, 20, 0.004, 0.0),
    "long, second tier": (5_000, 20, 0.01, 300.0),
    "short, second tier": (-5_000, 20, 0.01, 300.0),
    "long that falls into the first tier": (520, 20, 0.004, 0.0),
    "short that rises into the second tier": (-490, 20, 0.01, 300.0),
    "long, third tier": (15_000, 5, 0.025, 9300.0),
    "short, third tier": (-5_500, 5, 0.025, 9300.0),
}
"""Coins bought or sold at 100, leverage, and the tier of their value where they are liquidated."""


@each_backend
@pytest.mark.parametrize("case", CASES)
def test_positions_are_liquidated_at_the_price_of_the_formula(backend, case):
    coins, leverage, rate, cum = CASES[case]
    side, size, cash = (1 if coins > 0 else -1), abs(coins), abs(coins) * 100 / 4.0
    price = price_of(side, size, 100.0, leverage, rate, cum)
    value = size * price
    tier = next(tier for tier in TIERS if value <= tier["maxNotional"])
    assert tier["maintenanceMarginRate"] == rate, "the case is of another tier"
    for beyond in (0.999, 1.001):  # of the way to the price
        worst = 100 + (price - 100) * beyond
        low, high = min(worst, 100), max(worst, 100)
        env = make_env(
            bars_of(STILL, (100, high, low, 100)),
            PerpetualConfig(leverage=leverage),
            initial_cash=cash,
            backend=backend,
        )
        _, held = play(env, side * 4.0, HOLD)
        if beyond < 1:
            assert float(held.settlement.liquidated) == 0.0 and env.state.portfolio.holdings.any()
            assert float(held.wealth) == pytest.approx(cash, rel=1e-12)
            continue
        assert not env.state.portfolio.holdings.any()
        assert float(held.settlement.liquidated) == pytest.approx(value, rel=1e-12)
        assert float(held.settlement.seized) == pytest.approx(-side * value, rel=1e-12)
        left = size * 100 / leverage + side * size * (price - 100)  # of the margin
        fee = min(FEE * value, left)
        assert left > 0 and float(held.settlement.liquidation_fee) == pytest.approx(fee, rel=1e-9)
        wealth = cash + side * size * (price - 100) - fee
        assert float(held.wealth) == pytest.approx(wealth, rel=1e-12)
        assert float(held.settlement.insured) == 0.0


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("beyond", [0.999, 1.001])  # of the way to the price
def test_positions_side_by_side_are_liquidated_each_at_its_own_price(backend, beyond):
    cases = [case for case in CASES.values() if case[1] == 20]
    prices = [
        price_of(1 if coins > 0 else -1, abs(coins), 100.0, *terms) for coins, *terms in cases
    ]
    names = tuple(f"C{number}/USDT" for number in range(len(cases)))
    bars, held = bars_of(STILL, STILL, symbols=names), FIRST + 2
    for column, price in enumerate(prices):
        worst = 100 + (price - 100) * beyond
        bars.high[held, column], bars.low[held, column] = max(worst, 100), min(worst, 100)
    perpetual = PerpetualConfig(leverage=20)
    env = make_env(bars, perpetual, initial_cash=400_000.0, backend=backend)
    weights = torch.tensor([[coins * 100 / 400_000 for coins, *_ in cases]], dtype=torch.float64)
    env.step(weights)
    settlement = env.step(weights * HOLD).outcome.settlement
    values = [-coins * price for (coins, *_), price in zip(cases, prices, strict=True)]
    wanted = torch.tensor([values], dtype=torch.float64) * (beyond > 1)
    torch.testing.assert_close(settlement.seized, wanted, rtol=1e-12, atol=0)
    assert float(settlement.liquidated) == pytest.approx(float(wanted.abs().sum()), rel=1e-12)
    assert (env.state.portfolio.holdings == 0).all() == (beyond > 1)


@each_backend
@pytest.mark.parametrize("side", [1, -1])
def test_a_small_fee_leaves_of_the_margin_what_is_left(backend, side):
    perpetual = PerpetualConfig(leverage=10, liquidation_fee_bps=10)
    bars = bars_of(STILL, (100, 200, 50, 100))
    env = make_env(bars, perpetual, backend=backend)
    _, held = play(env, side * 2.0, HOLD)
    size = 200.0
    price = price_of(side, size, 100, 10, 0.004, 0)
    assert float(held.settlement.liquidation_fee) == pytest.approx(0.001 * size * price)
    assert float(held.wealth) == pytest.approx(
        10_000 + side * size * (price - 100) - 0.001 * size * price
    )


@each_backend
@each_fill
@pytest.mark.parametrize(
    ("side", "first", "fee", "insured"),
    [
        (1, 93.0, None, None),  # before 90.36, where the formula liquidates
        (1, 90.2, 40.0, 0.0),  # beyond it, and before 90, where the margin is gone
        (1, 80.0, 0.0, 2_000.0),
        (-1, 107.0, None, None),
        (-1, 109.8, 40.0, 0.0),
        (-1, 120.0, 0.0, 2_000.0),
    ],
)
def test_a_gap_is_filled_at_the_open_and_takes_no_more_than_the_margin(
    backend, fill, side, first, fee, insured
):
    bar = (first, max(first, 100), min(first, 100), 100)  # back again, which is too late
    env = make_env(
        bars_of(STILL, bar),
        PerpetualConfig(leverage=10),
        fill=fill,
        backend=backend,
        tiers=TIERS[:1],
    )
    _, held = play(env, side * 2.0, HOLD)  # 200 coins, on a margin of 2,000
    if fee is None:
        assert float(held.wealth) == pytest.approx(10_000)
        assert float(held.settlement.liquidated) == 0.0
        return
    assert float(held.settlement.liquidated) == pytest.approx(200 * first)
    assert float(held.settlement.liquidation_fee) == pytest.approx(fee)  # 1.25 % would be 226
    assert float(held.settlement.insured) == pytest.approx(insured)
    assert float(held.wealth) == pytest.approx(8_000, rel=1e-12)


@each_backend
def test_who_was_liquidated_at_the_open_trades_there_only_afterwards(backend):
    bars = bars_of(STILL, (80, 81, 79, 80))
    env = make_env(bars, PerpetualConfig(leverage=10), backend=backend)
    _, again = play(env, 2.0, 1.0)  # to close or to add at 80 would escape the loss of 2,000, or it
    assert float(again.wealth_at_fill) == pytest.approx(8_000)
    assert float(again.trade) == pytest.approx(8_000)  # all of it is bought anew
    assert float(again.settlement.seized) == pytest.approx(-200 * 80)
    assert float(again.settlement.insured) == pytest.approx(2_000)


@each_backend
def test_a_stop_before_the_price_of_liquidation_is_filled_and_one_behind_it_is_not(backend):
    bars = bars_of(STILL, (100, 101, 80, 85))
    for stop, price in ((0.05, 95.0), (0.2, None)):
        env = make_env(
            bars, PerpetualConfig(leverage=10), orders=OrderConfig(stop=stop), backend=backend
        )
        _, held = play(env, 2.0, HOLD)
        if price:
            assert float(held.exits.stopped) == pytest.approx(200 * price)
            assert float(held.settlement.liquidated) == 0.0
        else:
            assert float(held.exits.stopped) == 0.0
            assert float(held.settlement.liquidated) > 0.0
        assert not env.state.portfolio.holdings.any()
    gap = bars_of(STILL, (85, 86, 80, 85))
    env = make_env(
        gap, PerpetualConfig(leverage=10), orders=OrderConfig(stop=0.05), fill="close",
        backend=backend,
    )  # fmt: skip
    _, held = play(env, 2.0, HOLD)  # the exchange is not slower than its customer
    assert float(held.exits.stopped) == 0.0
    assert float(held.settlement.liquidated) == pytest.approx(200 * 85)


@each_backend
def test_a_target_that_the_open_is_beyond_is_taken_and_else_the_worst_comes_first(backend):
    orders = OrderConfig(target=0.05)
    for bar, taken in (((106, 107, 80, 85), True), ((100, 107, 80, 85), False)):
        env = make_env(
            bars_of(STILL, bar), PerpetualConfig(leverage=10), orders=orders, backend=backend
        )
        _, held = play(env, 2.0, HOLD)
        assert (float(held.exits.taken) > 0) == taken
        assert (float(held.settlement.liquidated) > 0) != taken


@each_backend
def test_what_is_added_moves_the_price_of_liquidation_with_the_mean_entry(backend):
    bars = bars_of(STILL, (96, 96, 96, 96), (96, 96, 90, 96))
    env = make_env(bars, PerpetualConfig(leverage=10), backend=backend, tiers=TIERS[:1])
    play(env, 1.0)  # 100 at 100
    _, last = play(env, 2.0, HOLD)  # of 9,600: 200, of which 100 at 96
    price = price_of(1, 200, 98, 10, 0.004, 0)
    assert 90 > 100 * 0.9 / 0.996 - 0.4 and price < 90  # the first alone would have been called
    assert float(last.settlement.liquidated) == 0.0
    env = make_env(bars, PerpetualConfig(leverage=10), backend=backend, tiers=TIERS[:1])
    *_, last = play(env, 1.0, HOLD, HOLD)
    assert float(last.settlement.liquidated) == pytest.approx(
        100 * price_of(1, 100, 100, 10, 0.004, 0)
    )


@each_backend
@each_fill
def test_funding_is_paid_at_each_moment_on_what_is_held_then(backend, fill):
    # The bar after the first decision is day 6: payments at 08:00, 16:00 and 24:00 of it.
    day = 24 * (FIRST + 1)
    rates = {day: 0.05, day + 8: 0.001, day + 16: -0.0003, day + 24: 0.002, day + 32: 0.04}
    bars = bars_of((100, 103, 99, 102), (102, 102, 102, 102))
    funding = series(bars, changes=rates)
    paid = 0.001 * 20_000 - 0.0003 * 20_000 + 0.002 * 20_400  # at the close only the last
    for side in (1, -1):
        env = make_env(
            bars, PerpetualConfig(leverage=10), funding=funding, fill=fill, backend=backend
        )
        (outcome,) = play(env, 2.0 * side)
        assert float(outcome.settlement.funding) == pytest.approx(side * paid, rel=1e-12)
        assert float(outcome.wealth) == pytest.approx(10_000 + side * (400 - paid), rel=1e-12)


@each_backend
def test_funding_of_a_known_series_adds_up_over_all_of_an_episode(backend):
    bars = bars_of(*[STILL] * 20)
    rng = np.random.default_rng(0)
    hours = range(0, 24 * len(bars) + 25, 8)
    rates = {
        at: float(rate) for at, rate in zip(hours, rng.normal(0, 1e-3, len(hours)), strict=True)
    }
    env = make_env(bars, PerpetualConfig(leverage=5), funding=series(bars, changes=rates),
                   backend=backend)  # fmt: skip
    told = play(env, 1.0, *[HOLD] * 21)
    first, last = 24 * (FIRST + 1), 24 * (FIRST + 1 + 22)
    wanted = 10_000 * sum(rate for at, rate in rates.items() if first < at <= last)
    assert sum(float(each.settlement.funding) for each in told) == pytest.approx(wanted, rel=1e-12)
    assert float(told[-1].wealth) == pytest.approx(10_000 - wanted, rel=1e-12)


@each_backend
def test_a_record_that_tells_its_mark_price_is_paid_at_that(backend):
    day = 24 * (FIRST + 1)
    bars = bars_of((100, 103, 99, 102), (102, 102, 102, 102))
    funding = series(bars, changes={day + 16: 0.01})
    row = next(row for row in funding if row["fundingRate"] == 0.01)
    row["info"] = {"markPrice": "101.5"}
    env = make_env(bars, PerpetualConfig(leverage=10), funding=funding, backend=backend)
    (outcome,) = play(env, 2.0)
    assert float(outcome.settlement.funding) == pytest.approx(200 * 101.5 * 0.01, rel=1e-12)


@each_backend
def test_nobody_lends_or_borrows(backend):
    tape = make_tape(
        bars_of(STILL), TapeConfig(features=SHORT_FEATURES, risk_free_rate=0.5),
        funding=series(bars_of(STILL)), dtype=torch.float64,
    )  # fmt: skip
    costs = replace(FREE, borrow_bps_per_year=10_000)
    config = EnvConfig(
        perpetual=PerpetualConfig(leverage=10, maintenance_rate=0.004), costs=costs, **LEVERAGED,
        episode=FROM_THE_START,
    )  # fmt: skip
    for weight in (-3.0, 3.0):
        env = PortfolioEnv(tape, 1, config, backend=backend)
        env.reset(0)
        outcome = env.step(torch.tensor([[weight]])).outcome
        assert float(outcome.borrow) == float(outcome.interest) == 0.0
        assert float(outcome.wealth) == pytest.approx(config.initial_cash, rel=1e-12)


@each_backend
def test_positions_end_where_their_leverage_does(backend):
    cash = 400_000.0  # five times that is beyond the 600,000 that leverage 20 is offered for
    env = make_env(bars_of(STILL), PerpetualConfig(leverage=20), initial_cash=cash, backend=backend)
    (outcome,) = play(env, 5.0)
    assert float(outcome.trade) == pytest.approx(600_000)
    env = make_env(bars_of(STILL), PerpetualConfig(leverage=20), initial_cash=cash, backend=backend)
    (outcome,) = play(env, -5.0)
    assert float(outcome.trade) == pytest.approx(-600_000)


@each_backend
def test_gains_losses_funding_and_fees_are_all_that_changes_wealth(backend):
    bars = random_bars(60, 3, seed=3)
    tape = make_tape(bars, TapeConfig(features=SHORT_FEATURES), dtype=torch.float64)
    config = EnvConfig(perpetual=PerpetualConfig(leverage=25), **LEVERAGED, episode=FROM_THE_START)
    tape, config = of_futures(tape, config, 1)
    env = PortfolioEnv(tape, 4, config, backend=backend, single_orders=True)
    env.reset(0)
    seized = 0.0
    for step in range(40):
        generator = torch.Generator().manual_seed(step)
        weights = 3 * torch.randn(4, 3, generator=generator, dtype=torch.float64)
        bar, held = int(env.state.episode.bar[0]), env.state.portfolio.holdings
        outcome = env.step(weights).outcome
        before, after = tape.next["r_before"][bar], tape.next["r_after"][bar]
        told, now = outcome.settlement, env.state.portfolio.holdings
        kept = outcome.holdings * (1 + after)
        alive = (now != 0) | (outcome.holdings == 0)  # not closed within the bar
        torch.testing.assert_close(torch.where(alive, kept, 0.0), now)
        change = outcome.wealth - outcome.wealth_before
        # Everything bought and sold, seized or not, and what is held in the end.
        spent = (outcome.trade + told.seized).sum(-1)
        paid = outcome.total_cost + told.funding + told.liquidation_fee - told.insured
        gain = now.sum(-1) - held.sum(-1) - spent
        torch.testing.assert_close(change, gain - paid, rtol=1e-9, atol=1e-3)
        assert before.shape == after.shape
        seized += float(told.liquidated.sum())
    assert seized > 0


@pytest.mark.long
@settings(max_examples=25)
@given(
    st.integers(0, 2**40),
    st.booleans(),
    st.sampled_from([0.0, 0.01]),
    st.sampled_from(["next_step", "same_step"]),
    st.sampled_from(["next_open", "close"]),
)
def test_fused_steps_are_those_of_the_reference(seed, tiers, stop, autoreset, fill):
    bars = random_bars(60, 5, seed=seed % 7, holes=True)
    tape = make_tape(bars, TapeConfig(features=SHORT_FEATURES, fill=fill), dtype=torch.float64)
    config = EnvConfig(
        **LEVERAGED,
        perpetual=PerpetualConfig(leverage=25, maintenance_rate=0.0 if tiers else 0.02),
        orders=OrderConfig(stop=stop, unfilled="carry"),
        episode=EpisodeConfig(horizon=9, staggered=True),
        autoreset=autoreset,
    )
    runs = [run(tape, config, seed, backend) for backend in ("torch", "numba")]
    assert_same_run(*runs, config.initial_cash, TOLERANCE[torch.float64])
    liquidated = torch.stack([state["info.liquidated"] for _, _, state in runs[1][1:]])
    assert stop or (liquidated > 0).any()  # a stop comes before it, but for gaps


def test_a_fused_replay_is_that_of_the_reference_and_names_funding():
    tape = make_tape(random_bars(80, 4, 1), TapeConfig(features=SHORT_FEATURES))
    rules = EnvConfig(perpetual=PerpetualConfig(leverage=10), action="weights")
    tape, rules = of_futures(tape, rules, 3)
    names = benchmark_names(tape.symbols)
    fused, wanted = (
        replay(tape, Benchmarks(), names, rules, backend=way) for way in ("auto", "torch")
    )
    torch.testing.assert_close(fused.wealth, wanted.wealth, rtol=1e-9, atol=0)
    assert list(fused.costs)[-3:] == ["funding", "liquidation_fee", "borrow"]
    assert fused.costs["funding"].any()
    for name, paid in fused.costs.items():
        torch.testing.assert_close(paid, wanted.costs[name], rtol=1e-6, atol=1e-6)


def test_info_names_what_was_settled():
    env = make_env(bars_of(STILL, (100, 101, 80, 85)), PerpetualConfig(leverage=10))
    play(env, 2.0)
    source = env.tell(env.step(torch.tensor([[HOLD]]).double()))
    told = {name: float(source.tell(name)) for name in source.names if name != "weights"}
    assert told["liquidated"] > 0 and told["liquidation_fee"] > 0 and told["insured"] == 0
    assert told["funding"] == 0.0 and told["cost"] == 0.0


@pytest.mark.long
@pytest.mark.parametrize("players", [1, pytest.param(2, marks=pytest.mark.long)])
def test_futures_are_in_the_fused_step_of_one_player_and_of_several(players):
    bars = bars_of(STILL)
    tape = make_tape(bars, TapeConfig(features=SHORT_FEATURES), funding=series(bars))
    perpetual = PerpetualConfig(leverage=10, maintenance_rate=0.004)
    config = EnvConfig(perpetual=perpetual, episode=FROM_THE_START, players=players, **LEVERAGED)
    assert PortfolioEnv(tape, 4, config).stepper.name == "numba"


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"perpetual": {"leverage": -1}}, "PerpetualConfig.leverage must be >= 0 and <= 150"),
        ({"perpetual": {"leverage": 0.5}}, "PerpetualConfig.leverage must be at least 1"),
        ({"perpetual": {"leverage": float("nan")}}, "PerpetualConfig.leverage"),
        ({"perpetual": {"maintenance_rate": 0.9}}, "PerpetualConfig.maintenance_rate"),
        ({"perpetual": {"liquidation_fee_bps": -1}}, "PerpetualConfig.liquidation_fee_bps"),
        ({"action": "leveraged"}, "needs perpetual futures: set perpetual.leverage"),
        ({"action": "signed", "max_gross": 5.0}, "EnvConfig.max_gross must be > 0 and <= 4"),
        (
            {"action": "leveraged", "max_gross": 5.0, "perpetual": {"leverage": 3}},
            "max_gross = 5 asks for more margin than there is at PerpetualConfig.leverage = 3",
        ),
        (
            {"orders": {"maintenance_margin": 0.2}, "perpetual": {"leverage": 3}},
            "OrderConfig.maintenance_margin is a broker's",
        ),
        (
            {"impact": ImpactConfig(transient=1.0), "perpetual": {"leverage": 3}},
            "EnvConfig.impact moves them",
        ),
        (
            {"action": "leveraged", "max_gross": 10.0, "perpetual": {"leverage": 20},
             "costs": {"fee_bps": 900.0, "half_spread_bps": 200.0}},
            "EnvConfig.max_gross = 10 at fees and spreads of 0.11 costs more",
        ),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_named(settings, part):
    kinds = {"perpetual": PerpetualConfig, "orders": OrderConfig, "costs": type(FREE)}
    with pytest.raises(ConfigError, match=part):
        EnvConfig(**{
            name: kinds[name](**value) if isinstance(value, dict) else value
            for name, value in settings.items()
        })  # fmt: skip


def test_a_market_without_funding_is_refused_by_name_and_never_charged_nothing():
    bars = bars_of(STILL)
    plain = make_tape(bars, TapeConfig(features=SHORT_FEATURES))
    perpetual = PerpetualConfig(leverage=10, maintenance_rate=0.004)
    config = EnvConfig(perpetual=perpetual, episode=FROM_THE_START)
    with pytest.raises(ConfigError, match="no funding, which is never taken for zero: give Tape"):
        PortfolioEnv(plain, 1, config)
    with pytest.raises(ConfigError, match="no funding"):
        replay(plain, Benchmarks(), benchmark_names(plain.symbols), config)
    futures = make_tape(bars, TapeConfig(features=SHORT_FEATURES), funding=series(bars))
    with pytest.raises(ConfigError, match=r"PerpetualConfig.leverage = 0 trades spot"):
        PortfolioEnv(futures, 1, EnvConfig(episode=FROM_THE_START))
    with pytest.raises(ConfigError, match=r"need a maintenance margin: give TapeConfig.tiers"):
        PortfolioEnv(futures, 1, replace(config, perpetual=PerpetualConfig(leverage=10)))
    with pytest.raises(ConfigError, match=r"leaves BTC/USDT a margin of 0.02, .* 0.03: use less"):
        PortfolioEnv(
            futures,
            1,
            replace(config, perpetual=PerpetualConfig(leverage=50, maintenance_rate=0.03)),
        )
    tiered = make_tape(
        bars, TapeConfig(features=SHORT_FEATURES), funding=series(bars), tiers={"BTCUSDT": TIERS}
    )
    with pytest.raises(ConfigError, match=r"more than BTC/USDT is offered: at most 125"):
        PortfolioEnv(tiered, 1, replace(config, perpetual=PerpetualConfig(leverage=150)))
    with pytest.raises(ConfigError, match=r"stands in for tiers, and this market has tiers"):
        PortfolioEnv(tiered, 1, config)
