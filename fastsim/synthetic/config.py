"""Which simulated worlds are lived in, as configuration."""

from __future__ import annotations

from fastsim.config import configuration
from fastsim.data.bars import Bars
from fastsim.errors import ConfigError
from fastsim.market.tape import MarketTape, TapeConfig
from fastsim.synthetic.fresh import FreshWorlds
from fastsim.synthetic.models import SYNTHETIC_MODELS, fit

NO_MODEL = "none"


@configuration
class WorldsConfig:
    """Simulated worlds to learn from in place of history, each episode from one of its own."""

    model: str = NO_MODEL
    """Fitted to the training bars: gbm, heston, merton, garch, sv, regimes, bootstrap, or your own
    as "package.module:object"; "none" learns from those bars themselves."""
    bars: int = 400
    """Of each world, the warm-up of the features included."""
    ahead: int = 2
    """Worlds that each environment has ahead, its present one among them."""
    batch: int = 32
    """Worlds drawn at once."""

    def __post_init__(self) -> None:
        if self.model == NO_MODEL:
            return
        try:
            SYNTHETIC_MODELS.find(self.model)
        except ConfigError as error:
            raise ConfigError(f'WorldsConfig.model: {error}, or "{NO_MODEL}"') from None

    def fit(self, bars: Bars, tape: MarketTape, config: TapeConfig) -> FreshWorlds | None:
        """Worlds like these training bars, for who shall act on the tape; None without a model."""
        if self.model == NO_MODEL:
            return None
        return FreshWorlds(
            model=fit(self.model, bars),
            bars=self.bars,
            config=config,
            ahead=self.ahead,
            batch=self.batch,
            symbols=tape.symbols,
            device=tape.device,
        )
