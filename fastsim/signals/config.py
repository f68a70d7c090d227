"""Every choice of a strategy that trades on forecasts: what it is made from, as YAML holds it."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from fastsim.config import configuration, require_between, require_choice
from fastsim.errors import ConfigError
from fastsim.forecast.registry import parse_names
from fastsim.forecast.season.setting import AUTO, check_season
from fastsim.signals.confidence import ThresholdConfig
from fastsim.signals.levels import LevelConfig
from fastsim.signals.regimes import RegimeConfig
from fastsim.signals.sizing import SizingConfig


@configuration
class SignalConfig:
    """Whose forecasts are traded on, when, how much of what, and until when."""

    forecaster: str = "fastsim-prior"
    """As `fastsim models` lists them; several, separated by commas, count equally."""
    context_length: int = 512
    """Bars that a forecast looks back on."""
    season: str = AUTO
    """Of volatility, around each forecaster: a time zone, the .json file of a fitted profile, or
    "none"; "auto" is UTC where bars are shorter than a day, and none else."""
    horizon: int = 5
    """Bars ahead that direction, confidence and quantiles are of."""
    sides: Literal["long", "short", "both"] = "long"
    """Which directions are traded; shorts need action="signed" of the environment."""
    hold: int | None = None
    """Bars that a position is kept without a level being touched; None for the horizon."""
    threshold: ThresholdConfig = field(default_factory=ThresholdConfig)
    regimes: RegimeConfig = field(default_factory=RegimeConfig)
    levels: LevelConfig = field(default_factory=LevelConfig)
    sizing: SizingConfig = field(default_factory=SizingConfig)

    def __post_init__(self) -> None:
        require_choice(self, "sides")
        check_season(self.season, "SignalConfig.season")
        require_between(self, "context_length", 1, 1e6)
        require_between(self, "horizon", 1, 1e4)
        if self.hold is not None:
            require_between(self, "hold", 1, 1e5)
        try:
            names = parse_names(str(self.forecaster))
        except ConfigError as error:
            raise ConfigError(f"SignalConfig.forecaster: {error}") from None
        if not names:
            raise ConfigError(
                f"SignalConfig.forecaster must name at least one model, got {self.forecaster!r}: "
                f"signals are made of forecasts"
            )

    @property
    def bars_held(self) -> int:
        """Bars that a position is kept at most."""
        return self.horizon if self.hold is None else self.hold

    @property
    def bars_needed(self) -> int:
        """Bars up to and including the present one that a decision is made of."""
        forecasts = self.context_length + self.threshold.bars_needed - 1
        return max(forecasts, self.regimes.bars_needed, self.levels.bars_needed)
