"""Forecasts as features: which forecaster a run asks, and what it says of every bar and asset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from fastsim.config import configuration, require_between, require_choice
from fastsim.errors import ConfigError, ForecastError
from fastsim.forecast.ensemble import Ensemble, fit_on_market
from fastsim.forecast.interface import Forecaster, Precision, check_horizons
from fastsim.forecast.record import Implementation
from fastsim.forecast.registry import FITTED, load_ensemble, parse_weights
from fastsim.forecast.tape import build_forecast_tape
from fastsim.market.tape import MarketTape
from fastsim.progress import ON_STDERR, Progress


@configuration
class ForecastConfig:
    """How forecasts become observations."""

    weights: str = ""
    """Weights of several forecasters, such as 0.4,0.4,0.2; equal if empty; "fit" finds those that
    forecast the validation bars best."""
    horizons: tuple[int, ...] = (1, 5, 21)
    """Bars ahead; each gives an expected return, a dispersion and a probability of a rise."""
    context_length: int = 512
    """Bars that a forecast looks back on."""
    precision: Precision = "float32"
    batch_size: int = 256
    """Forecasts asked for at once; larger batches fall out of a CPU's cache."""
    implementation: Implementation = "fastsim"
    """Whose code runs the forecasters: "official" is the package of those who published them, where
    there is one and it is installed."""

    def __post_init__(self) -> None:
        require_choice(self, "precision")
        require_choice(self, "implementation")
        try:
            check_horizons(self.horizons)
        except ForecastError as error:
            raise ConfigError(f"ForecastConfig.{error}") from None
        require_between(self, "context_length", 1)
        require_between(self, "batch_size", 1)
        if not isinstance(self.weights, str):
            raise ConfigError(
                f"ForecastConfig.weights must be a text such as 0.4,0.4,0.2, got {self.weights!r}"
            )
        if self.weights != FITTED:
            parse_weights(self.weights)


def forecast_features(
    tape: MarketTape,
    names: Sequence[str],
    settings: ForecastConfig,
    folder: Path,
    *,
    validation: slice,
    progress: Progress = ON_STDERR,
) -> dict[str, Tensor]:
    """Features [T, A] of these forecasters as one, tabulated once; none without a name.

    Parameters
    ----------
    folder
        Where tables of forecasts are kept.
    validation
        Bars that weights are fitted on, where they are.

    Raises
    ------
    ConfigError
        No such forecaster, or another number of weights than of forecasters.
    ForecastError
        Weights cannot be had, or context and horizons do not fit.
    """
    if not names:
        return {}
    fitted = settings.weights == FITTED
    weights = None if fitted else parse_weights(settings.weights)
    forecaster = load_ensemble(
        names,
        weights,
        precision=settings.precision,
        device=tape.device,
        implementation=settings.implementation,
    )
    if fitted:
        forecaster = _fitted(forecaster, settings, tape, validation, progress)
    return tabulated_features(tape, forecaster, settings, folder, progress=progress)


def tabulated_features(
    tape: MarketTape,
    forecaster: Forecaster,
    settings: ForecastConfig,
    folder: Path,
    *,
    progress: Progress = ON_STDERR,
) -> dict[str, Tensor]:
    """Features [T, A] of a forecaster that is there, tabulated once.

    Its own precision and weights count, not those of the settings. Raises ForecastError where
    context and horizons do not fit it.
    """
    table = build_forecast_tape(
        tape,
        forecaster,
        folder,
        horizons=settings.horizons,
        context_length=min(settings.context_length, forecaster.card.max_context),
        batch_size=settings.batch_size,
        progress=progress,
    )
    return table.features(tape)


def _fitted(
    forecaster: Forecaster,
    settings: ForecastConfig,
    tape: MarketTape,
    validation: slice,
    progress: Progress,
) -> Forecaster:
    """The same members with the weights that forecast the validation bars best."""
    if not isinstance(forecaster, Ensemble):
        return forecaster
    weights = fit_on_market(
        forecaster.members,
        tape,
        validation,
        horizons=settings.horizons,
        context_length=settings.context_length,
    )
    shares = zip(weights, forecaster.members, strict=True)
    text = ", ".join(f"{weight:.3f} {member.card.name}" for weight, member in shares)
    progress.say(f"Fitted weights: {text}")
    return Ensemble(forecaster.members, weights, on_failure=forecaster.on_failure)
