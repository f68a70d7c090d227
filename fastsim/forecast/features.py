"""Forecasts as features: which forecaster a run asks, and what it says of every bar and asset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from fastsim.config import configuration, require_between, require_choice
from fastsim.data.frames import check_frames, frame_length
from fastsim.errors import ConfigError, ForecastError
from fastsim.forecast.ensemble import Ensemble, fit_on_market
from fastsim.forecast.frames import ACROSS, Frame, build_ensemble_tape
from fastsim.forecast.interface import Forecaster, Precision, check_horizons
from fastsim.forecast.record import Implementation
from fastsim.forecast.registry import FITTED, load_ensemble, parse_weights
from fastsim.forecast.tape import ForecastTape, build_forecast_tape
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
    frames: tuple[str, ...] = ()
    """Higher bars, such as "1h" or "1d", that are forecast too, once each, with horizons and
    context in such bars: `1h.scaled_forecast_return_5` was said when the last hour had closed."""
    across: tuple[int, ...] = ()
    """Bars of the longest frame ahead at which the bars themselves and all frames are averaged, as
    an ensemble: `across.scaled_forecast_return_1`."""

    def __post_init__(self) -> None:
        require_choice(self, "precision")
        require_choice(self, "implementation")
        try:
            check_horizons(self.horizons)
        except ForecastError as error:
            raise ConfigError(f"ForecastConfig.{error}") from None
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
    fitted = settings.weights == FITTED
    weights = None if fitted else parse_weights(settings.weights)
    forecaster = load_ensemble(
        names,
        weights,
        precision=settings.precision,
        device=tape.device,
        implementation=settings.implementation,
    )

    def whose(market: MarketTape, rows: slice, of: str) -> Forecaster:
        return _fitted(forecaster, settings, market, rows, progress, of) if fitted else forecaster

    return _in_frames(tape, whose, settings, folder, validation, progress)


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
    return _in_frames(tape, lambda *_: forecaster, settings, folder, slice(0), progress)


def _in_frames(
    tape: MarketTape,
    whose: Callable[[MarketTape, slice, str], Forecaster],
    settings: ForecastConfig,
    folder: Path,
    validation: slice,
    progress: Progress,
) -> dict[str, Tensor]:
    """Features [T, A] of the bars themselves, of each frame, and of all of them together.

    `whose(market, validation, frame)` is who forecasts a market.
    """
    frames = [Frame.of(tape, name, "ForecastConfig.frames") for name in settings.frames]
    own = whose(tape, validation, "")
    features = _table(tape, own, settings, folder, progress).features(tape)
    forecasters = {"": own}
    for frame in frames:
        mine = whose(frame.tape, frame.rows(validation, len(tape)), f" of {frame.name}")
        forecasters[frame.name] = mine
        table = _table(frame.tape, mine, settings, folder, progress)
        features |= frame.columns(table.features(frame.tape), frame.name)
    if settings.across:
        nested = sorted(frames, key=lambda frame: frame_length(frame.name))
        together = build_ensemble_tape(
            tape,
            nested,
            [own, *(forecasters[frame.name] for frame in nested)],
            folder,
            horizons=settings.across,
            context_length=settings.context_length,
            batch_size=settings.batch_size,
            progress=progress,
        )
        features |= nested[-1].columns(together.features(nested[-1].tape), ACROSS)
    return features


def _table(
    tape: MarketTape,
    forecaster: Forecaster,
    settings: ForecastConfig,
    folder: Path,
    progress: Progress,
) -> ForecastTape:
    return build_forecast_tape(
        tape,
        forecaster,
        folder,
        horizons=settings.horizons,
        context_length=min(settings.context_length, forecaster.card.max_context),
        batch_size=settings.batch_size,
        progress=progress,
    )


def _fitted(
    forecaster: Forecaster,
    settings: ForecastConfig,
    tape: MarketTape,
    validation: slice,
    progress: Progress,
    of: str,
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
    progress.say(f"Fitted weights{of}: {text}")
    return Ensemble(forecaster.members, weights, on_failure=forecaster.on_failure)
