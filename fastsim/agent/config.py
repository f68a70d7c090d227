"""What an agent of a strategy is made from."""

from __future__ import annotations

from dataclasses import field

from fastsim.config import configuration
from fastsim.data.source import DataConfig
from fastsim.env.config import EnvConfig
from fastsim.errors import ConfigError
from fastsim.market.tape import TapeConfig
from fastsim.signals.config import SignalConfig
from fastsim.signals.strategy import SignalStrategy


@configuration
class StrategyConfig:
    """A strategy on signals with all that an agent of it is made from, as YAML holds it."""

    data: DataConfig = field(default_factory=DataConfig)
    """Bars by which it learns what it trades, which fields they have and when they are due."""
    calendar: str | None = None
    """Exchange whose own calendar says when bars are due, such as XNYS (`fastsim-rl[calendars]`);
    None for the rule that the bars kept."""
    tape: TapeConfig = field(default_factory=TapeConfig)
    """How bars become a market: the fill above all."""
    env: EnvConfig = field(default_factory=EnvConfig)
    """The rules that it trades by: costs, orders, and "signed" actions for shorts."""
    signals: SignalConfig = field(default_factory=SignalConfig)
    """Whose forecasts are traded on, when, how much of what, and until when."""

    def __post_init__(self) -> None:
        strategy = SignalStrategy(signals=self.signals)
        strategy.check(self.env)
        if self.env.action not in ("signed", strategy.answers):
            raise ConfigError(
                f"SignalConfig.sides = {self.signals.sides!r} needs "
                f"EnvConfig.action = {strategy.answers!r}, got {self.env.action!r}"
            )
