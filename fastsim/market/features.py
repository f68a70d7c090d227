"""Causal features of bars: what an agent may know at the close of bar t, per asset.

Every feature is a function of bars up to and including t, and of order one: returns are divided by
the trailing volatility of their span, so a feature means the same for a calm and a wild asset. For
the same reason only one of them tells a market from one whose log returns are all f times as large:
the logarithm of volatility, which is higher by log f (`Feature.rises_with_volatility`).

Each is a record, `Feature`. A user's own are added by name, `FeatureConfig.extra`, and held to what
is said here: `docs/howto/feature.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from fastsim.config import configuration, require_between
from fastsim.data.bars import Bars, FloatArray
from fastsim.data.frames import bars_back, check_frames, cut, higher_bars
from fastsim.errors import ConfigError, DataError, one_line
from fastsim.extensions import Registry, require_known
from fastsim.stats.moments import Moments, trailing_moments

FEATURE_LIMIT = 10.0
"""Features are clipped to this magnitude, so that an observation space has bounds."""
LEAST_VOLATILITY = 1e-7
"""Of a bar. What is below is how prices were rounded, in float32 if need be, and counts as none."""
STILLEST = 0.01
"""The least ratio of two volatilities that is told: a standstill counts as this."""
FIELDS = ("open", "high", "low", "volume")
"""What bars may lack."""
CUTS = (1 / 3, 2 / 3)
"""Shares of the bars after the warm-up on which a user's feature is made once more."""
TOLERANCE = 1e-6
"""What it may then differ by, absolutely and relatively: sums may be rounded otherwise."""
FRAMES = "FeatureConfig.frames"


@configuration
class Feature:
    """One thing that may be known of every asset at the close of every bar.

    `function(bars, config)` gives it [T, A]: of order one, made of bars up to and including its
    own, NaN where there is too little history.
    """

    name: str
    function: Callable[[Bars, FeatureConfig], FloatArray]
    warmup: int = 0
    """Bars before the first at which it is complete."""
    needs: tuple[str, ...] = ()
    """What it is made of beside closes: open, high, low, volume."""
    rises_with_volatility: bool = False
    """Whether it is higher by log f where all log returns are f times as large, as the log of
    volatility is. Returns, momentum, ranges and the short volatility are in units of the
    volatility, and volume knows nothing of prices: they stay as they are. So do forecasts: expected
    log returns and dispersions are in units of the volatility too, a probability of a rise has
    none, and a forecaster who is shown larger returns is taken to expect larger ones."""

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name.isidentifier()):
            raise ConfigError(f"Feature.name must be a word such as carry_21, got {self.name!r}")
        if not callable(self.function):
            raise ConfigError(
                f"Feature.function of {self.name} must be a function of bars and a FeatureConfig, "
                f"got {self.function!r}"
            )
        if self.warmup < 0:
            raise ConfigError(
                f"Feature.warmup of {self.name} must be a whole number of bars >= 0, "
                f"got {self.warmup!r}"
            )
        if isinstance(self.needs, str) or not set(self.needs) <= set(FIELDS):
            raise ConfigError(
                f"Feature.needs of {self.name} must be a tuple of {', '.join(FIELDS)}, "
                f"got {self.needs!r}"
            )


@configuration
class FeatureConfig:
    """Which features are made. Windows are in bars."""

    return_windows: tuple[int, ...] = (1, 5, 21, 63)
    momentum_window: int = 126
    momentum_skip: int = 21
    """Momentum is the return from `momentum_window` to `momentum_skip` bars ago."""
    short_window: int = 21
    volatility_window: int = 63
    """Also the window of the volatility and the average traded value that impact is scaled by."""
    extra: tuple[str, ...] = ()
    """Further features: names in `FEATURES`, or your own as "package.module:object"."""
    frames: tuple[str, ...] = ()
    """Higher bars, such as "15min", "1h", "1d" or "1w", of which all of these features are made as
    well, in windows of such bars: at bar t, `1h.scaled_log_return_5` is that of the last hour, by
    the clock of UTC, that has closed by the close of t."""

    def __post_init__(self) -> None:
        for name in ("momentum_window", "momentum_skip", "short_window", "volatility_window"):
            require_between(self, name, 2)
        if not all(window >= 1 for window in self.return_windows):
            raise ConfigError(
                f"FeatureConfig.return_windows must be bars >= 1, got {self.return_windows!r}"
            )
        if self.momentum_skip >= self.momentum_window:
            raise ConfigError(
                f"FeatureConfig.momentum_skip must be below FeatureConfig.momentum_window = "
                f"{self.momentum_window}, got {self.momentum_skip!r}"
            )
        if isinstance(self.extra, str):
            raise ConfigError(
                f"FeatureConfig.extra must be a tuple of names, got the text {self.extra!r}"
            )
        if self.extra:
            require_known(self, "extra", FEATURES)
        names = [record.name for record in self.records]
        for record in self.extra_records:
            if names.count(record.name) > 1:
                raise ConfigError(
                    f"FeatureConfig.extra: there is a feature called {record.name!r} already"
                )
        check_frames(self, "frames")

    @property
    def extra_records(self) -> tuple[Feature, ...]:
        """The features that `extra` names; ConfigError where there is none."""
        return tuple(FEATURES.find(name) for name in self.extra)

    @property
    def records(self) -> tuple[Feature, ...]:
        """All features, in the order of their columns."""
        return (*own_features(self), *self.extra_records)

    @property
    def warmup(self) -> int:
        """Bars, of their own frame, before the first at which every feature is complete."""
        return max(record.warmup for record in self.records)

    @property
    def rising(self) -> tuple[str, ...]:
        """Columns that are higher by log f where all log returns are f times as large."""
        own = [record.name for record in self.records if record.rises_with_volatility]
        return (*own, *(f"{frame}.{name}" for frame in self.frames for name in own))

    def bars_needed(self, timestamps: NDArray[np.datetime64]) -> int:
        """Bars that are enough to make the features of any bar of a calendar [T], itself included.

        Errors as `first_complete`.
        """
        spans = [cut(timestamps, frame, FRAMES) for frame in self.frames]
        return max(self.warmup + 2, *(bars_back(each, self.warmup + 2) for each in spans), 0)

    def first_complete(self, timestamps: NDArray[np.datetime64]) -> int:
        """The first bar of a calendar [T] at which every feature of every frame is complete.

        A frame's first bar does not count, as it may have begun before the data did.

        Raises
        ------
        ConfigError
            A frame is too short for these bars.
        DataError
            Too few bars of a frame have closed by the end.
        """
        first, needed = self.warmup, self.warmup + 2
        for frame in self.frames:
            closed = cut(timestamps, frame, FRAMES).closed
            if closed[-1] < needed:
                raise DataError(
                    f"{FRAMES}: {closed[-1]} of the {needed} bars of {frame} that features need "
                    f"have closed by the end of the data: use more bars, a shorter frame or "
                    f"shorter FeatureConfig windows"
                )
            first = max(first, int(np.searchsorted(closed, needed)))
        return first


@dataclass(frozen=True, kw_only=True, eq=False)
class _Shown(Bars):
    """Bars as features are shown them: not to be written to, moments of returns computed once."""

    moments: dict[int, Moments] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, bars: Bars) -> _Shown:
        """The same bars, without a copy."""
        found = {entry.name: getattr(bars, entry.name) for entry in fields(Bars)}
        for name, values in found.items():
            if isinstance(values, np.ndarray):
                found[name] = values.view()
                found[name].flags.writeable = False
        return cls(**found)


def rolling_mean(values: FloatArray, window: int, least: int | None = None) -> FloatArray:
    """Mean of the last `window` rows of `values` [T, A], skipping NaN.

    NaN where there are fewer than `least` of them, or fewer than half of the window.
    """
    return trailing_moments(values, window, least).mean


def rolling_std(values: FloatArray, window: int, least: int | None = None) -> FloatArray:
    """Population standard deviation of the last `window` rows of `values` [T, A], skipping NaN.

    Exactly 0 where they are all the same, whatever came before. NaN as in `rolling_mean`.
    """
    return trailing_moments(values, window, least).deviation


def log_returns(prices: FloatArray, bars: int = 1) -> FloatArray:
    """Log returns [T, A] over `bars` bars; NaN where either end is missing."""
    returns = np.full_like(prices, np.nan)
    returns[bars:] = np.log(prices[bars:] / prices[:-bars])
    return returns


def make_features(bars: Bars, config: FeatureConfig) -> dict[str, FloatArray]:
    """Named features [T, A] of adjusted bars, clipped; 0 where the asset has too little history.

    Those of `config.frames` follow the others, frame by frame: each as the last bar of its frame
    has it that has closed.

    Raises
    ------
    ConfigError
        A feature of `config.extra` fails, has another shape, is infinite, is nowhere a number, or
        looks ahead; a frame is too short for these bars.
    DataError
        It needs what the bars lack, or no bar of a frame has closed.
    """
    shown = _Shown.of(bars)
    features = {
        record.name: record.function(shown, config)
        for record in own_features(config)
        if not _lacking(bars, record)
    }
    for record in config.extra_records:
        features[record.name] = _checked(record, shown, config)
    columns = {name: clip_feature(values) for name, values in features.items()}
    for frame in config.frames:
        columns |= _of_frame(frame, bars, config)
    return columns


def _of_frame(frame: str, bars: Bars, config: FeatureConfig) -> dict[str, FloatArray]:
    """The same features of the higher bars of a frame, at every bar [T, A]."""
    spans = cut(bars.timestamps, frame, FRAMES)
    features = make_features(higher_bars(bars, spans), replace(config, frames=()))
    return {f"{frame}.{name}": spans.shown(values) for name, values in features.items()}


def clip_feature(values: FloatArray) -> FloatArray:
    """Bring a feature into its bounds, with 0 for what is missing."""
    return np.clip(np.nan_to_num(values, nan=0.0), -FEATURE_LIMIT, FEATURE_LIMIT)


def trailing_volatility(bars: Bars, window: int, least: int | None = None) -> FloatArray:
    """Standard deviation [T, A] of one-bar log returns over the last `window` bars.

    0 below `LEAST_VOLATILITY`; NaN where there are fewer than `least` returns, or than half of the
    window.
    """
    deviation = _return_moments(bars, window, least).deviation
    return np.where(deviation < LEAST_VOLATILITY, 0.0, deviation)


def own_features(config: FeatureConfig) -> tuple[Feature, ...]:
    """The features that come with fastsim, with these windows."""
    momentum = config.momentum_window, config.momentum_skip
    long = config.volatility_window
    return _own_features(tuple(config.return_windows), *momentum, config.short_window, long)


@lru_cache
def _own_features(
    windows: tuple[int, ...], momentum: int, skip: int, short: int, long: int
) -> tuple[Feature, ...]:
    """To make them takes longer than to compute one; a decision asks for them several times."""
    ranges = Feature(
        name=f"scaled_range_{short}",
        function=partial(scaled_range, window=short),
        warmup=long + short - 1,  # a mean over bars that are each scaled by a complete volatility
        needs=("high", "low"),
    )
    volumes = Feature(
        name=f"volume_zscore_{long}",
        function=partial(volume_zscore, window=long),
        warmup=long,
        needs=("volume",),
    )
    returns = _of_returns(windows, momentum, skip, long)
    return (*returns, *_of_volatility(short, long), ranges, volumes)


def _of_returns(windows: tuple[int, ...], momentum: int, skip: int, long: int) -> Iterator[Feature]:
    for window in windows:
        yield Feature(
            name=f"scaled_log_return_{window}",
            function=partial(scaled_log_return, window=window),
            warmup=max(window, long),
        )
    yield Feature(
        name=f"scaled_momentum_{momentum}_{skip}",
        function=partial(scaled_momentum, window=momentum, skip=skip),
        warmup=max(momentum, long),
    )


def _of_volatility(short: int, long: int) -> Iterator[Feature]:
    yield Feature(
        name=f"log_volatility_ratio_{short}",
        function=partial(log_volatility_ratio, window=short),
        warmup=max(short, long),
    )
    yield Feature(
        name=f"log_volatility_{long}",
        function=partial(log_volatility, window=long),
        warmup=long,
        rises_with_volatility=True,
    )


def scaled_log_return(bars: Bars, config: FeatureConfig, *, window: int) -> FloatArray:
    """Log return [T, A] over `window` bars, in standard deviations of that span."""
    scaled: FloatArray = log_returns(_close(bars), window) / (unit(bars, config) * window**0.5)
    return scaled


def scaled_momentum(bars: Bars, config: FeatureConfig, *, window: int, skip: int) -> FloatArray:
    """Log return [T, A] from `window` to `skip` bars ago, in standard deviations of that span."""
    span = window - skip
    past = np.full_like(bars.close, np.nan)
    past[skip:] = log_returns(_close(bars), span)[:-skip]
    scaled: FloatArray = past / (unit(bars, config) * span**0.5)
    return scaled


def log_volatility_ratio(bars: Bars, config: FeatureConfig, *, window: int) -> FloatArray:
    """Log [T, A] of the volatility of the last `window` bars over that of the long window.

    What has come to a standstill counts as `STILLEST`.
    """
    ratio = trailing_volatility(bars, window) / unit(bars, config)
    logarithm: FloatArray = np.log(np.maximum(ratio, STILLEST))
    return logarithm


def log_volatility(bars: Bars, config: FeatureConfig, *, window: int) -> FloatArray:
    """Log [T, A] of the volatility of the last `window` bars, 0 at a hundredth a bar."""
    volatility: FloatArray = np.log(positive(trailing_volatility(bars, window)) / 0.01)
    return volatility


def scaled_range(bars: Bars, config: FeatureConfig, *, window: int) -> FloatArray:
    """Mean [T, A] over `window` bars of log(high / low) in units of the volatility."""
    high, low = bars.adjusted("high"), bars.adjusted("low")
    assert high is not None and low is not None
    return rolling_mean(np.log(high / low) / unit(bars, config), window)


def volume_zscore(bars: Bars, config: FeatureConfig, *, window: int) -> FloatArray:
    """Log of the volume [T, A] less its mean, in standard deviations, both of `window` bars."""
    assert bars.volume is not None
    size = np.log1p(bars.volume)
    spread, mean = rolling_std(size, window), rolling_mean(size, window)
    return (size - mean) / positive(spread)


def unit(bars: Bars, config: FeatureConfig) -> FloatArray:
    """The volatility [T, A] of a bar that returns are divided by; NaN where there is none.

    There is none either where prices do little but rise or fall at one rate: in units of what is
    left, the mean return would be out of bounds at every bar.
    """
    window = config.volatility_window
    volatility = positive(trailing_volatility(bars, window))
    drift = np.abs(_return_moments(bars, window).mean)
    return np.where(drift > FEATURE_LIMIT * volatility, np.nan, volatility)


def positive(values: FloatArray) -> FloatArray:
    """What may be divided by: NaN in place of all that is not above 0."""
    return np.where(values > 0, values, np.nan)


FEATURES: Registry[Feature] = Registry("feature", Feature, own_features(FeatureConfig()))
"""What `FeatureConfig.extra` can name: fastsim's own, of the usual windows, and those added."""


def _checked(record: Feature, bars: Bars, config: FeatureConfig) -> FloatArray:
    """A user's feature [T, A], once it is what it has to be."""
    lacking = _lacking(bars, record)
    if lacking:
        raise DataError(
            f"feature {record.name!r} needs {' and '.join(lacking)}, which this data lacks"
        )
    values = _called(record, bars, config)
    if np.isinf(values).any():
        raise ConfigError(
            f"feature {record.name!r} is infinite {_place(bars, np.isinf(values))}; "
            f"use NaN where it cannot be known"
        )
    if len(bars) > record.warmup and not np.isfinite(values[record.warmup :]).any():
        raise ConfigError(
            f"feature {record.name!r} is NaN for every asset at every bar from bar "
            f"{record.warmup}, its warm-up, on"
        )
    for share in CUTS:
        _refuse_foresight(record, bars, config, values, share)
    return values


def _refuse_foresight(
    record: Feature, bars: Bars, config: FeatureConfig, values: FloatArray, share: float
) -> None:
    """Raise ConfigError if a feature is another where the bars end after this share of them."""
    first = record.warmup + 1
    length = first + int((len(bars) - first) * share)
    if not first <= length < len(bars):
        return
    early = clip_feature(_called(record, bars.take(slice(length)), config))
    late = clip_feature(values[:length])
    changed = np.abs(early - late) > TOLERANCE * (1.0 + np.abs(late))
    if changed.any():
        raise ConfigError(
            f"feature {record.name!r} looks ahead: {_place(bars, changed)} it is "
            f"{late[changed][0]:.6g}, but {early[changed][0]:.6g} where the bars end "
            f"{_day(bars, length - 1)}; make it of bars up to its own"
        )


def _called(record: Feature, bars: Bars, config: FeatureConfig) -> FloatArray:
    try:
        with np.errstate(invalid="ignore", divide="ignore"):
            values = np.asarray(record.function(bars, config), dtype=np.float64)
    except Exception as error:  # whatever a user's function does
        reason = one_line(f"{type(error).__name__}: {error}")
        raise ConfigError(f"feature {record.name!r} fails on {len(bars)} bars: {reason}") from error
    if values.shape != bars.close.shape:
        raise ConfigError(
            f"feature {record.name!r} must have the shape of the bars {bars.close.shape}, "
            f"got {values.shape}"
        )
    return values


def _lacking(bars: Bars, record: Feature) -> list[str]:
    return [name for name in record.needs if getattr(bars, name) is None]


def _place(bars: Bars, where: NDArray[np.bool_]) -> str:
    bar, asset = np.argwhere(where)[0].tolist()
    return f"for {bars.symbols[asset]} {_day(bars, bar)}"


def _day(bars: Bars, bar: int) -> str:
    return f"at {np.datetime_as_string(bars.timestamps[bar], unit='m')}"


def _close(bars: Bars) -> FloatArray:
    close = bars.adjusted("close")
    assert close is not None
    return close


def _return_moments(bars: Bars, window: int, least: int | None = None) -> Moments:
    """Moments of the one-bar log returns of the last `window` bars."""
    if not isinstance(bars, _Shown) or least is not None:
        return trailing_moments(log_returns(_close(bars)), window, least)
    if window not in bars.moments:
        bars.moments[window] = trailing_moments(log_returns(_close(bars)), window)
        for values in bars.moments[window]:
            values.flags.writeable = False
    return bars.moments[window]
