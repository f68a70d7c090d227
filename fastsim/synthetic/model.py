"""What simulated models share: assets, prices, time, and how closes become bars."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import field
from math import isfinite

import torch
from torch import Generator, Tensor

from fastsim.config import configuration, require_between
from fastsim.errors import ConfigError
from fastsim.stats.years import TRADING_DAYS
from fastsim.synthetic.interface import Paths, check_sizes
from fastsim.synthetic.intrabar import IntrabarConfig, Moves, make_paths

PerAsset = float | tuple[float, ...]
"""One number for all assets, or one for each."""


@configuration(slots=False)
class SyntheticModel(ABC):
    """A market of A assets. Rates are per year unless named per bar."""

    assets: int = 20
    years_per_bar: float = 1 / TRADING_DAYS
    start_price: PerAsset = 100.0
    """Close before the first bar."""
    intrabar: IntrabarConfig | None = field(default_factory=IntrabarConfig)
    """How opens, highs, lows and volumes are made; None for closes alone."""

    def __post_init__(self) -> None:
        if self.assets < 1:
            raise ConfigError(
                f"{type(self).__name__}.assets must be a whole number >= 1, got {self.assets!r}"
            )
        require_between(self, "years_per_bar", 0, 10, open_low=True)
        self.require("start_price", 0, open_low=True)

    @abstractmethod
    def moves(self, worlds: int, bars: int, generator: Generator) -> Moves:
        """Log returns [T, M, A] of all bars, with what their insides need."""

    def sample(self, worlds: int, bars: int, generator: Generator) -> Paths:
        """Draw `worlds` worlds of `bars` bars; ConfigError unless both are >= 1."""
        check_sizes(worlds, bars)
        moves = self.moves(worlds, bars, generator)
        start = self.column("start_price", generator.device)
        return make_paths(moves, start, self.intrabar, generator)

    def column(self, name: str, device: torch.device) -> Tensor:
        """A per-asset field as a tensor [A]."""
        return per_asset(getattr(self, name), self.assets, device)

    def require(
        self, name: str, low: float, high: float = float("inf"), *, open_low: bool = False
    ) -> None:
        """Raise ConfigError unless a per-asset field holds numbers in [low, high] ((low, high])."""
        require_per_asset(self, name, self.assets, low, high, open_low=open_low)


def per_asset(value: PerAsset, assets: int, device: torch.device) -> Tensor:
    """One number or A of them as a tensor [A], float64."""
    return torch.tensor(value, dtype=torch.float64, device=device).expand(assets)


def require_per_asset(
    config: object,
    name: str,
    assets: int,
    low: float,
    high: float = float("inf"),
    *,
    open_low: bool = False,
) -> None:
    """Raise ConfigError unless `config.name` is one number or `assets` of them, all in range."""
    value = getattr(config, name)
    values = value if isinstance(value, tuple) else (value,)
    fits = not isinstance(value, tuple) or len(value) == assets
    for number in values:
        real = isinstance(number, int | float) and not isinstance(number, bool)
        fits = fits and real and isfinite(number) and number <= high
        fits = fits and (low < number if open_low else low <= number)
    if not fits:
        wanted = f"{'>' if open_low else '>='} {low:g}" if isfinite(low) else "finite"
        wanted += f" and <= {high:g}" if isfinite(high) else ""
        raise ConfigError(
            f"{type(config).__name__}.{name} must be {wanted}, one number or a tuple of {assets}, "
            f"got {value!r}"
        )
