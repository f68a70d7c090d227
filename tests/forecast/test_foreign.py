"""A user's own forecasters: named as fastsim's are, and held to what forecasters promise."""

import importlib
import sys
from dataclasses import dataclass, replace

import pytest
import torch
from forecasters import CARD, LEVELS, Counting, TinyModel, random_context
from worlds import random_bars

from fastsim.cli import main
from fastsim.errors import ConfigError, ForecastError
from fastsim.experiment.config import TrainConfig
from fastsim.forecast.ensemble import Ensemble
from fastsim.forecast.interface import Forecast
from fastsim.forecast.known import FORECASTERS, MODELS, ForecasterRecord
from fastsim.forecast.registry import (
    load_ensemble,
    load_forecaster,
    load_network,
    parse_names,
    random_model,
)
from fastsim.forecast.tape import build_forecast_tape
from fastsim.forecast.unpublished import BASELINES
from fastsim.market.tape import make_tape

HERE = __name__
CONTEXT = random_context(3)

NETWORK = ForecasterRecord(name="mine", load=lambda path: TinyModel(seed=1), card=CARD)
READY = ForecasterRecord(name="ready", load=lambda path: Counting())


def test_a_network_of_ones_own_is_put_behind_the_interface():
    found = load_forecaster(f"{HERE}:NETWORK").forecast(CONTEXT, 5)
    expected = TinyModel(seed=1)(CONTEXT.close, horizon=5)
    torch.testing.assert_close(found.quantiles, expected)
    assert load_network(f"{HERE}:NETWORK").card == CARD


def test_a_forecaster_that_is_ready_answers_itself():
    forecaster = load_forecaster(f"{HERE}:READY")
    expected = Counting().forecast(CONTEXT, 5).quantiles
    assert torch.equal(forecaster.forecast(CONTEXT, 5).quantiles, expected)
    double = CONTEXT._replace(bars=CONTEXT.bars.double())
    assert forecaster.forecast(double, 5).quantiles.dtype == torch.float32
    assert forecaster.card.name == "counting"


def test_one_that_is_registered_is_named_without_its_module(monkeypatch):
    monkeypatch.setattr(FORECASTERS, "_records", dict(FORECASTERS))
    FORECASTERS.add(NETWORK)
    one, other = load_forecaster("mine"), load_forecaster(f"{HERE}:NETWORK")
    assert one.key == other.key
    assert torch.equal(one.forecast(CONTEXT, 5).quantiles, other.forecast(CONTEXT, 5).quantiles)


def test_ones_own_is_named_wherever_fastsims_are():
    names = f"fastsim-prior,{HERE}:READY"
    assert parse_names(names) == ("fastsim-prior", f"{HERE}:READY")
    assert TrainConfig(forecaster=names).forecaster == names
    ensemble = load_ensemble(parse_names(names), [1.0, 3.0])
    assert isinstance(ensemble, Ensemble)
    assert ensemble.card.name == "fastsim-prior+counting"


def test_the_command_line_scores_and_shows_it(capsys):
    source = ["--source", "tech4", "--horizons", "1", "5", "--step", "400", "--context", "64"]
    main(["forecast", "evaluate", *source, "--forecaster", f"{HERE}:READY,random-walk-60"])
    told = capsys.readouterr().out
    assert "counting" in told
    assert told.count("random-walk-60") == 6  # in five tables, and in what it has seen
    main(["forecast", "show", "AAPL", "--forecaster", f"{HERE}:READY"])
    assert "AAPL from 2022" in capsys.readouterr().out
    main(["models"])
    told = capsys.readouterr().out
    assert all(record.name in told for record in MODELS) and "counting" not in told


def test_two_forecasters_of_one_name_are_not_scored_together(capsys):
    names = f"{HERE}:READY,{HERE}:SHOUTING"
    with pytest.raises(SystemExit):
        main(["forecast", "evaluate", "--source", "tech4", "--step", "400", "--forecaster", names])
    assert "two forecasters are called counting" in capsys.readouterr().err


def test_baselines_are_forecasters_by_name():
    assert [record.name for record in BASELINES[:2]] == ["random-walk-60", "random-walk-ewma-0.94"]
    for record in BASELINES[:2]:
        forecaster = load_forecaster(record.name)
        assert forecaster.card.name == record.name
        assert forecaster.forecast(random_context(2, 200), 3).quantiles.shape == (2, 3, 13)
    with pytest.raises(ForecastError, match="random-walk-60 is no network"):
        load_network("random-walk-60")


SOURCE = """
import torch
from fastsim.forecast.interface import Forecast, ModelCard
from fastsim.forecast.known import ForecasterRecord

class Still:
    card = ModelCard(
        name="still", licence="MIT", parameters=0, max_context=8, max_horizon=8,
        levels=(0.1, 0.5, 0.9), min_context=1,
    )
    key = "still@1"

    def forecast(self, context, horizon):
        width = SPREAD * torch.tensor([-1.0, 0.0, 1.0])
        price = context.close[:, -1, None, None] * (1.0 + width)
        return Forecast(price.expand(-1, horizon, -1).float(), self.card.levels)

record = ForecasterRecord(name="still", load=lambda path: Still())
"""


def test_a_table_of_forecasts_is_made_again_when_their_code_has_changed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    tape, keys, dispersions = make_tape(random_bars(150, 2)), set(), []
    for spread in ("0.01", "0.02", "0.02"):
        (tmp_path / "still_code.py").write_text(SOURCE.replace("SPREAD", spread))
        sys.modules.pop("still_code", None)
        importlib.invalidate_caches()
        forecaster = load_forecaster("still_code:record")
        keys.add(forecaster.key)
        table = build_forecast_tape(
            tape, forecaster, tmp_path / "forecasts", horizons=(1,), context_length=8
        )
        dispersions.append(float(table.values[-1, 0, 1]))
    sys.modules.pop("still_code")
    assert len(keys) == 2 and all(key.startswith("still@1#") for key in keys)
    assert len(list((tmp_path / "forecasts").iterdir())) == 2
    assert dispersions[1] == pytest.approx(2.0 * dispersions[0], rel=1e-3)
    assert dispersions[2] == dispersions[1]


@dataclass
class Saying:
    """A forecaster that answers with whatever `answer` makes of a good one."""

    answer: object
    key: str = "saying@1"

    @property
    def card(self):
        return CARD

    def forecast(self, context, horizon):
        return self.answer(Counting().forecast(context, horizon))


def failing(good):
    raise RuntimeError("out of\npaper")


def at(index, value):
    def answer(good):
        quantiles = good.quantiles.clone()
        quantiles[index] = value
        return Forecast(quantiles, LEVELS)

    return answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda good: good.quantiles, "must return a Forecast of tensors, got Tensor"),
        (lambda good: Forecast(good.quantiles.numpy(), LEVELS), "must return a Forecast of tens"),
        (lambda good: good._replace(levels=(0.1, 0.9)), r"answers at levels \(0.1, 0.9\), not"),
        (lambda good: Forecast(good.quantiles[:, 0], LEVELS), r"\(3, 4, 5\), got \(3, 5\)"),
        (at((1, 2, 3), torch.nan), "forecasts series 1 of 3 as something that is no finite number"),
        (at((1, 2, 3), 1e9), "must return quantiles that do not decrease"),
        (failing, "fails: RuntimeError: out of paper"),
    ],
)
def test_an_answer_that_cannot_be_is_named_in_one_line(answer, message, monkeypatch):
    record = ForecasterRecord(name="mine", load=lambda path: Saying(answer))
    monkeypatch.setattr(sys.modules[HERE], "SAYING", record)
    forecaster = load_forecaster(f"{HERE}:SAYING")
    with pytest.raises(ForecastError, match=message) as caught:
        forecaster.forecast(CONTEXT, 4)
    assert f"forecaster '{HERE}:SAYING'" in str(caught.value) and "\n" not in str(caught.value)


SAYING = None
SHOUTING = replace(READY, name="shouting")


@pytest.mark.parametrize(
    ("loaded", "error", "message"),
    [
        (lambda path: object(), ConfigError, "loads a object whose card is not a ModelCard"),
        (lambda path: Saying(failing, key=""), ConfigError, "whose key is not a text"),
        (lambda path: {}["weights"], ForecastError, "cannot be loaded: KeyError: 'weights'"),
    ],
)
def test_what_is_no_forecaster_is_named_when_it_is_loaded(loaded, error, message, monkeypatch):
    record = ForecasterRecord(name="mine", load=loaded)
    monkeypatch.setattr(sys.modules[HERE], "SAYING", record)
    with pytest.raises(error, match=message):
        load_forecaster(f"{HERE}:SAYING")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{HERE}:NOTHING", "has no 'NOTHING'"),
        (f"{HERE}:CARD", "is not a forecaster: it must be a ForecasterRecord, got ModelCard"),
        ("not_there:record", "not_there cannot be imported"),
    ],
)
def test_a_name_that_finds_nothing_is_refused_before_anything_is_done(name, message, capsys):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(forecaster=name)
    with pytest.raises(SystemExit) as caught:
        main(["forecast", "show", "AAPL", "--forecaster", name])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_record_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match=r"ForecasterRecord\.load of mine must be a function"):
        ForecasterRecord(name="mine", load="tiny")
    with pytest.raises(ConfigError, match=r"ForecasterRecord\.card of mine must be a ModelCard"):
        ForecasterRecord(name="mine", load=TinyModel, card="tiny")
    with pytest.raises(ForecastError, match="ships with its weights"):
        random_model(f"{HERE}:NETWORK")
