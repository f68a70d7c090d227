"""Perpetual futures from the command line and from YAML: a run's settings reach its books."""

import pytest
import torch
from futures import settings_of, write_futures
from swinging import swinging

from fastsim.backtest.replay import replay
from fastsim.cli import main
from fastsim.config import from_mapping, load_yaml, save_yaml, to_mapping
from fastsim.errors import ConfigError, DataError
from fastsim.experiment.backtest import backtest
from fastsim.experiment.config import TrainConfig
from fastsim.experiment.markets import load_markets
from fastsim.experiment.stage import BacktestConfig
from fastsim.market.tape import TapeConfig
from fastsim.synthetic.garch import Garch
from fastsim.synthetic.worlds import make_worlds


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Bars, funding and tiers in files; the folder they lie in."""
    monkeypatch.chdir(tmp_path)
    write_futures(tmp_path)
    return tmp_path


OPTIONS = {
    "data.source": "bars.parquet",
    "tape.funding": "funding.json",
    "tape.tiers": "tiers.json",
    "env.action": "leveraged",
    "env.max-gross": "2.0",
    "env.perpetual.leverage": "10",
    "env.episode.horizon": "60",
    "forecaster": "none",
}


def arguments(options):
    return [part for name, value in options.items() for part in (f"--{name}", value)]


@pytest.mark.long
def test_a_run_trains_on_futures_and_its_report_counts_what_funding_took(data):
    sizes = {"name": "futures", "num-envs": "16", "total-steps": "4096", "evaluations": "1"}
    main(["train", *arguments(OPTIONS | sizes)])
    config = load_yaml(TrainConfig, data / "runs" / "futures" / "config.yaml")
    assert config.env.perpetual.leverage == 10 and config.tape.funding == "funding.json"
    results = [path.name for path in (data / "runs" / "futures").iterdir()]
    assert "report.html" in results
    assert "funding" in (data / "runs" / "futures" / "report.html").read_text()


def test_settings_go_through_yaml_and_come_to_the_market(data):
    settings = {
        "forecaster": "none",
        "data": {"source": "bars.parquet"},
        "tape": {"funding": "funding.json", "tiers": "tiers.json"},
        "env": {
            "action": "leveraged",
            "max_gross": 2.0,
            "episode": {"horizon": 60},
            "perpetual": {"leverage": 10},
        },
    }
    config = from_mapping(TrainConfig, settings)
    save_yaml(config, data / "config.yaml")
    assert load_yaml(TrainConfig, data / "config.yaml") == config
    assert to_mapping(config)["env"]["perpetual"]["liquidation_fee_bps"] == 125.0
    markets = load_markets(config)
    assert markets.agent.env.perpetual.leverage == 10
    funding = markets.train.next["funding"]
    assert markets.train.tiers.leverage.tolist() == [[50.0, 50.0]]
    assert (funding[:-1] > 0).all() and abs(float(funding[:-1].mean()) - 9e-4) < 2e-5


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"tape.funding": "nowhere.json"}, "nowhere.json: no such file"),
        ({"tape.tiers": "bars.parquet"}, "bars.parquet: not readable as JSON"),
        ({"env.perpetual.leverage": "100"}, "more than BTC/USDT is offered: at most 50"),
        ({"env.perpetual.leverage": "0"}, "set perpetual.leverage, or use --env.action signed"),
    ],
)
def test_what_cannot_be_is_one_line_on_the_command_line(data, capsys, change, part):
    with pytest.raises(SystemExit):
        main(["train", *arguments(OPTIONS | {"name": "no"} | change)])
    told = capsys.readouterr().err.strip()
    assert part in told and "Traceback" not in told
    assert not (data / "runs" / "no" / "policy").exists()


def test_without_funding_a_run_of_futures_is_refused(data, capsys):
    options = {name: value for name, value in OPTIONS.items() if name != "tape.funding"}
    with pytest.raises(SystemExit):
        main(["train", *arguments(options | {"name": "no"})])
    assert "has no funding, which is never taken for zero" in capsys.readouterr().err


def test_worlds_that_are_drawn_have_no_funding(data):
    with pytest.raises(ConfigError, match="funding and tiers are of one history"):
        make_worlds(Garch(assets=2), 2, 100, seed=0, config=TapeConfig(funding="funding.json"))


@pytest.mark.long
def test_a_backtest_of_an_agent_has_its_funding_from_where_it_is_told(data):
    agent, markets = swinging(data / "agent", **settings_of(data, 40.0))
    (data / "funding.json").rename(data / "later.json")
    start = str(markets.test.timestamps[markets.test.first])[:10]
    asked = {"strategy": "agent", "source": "bars.parquet", "start": start}
    results = backtest(BacktestConfig(**asked, funding="later.json"), forecasts=data)
    replayed = replay(markets.test, agent.policy, ["agent"], agent.rules)
    found = results.history.wealth[:, 0]
    torch.testing.assert_close(found, replayed.wealth[:, 0], rtol=1e-6, atol=0.0)
    assert results.history.costs["funding"][:, 0].count_nonzero() > 20
    with pytest.raises(DataError, match=r"funding\.json: no such file"):
        backtest(BacktestConfig(**asked), forecasts=data)


def test_funding_is_of_futures_alone(tmp_path):
    with pytest.raises(ConfigError, match="equal-weight trades spot: leave it out"):
        backtest(BacktestConfig(strategy="equal-weight", funding="funding.json"))
    agent, _ = swinging(tmp_path, {"action": "signed"})
    with pytest.raises(ConfigError, match="of perpetual futures, and the agent trades spot"):
        agent.with_funding("funding.json")
