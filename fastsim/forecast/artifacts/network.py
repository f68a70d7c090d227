"""A forecaster that is fitted around a network as one network, to be exported."""

from __future__ import annotations

from fastsim.errors import ForecastError
from fastsim.forecast.correction.corrected import Corrected
from fastsim.forecast.correction.network import CorrectedModel
from fastsim.forecast.interface import Forecaster, ForecastModel, ModuleForecaster
from fastsim.forecast.recalibration.network import RecalibratedModel
from fastsim.forecast.recalibration.recalibrated import Recalibrated
from fastsim.forecast.season.network import SeasonalModel
from fastsim.forecast.season.seasonal import Seasonal


def network_of(forecaster: Forecaster) -> ForecastModel:
    """The network that says what a forecaster does, with all that is around it.

    Raises
    ------
    ForecastError
        There is none within it; names which.
    """
    if isinstance(forecaster, ModuleForecaster):
        return forecaster.model
    if isinstance(forecaster, Seasonal):
        return SeasonalModel(network_of(forecaster.forecaster), forecaster.season)
    if isinstance(forecaster, Corrected):
        inner = network_of(forecaster.forecaster)
        return CorrectedModel(inner, forecaster.correction, forecaster.season, forecaster.card)
    if isinstance(forecaster, Recalibrated):
        inner = network_of(forecaster.forecaster)
        return RecalibratedModel(inner, forecaster.levels, forecaster.card)
    raise ForecastError(f"{forecaster.card.name} is no network: there is nothing to export")
