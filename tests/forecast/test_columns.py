"""Forecasts of whole bars: every column of the same paths, by its name."""

import pytest
import torch
from test_kronos import CONFIG, TOKENIZER, WINDOW, bars_of, times_of

from fastsim.cli import main
from fastsim.data.bars import BAR_FIELDS
from fastsim.errors import ForecastError
from fastsim.forecast.columns import forecast_bars
from fastsim.forecast.interface import Context, ModuleForecaster
from fastsim.forecast.models.kronos import Sampling, random_kronos
from fastsim.forecast.record import ForecasterRecord
from fastsim.forecast.registry import load_forecaster


def model():
    return random_kronos(CONFIG, TOKENIZER, seed=0, max_context=64, sampling=Sampling(paths=7))


small = ForecasterRecord(name="small", load=lambda path: ModuleForecaster(model()))


@pytest.fixture(scope="module")
def forecaster():
    return ModuleForecaster(model())


@pytest.fixture(scope="module")
def context():
    return Context(bars_of(4, WINDOW), times_of(4, WINDOW))


def test_the_close_is_the_forecast_and_the_others_are_quantiles_of_the_same_paths(
    forecaster, context
):
    found = forecast_bars(forecaster, context, 5)
    assert tuple(found) == BAR_FIELDS
    torch.testing.assert_close(
        found["close"].quantiles, forecaster.forecast(context, 5).quantiles, rtol=1e-6, atol=0
    )
    program = forecaster.model.program
    noise = torch.rand(4, 9, 5, 2, generator=torch.Generator().manual_seed(0))
    paths = program.sample_bars(context.bars, context.timestamps, noise)
    quantiles = forecaster.model.bar_quantiles(
        context.bars, context.timestamps, horizon=5, noise=noise
    )
    for place in range(6):
        highest = paths[..., place].sort(1).values  # [B, 9, H]: the median is the fifth
        torch.testing.assert_close(quantiles[:, :, place, 4], highest[:, 4])
    for name in ("volume", "amount"):
        assert (found[name].quantiles >= 0.0).all()
    assert (found["high"].quantiles.diff(dim=-1) >= 0.0).all()


def test_who_forecasts_closes_alone_says_so(context):
    with pytest.raises(ForecastError, match="fastsim-prior forecasts closes alone"):
        forecast_bars(load_forecaster("fastsim-prior"), context, 5)


def test_what_does_not_fit_is_refused(forecaster, context):
    with pytest.raises(ForecastError, match="forecasts 1 to 32 bars ahead, not 33"):
        forecast_bars(forecaster, context, 33)


def test_a_column_takes_the_place_of_the_close(context):
    of_high = context.of_column("high")
    assert torch.equal(of_high.close, context.bars[..., 1])
    assert torch.equal(of_high.bars[..., 1], context.bars[..., 1])
    assert not torch.equal(of_high.close, context.close)


def test_the_command_line_shows_a_column(capsys, monkeypatch):
    monkeypatch.setattr("fastsim.cli.show.load_ensemble", lambda *_, **__: small.load(None))
    asked = ["forecast", "show", "AAPL", "--source", "tech4", "--context", "50", "--horizon", "5"]
    main([*asked, "--column", "high"])
    assert "high of AAPL from 2013-03-01" in capsys.readouterr().out
    monkeypatch.undo()
    with pytest.raises(SystemExit):
        main([*asked, "--column", "volume"])
    assert "fastsim-prior forecasts closes alone" in capsys.readouterr().err
