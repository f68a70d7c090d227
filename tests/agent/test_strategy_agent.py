"""An agent of a strategy decides bar by bar as the strategy does in a replay."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from replayed import Written, closed_days, over

from fastsim.agent.agent import Agent
from fastsim.agent.config import StrategyConfig
from fastsim.agent.make import agent_of, make_agent
from fastsim.agent.state import AgentState, BrokerAccount
from fastsim.agent.who import Signal
from fastsim.backtest.replay import replay
from fastsim.cli import main
from fastsim.config import load_yaml
from fastsim.data.read import write_bars
from fastsim.data.sample import sample_bars
from fastsim.data.source import DataConfig
from fastsim.env.config import EnvConfig
from fastsim.errors import CheckpointError, ConfigError, DataError, ForecastError
from fastsim.market.tape import TapeConfig
from fastsim.progress import SILENT
from fastsim.signals.confidence import ThresholdConfig
from fastsim.signals.config import SignalConfig
from fastsim.signals.levels import LevelConfig
from fastsim.signals.regimes import REGIMES as REGIME_NAMES
from fastsim.signals.regimes import RegimeConfig
from fastsim.signals.sizing import SizingConfig

ROOT = Path(__file__).parents[2]
SHORT = SignalConfig(
    context_length=64,
    horizon=5,
    regimes=RegimeConfig(volatility_window=10, history=40, trend_window=10, memory=16),
)
REGIMES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
STRATEGIES = {
    "long": SHORT,
    "both": replace(SHORT, sides="both", hold=8),
    "caps": replace(
        SHORT,
        sides="both",
        sizing=SizingConfig(risk=0.01, cap=0.4, gross=0.8, budget=0.02, by_regime=REGIMES),
    ),
    "best": replace(SHORT, sides="both", threshold=ThresholdConfig(best=0.3, history=50)),
    "quantiles": replace(SHORT, sides="both", levels=LevelConfig(kind="quantile")),
    "tight": replace(SHORT, levels=LevelConfig(stop_atr=0.5, target_atr=None)),
}


def config_of(name, fill="next_open"):
    signals = STRATEGIES[name]
    action = "weights" if signals.sides == "long" else "signed"
    return StrategyConfig(
        data=DataConfig(source="tech4"),
        tape=TapeConfig(fill=fill),
        env=EnvConfig(action=action),
        signals=signals,
    )


def held_at(history, tape, row, closes):
    """Shares and cash of the replay's account at the close of a bar, before its decision."""
    step = row - tape.first
    wealth = float(history.wealth[step, 0])
    if step == 0:
        return BrokerAccount(cash=wealth)
    weights = history.weights[step - 1, 0].double()
    moved = weights[:-1] * (1.0 + tape.next["r_after"][row - 1].double())
    values = wealth * moved / (moved.sum() + weights[-1])
    shares = dict(zip(tape.symbols, (values.numpy() / closes).tolist(), strict=True))
    return BrokerAccount(cash=wealth - float(values.sum()), shares=shares)


def assert_decides_as_replayed(agent, bars, first, last, folder):
    tape = agent.market_of(bars, folder, progress=SILENT).between(slice(first, last + 1))
    written = Written(agent.decider)
    history = replay(tape, written, ["signals"], agent.rules)
    state, closed, moved = None, closed_days(bars), 0
    for row in range(tape.first, tape.last):
        window = bars.take(slice(row + 1 - agent.bars_needed, row + 1))
        account = held_at(history, tape, row, bars.close[row])
        decision = agent.decide(window, account, state, now=over(window), closed=closed)
        said = written.answers_given[row - tape.first].double()
        assert decision.holds == bool(said.isnan().any()), row
        if decision.holds:
            assert not any(decision.orders.values())
        else:
            weights = torch.tensor(list(decision.weights.values()), dtype=torch.float64)
            asked = said / torch.maximum(said.abs().sum(), torch.tensor(1.0))
            assert (weights - asked).abs().max() <= 1e-6, row
            moved += 1
        decision.state.save(folder / "state.json")
        state = AgentState.load(folder / "state.json")
        assert state == decision.state
    return moved


@pytest.mark.long
@pytest.mark.parametrize("name", list(STRATEGIES))
def test_it_decides_bar_by_bar_as_the_strategy_in_a_replay(name, tmp_path):
    make_agent(config_of(name), tmp_path / "agent")
    bars = sample_bars("tech4")
    moved = assert_decides_as_replayed(Agent.load(tmp_path / "agent"), bars, 700, 760, tmp_path)
    assert moved > 5


@pytest.fixture(scope="module")
def agent():
    return agent_of(config_of("both"))


@pytest.fixture(scope="module")
def bars():
    return sample_bars("tech4")


def asked(agent, bars, row, account, state=None, extra=0):
    window = bars.take(slice(row + 1 - agent.bars_needed - extra, row + 1))
    return agent.decide(window, account, state, now=over(window), closed=closed_days(bars))


def entered(agent, bars, row):
    """The first decision from a row on that enters something."""
    account = BrokerAccount(cash=1e6)
    while not (decision := asked(agent, bars, row, account)).state.positions:
        row += 1
    return row, decision


def test_why_names_signal_regime_and_levels(agent, bars):
    row, decision = entered(agent, bars, 700)
    assert decision.timestamp == bars.timestamps[row]
    for column, symbol in enumerate(agent.symbols):
        signal, position = decision.why.signals[symbol], decision.state.positions.get(symbol)
        rise = 0.5 + decision.why.forecast[f"{symbol}.forecast_rise_5"]
        assert signal.confidence == pytest.approx(max(rise, 1 - rise))
        assert signal.regime in REGIME_NAMES
        if position is None:
            assert (signal.held, signal.stop) == ("none", None)
            continue
        assert signal.held == signal.direction == ("long" if rise > 0.5 else "short")
        close = bars.close[row, column]
        away = position.side * (close - signal.stop) / close
        assert away == pytest.approx(position.distance, rel=1e-6)
        assert position.side * (signal.target - close) / close == pytest.approx(2 * away, rel=1e-6)


def test_a_level_that_was_touched_while_it_was_not_asked_is_not_forgotten(agent, bars):
    row, first = entered(agent, bars, 700)
    symbol, position = next(iter(first.state.positions.items()))
    column = bars.symbols.index(symbol)
    price = float(bars.close[row, column])
    account = BrokerAccount(cash=1e6 - 1e3 * price, shares={symbol: position.side * 1e3})
    with pytest.raises(DataError, match="looks back on"):
        asked(agent, bars, row + 2, account, first.state)
    far = position.close * (1 - 0.9 * position.side)
    beyond = position.close * (1 + 0.9 * position.side)
    kept = replace(first.state, positions={symbol: replace(position, stop=far, target=beyond)})
    touched = replace(
        first.state, positions={symbol: replace(position, stop=position.close, target=beyond)}
    )
    decision = asked(agent, bars, row + 2, account, kept, extra=1)
    assert decision.state.positions[symbol].bars == 2
    decision = asked(agent, bars, row + 2, account, touched, extra=1)
    left = decision.state.positions.get(symbol)
    assert left is None or left.bars == 0


def test_levels_move_along_where_prices_are_adjusted_anew(agent, bars):
    row, first = entered(agent, bars, 700)
    account = BrokerAccount(cash=1e6)
    wanted = asked(agent, bars, row + 1, account, first.state)
    adjusted = replace(bars, adj_close=0.5 * bars.adj_close)
    found = asked(agent, adjusted, row + 1, account, first.state)
    for symbol, position in wanted.state.positions.items():
        other = found.state.positions[symbol]
        assert other.stop == pytest.approx(0.5 * position.stop, rel=1e-6)
        assert found.why.signals[symbol].stop == pytest.approx(
            wanted.why.signals[symbol].stop, rel=1e-6
        )
        assert (other.side, other.bars) == (position.side, position.bars)


def test_what_is_no_strategy_of_these_rules_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"sides = 'both' needs EnvConfig.action = 'signed'"):
        StrategyConfig(signals=SignalConfig(sides="both"))
    with pytest.raises(ConfigError, match="'weights', got 'logits'"):
        StrategyConfig(env=EnvConfig(action="logits"))
    short = replace(SHORT, context_length=8)
    with pytest.raises(ConfigError, match="context_length must be at least the"):
        agent_of(StrategyConfig(data=DataConfig(source="tech4"), signals=short))
    with pytest.raises(ForecastError, match="bars ahead, not 9999"):
        agent_of(
            StrategyConfig(data=DataConfig(source="tech4"), signals=replace(SHORT, horizon=9999))
        )


def test_a_folder_holds_one_agent(tmp_path):
    agent = make_agent(config_of("long"), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agent.json", "strategy.json"]
    assert Agent.load(tmp_path).decider == agent.decider
    with pytest.raises(ConfigError, match="trades on signals and has no policy"):
        _ = agent.policy
    (tmp_path / "policy").mkdir()
    with pytest.raises(CheckpointError, match=r"holds a policy and a strategy.json"):
        Agent.load(tmp_path)
    with pytest.raises(ConfigError, match="holds another agent"):
        make_agent(config_of("long"), tmp_path)
    (tmp_path / "policy").rmdir()
    (tmp_path / "strategy.json").write_text('{"format": 1, "symbols": ["A"], "signals": {"x": 1}}')
    with pytest.raises(CheckpointError, match=r"strategy.json: SignalConfig has no field 'x'"):
        Agent.load(tmp_path)


def test_the_command_makes_an_agent_that_decides(tmp_path, bars, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example = ROOT / "agents" / "strategy.yaml"
    out = ["--out", "made", "--signals.horizon", "3", "--signals.threshold.best", "None"]
    main(["agent", "make", str(example), *out])
    assert "AAPL, GOOG, IBM, MSFT" in capsys.readouterr().out
    made = Agent.load(tmp_path / "made")
    config = load_yaml(StrategyConfig, example)
    wanted = replace(
        config.signals, horizon=3, threshold=replace(config.signals.threshold, best=None)
    )
    assert made.decider.signals == wanted and made.rules == config.env
    main(["agent", "show", "made"])
    assert "SignalStrategy" in capsys.readouterr().out
    window = bars.take(slice(1000 - made.bars_needed, 1000))
    write_bars(window, tmp_path / "bars.parquet")
    now = str(over(window).astype("datetime64[s]"))
    decide = ["decide", "made", "bars.parquet", "--cash", "1e6", "--state", "state.json"]
    closed = map(str, sorted(closed_days(window)))
    main([*decide, "--now", now, "--json", "--closed", *closed])
    told = json.loads(capsys.readouterr().out)
    assert set(told["signals"]) == set(made.symbols)
    assert set(told["signals"]["IBM"]) == set(Signal._fields)
    assert AgentState.load(tmp_path / "state.json").decisions == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.yaml"], "nowhere.yaml: no such configuration file"),
        (["wrong.yaml"], "signals has no key 'horizn'.*did you mean 'horizon'"),
        (["right.yaml", "--env.action", "logits"], "needs --env.action weights, got 'logits'"),
        (["right.yaml", "--out", "right.yaml"], "--out must be a folder"),
        (["right.yaml", "--data.source", "gone.csv"], "gone.csv"),
        (["right.txt"], "must be a .yaml file"),
        (["--out", "right.yaml", "right.yaml"], "--out must be a folder, and right.yaml is a file"),
        (["right.yaml", "--calendar", "XNYZ"], "no calendar of an exchange 'XNYZ'"),
    ],
)
def test_what_cannot_be_made_is_told_in_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.yaml").write_text("signals: {horizn: 3}")
    (tmp_path / "right.yaml").write_text("data: {source: tech4}")
    with pytest.raises(SystemExit, match="2"):
        main(["agent", "make", *arguments])
    told = capsys.readouterr().err
    assert re.search(words, told) and told.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_an_exchange_s_calendar_goes_with_it(tmp_path, bars):
    pytest.importorskip("exchange_calendars")
    make_agent(replace(config_of("long"), calendar="XNYS"), tmp_path)
    agent = Agent.load(tmp_path)
    row = int(np.searchsorted(bars.timestamps, np.datetime64("2012-11-05")))
    window = bars.take(slice(row - agent.bars_needed, row))  # with days closed for a storm
    agent.decide(window, BrokerAccount(cash=1e6), now=over(window))
    longer = bars.take(slice(row - agent.bars_needed - 1, row))
    missing = longer.take(np.delete(np.arange(len(longer)), -9))
    with pytest.raises(DataError, match="there is no bar of 2012-10-19"):
        agent.decide(missing, BrokerAccount(cash=1e6), now=over(window))
