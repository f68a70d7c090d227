"""Perpetual futures from the command line and from YAML: a run's settings reach its books."""

import json

import numpy as np
import pytest

from fastsim.agent.window import checked_window
from fastsim.cli import main
from fastsim.config import from_mapping, load_yaml, save_yaml, to_mapping
from fastsim.data.bars import Bars
from fastsim.data.read import write_bars
from fastsim.data.source import load_bars
from fastsim.errors import ConfigError, DataError
from fastsim.experiment.config import TrainConfig
from fastsim.experiment.markets import load_markets
from fastsim.market.tape import TapeConfig
from fastsim.synthetic.garch import Garch
from fastsim.synthetic.worlds import make_worlds

DAYS = 500


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Bars, funding and tiers in files; the folder they lie in."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, (DAYS, 2)), axis=0))
    open_ = close * np.exp(rng.normal(0, 0.01, close.shape))
    bars = Bars(
        symbols=("BTC/USDT", "ETH/USDT"),
        timestamps=np.datetime64("2022-01-01", "ns") + np.arange(DAYS) * np.timedelta64(1, "D"),
        close=close, open=open_, high=np.maximum(open_, close) * 1.01,
        low=np.minimum(open_, close) * 0.99,
    )  # fmt: skip
    write_bars(bars, tmp_path / "bars.parquet")
    first = int(bars.timestamps[0].astype("datetime64[ms]").astype(int))
    funding = [
        {"symbol": f"{symbol}:USDT", "timestamp": first + at * 28_800_000, "fundingRate": 3e-4}
        for symbol in bars.symbols for at in range(3 * DAYS + 1)
    ]  # fmt: skip
    tier = {"minNotional": 0, "maxNotional": 1e9, "maintenanceMarginRate": 0.01, "maxLeverage": 50}
    tiers = {symbol: [tier] for symbol in bars.symbols}
    (tmp_path / "funding.json").write_text(json.dumps(funding))
    (tmp_path / "tiers.json").write_text(json.dumps(tiers))
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


def test_an_agent_of_futures_is_refused_when_it_is_to_decide(data):
    settings = {
        "forecaster": "none",
        "data": {"source": "bars.parquet"},
        "tape": {"funding": "funding.json", "tiers": "tiers.json"},
        "env": {"action": "leveraged", "perpetual": {"leverage": 10}, "episode": {"horizon": 60}},
    }
    config = from_mapping(TrainConfig, settings)
    bars, spec = load_bars(config.data), load_markets(config).agent
    with pytest.raises(DataError, match="this agent trades perpetual futures"):
        checked_window(bars, bars.symbols, spec, spec.bars_needed, now=None)
