"""The strategy in NautilusTrader: what it waits for, sends, refuses and remembers."""

import json
import warnings
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
from nautilus_runs import require_nautilus, run_of

from fastsim.data.read import write_bars
from fastsim.env.orders import OrderConfig
from fastsim.env.perpetual import PerpetualConfig
from fastsim.errors import ConfigError, DataError

nautilus = require_nautilus()
its = {name: import_module(f"nautilus_trader.{name}") for name in ("backtest.engine", "model")}
enums = import_module("nautilus_trader.model.enums")
runs = import_module("fastsim.adapters.nautilus.runs")
data = import_module("fastsim.adapters.nautilus.data")
instruments_module = import_module("fastsim.adapters.nautilus.instruments")
STEPS = 30


@pytest.fixture
def run():
    """An agent that needs no forecasts."""
    return run_of("signed")


def part(run, before=0, after=0):
    """A few test bars, with `before` earlier than what the first decision needs."""
    row = int(np.searchsorted(run.bars.timestamps, run.replay.timestamps[0]))
    return run.bars.take(slice(row + 1 - run.agent.bars_needed - before, row + STEPS + 1 + after))


def engine_of(run, bars, *, rules=None, order=None, keep=lambda each: True, **settings):
    """An engine that has everything, and its strategy; data in the given order of symbols."""
    rules = runs.settled(run.agent, rules)
    seconds = run.agent.spec.calendar.bar_seconds
    instruments = instruments_module.make_instruments(bars, rules)
    engine = its["backtest.engine"].BacktestEngine(
        runs.BacktestEngineConfig(logging=runs._QUIET, run_analysis=False)
    )
    runs._add_venue(engine, run.agent, rules)
    for instrument in instruments:
        engine.add_instrument(instrument)
    made = list(data.make_bars(bars, instruments, seconds))
    if rules.fill == "next_open":
        made += data.make_opens(bars, instruments)
    made = made if order is None else [made[place] for place in order]
    engine.add_data([each for of_one in made for each in of_one if keep(each)])
    days = data_days(bars)
    config = nautilus.AgentStrategyConfig(agent="", fill=rules.fill, closed=days, **settings)
    strategy = nautilus.AgentStrategy(config, run.agent)
    engine.add_strategy(strategy)
    return engine, strategy


def play(engine):
    """Run it as the adapter does, without what pandas says of NautilusTrader's own code."""
    with runs.its_warnings():
        engine.run()


def data_days(bars):
    return import_module("fastsim.adapters.nautilus.span")._days_without(bars.timestamps)


def fills(engine):
    """Time and price of every fill, by symbol."""
    return [
        (order.instrument_id.symbol.value, order.ts_last, order.side, float(order.avg_px))
        for order in engine.cache.orders()
        if order.is_closed
    ]


def test_orders_are_filled_at_the_next_open_of_every_asset(run):
    bars = part(run)
    engine, _ = engine_of(run, bars)
    play(engine)
    opens = bars.adjusted("open")
    found = fills(engine)
    assert len(found) > STEPS
    for symbol, moment, _, price in found:
        row = np.searchsorted(bars.timestamps, np.datetime64(moment - data.OPEN_AFTER, "ns"))
        assert price == pytest.approx(opens[row, bars.symbols.index(symbol)], rel=1e-9)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2)])
def test_orders_at_the_close_wait_for_the_last_asset(run, order):
    bars = part(run)
    engine, _ = engine_of(run, bars, rules=nautilus.VenueRules(fill="close"), order=order)
    play(engine)
    closes, length = bars.adjusted("close"), np.timedelta64(1, "D")
    found = fills(engine)
    assert len(found) > STEPS
    for symbol, moment, _, price in found:
        row = np.searchsorted(bars.timestamps, np.datetime64(moment, "ns") - length)
        assert price == pytest.approx(closes[row, bars.symbols.index(symbol)], rel=1e-9)


def test_the_order_of_assets_changes_nothing(run):
    bars = part(run)
    worth = []
    for order in (range(8), [6, 3, 4, 1, 0, 7, 5, 2]):
        engine, strategy = engine_of(run, bars, order=list(order))
        play(engine)
        worth.append(strategy.history().wealth)
    torch.testing.assert_close(worth[0], worth[1], rtol=1e-9, atol=0.0)


def test_sales_are_sent_before_purchases(run):
    engine, _ = engine_of(run, part(run))
    play(engine)
    sides = {}

    def number(order):
        return int(order.client_order_id.value.rpartition("-")[2])

    for order in sorted(engine.cache.orders(), key=number):
        sides.setdefault(order.ts_init, []).append(order.side)
    mixed = [each for each in sides.values() if len(set(each)) > 1]
    assert len(mixed) > 10
    assert all(each == sorted(each, key=lambda side: side == enums.OrderSide.BUY) for each in mixed)


def test_later_bars_change_no_wealth_before(run):
    bars, cut = part(run), -8
    other = replace(
        bars,
        **{
            name: np.concatenate([values[:cut], 1.5 * values[cut:]])
            for name in ("open", "high", "low", "close", "adj_close")
            for values in [getattr(bars, name)]
        },
    )
    wealth = [nautilus.backtest(run.agent, each).wealth for each in (bars, other)]
    assert torch.equal(wealth[0][:cut], wealth[1][:cut])
    assert not torch.equal(wealth[0][cut:], wealth[1][cut:])


def test_it_decides_from_the_first_bar_that_it_can(run):
    bars = part(run, before=3)
    history = nautilus.backtest(run.agent, bars)
    assert history.timestamps[0] == bars.timestamps[run.agent.bars_needed - 1]
    assert len(history.timestamps) == STEPS + 4
    engine, strategy = engine_of(run, bars)
    play(engine)
    torch.testing.assert_close(strategy.history().wealth, history.wealth)


def test_it_decides_from_its_start_to_its_end(run):
    bars = part(run, before=3)
    first, last = bars.timestamps[run.agent.bars_needed + 5], bars.timestamps[-4]
    history = nautilus.backtest(run.agent, bars, start=str(first)[:10], end=str(last)[:10])
    assert (history.timestamps[0], history.timestamps[-1]) == (first, last)
    assert float(history.wealth[0]) == run.agent.spec.env.initial_cash


def test_earlier_bars_can_be_in_a_file(run, tmp_path):
    bars, needed = part(run), run.agent.bars_needed
    write_bars(bars.take(slice(0, needed - 1)), tmp_path / "before.parquet")
    later = bars.take(slice(needed - 1, None))
    engine, strategy = engine_of(run, later, history=str(tmp_path / "before.parquet"))
    strategy._closed_days = frozenset(np.array(data_days(bars), "datetime64[D]").tolist())
    play(engine)
    wanted = nautilus.backtest(run.agent, bars)
    torch.testing.assert_close(strategy.history().wealth, wanted.wealth, rtol=1e-7, atol=0.0)


def test_what_it_remembers_is_kept_by_nautilus(run):
    bars = part(run)
    engine, strategy = engine_of(run, bars)
    assert strategy.on_save() == {}
    play(engine)
    kept = strategy.on_save()
    _, another = engine_of(run, bars)
    another.on_load(kept)
    assert another.remembered == strategy.remembered
    assert another.remembered.decisions == STEPS + 1
    another.on_load({})
    assert another.remembered == strategy.remembered
    for spoilt in (b"{", b"[]", json.dumps({"peak_wealth": 1.0}).encode()):
        with pytest.raises(DataError, match="agent_state is no state of an agent"):
            another.on_load({"agent_state": spoilt})


def test_it_goes_on_from_what_it_remembered(run):
    bars, cut = part(run), run.agent.bars_needed + 9
    engine, strategy = engine_of(run, bars.take(slice(0, cut)))
    play(engine)
    engine, another = engine_of(run, bars, start=str(bars.timestamps[cut]))
    another.on_load(strategy.on_save())
    play(engine)
    assert another.remembered.decisions == len(bars) - run.agent.bars_needed + 1
    engine, again = engine_of(run, bars, start=str(bars.timestamps[cut - 1]))
    again.on_load(strategy.on_save())
    with pytest.raises(DataError, match="it has decided by the bar of"):
        play(engine)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda bars: bars.take(slice(0, 50)), "give more|are too few"),
        (lambda bars: bars.take(slice(None), [0, 1, 2]), "there are no bars of MSFT"),
        (lambda bars: replace(bars, open=None), "bars have no open"),
        (lambda bars: replace(bars, high=bars.low * 0.9), "is none: .*high"),
    ],
)
def test_bars_that_cannot_be_played_are_refused(run, spoil, told):
    with pytest.raises(DataError, match=told):
        nautilus.backtest(run.agent, spoil(part(run)))


@pytest.mark.parametrize("name", ["open", "high", "close", "volume"])
def test_a_number_that_is_missing_is_named(run, name):
    bars = part(run)
    values = getattr(bars, name).copy()
    values[-5, 2] = np.nan
    with pytest.raises(DataError, match=rf"IBM has no {name} on {str(bars.timestamps[-5])[:10]}"):
        nautilus.backtest(run.agent, replace(bars, **{name: values}))


def test_a_start_without_enough_bars_before_it_is_refused(run):
    bars = part(run, before=2)
    early, first = (str(bars.timestamps[run.agent.bars_needed - n])[:10] for n in (2, 1))
    with pytest.raises(DataError, match=f"bars before {early} are too few: .* start at {first}"):
        nautilus.backtest(run.agent, bars, start=early)
    with pytest.raises(DataError, match="a backtest is from one close to another"):
        nautilus.backtest(run.agent, bars, start=first, end=first)
    with pytest.raises(DataError, match="start"):
        nautilus.backtest(run.agent, bars, start="soon")


def test_other_symbols_are_left_out(run):
    bars = part(run)
    more = replace(
        bars,
        symbols=("ZZ", *bars.symbols),
        **{
            name: np.concatenate([np.full((len(bars), 1), np.nan), getattr(bars, name)], axis=1)
            for name in ("open", "high", "low", "close", "volume", "adj_close")
        },
    )
    wealth = [nautilus.backtest(run.agent, each).wealth for each in (bars, more)]
    assert torch.equal(*wealth)


def test_a_bar_that_never_comes_stops_it(run):
    bars = part(run)
    end = int(bars.timestamps[-5].astype("datetime64[ns]").astype(np.int64)) + 86_400 * 10**9

    def keep(each):
        is_it = isinstance(each, its["model"].Bar) and each.ts_event == end
        return not (is_it and each.bar_type.instrument_id.symbol.value == "GOOG")

    engine, strategy = engine_of(run, bars, keep=keep)
    with pytest.raises(DataError, match=f"no bar of GOOG on {str(bars.timestamps[-5])[:10]}"):
        play(engine)
    assert strategy.remembered.decisions == STEPS + 1 - 5


def test_an_open_that_never_comes_is_told(run):
    bars = part(run)
    begin = int(bars.timestamps[-5].astype("datetime64[ns]").astype(np.int64)) + data.OPEN_AFTER

    def keep(each):
        is_it = isinstance(each, its["model"].TradeTick) and each.ts_event == begin
        return not (is_it and each.instrument_id.symbol.value == "GOOG")

    engine, strategy = engine_of(run, bars, keep=keep)
    play(engine)
    day = str(bars.timestamps[-5])[:10]
    assert strategy.refused == [
        f"nothing was traded before the close of {day}: there was no trade in GOOG"
    ]
    assert float(strategy.history().turnover[-5]) == 0.0


def test_what_it_cannot_find_is_named(run):
    bars = part(run)
    engine, _ = engine_of(run, bars, venue="ELSEWHERE")
    with pytest.raises(ConfigError, match=r"there is no instrument AAPL\.ELSEWHERE"):
        play(engine)
    engine, _ = engine_of(run, bars, currency="EUR")
    with pytest.raises(ConfigError, match="there is no account in EUR at FASTSIM"):
        play(engine)


@pytest.mark.parametrize(
    ("settings", "told"),
    [({"fill": "soon"}, "fill must be"), ({"sized_at": "noon"}, "sized_at must be")],
)
def test_settings_of_the_strategy_are_checked(run, settings, told):
    with pytest.raises(ConfigError, match=told):
        nautilus.AgentStrategy(nautilus.AgentStrategyConfig(agent="", **settings), run.agent)
    with pytest.raises(ConfigError, match="no such folder"):
        nautilus.AgentStrategy(nautilus.AgentStrategyConfig(agent="nowhere"))


def test_a_cash_account_cannot_be_short(run, caplog):
    rules = nautilus.VenueRules(whole_shares=True, account="cash")
    history = nautilus.backtest(run.agent, part(run), rules=rules)
    assert (history.weights >= -1e-9).all()
    assert "times: an order was refused, SELL" in caplog.text


def test_a_cash_account_is_not_for_the_node(run, tmp_path):
    rules = nautilus.VenueRules(whole_shares=True, account="cash")
    with pytest.raises(ConfigError, match="buys are denied as sells have not settled"):
        nautilus.node_config(run.folder, part(run), tmp_path / "catalog", rules=rules)
    assert list(tmp_path.iterdir()) == []


def test_warnings_of_its_code_about_pandas_to_come_are_left_out(monkeypatch):
    class Coming(DeprecationWarning):
        pass

    monkeypatch.setattr(runs.pd.errors, "Pandas4Warning", Coming, raising=False)
    with runs.its_warnings():
        warnings.warn("it copies", Coming, stacklevel=1)
    with pytest.raises(UserWarning, match="another"), runs.its_warnings():
        warnings.warn("another", UserWarning, stacklevel=1)


def test_what_is_left_out_is_told(run, caplog):
    nautilus.backtest(run.agent, part(run))
    assert "leaves out what the agent had of costs.participation" in caplog.text


@pytest.mark.parametrize(
    ("env", "part"),
    [
        ({"action": "bracketed", "orders": OrderConfig(stop=0.05, target=0.1)}, "none are placed"),
        ({"action": "leveraged", "perpetual": PerpetualConfig(leverage=5.0)}, "neither their fund"),
    ],
)
def test_agents_whose_positions_it_would_not_close_are_refused(run, env, part):
    spec = replace(run.agent.spec, env=replace(run.agent.rules, **env))
    agent = type(run.agent)(spec, run.agent.who, run.agent.forecaster)
    with pytest.raises(ConfigError, match=part):
        nautilus.backtest(agent, run.bars)
    with pytest.raises(ConfigError, match=part):
        nautilus.AgentStrategy(nautilus.AgentStrategyConfig(agent=""), agent)
