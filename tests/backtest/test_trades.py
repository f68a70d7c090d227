"""Positions of a strategy: by hand, and adding up to what the books say."""

import numpy as np
import polars as pl
import pytest
import torch
from worlds import FREE, SHORT_FEATURES, random_bars

from fastsim.backtest.replay import replay_schedule
from fastsim.backtest.trades import (
    TRADES,
    Spans,
    all_trades,
    by_confidence,
    by_regime,
    fill_prices,
    risk_of,
    spans_of,
    trade_table,
)
from fastsim.env.config import EnvConfig
from fastsim.market.tape import TapeConfig, make_tape

DAYS = np.datetime64("2020-01-01", "ns") + np.arange(9) * np.timedelta64(1, "D")


def market(fill="next_open", **options):
    config = TapeConfig(features=SHORT_FEATURES, fill=fill)
    return make_tape(random_bars(40, 2, **options), config, dtype=torch.float64)


def played(tape, *weights, action="weights"):
    """A history without costs of these weights [A] at the first steps, and nothing after."""
    steps = tape.last - tape.first
    schedule = torch.zeros(steps, 1, tape.num_assets, dtype=torch.float64)
    schedule[: len(weights), 0] = torch.tensor(weights, dtype=torch.float64)
    return replay_schedule(tape, schedule, ["who"], EnvConfig(costs=FREE, action=action))


@pytest.mark.parametrize("fill", ["next_open", "close"])
def test_a_position_is_filled_where_the_market_fills_it(fill):
    tape, bars = market(fill), random_bars(40, 2)
    trades = trade_table(played(tape, (0, 0), (1, 0), (1, 0)), 0, fill_prices(tape))
    (trade,) = trades.rows(named=True)
    decided, later = tape.first + 1, int(fill == "next_open")
    prices = bars.open if later else bars.close
    assert trade["symbol"] == "S0" and trade["side"] == "long" and trade["bars"] == 2
    assert trade["entry_price"] == pytest.approx(prices[decided + later, 0], rel=1e-12)
    assert trade["exit_price"] == pytest.approx(prices[decided + 2 + later, 0], rel=1e-12)
    assert pl.Series([trade["entered"]]).to_numpy()[0] == bars.timestamps[decided + later]
    assert trade["simple_return"] == pytest.approx(trade["exit_price"] / trade["entry_price"] - 1)


@pytest.mark.parametrize("fill", ["next_open", "close"])
def test_without_costs_positions_of_all_wealth_compound_to_the_books(fill):
    tape = market(fill, seed=3)
    history = played(tape, (1, 0), (1, 0), (0, 1), (0, 0), (0, 1), (0, 1), (1, 0))
    trades = trade_table(history, 0, fill_prices(tape))
    assert len(trades) == 4
    growth = float((1 + trades["simple_return"]).product())
    assert float(history.wealth[-1, 0] / history.wealth[0, 0]) == pytest.approx(growth, rel=1e-12)
    single = all_trades(trades)
    assert single.won == (trades["simple_return"] > 0).mean()


def test_a_turn_from_long_to_short_is_two_positions_and_the_last_is_open():
    tape = market()
    steps = tape.last - tape.first
    history = played(tape, *[(0.5, 0)] * 2, *[(-0.5, 0)] * (steps - 2), action="signed")
    trades = trade_table(history, 0, fill_prices(tape))
    assert trades["side"].to_list() == ["long", "short"]
    assert trades["reason"].to_list() == ["weights", "open"]
    assert trades["exit_price"][1] == pytest.approx(random_bars(40, 2).close[-1, 0])
    gain = trades["exit_price"][1] / trades["entry_price"][1] - 1
    assert trades["simple_return"][1] == pytest.approx(-gain)
    assert spans_of(history, 0).left.tolist() == [2, steps]


def test_positions_that_were_never_filled_are_left_out():
    tape = market()
    history = played(tape, (0.5, 0.5))
    spans = Spans(*map(np.array, ([0, 1], [0, 5], [1, 6], [1, 1])))
    assert trade_table(history, 0, fill_prices(tape), spans)["symbol"].to_list() == ["S0"]


def table(gains, weights=None, **columns):
    """A table of trades of these returns."""
    rows = len(gains)
    usual = {
        **{"symbol": ["A"] * rows, "side": ["long"] * rows, "reason": ["time"] * rows},
        **{"simple_return": gains, "weight": weights or [0.5] * rows},
    }
    given = {**usual, **columns}
    empty = [None] * rows
    return pl.DataFrame([pl.Series(n, given.get(n, empty)).cast(k) for n, k in TRADES.items()])


def test_groups_by_confidence_are_of_nearly_equal_size_and_hold_every_trade():
    confidence = [0.5 + 0.01 * (7 * place % 13) for place in range(13)]
    trades = table([0.01 * (place - 6) for place in range(13)], confidence=confidence)
    groups = by_confidence(trades)
    assert [group.trades for group in groups] == [3, 3, 3, 2, 2]
    assert groups[0].name == "0.500 to 0.520" and groups[-1].name == "0.610 to 0.620"
    total = sum(group.contribution for group in groups)
    assert total == pytest.approx(all_trades(trades).contribution)
    assert by_confidence(table([0.1, 0.2])) == ()
    assert len(by_confidence(table([0.1], confidence=[0.6]))) == 1


def test_groups_by_regime_stand_in_the_order_of_regimes():
    regimes = ["high", None, "low", "high"]
    trades = table([0.1, 0.2, -0.1, 0.3], regime=regimes, confidence=[0.5] * 4)
    groups = by_regime(trades, ("low", "middle", "high"))
    assert [(each.name, each.trades) for each in groups] == [
        ("low", 1),
        ("high", 2),
        ("unknown", 1),
    ]
    assert groups[1].mean_return == pytest.approx(0.2) and groups[0].won == 0.0
    assert by_regime(table([0.1]), ("low",)) == ()


def test_results_in_units_of_risk_and_losses_beside_what_was_planned():
    trades = table(
        [0.04, -0.02, -0.06, -0.5],
        weights=[0.5, -1.0, 0.5, 1.0],
        distance=[0.02, 0.02, 0.02, None],
    )
    assert all_trades(trades).in_risk == pytest.approx((2 - 1 - 3) / 3)
    risk = risk_of(trades)
    assert risk.trades == 3
    assert risk.planned_mean == pytest.approx((0.01 + 0.02 + 0.01) / 3)
    assert risk.planned_most == pytest.approx(0.02)
    assert risk.realised_mean == pytest.approx((0.02 + 0.03) / 2)
    assert risk.realised_most == pytest.approx(0.03)
    assert risk.beyond == pytest.approx(1 / 3)
    assert risk_of(table([0.1])) is None
