"""The rules of an environment."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from fastsim.config import BPS, configuration, require_between, require_choice
from fastsim.env.actions import ACTIONS, GREATEST_GROSS
from fastsim.env.episode import EpisodeConfig
from fastsim.env.impact import ImpactConfig
from fastsim.env.orders import OrderConfig
from fastsim.env.perpetual import PerpetualConfig
from fastsim.env.portfolio_columns import PORTFOLIO_COLUMNS, portfolio_columns
from fastsim.env.randomize import RandomizeConfig
from fastsim.env.reward import RewardConfig
from fastsim.env.window import BAR_COLUMNS, check_names
from fastsim.errors import ConfigError
from fastsim.extensions import require_known
from fastsim.market.costs import CostConfig


@configuration
class EnvConfig:
    """Everything an agent's world is made of, apart from the market itself."""

    action: str = "weights"
    """How agents ask for weights: a name in `ACTIONS`, or "package.module:object"."""
    max_gross: float = 1.0
    """Gross leverage, sum |w|, of signed weights: at most 4, and 10 of leveraged ones."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    episode: EpisodeConfig = field(default_factory=EpisodeConfig)
    costs: CostConfig = field(default_factory=CostConfig)
    impact: ImpactConfig = field(default_factory=ImpactConfig)
    """How trades move prices; off by default."""
    orders: OrderConfig = field(default_factory=OrderConfig)
    """How orders are filled, and when a broker steps in."""
    perpetual: PerpetualConfig = field(default_factory=PerpetualConfig)
    """On what margin perpetual futures are held; spot by default."""
    randomize: RandomizeConfig = field(default_factory=RandomizeConfig)
    """What is drawn anew for every episode; nothing by default."""
    players: int = 1
    """Environments that share a market: rows 0 to P - 1 trade in the first, and so on."""
    initial_cash: float = 1_000_000.0
    initial_invested: float = 0.0
    """Share of the initial cash that episodes begin with in assets, equally, bought for nothing."""
    observation: Literal["flat", "index", "window"] = "flat"
    """Features of the bar; only its index; or the last `window_length` bars, which are wide: they
    move N L A C numbers a step, and their tables take 16 bytes for each bar, asset and column."""
    window_length: int = 32
    window_columns: tuple[str, ...] = BAR_COLUMNS
    """What is shown of every bar of a window: open, high, low, close and volume, relative to the
    window, log_return, or features and forecasts by their names."""
    columns: tuple[str, ...] = ()
    """Portfolio columns of your own, after fastsim's: names in `PORTFOLIO_COLUMNS`, or
    "package.module:object"."""
    autoreset: Literal["next_step", "same_step"] = "next_step"

    def __post_init__(self) -> None:
        for name in ("observation", "autoreset"):
            require_choice(self, name)
        require_known(self, "action", ACTIONS)
        require_known(self, "columns", PORTFOLIO_COLUMNS)
        portfolio_columns(self)
        owes = ACTIONS.find(self.action).owes
        require_between(self, "max_gross", 0, GREATEST_GROSS if owes else 4, open_low=True)
        require_between(self, "initial_cash", 0, open_low=True)
        require_between(self, "initial_invested", 0, 1)
        require_between(self, "window_length", 1)
        check_names(self.window_columns)
        require_between(self, "players", 1)
        _check_together(self)
        _check_margin(self)

    @property
    def closes_within(self) -> bool:
        """Whether positions may be closed within a bar: by a stop, a target or an exchange."""
        return self.orders.brackets or self.perpetual.trades


def _check_together(config: EnvConfig) -> None:
    """Raise ConfigError for rules that contradict one another."""
    if not ACTIONS.find(config.action).levered and config.max_gross != 1.0:
        raise ConfigError(
            f'EnvConfig.max_gross = {config.max_gross!r} needs action="signed", "leveraged" or '
            f'"bracketed", got action={config.action!r}'
        )
    if ACTIONS.find(config.action).brackets:
        _check_asked(config)
    if config.max_gross * config.orders.maintenance_margin >= 1.0:
        raise ConfigError(
            f"OrderConfig.maintenance_margin = {config.orders.maintenance_margin!r} would be "
            f"called at once on a gross leverage of EnvConfig.max_gross = {config.max_gross!r}: "
            f"their product must be < 1"
        )
    if config.orders.whole_shares and config.impact.moves_prices:
        raise ConfigError(
            "OrderConfig.whole_shares counts shares at the prices of the data, and "
            "EnvConfig.impact moves them: use one or the other"
        )
    if config.orders.brackets and config.impact.moves_prices:
        raise ConfigError(
            "OrderConfig.stop, target and trailing are met at the prices of the data, and "
            "EnvConfig.impact moves them: use one or the other"
        )
    if config.randomize.price_impact and not config.impact.moves_prices:
        raise ConfigError(
            "randomize.price_impact is a factor on impact, which is off: set "
            "impact.transient or impact.permanent, or leave it out"
        )
    if config.observation != "window" and config.window_columns != BAR_COLUMNS:
        raise ConfigError(
            f'EnvConfig.window_columns = {config.window_columns!r} needs observation="window", '
            f"got observation={config.observation!r}"
        )
    by_share = config.orders.whole_shares or config.costs.fee_per_share > 0
    if by_share and config.randomize.volatility:
        raise ConfigError(
            "orders.whole_shares and costs.fee_per_share count shares at the prices of the "
            "data, and randomize.volatility draws others: use one or the other"
        )


def _check_asked(config: EnvConfig) -> None:
    """Raise ConfigError for rules that leave distances open which actions may not ask for."""
    for name in ("stop", "target"):
        if getattr(config.orders, name) == 0:
            raise ConfigError(
                f"EnvConfig.action = {config.action!r} needs OrderConfig.{name}, the distance of "
                f"what an action asks for none of: set orders.{name}, 1 for a {name} far away"
            )
    if config.orders.carries:
        raise ConfigError(
            f"EnvConfig.action = {config.action!r} asks for distances of what it trades at once, "
            f'and OrderConfig.unfilled = "carry" trades later: use unfilled="drop"'
        )


def _check_margin(config: EnvConfig) -> None:
    """Raise ConfigError for rules that perpetual futures contradict, or that need them."""
    if not config.perpetual.trades:
        if ACTIONS.find(config.action).owes:
            raise ConfigError(
                f"EnvConfig.action = {config.action!r} holds more than there is cash for, which "
                f'needs perpetual futures: set perpetual.leverage, or use action="signed"'
            )
        return
    leverage = config.perpetual.leverage
    if config.max_gross > leverage:
        raise ConfigError(
            f"EnvConfig.max_gross = {config.max_gross:g} asks for more margin than there is at "
            f"PerpetualConfig.leverage = {leverage:g}: raise that, or lower max_gross"
        )
    if config.orders.maintenance_margin > 0:
        raise ConfigError(
            "OrderConfig.maintenance_margin is a broker's, and perpetual futures are held on the "
            "margin of an exchange: leave it at 0, or perpetual.leverage"
        )
    if config.impact.moves_prices:
        raise ConfigError(
            "perpetual futures are liquidated at the prices of the data, and EnvConfig.impact "
            "moves them: use one or the other"
        )
    fees = (config.costs.fee_bps, *config.randomize.fee_bps)
    spreads = (config.costs.half_spread_bps, *config.randomize.half_spread_bps)
    rate = (max(fees) + max(spreads)) * BPS
    if config.max_gross * rate >= 1.0:
        raise ConfigError(
            f"EnvConfig.max_gross = {config.max_gross:g} at fees and spreads of {rate:.3g} costs "
            f"more than there is: use less of either"
        )
