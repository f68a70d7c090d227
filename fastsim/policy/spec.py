"""What a policy was made for: all that rebuilds its network, and that markets are held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fastsim.config import configuration, from_mapping, require_between
from fastsim.env.actions import action_width
from fastsim.env.config import EnvConfig
from fastsim.env.portfolio_columns import portfolio_names
from fastsim.env.randomize import RandomizeConfig
from fastsim.errors import CheckpointError, ConfigError, one_line
from fastsim.extensions import require_known
from fastsim.market.tape import FillPrice, MarketTape
from fastsim.policy.encoders import ENCODERS
from fastsim.policy.own import OwnColumns, own_columns
from fastsim.stats.metrics import periods_per_year

ALIKE = 1.2
"""Bars whose lengths differ by a smaller factor are of one length: those of months are."""
MLP = "mlp"
_SHOWN = 8


@configuration
class PolicyConfig:
    """Size and exploration of the policy."""

    hidden: int = 64
    """Width of both hidden layers."""
    initial_std: float = 0.3
    """Standard deviation of the Gaussian on each action at the start. On logits, 1 would turn the
    whole portfolio over at every step."""
    encoder: str = "mlp"
    """What looks at the market: "mlp" at the last bar's features of all assets in one row; "conv",
    "gru" and "attention" at the last `window` bars of each asset, all by the same weights, and so
    do your own as "package.module:object" (see docs/howto/encoder.md)."""
    window: int = 60
    """Bars that an encoder of windows looks back on, the last included."""
    channels: int = 16
    """Numbers that it makes of an asset's window."""
    across: bool = False
    """Whether assets then attend to one another, in no order."""

    def __post_init__(self) -> None:
        require_between(self, "hidden", 1)
        require_between(self, "initial_std", 0, 10, open_low=True)
        require_between(self, "window", 1)
        require_between(self, "channels", 1)
        if self.encoder != MLP:
            _require_encoder(self)
        elif self.across:
            raise ConfigError(
                f"PolicyConfig.across is for encoders of windows, such as {', '.join(ENCODERS)}: "
                f'PolicyConfig.encoder = "{MLP}" sees all assets in one row'
            )


def _require_encoder(config: PolicyConfig) -> None:
    """Raise ConfigError unless its encoder of windows is known; "mlp" is none of them."""
    try:
        require_known(config, "encoder", ENCODERS)
    except ConfigError as error:
        raise ConfigError(f'{error}, and "{MLP}"') from None


@configuration
class PolicySpec:
    """What a policy was made for; it travels with the weights."""

    symbols: tuple[str, ...]
    """The assets."""
    features: tuple[str, ...]
    """Of each asset at a bar."""
    portfolio: tuple[str, ...]
    """Columns of `Observation.portfolio`."""
    action: str
    max_gross: float
    """Gross leverage of signed weights."""
    fill: FillPrice
    bar_seconds: float | None
    """Median time from close to close; None in simulated worlds, whose calendar is made up."""
    bars_per_year: float | None
    """None in simulated worlds."""
    pooled: bool
    """Any asset may stand in a slot: the moments of a feature are those over all assets."""
    costs: Mapping[str, Any]
    """Fields of the `CostConfig` that it learned under; it may meet others."""
    forecaster: str = "none"
    """Whose forecasts are among the features."""
    network: PolicyConfig = field(default_factory=PolicyConfig)

    def __post_init__(self) -> None:
        for name in ("symbols", "features", "portfolio"):
            if not getattr(self, name):
                raise ConfigError(f"PolicySpec.{name} must not be empty")

    @property
    def by_asset(self) -> bool:
        """Whether all assets are looked at by the same weights: then any others will do."""
        return self.network.encoder != MLP

    @property
    def own(self) -> OwnColumns:
        """How the columns of the portfolio follow one another."""
        first = "slot0" if self.pooled else self.symbols[0]
        return own_columns(self.portfolio, first, len(self.symbols))

    @property
    def action_width(self) -> int:
        """W, numbers in an action."""
        return action_width(self.action, len(self.symbols))

    def check(self, tape: MarketTape, rules: EnvConfig) -> None:
        """Raise ConfigError, naming the first difference, unless the policy can act there.

        Costs and the rest of the rules are not compared, nor is the calendar of simulated worlds.
        """
        if self.pooled:  # whatever the rules draw, columns are by slot to this policy
            drawn = RandomizeConfig(assets=(1, tape.num_assets))
            rules = replace(rules, randomize=drawn)
        here = make_spec(tape, rules, self.network)
        compared: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
            ("the assets", self.symbols, here.symbols),
            ("the features", self.features, here.features),
            ("the portfolio columns", self.portfolio, here.portfolio),
        )
        if self.by_asset:
            compared = (compared[1], ("the portfolio columns", self.own.names, here.own.names))
        for kind, wanted, given in compared:
            if wanted != given:
                raise _misfit(kind, *_apart(wanted, given))
        for kind, ours, theirs in (
            ("action =", self.action, here.action),
            ("max_gross =", self.max_gross, here.max_gross),
            ("fill =", self.fill, here.fill),
        ):
            if ours != theirs:
                raise _misfit(kind, f"{ours!r}", f"{theirs!r}")
        if self.bar_seconds and here.bar_seconds:
            lengths = sorted((self.bar_seconds, here.bar_seconds))
            if lengths[1] >= ALIKE * lengths[0]:
                raise _misfit("bars of", *map(_duration, (self.bar_seconds, here.bar_seconds)))


def make_spec(
    tape: MarketTape, rules: EnvConfig, network: PolicyConfig, *, forecaster: str = "none"
) -> PolicySpec:
    """What a policy of this size is made for that learns on this market under these rules."""
    if network.encoder != MLP and rules.randomize.volatility:
        raise ConfigError(
            f'PolicyConfig.encoder = "{network.encoder}" encodes each bar once, and '
            f"RandomizeConfig.volatility shows every episode another market: leave that out, or "
            f'use PolicyConfig.encoder = "{MLP}"'
        )
    real = tape.worlds == 1
    return PolicySpec(
        symbols=tape.symbols,
        features=tape.feature_names,
        portfolio=portfolio_names(tape, rules),
        action=rules.action,
        max_gross=rules.max_gross,
        fill=tape.fill,
        bar_seconds=_bar_seconds(tape) if real else None,
        bars_per_year=periods_per_year(tape.timestamps) if real else None,
        pooled=bool(rules.randomize.assets),
        costs=asdict(rules.costs),
        forecaster=forecaster,
        network=network,
    )


def read_spec(mapping: Mapping[str, Any], path: Path) -> PolicySpec:
    """What `to_mapping` made of a spec, out of a file; CheckpointError if it is not one."""
    try:
        return from_mapping(PolicySpec, mapping)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{path}: {one_line(error)}") from None


def _bar_seconds(tape: MarketTape) -> float:
    gaps = np.diff(tape.timestamps) / np.timedelta64(1, "s")
    return float(np.median(gaps))


def _misfit(kind: str, wanted: str, given: str) -> ConfigError:
    return ConfigError(
        f"the policy was made for {kind} {wanted}; this market has {given}: "
        f"use a market like its own, or train a policy for this one"
    )


def _apart(wanted: Sequence[str], given: Sequence[str]) -> tuple[str, str]:
    """Both lists in words, from a little before they part if they are long."""
    same = [ours == theirs for ours, theirs in zip(wanted, given, strict=False)]
    first = same.index(False) if False in same else len(same)
    start = max(0, first - 1) if max(len(wanted), len(given)) > _SHOWN else 0

    def words(names: Sequence[str]) -> str:
        listed = ["..."] if start else []
        listed += names[start : start + _SHOWN]
        listed += ["..."] if len(names) > start + _SHOWN else []
        return ", ".join(listed) + (f" ({len(names)})" if "..." in listed else "")

    return words(wanted), words(given)


def _duration(seconds: float) -> str:
    units = (("day", 86_400.0), ("hour", 3600.0), ("minute", 60.0), ("second", 1.0))
    unit, length = next((each for each in units if seconds >= each[1]), units[-1])
    count = seconds / length
    return f"{count:g} {unit}" if count == 1.0 else f"{count:g} {unit}s"
