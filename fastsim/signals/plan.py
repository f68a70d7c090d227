"""What signals say of every bar and asset, whoever trades on them: tables made once of a market."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fastsim.errors import ConfigError
from fastsim.forecast.interface import Forecaster
from fastsim.forecast.registry import load_ensemble, parse_names
from fastsim.forecast.season.setting import resolved
from fastsim.forecast.tape import (
    LEAST_SIGMA,
    build_forecast_tape,
    figure_name,
    forecast_last,
    quantile_figure,
)
from fastsim.market.tape import MarketTape
from fastsim.progress import ON_STDERR, Progress
from fastsim.signals.confidence import leaning, passes
from fastsim.signals.config import SignalConfig
from fastsim.signals.levels import (
    Levels,
    average_true_range,
    levels_by_quantile,
    levels_by_range,
)
from fastsim.signals.prices import Prices, prices_of
from fastsim.signals.regimes import find_regimes
from fastsim.signals.sizing import by_regime, position_by_risk


class Plan(NamedTuple):
    """What to do at the close of every bar with every asset, if it is not held already."""

    direction: Tensor  # [T, A]  1 long, -1 short, 0 nothing
    confidence: Tensor  # [T, A]  in [0.5, 1] whatever is traded; NaN where nothing was forecast
    regime: Tensor  # [T, A]  int64, place in `REGIMES`, or -1
    stop: Tensor  # [T, A]  price, NaN where nothing is traded
    target: Tensor  # [T, A]  price, NaN where there is none
    distance: Tensor  # [T, A]  from the close to the stop, a fraction of the close; 0 for nothing
    position: Tensor  # [T, A]  share of equity by itself, >= 0; 0 for nothing
    high: Tensor  # [T, A]  of the bar, which may touch a level
    low: Tensor  # [T, A]

    @property
    def levels(self) -> Levels:
        """Stops and targets."""
        return Levels(self.stop, self.target)

    def at(self, bars: Tensor) -> Plan:
        """The rows [n, A] of these bars [n]."""
        return Plan(*(table[bars] for table in self))


def make_plan(tape: MarketTape, config: SignalConfig) -> Plan:
    """What these settings say of a market that shows the forecasts they need.

    Raises
    ------
    ConfigError
        It does not: `with_forecasts` adds them.
    DataError
        It holds several worlds.
    """
    prices = prices_of(tape)
    side, confidence = leaning(_rise(tape, config.horizon))
    wanted = passes(confidence, config.threshold) & _traded(side, config.sides)
    side = torch.where(wanted & prices.close.isfinite(), side, 0.0)
    levels = _levels(tape, prices, side, config)
    # A quantile may lie on the wrong side of the price: then there is nothing to stop at.
    distance = (side * (1.0 - levels.stop / prices.close)).nan_to_num(nan=0.0).clamp_min(0.0)
    regime = find_regimes(prices.close, config.regimes).number
    position = by_regime(position_by_risk(distance, config.sizing), regime, config.sizing)
    traded = position > 0
    return Plan(
        direction=torch.where(traded, side, 0.0),
        confidence=confidence,
        regime=regime,
        stop=torch.where(traded, levels.stop, torch.nan),
        target=torch.where(traded, levels.target, torch.nan),
        distance=torch.where(traded, distance, 0.0),
        position=position,
        high=prices.high,
        low=prices.low,
    )


def with_forecasts(
    tape: MarketTape, config: SignalConfig, folder: Path, *, progress: Progress = ON_STDERR
) -> MarketTape:
    """The market with the forecasts that these settings need as features, tabulated once.

    Parameters
    ----------
    folder
        Where tables of forecasts are kept.

    Raises
    ------
    ConfigError
        There is no such forecaster.
    ForecastError
        Its weights cannot be had, or the horizon does not fit it.
    """
    if set(column_names(config)) <= set(tape.feature_names):
        return tape
    forecaster = load_ensemble(
        parse_names(config.forecaster),
        device=tape.device,
        season=resolved(config.season, tape.timestamps),
    )
    return with_forecasts_of(forecaster, tape, config, folder, progress=progress)


def with_forecasts_of(
    forecaster: Forecaster,
    tape: MarketTape,
    config: SignalConfig,
    folder: Path,
    *,
    progress: Progress = ON_STDERR,
) -> MarketTape:
    """The same by a forecaster that is there, whichever `config` names."""
    table = build_forecast_tape(
        tape,
        forecaster,
        folder,
        horizons=(config.horizon,),
        levels=config.levels.quantiles,
        context_length=min(config.context_length, forecaster.card.max_context),
        progress=progress,
    )
    made = table.features(tape).items()
    return tape.with_features({n: each for n, each in made if n not in tape.feature_names})


def with_latest_forecasts(
    forecaster: Forecaster, tape: MarketTape, config: SignalConfig, bars: int
) -> MarketTape:
    """The same at the last `bars` of a tape alone; none are known before them. Nothing is kept."""
    table = forecast_last(
        tape,
        forecaster,
        horizons=(config.horizon,),
        levels=config.levels.quantiles,
        context_length=min(config.context_length, forecaster.card.max_context),
        bars=bars,
    )
    earlier = table.values.new_full((len(tape) - bars, *table.values.shape[1:]), torch.nan)
    made = table._replace(values=torch.cat([earlier, table.values])).features(tape).items()
    return tape.with_features({n: each for n, each in made if n not in tape.feature_names})


def column_names(config: SignalConfig) -> tuple[str, ...]:
    """Features that a market must show for these settings."""
    quantiles = (_quantile_column(level, config.horizon) for level in config.levels.quantiles)
    return (_rise_column(config.horizon), *quantiles)


def _rise_column(horizon: int) -> str:
    return figure_name("rise", horizon)


def _quantile_column(level: float, horizon: int) -> str:
    return f"scaled_{figure_name(quantile_figure(level), horizon)}"


def _rise(tape: MarketTape, horizon: int) -> Tensor:
    """Probability of a rise [T, A], NaN where nothing was forecast, which features show as 0."""
    column = _column(tape, _rise_column(horizon))
    return torch.where(column == 0, torch.nan, column + 0.5)


def _column(tape: MarketTape, name: str) -> Tensor:
    if name not in tape.feature_names:
        raise ConfigError(
            f"signals need the feature {name!r}, which this market does not show: "
            f"fastsim.signals.plan.with_forecasts adds what SignalConfig.horizon and "
            f"SignalConfig.levels ask for"
        )
    return tape.known.features[..., tape.feature_names.index(name)].double()


def _traded(side: Tensor, sides: Literal["long", "short", "both"]) -> Tensor:
    if sides == "both":
        return side != 0
    return side > 0 if sides == "long" else side < 0


def _levels(tape: MarketTape, prices: Prices, side: Tensor, config: SignalConfig) -> Levels:
    if config.levels.kind == "atr":
        ranges = average_true_range(prices, config.levels.atr_window)
        return levels_by_range(prices.close, side, ranges, config.levels)
    unit = tape.known.sigma.double().clamp_min(LEAST_SIGMA) * config.horizon**0.5
    quantiles = {
        level: _column(tape, _quantile_column(level, config.horizon)) * unit
        for level in config.levels.quantiles
    }
    return levels_by_quantile(prices.close, side, quantiles, config.levels)
