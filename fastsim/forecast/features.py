"""Forecasts as features: which forecaster a run asks, and what it says of every bar and asset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fastsim.config import configuration, require_between, require_choice
from fastsim.data.frames import bars_back, check_frames, cut, frame_length
from fastsim.errors import ConfigError, ForecastError
from fastsim.forecast.ensemble import Ensemble, fit_on_market
from fastsim.forecast.frames import ACROSS, BARS, USUAL, Frame, Together, require_context
from fastsim.forecast.interface import Forecaster, ModelCard, Precision, check_horizons
from fastsim.forecast.projection import (
    check_projection,
    embedding_features,
    latest_embedding,
    read_projection,
)
from fastsim.forecast.record import Implementation
from fastsim.forecast.registry import FITTED, load_ensemble, parse_weights
from fastsim.forecast.season.setting import AUTO, check_season, resolved
from fastsim.forecast.seen import latest_day
from fastsim.forecast.tape import ForecastTape, build_forecast_tape, forecast_last
from fastsim.market.tape import MarketTape
from fastsim.progress import ON_STDERR, Progress

FRAMES = "ForecastConfig.frames"


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
    season: str = AUTO
    """Of volatility, around each forecaster: a time zone such as America/New_York, by whose clock
    hours are told; the .json file of a fitted profile; or "none". "auto" is UTC where bars are
    shorter than a day, and none else."""
    frames: tuple[str, ...] = ()
    """Higher bars, such as "1h" or "1d", that are forecast too, once each, with horizons and
    context in such bars: `1h.scaled_forecast_return_5` was said when the last hour had closed."""
    across: tuple[int, ...] = ()
    """Bars of the longest frame ahead at which the bars themselves and all frames are averaged, as
    an ensemble: `across.scaled_forecast_return_1`."""
    embedding: str = ""
    """A projection of the forecaster's hidden state, the .safetensors file that `fastsim forecast
    embed` fits on training bars: columns embedding_0 and on. Empty for none."""

    def for_bars(self, timestamps: NDArray[np.datetime64]) -> ForecastConfig:
        """The same with a season that is no longer "auto" but what that is of bars at [T]."""
        return replace(self, season=resolved(self.season, timestamps))

    def __post_init__(self) -> None:
        require_choice(self, "precision")
        require_choice(self, "implementation")
        try:
            check_horizons(self.horizons)
        except ForecastError as error:
            raise ConfigError(f"ForecastConfig.{error}") from None
        check_season(self.season, "ForecastConfig.season")
        check_projection(self.embedding, "ForecastConfig.embedding")
        check_frames(self, "frames")
        if self.across:
            _check_across(self.across, self.frames)
        require_between(self, "context_length", 1)
        require_between(self, "batch_size", 1)
        if not isinstance(self.weights, str):
            raise ConfigError(
                f"ForecastConfig.weights must be a text such as 0.4,0.4,0.2, got {self.weights!r}"
            )
        if self.weights != FITTED:
            parse_weights(self.weights)


def _check_across(horizons: Sequence[int], frames: Sequence[str]) -> None:
    """Raise ConfigError unless a bar of the longest frame is whole bars of every other."""
    try:
        check_horizons(horizons)
    except ForecastError as error:
        raise ConfigError(f"ForecastConfig.across: {error}") from None
    if not frames:
        raise ConfigError(
            "ForecastConfig.across averages several frames and ForecastConfig.frames names none: "
            'name some, such as ("1h", "1d"), or drop across'
        )
    longest = max(frames, key=frame_length)
    for frame in frames:
        if frame_length(longest) % frame_length(frame):
            raise ConfigError(
                f"ForecastConfig.across: a bar of {longest} is no whole number of bars of {frame}: "
                f"name frames that the longest is a multiple of"
            )


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
    forecaster = make_forecaster(tape, names, settings, validation=validation, progress=progress)
    return tabulated_features(tape, forecaster, settings, folder, progress=progress)


def make_forecaster(
    tape: MarketTape,
    names: Sequence[str],
    settings: ForecastConfig,
    *,
    validation: slice,
    progress: Progress = ON_STDERR,
) -> Forecaster:
    """These forecasters as one, with the weights that the settings ask for; as above."""
    fitted = settings.weights == FITTED
    weights = None if fitted else parse_weights(settings.weights)
    forecaster = load_ensemble(
        names,
        weights,
        precision=settings.precision,
        device=tape.device,
        implementation=settings.implementation,
        season=settings.for_bars(tape.timestamps).season,
    )
    return _fitted(forecaster, settings, tape, validation, progress) if fitted else forecaster


def tabulated_features(
    tape: MarketTape,
    forecaster: Forecaster,
    settings: ForecastConfig,
    folder: Path,
    *,
    progress: Progress = ON_STDERR,
) -> dict[str, Tensor]:
    """Features [T, A] of a forecaster that is there, tabulated once.

    Its own precision and weights count, not those of the settings.

    Raises
    ------
    ConfigError
        A frame is too short for these bars.
    DataError
        No bar of a frame has closed.
    ForecastError
        Context and horizons do not fit the forecaster.
    """
    frames = _frames(tape, settings)
    together = _together(tape, frames, forecaster, settings)

    def table(market: MarketTape) -> ForecastTape:
        return build_forecast_tape(
            market,
            forecaster,
            folder,
            horizons=settings.horizons,
            context_length=_context(settings, forecaster),
            batch_size=settings.batch_size,
            progress=progress,
        )

    features = table(tape).features(tape)
    for frame in frames:
        features |= frame.columns(table(frame.tape).features(frame.tape), frame.name)
    if together is not None:
        made = together.build_tape(tape, folder, batch_size=settings.batch_size, progress=progress)
        longest = _longest(frames)
        features |= longest.columns(made.features(longest.tape), ACROSS)
    if settings.embedding:
        features |= embedding_features(
            tape,
            forecaster,
            Path(settings.embedding),
            folder,
            batch_size=settings.batch_size,
            progress=progress,
        )
    return features


def latest_features(
    tape: MarketTape, forecaster: Forecaster, settings: ForecastConfig, *, bars: int = 1
) -> dict[str, Tensor]:
    """Features [bars, A] at the last bars of a tape, as `tabulated_features` has them; not kept.

    Raises
    ------
    ConfigError, DataError
        As `tabulated_features`.
    ForecastError
        Context and horizons do not fit the forecaster, or the tape does not reach as far back as
        forecasts look; `bars_needed` are enough.
    """
    length, frames = _context(settings, forecaster), _frames(tape, settings)
    together = _together(tape, frames, forecaster, settings)

    def latest(market: MarketTape, name: str, count: int) -> dict[str, Tensor]:
        require_context(len(market), name, length + count - 1)
        told = forecast_last(
            market, forecaster, horizons=settings.horizons, context_length=length, bars=count
        )
        return told.features(market.take(slice(len(market) - count, None)))

    features = latest(tape, BARS, bars)
    for frame in frames:
        seen = frame.seen_at(bars)
        told = latest(frame.tape, frame.name, len(frame.tape) - int(seen[0]))
        features |= {f"{frame.name}.{n}": each[seen - seen[0]] for n, each in told.items()}
    if together is not None:
        longest = _longest(frames)
        market, seen = longest.tape, longest.seen_at(bars)
        count = len(market) - int(seen[0])
        told = together.last(count).features(market.take(slice(len(market) - count, None)))
        features |= {f"{ACROSS}.{n}": each[seen - seen[0]] for n, each in told.items()}
    if settings.embedding:
        features |= latest_embedding(tape, forecaster, Path(settings.embedding), bars)
    return features


def bars_needed(
    timestamps: NDArray[np.datetime64], settings: ForecastConfig, forecaster: Forecaster
) -> int:
    """Bars that are enough for the forecasts of any bar of a calendar [T], itself included.

    Errors as `tabulated_features`.
    """
    length, needed = _context(settings, forecaster), []
    for name in settings.frames:
        longest = name == max(settings.frames, key=frame_length)
        least = max(length, USUAL) if settings.across and longest else length
        needed.append(bars_back(cut(timestamps, name, FRAMES), least + 1))
    return max(length, *needed, 0)


def _context(settings: ForecastConfig, forecaster: Forecaster) -> int:
    return min(settings.context_length, forecaster.card.max_context)


def _frames(tape: MarketTape, settings: ForecastConfig) -> list[Frame]:
    return [Frame.of(tape, name, FRAMES) for name in settings.frames]


def _longest(frames: Sequence[Frame]) -> Frame:
    return max(frames, key=lambda frame: frame_length(frame.name))


def _together(
    tape: MarketTape, frames: Sequence[Frame], forecaster: Forecaster, settings: ForecastConfig
) -> Together | None:
    if not settings.across:
        return None
    return Together.of(
        tape,
        frames,
        forecaster,
        horizons=settings.across,
        context_length=settings.context_length,
    )


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


def card_of(forecaster: Forecaster, settings: ForecastConfig) -> ModelCard:
    """The forecaster's card; it has seen what the projection of its states was fitted on, too."""
    card = forecaster.card
    if not settings.embedding:
        return card
    until = read_projection(Path(settings.embedding)).until
    return replace(card, known_until=latest_day([card, replace(card, known_until=until)]))
