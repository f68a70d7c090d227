"""Forecasts for environments: what is asked for, checked first, then tabulated as training does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastsim.config import from_mapping
from fastsim.env.config import EnvConfig
from fastsim.env.episode import check_room
from fastsim.errors import ConfigError, ForecastError
from fastsim.forecast.artifacts.formats import SUFFIX
from fastsim.forecast.ensemble import normalized
from fastsim.forecast.features import ForecastConfig, forecast_features, tabulated_features
from fastsim.forecast.foreign import ForeignForecaster, source_digest
from fastsim.forecast.interface import Forecaster
from fastsim.forecast.registry import FITTED, parse_names, parse_weights
from fastsim.market.tape import MarketTape

KINDS = "names such as fastsim-prior or tirex,toto, an artefact's path, or an object of your own"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Who forecasts, how, and where tables of forecasts are kept."""

    who: tuple[str, ...] | Forecaster
    settings: ForecastConfig
    folder: Path

    def added_to(self, tape: MarketTape, rules: EnvConfig, start: int) -> MarketTape:
        """The tape with these forecasts among its features, as a training run has them.

        Bars before row `start` are those that weights are fitted on, where they are.

        Raises
        ------
        ConfigError
            The tape is too short for the episodes, or tables cannot be kept in the folder.
        DataError
            The tape has these forecasts already.
        ForecastError
            Weights cannot be had, or context and horizons do not fit.
        """
        check_room(tape, rules.episode)
        _require_folder(self.folder)
        if isinstance(self.who, tuple):
            features = forecast_features(
                tape, self.who, self.settings, self.folder, validation=slice(0, start)
            )
        else:
            features = tabulated_features(tape, self.who, self.settings, self.folder)
        return tape.with_features(features)


def ask(
    forecaster: str | Path | Forecaster,
    forecast: ForecastConfig | Mapping[str, Any] | None,
    folder: str | Path,
    *,
    dated: bool,
) -> Asked | None:
    """Check what is asked for before anything is read; None if that is "none".

    `dated` says that a first day of the episodes is given.

    Raises
    ------
    ConfigError
        There is no such forecaster, it is none, or the settings do not fit it.
    ForecastError
        There is no such artefact.
    """
    settings = _settings(forecast)
    if not isinstance(folder, str | Path):
        raise ConfigError(f"forecasts_dir must be the path of a folder, got {folder!r}")
    if isinstance(forecaster, str | Path):
        names = _names(forecaster)
        _check_weights(settings, len(names), dated=dated)
        return Asked(who=names, settings=settings, folder=Path(folder)) if names else None
    who = _object(forecaster)
    _check_ready(settings)
    return Asked(who=who, settings=settings, folder=Path(folder))


def _settings(forecast: object) -> ForecastConfig:
    if forecast is None:
        return ForecastConfig()
    if isinstance(forecast, ForecastConfig):
        return forecast
    if not isinstance(forecast, Mapping):
        raise ConfigError(
            f"forecast must be a ForecastConfig or its fields, such as "
            f'{{"horizons": (1, 5)}}, got {forecast!r}'
        )
    weights = forecast.get("weights")
    if isinstance(weights, list | tuple):
        forecast = {**forecast, "weights": ",".join(map(str, weights))}
    return from_mapping(ForecastConfig, forecast)


def _names(forecaster: str | Path) -> tuple[str, ...]:
    """Those in the text, one with a path; ForecastError if it is of an artefact that is missing."""
    if isinstance(forecaster, Path) and forecaster.suffix not in SUFFIX.values():
        raise ConfigError(
            f"forecaster must be {KINDS}; {forecaster} does not end in {', '.join(SUFFIX.values())}"
        )
    names = (str(forecaster),) if isinstance(forecaster, Path) else parse_names(forecaster)
    for name in names:
        if Path(name).suffix in SUFFIX.values() and not Path(name).is_file():
            raise ForecastError(f"{name}: no such artefact; make it with `fastsim export`")
    return names


def _object(forecaster: object) -> Forecaster:
    """A forecaster of fastsim's as it is, another's held to what forecasters promise."""
    kind = forecaster if isinstance(forecaster, type) else type(forecaster)
    lacking = [name for name in ("card", "key", "forecast") if not hasattr(forecaster, name)]
    if lacking:
        raise ConfigError(
            f"forecaster must be {KINDS}, got a {kind.__name__}, which has no {lacking[0]}"
        )
    if isinstance(forecaster, type):
        raise ConfigError(f"forecaster must be an object: use {kind.__name__}(), not the class")
    if kind.__module__.partition(".")[0] == "fastsim":
        return forecaster  # type: ignore[return-value]
    return ForeignForecaster(forecaster, kind.__name__, source_digest(kind))  # type: ignore[arg-type]


def _check_weights(settings: ForecastConfig, count: int, *, dated: bool) -> None:
    if not count:
        return
    if settings.weights != FITTED:
        normalized(parse_weights(settings.weights), count)
    elif count > 1 and not dated:
        raise ConfigError(
            f'forecast.weights = "{FITTED}" are fitted on the bars before the episodes: '
            f"give start, the first day of the episodes, or weights such as 0.4,0.4,0.2"
        )


def _check_ready(settings: ForecastConfig) -> None:
    """Raise ConfigError for settings that a forecaster which is there cannot take."""
    usual = ForecastConfig()
    for name in ("weights", "precision", "season"):
        if getattr(settings, name) != getattr(usual, name):
            raise ConfigError(
                f"forecast.{name} = {getattr(settings, name)!r} is of forecasters by name: an "
                f"object has its own; make it with them, or give its name"
            )


def _require_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"forecasts cannot be kept in {folder} ({error.strerror}): "
            f"give another folder as forecasts_dir"
        ) from None
