"""What margin positions in perpetual futures must keep, by size: an exchange's tiers as tensors.

    maintenance margin of a position worth N = max over tiers of (rate N - amount)

An exchange gives each tier a range of values, a rate and an amount, by which the margin of a tier
begins where that of the one before ends; since rates rise, the tier that a value lies in is the one
whose line is highest there, and no range is looked up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastsim.data.tiers import TierSource, read_tiers
from fastsim.errors import ConfigError


class Tiers(NamedTuple):
    """K tiers of A assets; assets with fewer repeat their last."""

    rate: Tensor  # [K, A]  maintenance margin over the value of a position
    amount: Tensor  # [K, A]  what that is too much, account currency
    largest: Tensor  # [K, A]  value of a position up to which the tier goes
    leverage: Tensor  # [K, A]  highest that is offered in it

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Tiers:
        """The same on another device, or in another floating-point type."""
        return Tiers(*(table.to(device, dtype) for table in self))


class Margin(NamedTuple):
    """On what margin positions are held: isolated, each with a part of its value at entry."""

    leverage: float
    fee: float  # of the value that is liquidated
    rate: Tensor  # [K, A]  as in `Tiers`
    amount: Tensor  # [K, A]
    largest: Tensor  # [A]  value of a position up to which the leverage is offered


def market_tiers(source: TierSource, symbols: Sequence[str]) -> Tiers:
    """Tiers of these symbols, in float64; errors as `read_tiers`."""
    tiers = read_tiers(source, symbols)
    most = max(map(len, tiers))
    rows = [each + (each[-1],) * (most - len(each)) for each in tiers]  # [A, K]
    columns = ([[getattr(tier, name) for tier in each] for each in rows] for name in Tiers._fields)
    return Tiers(*(torch.from_numpy(np.array(column, dtype=np.float64).T) for column in columns))


def margin_of(
    tiers: Tiers | None, symbols: tuple[str, ...], leverage: float, rate: float, fee: float
) -> Margin:
    """The margin of a leverage by these tiers, or without any, by one rate for every size.

    Raises
    ------
    ConfigError
        The leverage is more than a symbol is offered, or would be liquidated at once.
    """
    if tiers is None:
        lone = torch.full((1, len(symbols)), rate, dtype=torch.float64)
        nothing, endless = torch.zeros_like(lone), torch.full_like(lone, torch.inf)
        tiers = Tiers(lone, nothing, endless, endless)
    offered = tiers.leverage >= leverage  # [K, A]
    for column, symbol in enumerate(symbols):
        if not offered[:, column].any():
            most = float(tiers.leverage[:, column].max())
            raise ConfigError(
                f"PerpetualConfig.leverage = {leverage:g} is more than {symbol} is offered: at "
                f"most {most:g}"
            )
        highest = float(tiers.rate[offered[:, column], column].max())
        if highest * leverage >= 1.0:
            raise ConfigError(
                f"PerpetualConfig.leverage = {leverage:g} leaves {symbol} a margin of "
                f"{1 / leverage:.4g}, which does not cover its maintenance margin of "
                f"{highest:.4g}: use less"
            )
    return Margin(
        leverage=leverage,
        fee=fee,
        rate=tiers.rate,
        amount=tiers.amount,
        largest=torch.where(offered, tiers.largest, 0.0).amax(0),
    )
