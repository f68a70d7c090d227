"""By what rules a simulated account trades: its agent's, but for what is not of an account."""

from __future__ import annotations

from dataclasses import replace

from fastsim.config import configuration
from fastsim.env.config import EnvConfig
from fastsim.env.episode import EpisodeConfig
from fastsim.env.randomize import RandomizeConfig
from fastsim.errors import ConfigError
from fastsim.market.features import FeatureConfig
from fastsim.market.tape import TapeConfig


@configuration
class MarketRules:
    """By what rules a simulated account trades: those that an agent was made for."""

    symbols: tuple[str, ...]
    env: EnvConfig
    tape: TapeConfig

    def __post_init__(self) -> None:
        if self.env.impact.moves_prices:
            raise ConfigError(
                "the agent learned with EnvConfig.impact, by which its trades move prices, and a "
                "simulated account meets the prices of the bars: train without it"
            )
        plain = FeatureConfig(
            return_windows=(1,),
            momentum_window=3,
            momentum_skip=2,
            short_window=2,
            volatility_window=self.tape.features.volatility_window,
        )
        tape = replace(self.tape, features=plain, delisting_haircut=None)
        object.__setattr__(self, "tape", tape)
        env = replace(
            self.env,
            episode=EpisodeConfig(horizon=None, random_start=False, staggered=False),
            randomize=RandomizeConfig(),
            players=1,
            initial_invested=0.0,
            observation="index",
            columns=(),
        )
        object.__setattr__(self, "env", env)

    @property
    def bars_needed(self) -> int:
        """Bars that what trades cost is measured by, the last included."""
        return self.tape.features.warmup + 2
