"""Where a position is given up, and where it has earned what it was to earn.

A level is so many average true ranges away from the entry (Wilder 1978), or a quantile of what was
forecast. A stop at a quantile of the close is touched about twice as often as the quantile says:
it is the lows on the way that touch it, not only the last close.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fastsim.config import configuration, require_between, require_choice
from fastsim.errors import ConfigError
from fastsim.forecast.interface import LEAST_RATIO, Forecast
from fastsim.signals.prices import Prices
from fastsim.signals.trailing import carried_forward, lagged, trailing_mean


@configuration
class LevelConfig:
    """Stops and targets of positions."""

    kind: Literal["atr", "quantile"] = "atr"
    """Ranges from the entry, or quantiles of the forecast at the horizon of the signal."""
    atr_window: int = 14
    stop_atr: float = 2.0
    """Average true ranges from the entry to the stop."""
    target_atr: float | None = 4.0
    """Average true ranges from the entry to the target; None for no target."""
    stop_level: float = 0.1
    """Quantile that a long position is stopped at; a short one at 1 less it."""
    target_level: float | None = 0.9
    """Quantile that a long position ends at, a short one at 1 less it; None for no target."""

    def __post_init__(self) -> None:
        require_choice(self, "kind")
        require_between(self, "atr_window", 1, 1e4)
        require_between(self, "stop_atr", 0, 100, open_low=True)
        require_between(self, "stop_level", 0.001, 0.499)
        if self.target_atr is not None:
            require_between(self, "target_atr", 0, 1000, open_low=True)
        if self.target_level is not None:
            require_between(self, "target_level", 0.501, 0.999)

    @property
    def bars_needed(self) -> int:
        """Bars up to and including the present one that levels are made of."""
        return self.atr_window + 1

    @property
    def quantiles(self) -> tuple[float, ...]:
        """Levels of the quantiles that are asked of forecasts, increasing; none for ranges."""
        if self.kind == "atr":
            return ()
        wanted = {self.stop_level, _mirrored(self.stop_level)}
        if self.target_level is not None:
            wanted |= {self.target_level, _mirrored(self.target_level)}
        return tuple(sorted(wanted))


class Levels(NamedTuple):
    """Prices at which a position ends; NaN where there is no such level."""

    stop: Tensor  # [...]
    target: Tensor  # [...]


def true_range(prices: Prices) -> Tensor:
    """Wilder's true range [T, A]: the bar and the way to it from the last close.

    max(high, last close) - min(low, last close); high less low where there is no last close. Of
    data with closes alone it is what they moved.
    """
    before = lagged(carried_forward(prices.close), 1)
    highest, lowest = torch.fmax(prices.high, before), torch.fmin(prices.low, before)
    return torch.where(prices.close.isfinite(), highest - lowest, torch.nan)


def average_true_range(prices: Prices, window: int = 14) -> Tensor:
    """Mean [T, A] of the last `window` true ranges; NaN where they are not complete.

    All of them alike, so that no bar before the window matters; Wilder smoothed exponentially.
    """
    return trailing_mean(true_range(prices), window)


def levels_by_range(
    entry: Tensor, direction: Tensor, ranges: Tensor, config: LevelConfig
) -> Levels:
    """Stops and targets [...] so many ranges [...] from entries [...], by direction [...].

    Of a long position the stop lies below and the target above, of a short one the other way
    round; neither lies below a hundredth of the entry. NaN where the direction is 0.
    """
    return _placed(
        entry,
        direction,
        entry - direction * config.stop_atr * ranges,
        None if config.target_atr is None else entry + direction * config.target_atr * ranges,
    )


def levels_by_quantile(
    entry: Tensor, direction: Tensor, log_quantiles: dict[float, Tensor], config: LevelConfig
) -> Levels:
    """Stops and targets [...] at quantiles of the log return from entries [...].

    Parameters
    ----------
    log_quantiles
        By level, those that `config.quantiles` names [...].

    Raises
    ------
    ConfigError
        One of them is missing.
    """
    for level in config.quantiles:
        if level not in log_quantiles:
            raise ConfigError(
                f"levels need the {level:g} quantile of the forecast, and there are "
                f"{', '.join(f'{each:g}' for each in log_quantiles) or 'none'}"
            )

    def at(level: float) -> Tensor:
        chosen = torch.where(direction > 0, log_quantiles[level], log_quantiles[_mirrored(level)])
        return entry * chosen.to(entry).exp()

    target = None if config.target_level is None else at(config.target_level)
    return _placed(entry, direction, at(config.stop_level), target)


def log_quantiles_of(
    forecast: Forecast, price: Tensor, horizon: int, config: LevelConfig
) -> dict[float, Tensor]:
    """What `levels_by_quantile` takes, [B] each, of a forecast from prices [B].

    Raises
    ------
    ConfigError
        The forecast does not reach the horizon.
    """
    reach = forecast.quantiles.shape[1]
    if not 1 <= horizon <= reach:
        raise ConfigError(f"horizon must be from 1 to {reach}, which was forecast, got {horizon!r}")
    returns = forecast.log_returns(price)
    return {level: returns.at(level)[:, horizon - 1] for level in config.quantiles}


def _placed(entry: Tensor, direction: Tensor, stop: Tensor, target: Tensor | None) -> Levels:
    """Levels [...] at these prices, NaN where there is no position."""
    none = torch.full_like(entry, torch.nan)
    placed = (
        none if price is None else torch.where(direction != 0, price, none)
        for price in (stop, target)
    )
    least = LEAST_RATIO * entry
    return Levels(*(torch.maximum(price, least) for price in placed))


def _mirrored(level: float) -> float:
    """The level that is as far from the other end."""
    return round(1.0 - level, 12)
