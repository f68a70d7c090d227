"""An agent out of training decides as it did in its run, and refuses what would mislead it."""

import json
from dataclasses import replace
from datetime import date

import numpy as np
import pytest
import torch
from worlds import random_bars

from fastsim.agent.agent import Agent
from fastsim.agent.artifact import AgentSpec, read_spec, save_spec
from fastsim.agent.state import AgentState, BrokerAccount
from fastsim.cli import main
from fastsim.config import from_mapping
from fastsim.data.bars import Bars
from fastsim.data.calendar import TradingCalendar
from fastsim.data.read import write_bars
from fastsim.data.source import DataConfig, read_source
from fastsim.env.config import EnvConfig
from fastsim.errors import CheckpointError, ConfigError, DataError
from fastsim.experiment.config import TrainConfig, read_run
from fastsim.experiment.markets import load_markets
from fastsim.experiment.replays import play
from fastsim.experiment.train import train
from fastsim.forecast.features import ForecastConfig
from fastsim.forecast.registry import load_ensemble
from fastsim.forecast.season.divide import Season
from fastsim.forecast.season.setting import write_season
from fastsim.market.tape import TapeConfig

CASH = BrokerAccount(cash=1e6)
SMALL = {
    "total_steps": 4096,
    "evaluations": 1,
    "collect": {"num_envs": 64, "rollout_steps": 16},
    "policy": {"hidden": 16, "initial_std": 1.0},
}
RUNS = {
    "tech4": {"data": {"source": "tech4"}, "forecaster": "fastsim-prior"},
    "us20": {"data": {"source": "us20"}, "forecaster": "fastsim-prior"},
    "weights": {"data": {"source": "tech4"}, "forecaster": "none", "env": {"action": "weights"}},
    "windows": {
        "data": {"source": "tech4"},
        "forecaster": "fastsim-prior",
        "forecast": {"frames": ["1w"], "context_length": 64},
        "tape": {"features": {"frames": ["1w"]}},
        "policy": SMALL["policy"] | {"encoder": "conv", "window": 10, "channels": 8},
    },
    "weeks": {
        "data": {"source": "tech4"},
        "forecaster": "fastsim-prior",
        "forecast": {"frames": ["1w"], "context_length": 64},
        "tape": {"features": {"frames": ["1w"]}},
    },
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("runs"), {}

    def run(name):
        if name not in made:
            settings = SMALL | RUNS[name] | {"runs_dir": str(folder), "name": name}
            made[name] = train(from_mapping(TrainConfig, settings))
        return made[name]

    return run


@pytest.fixture
def agent(runs):
    return Agent.load(runs("weights"))


@pytest.fixture
def bars(agent):
    return read_source(DataConfig(source="tech4")).take(slice(1700 - agent.bars_needed, 1700))


def after(bars):
    """The time right after the last of these daily bars."""
    return bars.timestamps[-1] + np.timedelta64(24, "h")


def day_of(stamp):
    return stamp.astype("datetime64[D]").item()


def closed_days(bars):
    days = bars.timestamps.astype("datetime64[D]")
    every = np.arange(days[0], days[-1])
    return {day.item() for day in every[~np.isin(every, days)]}


def held_at(history, tape, row, closes):
    """Shares and cash of the replay's account at the close of a bar, before its decision."""
    step = row - tape.first
    wealth = float(history.wealth[step, 0])
    if step == 0:
        return BrokerAccount(cash=wealth)
    weights = history.weights[step - 1, 0]  # right after the trade
    moved = weights[:-1] * (1.0 + tape.next["r_after"][row - 1].double())
    values = wealth * moved / (moved.sum() + weights[-1])
    shares = dict(zip(tape.symbols, (values.numpy() / closes).tolist(), strict=True))
    return BrokerAccount(cash=wealth - float(values.sum()), shares=shares)


def assert_decides_as_the_run(folder, every):
    agent, config = Agent.load(folder), read_run(folder)
    tape = load_markets(config).test
    history = play(agent.policy, tape, config.env)
    bars = read_source(config.data)
    closed, features = closed_days(bars), len(tape.feature_names)
    told = [name.startswith(("scaled_forecast", "forecast")) for name in tape.feature_names]
    for row in range(tape.first, tape.last, every):
        step = row - tape.first
        before = AgentState(
            initial_wealth=float(history.wealth[0, 0]),
            peak_wealth=float(history.wealth[: step + 1, 0].max()),
            timestamps=(str(bars.timestamps[row - 1])[:10],),
            closes={s: (float(bars.close[row - 1, n]),) for n, s in enumerate(bars.symbols)},
        )
        window = bars.take(slice(row + 1 - agent.bars_needed, row + 1))
        account = held_at(history, tape, row, bars.close[row])
        decision = agent.decide(window, account, before, now=after(window), closed=closed)
        weights = torch.tensor(list(decision.weights.values()), dtype=torch.float64)
        assert (weights - history.weights[step, 0, :-1]).abs().max() <= 1e-6, row
        seen = [
            decision.why.observation[f"{s}.{n}"] for s in bars.symbols for n in tape.feature_names
        ]
        seen = torch.tensor(seen).view(-1, features)
        known = tape.known.features[row]
        assert torch.equal(seen[:, ~torch.tensor(told)], known[:, ~torch.tensor(told)]), row
        torch.testing.assert_close(seen, known, rtol=0.0, atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("name", ["tech4", "us20", "weights", "weeks", "windows"])
def test_it_decides_by_its_last_bars_as_in_its_run(runs, name):
    assert_decides_as_the_run(runs(name), every=101)


@pytest.mark.long
@pytest.mark.parametrize("name", ["tech4", "us20", "weeks", "windows"])
def test_it_decides_at_every_test_bar_as_in_its_run(runs, name):
    assert_decides_as_the_run(runs(name), every=1)


def test_weights_are_exact_after_costs(runs, bars):
    agent = Agent.load(runs("weights"))
    account = BrokerAccount(cash=3e5, shares={"MSFT": 2000.0, "GOOG": 100.0})
    decision = agent.decide(bars, account, now=after(bars))
    costs, prices = agent.spec.env.costs, bars.close[-1]
    trade = np.array(list(decision.orders.values())) * prices
    half, fee = 1e-4 * costs.half_spread_bps, 1e-4 * costs.fee_bps
    bought, sold = trade.clip(min=0), (-trade).clip(min=0)
    paid = (bought * (1 + half) * (1 + fee)).sum() - (sold * (1 - half) * (1 - fee)).sum()
    held = np.array([account.shares.get(s, 0.0) for s in agent.symbols]) * prices + trade
    left = held.sum() + account.cash - paid
    np.testing.assert_allclose(held / left, list(decision.weights.values()), rtol=1e-12)


def spoilt(bars: Bars, name: str) -> Bars:
    close, stamps = bars.close.copy(), bars.timestamps.copy()
    if name == "twice":
        stamps[-3] = stamps[-4]
    elif name == "unsorted":
        stamps[[-3, -4]] = stamps[[-4, -3]]
    elif name == "NaN":
        close[-40, 1] = np.nan
    elif name == "missing":
        keep = np.delete(np.arange(len(bars)), -5)
        return bars.take(keep)
    elif name == "short":
        return bars.take(slice(1, None))
    elif name == "unknown":
        return replace(bars, symbols=("ABCD", *bars.symbols[1:]))
    elif name == "unadjusted":
        return replace(bars, adj_close=None)
    return replace(bars, close=close, timestamps=stamps)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("twice", "is there twice"),
        ("unsorted", "sort bars by time"),
        ("NaN", r"GOOG has no close on \d{4}-\d\d-\d\d|has no close on"),
        ("missing", r"there is no bar of \d{4}-\d\d-\d\d, between"),
        ("short", "looks back on 128"),
        ("unknown", "there are no bars of"),
        ("unadjusted", "bars have no adj_close"),
    ],
)
def test_bars_that_would_mislead_it_are_refused_by_name(agent, bars, name, told):
    longer = read_source(DataConfig(source="tech4")).take(slice(1690 - agent.bars_needed, 1700))
    given = spoilt(longer if name not in ("short",) else bars, name)
    with pytest.raises(DataError, match=told):
        agent.decide(given, CASH, now=after(given))


def test_a_bar_that_is_not_over_is_refused(agent, bars):
    last = bars.timestamps[-1]
    with pytest.raises(DataError, match=f"the bar of {str(last)[:10]} is not over before"):
        agent.decide(bars, CASH, now=last + np.timedelta64(14, "h"))
    agent.decide(bars, CASH, now=last + np.timedelta64(24, "h"))


def test_bars_that_come_late_are_refused(agent, bars):
    friday = read_source(DataConfig(source="tech4"))
    row = next(n for n in range(1600, 1700) if day_of(friday.timestamps[n]).weekday() == 4)
    window = friday.take(slice(row + 1 - agent.bars_needed, row + 1))
    monday = friday.timestamps[row] + np.timedelta64(3, "D")
    agent.decide(window, CASH, now=monday + np.timedelta64(23, "h"))
    with pytest.raises(DataError, match=f"that of {str(monday)[:10]} is over by now; fetch it"):
        agent.decide(window, CASH, now=monday + np.timedelta64(24, "h"))
    agent.decide(window, CASH, now=monday + np.timedelta64(24, "h"), closed=[day_of(monday)])


def test_what_has_changed_since_the_last_decision_is_refused(agent):
    data = read_source(DataConfig(source="tech4"))
    first = data.take(slice(1700 - agent.bars_needed, 1700))
    then = data.take(slice(1701 - agent.bars_needed, 1701))
    state = agent.decide(first, CASH, now=after(first)).state
    agent.decide(then, CASH, state, now=after(then))
    with pytest.raises(DataError, match="it has decided by the bar of"):
        agent.decide(first, CASH, state, now=after(first))
    halved = then.close.copy()
    halved[:, 2] /= 2.0
    with pytest.raises(DataError, match=f"closes of {data.symbols[2]} are 0.5 times"):
        agent.decide(replace(then, close=halved), CASH, state, now=after(then))
    revised = then.close.copy()
    revised[-4, 1] *= 1.01
    with pytest.raises(DataError, match=f"the close of {data.symbols[1]} on .* data were revised"):
        agent.decide(replace(then, close=revised), CASH, state, now=after(then))
    far = data.take(slice(1900 - agent.bars_needed, 1900))
    with pytest.raises(DataError, match="give all bars from there on"):
        agent.decide(far, CASH, state, now=after(far))


def test_peak_and_start_are_remembered(agent, bars, tmp_path):
    state = agent.decide(bars, CASH, now=after(bars)).state
    assert (state.initial_wealth, state.peak_wealth, state.decisions) == (1e6, 1e6, 1)
    state.save(tmp_path / "state.json")
    assert AgentState.load(tmp_path / "state.json") == state
    data = read_source(DataConfig(source="tech4"))
    then = data.take(slice(1701 - agent.bars_needed, 1701))
    low = agent.decide(then, BrokerAccount(cash=9e5), state, now=after(then))
    assert (low.state.peak_wealth, low.state.decisions) == (1e6, 2)
    seen = low.why.observation
    assert seen["drawdown"] == pytest.approx(0.1, rel=1e-6)
    assert seen["log_growth"] == pytest.approx(np.log(0.9), rel=1e-5)
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(DataError, match="no state of format 1"):
        AgentState.load(tmp_path / "state.json")


def test_accounts_that_are_none_are_refused(agent, bars):
    with pytest.raises(DataError, match="the account has shares of TSLA"):
        agent.decide(bars, BrokerAccount(cash=1.0, shares={"TSLA": 1.0}), now=after(bars))
    with pytest.raises(DataError, match="there is nothing to decide"):
        agent.decide(bars, BrokerAccount(cash=0.0), now=after(bars))
    with pytest.raises(ConfigError, match="cash must be a finite number"):
        BrokerAccount(cash=float("nan"))
    with pytest.raises(ConfigError, match="shares of KO must be a finite number"):
        BrokerAccount(cash=1.0, shares={"KO": "ten"})


def test_another_forecaster_than_it_learned_by_is_refused(runs, tmp_path):
    folder = runs("tech4") / "agent"
    spec = read_spec(folder)
    assert spec.forecasters == ("fastsim-prior",) and spec.forecaster_key
    mapping = json.loads((folder / "agent.json").read_text())
    copied = tmp_path / "agent"
    (copied / "policy").mkdir(parents=True)
    for path in (folder / "policy").iterdir():
        (copied / "policy" / path.name).write_bytes(path.read_bytes())
    (copied / "agent.json").write_text(json.dumps(mapping | {"forecaster_key": "other"}))
    with pytest.raises(CheckpointError, match="the agent learned by forecasts of other"):
        Agent.load(copied)
    (copied / "agent.json").write_text("{")
    with pytest.raises(CheckpointError, match="damaged, or no agent's"):
        Agent.load(copied)
    (copied / "agent.json").write_text(json.dumps(mapping | {"bars_needed": "many"}))
    with pytest.raises(CheckpointError, match="bars_needed"):
        Agent.load(copied)
    with pytest.raises(ConfigError, match="no such folder"):
        Agent.load(tmp_path / "nowhere")


def test_the_command_decides_and_remembers(runs, bars, tmp_path, capsys):
    run, state = runs("weights"), tmp_path / "state.json"
    write_bars(bars, tmp_path / "bars.parquet")
    command = ["decide", str(run), str(tmp_path / "bars.parquet"), "--state", str(state)]
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--cash", "1e6"])
    assert "is over by now; fetch it" in capsys.readouterr().err
    command += ["--now", str(after(bars).astype("datetime64[s]"))]
    with pytest.raises(SystemExit, match="2"):
        main(command)
    assert "either --account FILE, or --cash AMOUNT" in capsys.readouterr().err
    assert not state.exists()
    main([*command, "--cash", "1e6", "--json"])
    told = json.loads(capsys.readouterr().out)
    wanted = Agent.load(run).decide(bars, CASH, now=after(bars))
    assert told["weights"] == dict(wanted.weights) and told["orders"] == dict(wanted.orders)
    assert AgentState.load(state) == wanted.state
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--cash", "1e6"])
    assert "it has decided by the bar of" in capsys.readouterr().err
    assert AgentState.load(state) == wanted.state
    account = tmp_path / "account.json"
    for text, wrong in (
        ("[1]", "it must be an object such as"),
        ('{"cash": "x"}', "cash"),
        ('{"cash": 1, "share": {}}', "did you mean 'shares'"),
        ('{"cash": NaN}', "cash must be a finite number"),
        ("{", "account.json"),
    ):
        account.write_text(text)
        with pytest.raises(SystemExit, match="2"):
            main([*command, "--account", str(account)])
        assert wrong in capsys.readouterr().err
    account.write_text('{"cash": 5e5, "shares": {"TSLA": 3}}')
    state.unlink()
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--account", str(tmp_path / "account.json")])
    assert "the account has shares of TSLA" in capsys.readouterr().err
    assert not state.exists()
    main([*command, "--cash", "1e6"])
    assert "Target weight" in capsys.readouterr().out


def test_weights_that_are_only_here_travel_with_it(tmp_path):
    weights = tmp_path / "elsewhere" / "mine.pt"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    spec = AgentSpec(
        tape=TapeConfig(fill="close"),
        env=EnvConfig(),
        calendar=TradingCalendar.of(random_bars().timestamps),
        fields=(),
        bars_needed=9,
        forecasters=(str(weights), "random-walk-60"),
    )
    save_spec(tmp_path / "agent", spec)
    weights.unlink()
    (tmp_path / "agent").rename(tmp_path / "moved")
    kept = read_spec(tmp_path / "moved")
    here = tmp_path / "moved" / "forecaster" / "mine.pt"
    assert kept.forecasters == (str(here), "random-walk-60") and here.read_bytes() == b"weights"
    assert replace(kept, forecasters=spec.forecasters) == spec
    with pytest.raises(CheckpointError, match="cannot be copied"):
        save_spec(tmp_path / "agent", spec)


def test_the_profile_of_a_season_travels_with_it(tmp_path):
    profile = tmp_path / "hours.json"
    write_season(Season("America/New_York"), profile)
    spec = AgentSpec(
        tape=TapeConfig(fill="close"),
        env=EnvConfig(),
        calendar=TradingCalendar.of(random_bars().timestamps),
        fields=(),
        bars_needed=9,
        forecasters=("random-walk-60",),
        forecast=ForecastConfig(season=str(profile)),
        forecaster_key=load_ensemble(["random-walk-60"], season=str(profile)).key,
    )
    save_spec(tmp_path / "agent", spec)
    profile.unlink()
    (tmp_path / "agent").rename(tmp_path / "moved")
    kept = read_spec(tmp_path / "moved")
    assert load_ensemble(kept.forecasters, season=kept.forecast.season).key == spec.forecaster_key


def test_days_that_were_closed_can_be_named(runs):
    agent = Agent.load(runs("weights"))
    data = read_source(DataConfig(source="tech4"))
    row = int(np.searchsorted(data.timestamps, np.datetime64("2012-11-05")))
    window = data.take(slice(row - agent.bars_needed, row))
    with pytest.raises(DataError, match="there is no bar of 2012-10-29"):
        agent.decide(window, CASH, now=after(window))
    storm = (date(2012, 10, 29), date(2012, 10, 30))
    agent.decide(window, CASH, now=after(window), closed=storm)
