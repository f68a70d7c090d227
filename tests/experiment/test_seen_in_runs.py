"""Runs and backtests say what their forecaster has seen of the bars that they are tested on."""

import logging
from dataclasses import replace

import pytest
from forecasters import Counting

from fastsim.agent.config import StrategyConfig
from fastsim.config import from_mapping, save_yaml
from fastsim.errors import ForecastError
from fastsim.experiment.backtest import make_stage
from fastsim.experiment.config import TrainConfig
from fastsim.experiment.evaluate import evaluate
from fastsim.experiment.notes import SEEN_NOTHING
from fastsim.experiment.stage import BacktestConfig
from fastsim.experiment.train import train
from fastsim.forecast.record import ForecasterRecord


class Dated(Counting):
    """One that has seen markets until a day within the bars of tech4."""

    def __init__(self, path) -> None:
        super().__init__(name="dated")
        self.card = replace(self.card, known_until="2012-06-29", known_source="this test")


dated = ForecasterRecord(name="dated", load=Dated)
RUN = {
    "name": "first",
    "total_steps": 64,
    "evaluations": 1,
    "forecaster": "test_seen_in_runs:dated",
    "forecast": {"context_length": 64, "horizons": [1, 5]},
    "data": {"source": "tech4", "start": "2010-01-04"},
    "validation_start": "2012-03-01",
    "test_start": "2012-09-03",
    "collect": {"num_envs": 4, "rollout_steps": 8},
    "policy": {"hidden": 8},
}


def test_a_run_warns_of_bars_that_its_forecaster_may_remember(tmp_path, caplog):
    config = from_mapping(TrainConfig, RUN | {"runs_dir": str(tmp_path)})
    with caplog.at_level(logging.WARNING):
        folder = train(config)
    assert "Beware: dated has seen markets until 2012-06-29" in caplog.text
    assert "the validation and test bars begin 2012-03-01" in caplog.text
    test, validation = (evaluate(folder, part) for part in ("test", "validation"))
    seen = "dated has seen markets until 2012-06-29 (this test)."
    assert seen in test.notes
    assert seen in validation.notes
    assert not any("Beware" in note for note in test.notes)
    assert any("Beware" in note for note in validation.notes)
    assert seen in test.report.read_text()
    stage = make_stage(BacktestConfig(strategy=str(folder)), forecasts=tmp_path)
    assert seen in stage.notes
    early = BacktestConfig(strategy=str(folder), start="2012-03-01", strict=True)
    with pytest.raises(ForecastError, match="the tested bars begin 2012-03-01"):
        make_stage(early, forecasts=tmp_path)


def test_a_strict_run_is_refused_before_anything_is_forecast(tmp_path):
    config = from_mapping(TrainConfig, RUN | {"runs_dir": str(tmp_path), "strict": True})
    with pytest.raises(ForecastError, match="dated has seen markets until 2012-06-29"):
        train(config)
    assert not list(tmp_path.iterdir())


def test_a_strategy_on_forecasts_says_what_they_have_seen(tmp_path):
    signals = {"forecaster": "test_seen_in_runs:dated", "horizon": 5, "context_length": 64}
    data = {"source": "tech4", "start": "2010-01-04"}
    save_yaml(
        from_mapping(StrategyConfig, {"signals": signals, "data": data}), tmp_path / "own.yaml"
    )
    config = BacktestConfig(strategy=str(tmp_path / "own.yaml"))
    notes = make_stage(config, forecasts=tmp_path).notes
    assert "dated has seen markets until 2012-06-29 (this test)." in notes
    assert any(note.startswith("Beware: dated has seen markets") for note in notes)
    with pytest.raises(ForecastError, match="may remember"):
        make_stage(replace(config, strict=True), forecasts=tmp_path)


def test_without_a_forecaster_there_is_nothing_to_say():
    assert SEEN_NOTHING.notes(None, bars="bars") == ()
